"""The lines of a CSV file as the csv module takes them, while their bytes are held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.loader.lines import Place

if TYPE_CHECKING:
    from pipeline.loader.delimited import CsvSource

# A record longer than this is a quote that nobody closed; without a bound it would take in the whole file.
LONGEST_RECORD = 256 << 20


class LineFeed:
    """The lines of a file for the csv module, their bytes held until the record they belong to is whole."""

    def __init__(self, source: CsvSource, place: Place, blocks: Iterator[bytes]) -> None:
        self._source, self._place, self._blocks = source, place, blocks
        self._held: list[bytes] = []
        self.held_bytes = 0
        self.taken = self.whole = 0  # lines of records that were taken, or are whole
        self.at_end = False

    def texts(self) -> Iterator[list[str]]:
        """The lines as text."""
        file, number = self._source.file, self._place.line
        unfinished = whole = size = 0
        for lines in file.split(self._blocks, self._place):
            # A record that was begun in the last lines may have taken all of them.
            unfinished = size if self.whole > whole else unfinished + size
            whole = self.whole
            if unfinished > LONGEST_RECORD:
                raise self._source.endless(self._place.line + whole)
            size = sum(map(len, lines))
            self._held += lines
            self.held_bytes += size
            yield [file.decode(line, number + index) for index, line in enumerate(lines, 1)]
            number += len(lines)
        self.at_end = True

    def take(self, ends: list[int]) -> list[bytes]:
        """The bytes of the records that were whole after so many lines each."""
        starts = [self.taken, *ends[:-1]]
        if ends[-1] - self.taken == len(ends):
            raw = self._held[: len(ends)]
        else:
            first = self.taken
            raw = [b"".join(self._held[start - first : end - first]) for start, end in zip(starts, ends, strict=True)]
        del self._held[: ends[-1] - self.taken]
        self.taken = ends[-1]
        self.held_bytes -= sum(map(len, raw))
        return raw
