"""What a run's own counting costs: pairs of runs with and without it, on one pinned core against the fast server.

    python tests/bench/counting.py [ROWS [PAIRS]]     default: 2,000,000 rows of Parquet, 9 pairs

A run without counting has `Tally.count` do nothing, so it also lacks the counts that a run always had. In a run with it
the time of its calls is taken, too: their share of the run's CPU does not depend on what else the machine does.
"""

from __future__ import annotations

import statistics
import sys
import time

import measuring

WAYS = ("with", "without")


def once(way: str, source: str, target: str, url: str) -> int:
    """Be one run."""
    from pipeline.answers import Answers
    from pipeline.cli import main as classify
    from pipeline.formats.appended_columns import Tally

    count, spent = Tally.count, 0.0

    def timed(tally: Tally, answers: Answers) -> None:
        nonlocal spent
        began = time.thread_time()
        count(tally, answers)
        spent += time.thread_time() - began

    Tally.count = timed if way == "with" else lambda *_: None  # type: ignore[method-assign,assignment]
    code = classify(["run", source, "-t", "text", "-o", target, "--url", url, "--quiet"])
    print(f"{spent / time.process_time():.4f}")
    return code


def main(rows: int, pairs: int) -> None:
    """Run them in turn, each way first as often as the other."""
    source = measuring.corpus(rows, "parquet")
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    timed: list[float] = []  # shares of the CPU of runs that count
    print("\n".join(measuring.machine()))
    with measuring.serving() as server:
        for pair in range(-1, pairs):  # the first one only warms up
            for way in WAYS if pair % 2 else WAYS[::-1]:
                command = measuring.python("counting.py", way, source, measuring.fresh_output("parquet"), server.url)
                cost = measuring.run(command)
                print(f"pair {pair + 1} {way}: {cost.cpu:.2f}", file=sys.stderr)
                if pair >= 0:
                    spent[way].append(cost.cpu)
                    timed += [float((measuring.BUILD / "last.log").read_text().split()[-1])] if way == "with" else []
    shares = [one / other - 1 for one, other in zip(spent["with"], spent["without"], strict=True)]
    print(f"{rows:,} rows, {pairs} pairs, CPU seconds (user and system) of whole runs\n")
    for way in WAYS:
        print(f"{way}: median {statistics.median(spent[way]):.2f}, least {min(spent[way]):.2f}")
    low, middle, high = (100 * each for each in (min(shares), statistics.median(shares), max(shares)))
    share = [100 * each for each in (min(timed), statistics.median(timed), max(timed))]
    print(f"time of its calls, of a run's CPU: median {share[1]:.2f} %, from {share[0]:.2f} to {share[2]:.2f} %")
    print(f"counting adds, of a pair: median {middle:+.1f} %, from {low:+.1f} to {high:+.1f} %")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WAYS:
        sys.exit(once(*sys.argv[1:]))
    numbers = [int(each) for each in sys.argv[1:]]
    main(*[*numbers, *(2_000_000, 9)[len(numbers) :]])
