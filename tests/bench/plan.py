"""How long a large file takes on many workers, from measured constants. Prints the table of pipeline/docs/cluster.md.

    python tests/bench/plan.py [ROWS ...]

What is not in it: a store that slows down, machines that are still starting, a fleet that changes its size.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pipeline.config import Config

# Measured: CPU seconds a million rows, on one core of an AMD EPYC.
WORKER, BUSY = 6.5, 0.7  # to read and ask for Parquet rows; the part of a core's time that a worker can use for that
DRIVER = 0.25  # to take and keep the answers
JOIN = 0.45  # to write Parquet whose columns are copied
START_S = 5.0  # from the command to the first request, on a cluster that is there
SHARD_S = 0.2  # between two shards of a worker
CHECKPOINT = 12.1  # bytes a row
SHARD_MB = 1.0  # of the command's memory, for 1,000 shards


@dataclass
class Plan:
    """A file of so many rows, servers that answer so many a second in all, and workers."""

    rows: float
    served: float
    workers: int

    @property
    def shard(self) -> int:
        """Rows of a shard."""
        return Config().engine.rows_of(int(self.rows), self.workers)

    @property
    def rate(self) -> float:
        """Rows a second: what servers, workers and the command can do, whichever is least."""
        return min(self.served, self.workers * BUSY * 1e6 / WORKER, 1e6 / DRIVER)

    @property
    def answering_s(self) -> float:
        """Seconds until all rows are answered."""
        return START_S + self.rows / self.rate + self.rows / self.shard / self.workers * SHARD_S

    @property
    def joining_s(self) -> float:
        """Seconds that the output takes."""
        return self.rows / 1e6 * JOIN

    def row(self) -> str:
        """A line of the table."""
        cells = (
            f"{self.rows / 1e9:g} billion",
            f"{self.served:,.0f}",
            f"{self.workers}",
            f"{self.rows / self.shard:,.0f} of {self.shard:,}",
            duration(self.answering_s),
            duration(self.joining_s),
            f"{self.rows * CHECKPOINT / 1e9:,.0f} GB",
        )
        return f"| {' | '.join(cells)} |"


def duration(seconds: float) -> str:
    """Minutes, or hours."""
    return f"{seconds / 60:,.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"


def main(sizes: list[float]) -> None:
    """Print the table."""
    print("| rows | rows/s of all servers | workers | shards | answering | writing | checkpoint |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for rows in sizes:
        for served, workers in ((160_000, 4), (160_000, 16), (2_560_000, 32), (2_560_000, 64), (25_000_000, 256)):
            print(Plan(rows, served, workers).row())


if __name__ == "__main__":
    main([float(each) for each in sys.argv[1:]] or [1e9, 1e10])
