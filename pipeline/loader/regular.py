"""CSV records written the regular way, many at once: a cell is plain, or quoted as a whole with its quotes doubled.

What the csv module makes of such a record and what stands between its separators is the same; it is a matter of a
test. The first record of another kind (a quote within a plain cell, another number of cells, a blank line) ends it,
and the csv module goes on from there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.arrow import every_other, pieces
from pipeline.loader.lines import Place
from pipeline.loader.rows import CR, LF, QUOTE, Codes, Positions, RawRows, ends_line, whole_lines

MOST_HELD = 2 << 20  # bytes that hold no whole record: then it is not regular, or not worth the trouble
MOST_AT_ONCE = 16 << 20  # bytes of one line: to look at them at once would take several times as many


class RegularRecords:
    """The records in `blocks`, which begin at `place`; of each its bytes, and those of the cell `column`.

    A cell is what stands between its quotes, if it has some. When it ends, `place` and `rest()` are where the others
    begin.
    """

    def __init__(
        self, blocks: Iterator[bytes], place: Place, delimiter: str, *, width: int, column: int | None = None
    ) -> None:
        self.place = place
        self._delimiter, self._width, self._column = ord(delimiter), width, column
        self._pieces, self._held = whole_lines(blocks), b""
        self._may_stand_beside_quotes = np.zeros(256, bool)
        self._may_stand_beside_quotes[[self._delimiter, LF, CR, QUOTE]] = True

    def __iter__(self) -> Iterator[tuple[Place, RawRows, pa.LargeBinaryArray | None]]:
        for piece in self._pieces:
            self._held += piece
            if len(self._held) > MOST_AT_ONCE:
                return
            separators, lines = self._separators(self._held)
            if len(separators):
                rows, here = RawRows(self._held, 0, separators[:, -1] + 1), self.place
                size = int(rows.ends[-1])
                self._held = self._held[size:]
                self.place = Place(here.row + len(rows), here.offset + size, here.line + lines)
                yield here, rows, None if self._column is None else _cells(rows, separators, self._column)
            elif len(self._held) > MOST_HELD:
                return

    def rest(self) -> Iterator[bytes]:
        """The bytes from `place` on."""
        return itertools.chain([self._held] if self._held else [], self._pieces)

    def _separators(self, data: bytes) -> tuple[Positions, int]:
        """For each record, as far as they are regular and whole, where its cells end; and how many lines they take."""
        codes = np.frombuffer(data, np.uint8)
        marks = np.flatnonzero((codes == QUOTE) | (codes == self._delimiter) | ends_line(data))
        kinds = codes[marks]
        is_quote, is_line_end = kinds == QUOTE, (kinds == LF) | (kinds == CR)
        is_open = np.cumsum(is_quote, dtype=np.uint8) & 1
        separates = ~is_quote & (is_open == 0) & (marks < self._first_odd_quote(codes, marks[is_quote]))
        separators = marks[separates]
        records_end = np.flatnonzero(is_line_end[separates]) + 1  # after so many separators
        whole = np.arange(1, len(records_end) + 1) * self._width
        unlike = np.flatnonzero(records_end != whole)
        records = int(unlike[0]) if len(unlike) else len(whole)
        separators = separators[: records * self._width].reshape(records, self._width)
        lines = np.count_nonzero(is_line_end[: np.searchsorted(marks, separators[-1, -1], "right")]) if records else 0
        return separators, int(lines)

    def _first_odd_quote(self, codes: Codes, quotes: Positions) -> int:
        """Where the first quote is that neither stands at the edge of its cell nor is doubled."""
        opening, closing = quotes[0::2], quotes[1::2]
        before, after = opening[opening > 0] - 1, closing[closing < len(codes) - 1] + 1
        odd_before = before[~self._may_stand_beside_quotes[codes[before]]] + 1
        odd_after = after[~self._may_stand_beside_quotes[codes[after]]] - 1
        return int(min([len(codes), *odd_before[:1], *odd_after[:1]]))


def _cells(rows: RawRows, separators: Positions, column: int) -> pa.LargeBinaryArray:
    """What stands in one column."""
    starts = separators[:, column - 1] + 1 if column else rows.starts
    stops = separators[:, column] if column < separators.shape[1] - 1 else rows.body_ends
    is_quoted = rows.codes[starts] == QUOTE
    edges = np.column_stack([starts + is_quoted, stops - is_quoted]).ravel()
    return every_other(pieces(rows.data, edges))  # cells, and what is between them
