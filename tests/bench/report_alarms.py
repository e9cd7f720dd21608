"""How often a report raises an alarm, with and without a change: its rule beside what others use.

    python tests/bench/report_alarms.py [PAIRS]

Pairs of nights are drawn from one mix of labels, or from two that differ by a known share, and compared as
`classify report --against` does, by their label shares. PAIRS (default 2,000) are those without a change.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from pipeline.config import LIMITS
from pipeline.report.measures import distance, is_beyond_chance

EIGHT = np.array([15, 14, 12, 11, 8, 14, 21, 5]) / 100
MOVED = np.array([13, 24, 14, 10, 7, 11, 15, 6]) / 100
LITTLE = EIGHT + np.array([2, 0, 0, 0, 0, 0, -2, 0]) / 100
MANY = 1 / np.arange(1, 201) / (1 / np.arange(1, 201)).sum()  # 200 labels, most of them rare
EVEN = np.full(200, 1 / 200)
SIZES = (100, 300, 1_000, 10_000, 1_000_000)
HEADS = ("p < 0.05", "PSI > 0.1", "PSI > 0.25", "JS > 0.1", "this rule", "unsure")


def alarms(then: np.ndarray, now: np.ndarray, rows: int, pairs: int) -> Sequence[int]:
    """How many of the pairs each rule takes for a change; the last number are those that it can't tell."""
    chance = np.random.default_rng([rows, pairs])
    hits = np.zeros(len(HEADS), int)
    for _ in range(pairs):
        found = distance(chance.multinomial(rows, now), chance.multinomial(rows, then))
        is_beyond = found.moved > LIMITS["label_shift"]
        is_sure = is_beyond_chance(found.p, rows) and not found.is_few
        hits += [found.p < 0.05, found.psi > 0.1, found.psi > 0.25, found.js > 0.1, is_beyond and is_sure,
                 is_beyond and not is_sure]  # fmt: skip
    return hits.tolist()


def _more_of(shares: np.ndarray, label: int) -> np.ndarray:
    """Move 13 % of the rows to one label, from all others alike."""
    moved: np.ndarray = shares * (1 - 0.13 / (1 - shares[label]))
    moved[label] = shares[label] + 0.13
    return moved


def main(pairs: int) -> None:
    """Print the table: of so many pairs those in which each rule sees a change."""
    cases = [
        ("none", EIGHT, EIGHT, pairs),
        ("none, 200 labels", MANY, MANY, pairs),
        ("none, 200 labels alike", EVEN, EVEN, pairs),
        ("2 % moved", EIGHT, LITTLE, pairs // 4),
        (f"{abs(MOVED - EIGHT).sum() / 2:.0%} moved", EIGHT, MOVED, pairs // 4),
        ("13% moved, 200 labels", MANY, _more_of(MANY, 150), pairs // 4),
        ("13% moved, 200 labels alike", EVEN, _more_of(EVEN, 0), pairs // 4),
    ]
    print(f"| change | rows | pairs | {' | '.join(HEADS)} |\n|---|--:|--:|{'--:|' * len(HEADS)}")
    for name, then, now, times in cases:
        for rows in SIZES:
            hits = [f"{hit:,}" for hit in alarms(then, now, rows, times)]
            print(f"| {name} | {rows:,} | {times:,} | {' | '.join(hits)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
