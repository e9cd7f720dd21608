"""How often the intervals of an estimate from a sample hold the truth: accuracy, macro F1, and those of the labels.

    python tests/bench/report_sample.py [SAMPLES]

Of populations whose truth is known, SAMPLES (default 1,000) samples are drawn as `classify sample` does, and judged as
`classify report --truth-file` does. 95 of 100 intervals are to hold the truth.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from sampled import SETTINGS, coverage


def main(samples: int) -> None:
    """Print the table."""
    print(
        "| population | rows drawn | right | estimated | ± | interval | holds it | macro F1 | precision | recall | F1 |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for setting in SETTINGS:
        found = coverage(setting, samples)
        shares = [found.accuracy, found.macro_f1, found.precision, found.recall, found.f1]
        numbers = [f"{100 * each:.1f}" for each in (found.true, found.mean, found.spread, found.width, *shares)]
        print(f"| {setting.name} | {setting.drawn:,} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1000)
