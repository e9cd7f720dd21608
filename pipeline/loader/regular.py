"""CSV records written the regular way, many at once: a cell is plain, or quoted as a whole with its quotes doubled.

What the csv module makes of such a record and what the pattern makes of it is the same; it is a matter of a test. The
first record of another kind (a quote within a plain cell, another number of cells, a blank line) ends it, and the csv
module goes on from there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from pipeline.loader.lines import Place

BLOCK_RECORDS = 4096
MOST_HELD = 2 << 20  # bytes that hold no whole record: then it is not regular, or not worth the trouble


class RegularRecords:
    """The records in `blocks`, which begin at `place`; of each its bytes, and those of the cell `column`.

    When it ends, `place` and `rest()` are where the others begin.
    """

    def __init__(self, blocks: Iterator[bytes], place: Place, delimiter: str, *, width: int, column: int = 0) -> None:
        self.place = place
        self._blocks, self._held = blocks, b""
        mark = re.escape(delimiter.encode())
        cell = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\r\n%b]*+)' % mark
        before, after = rb"(?:%b%b){%d}" % (cell, mark, column), rb"(?:%b%b){%d}" % (mark, cell, width - 1 - column)
        # A CR at the end of what was read so far may be the half of a line's end. What is no regular record is taken
        # as one piece with all that follows: a search for the next one could take for ever.
        record = rb"(%b(%b)%b(?:\n|\r\n|\r(?=[^\n])))|(?s:.+)" % (before, cell, after)
        self._find = re.compile(record).findall

    def __iter__(self) -> Iterator[tuple[Place, list[bytes], list[bytes]]]:
        for block in self._blocks:
            self._held += block
            found = self._regular()
            for start in range(0, len(found), BLOCK_RECORDS):
                records, cells = (list(column) for column in zip(*found[start : start + BLOCK_RECORDS], strict=True))
                here, whole = self.place, b"".join(records)
                lines = len(whole.splitlines()) if b"\r" in whole else whole.count(b"\n")
                self.place = Place(here.row + len(records), here.offset + len(whole), here.line + lines)
                self._held = self._held[len(whole) :]
                yield here, records, cells
            if not found and len(self._held) > MOST_HELD:
                return

    @property
    def was_all(self) -> bool:
        """Whether all were regular, once it has ended."""
        return not self._held

    def rest(self) -> Iterator[bytes]:
        """The bytes from `place` on."""
        return itertools.chain([self._held] if self._held else [], self._blocks)

    def _regular(self) -> list[tuple[bytes, bytes]]:
        """The records that are held, up to the first that is not regular, or not whole."""
        found: list[tuple[bytes, bytes]] = self._find(self._held)
        return found[:-1] if found and not found[-1][0] else found
