"""Shards: the open rows of a file, cut into ranges that can be read and answered apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.checkpoint import Range
from pipeline.runs.file import RunFile
from pipeline.texts import Position


@dataclass(eq=False)
class OpenShard:
    """Open rows of a file that one worker answers."""

    file: RunFile
    ranges: Sequence[Range]
    positions: list[Position]  # from which they can be read; none: from the start
    deaths: int = 0  # of workers, since rows of it were answered

    def has_rows_left(self) -> bool:
        """Take out the rows that have answers in the file's checkpoint now; return whether there are others."""
        stop = self.ranges[-1].stop
        self.ranges = list(within(self.file.checkpoint.open_ranges(stop), self.ranges[0].start, stop))
        self.positions = positions_of(self.file, self.ranges, *self.positions)
        return bool(self.ranges)


def positions_of(file: RunFile, ranges: Sequence[Range], *known: Position | None) -> list[Position]:
    """Return from where ranges can be read, in order: positions that are `known`, and those of the checkpoint."""
    found = {*known, *(file.checkpoint.position_before(each.start) for each in ranges)}
    return sorted(each for each in found if each is not None)


def within(ranges: Sequence[Range], start: int, stop: int | None) -> Iterator[Range]:
    """Yield what of `ranges` is between two rows; None is the end of the file."""
    for each in ranges:
        stops = [row for row in (each.stop, stop) if row is not None]
        part = Range(max(each.start, start), min(stops, default=None))
        if part.stop is None or part.start < part.stop:
            yield part


def shards_of(file: RunFile, rows: int) -> Iterator[OpenShard]:
    """Cut the open rows of a file into shards of about `rows` rows; text files are read for that.

    Raises:
        InputError: the file can't be read.
    """
    open_ranges = file.feed.ranges
    if not open_ranges:
        return
    start = file.checkpoint.position_before(open_ranges[0].start) if file.source.seekable else None
    here, stop = start, open_ranges[-1].stop
    cuts = file.source.cuts(rows, start)
    for cut in cuts:
        part = list(within(open_ranges, here.row if here else 0, cut.row))
        if part:
            yield OpenShard(file, part, positions_of(file, part, here))
        here = cut
        if stop is not None and cut.row >= stop:
            break
    if here is start:
        yield OpenShard(file, open_ranges, [])
    elif next(cuts, None) is None:  # else rows beyond those that are wanted
        file.feed.total = here.row if here else None
