"""The rows of a text file as their bytes stand there, thousands at a time, without an object a row."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

LF, CR, QUOTE = b'\n\r"'
MOST_LINES = 16_384  # of a piece: a line of one byte becomes an object of forty
Codes = np.ndarray[Any, np.dtype[np.uint8]]
Positions = np.ndarray[Any, np.dtype[np.int64]]


class RawRows:
    """Consecutive rows with their line ends: a sequence of `bytes`, which are cut from `data` only when asked for.

    The first row begins at `start`; each ends at its place in `ends`, where the next one begins.
    """

    def __init__(self, data: bytes, start: int, ends: Positions) -> None:
        self.data, self.start, self.ends = data, start, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: slice) -> RawRows:
        first, _, _ = rows.indices(len(self))
        return RawRows(self.data, int(self.ends[first - 1]) if first else self.start, self.ends[rows])

    def __iter__(self) -> Iterator[bytes]:
        start = self.start
        for end in self.ends.tolist():
            yield self.data[start:end]
            start = end

    @functools.cached_property
    def codes(self) -> Codes:
        """`data` as numbers."""
        return np.frombuffer(self.data, np.uint8)

    @functools.cached_property
    def starts(self) -> Positions:
        """Where each row begins."""
        return np.append(self.start, self.ends[:-1])

    @functools.cached_property
    def body_ends(self) -> Positions:
        """Where the line end of each row begins: LF, CRLF or CR; the last row may have none."""
        last = self.codes[self.ends - 1]
        ends: Positions = self.ends - ((last == LF) | (last == CR))
        if self.data.find(b"\r", self.start, int(self.ends[-1])) >= 0:
            ends -= (last == LF) & (ends > self.starts) & (self.codes[ends - 1] == CR)
        return ends


def rows_of_lines(blocks: Iterator[bytes]) -> Iterator[RawRows]:
    """Every line is a row."""
    for data in whole_lines(blocks):
        yield RawRows(data, 0, line_ends(data))


def whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that end with a line, a line of any length joined once; the last may have no end."""
    pieces: list[bytes] = []
    for block in blocks:
        if pieces and pieces[-1].endswith(b"\r") and not block.startswith(b"\n"):
            yield from _few_lines(b"".join(pieces))
            pieces = []
        # A CR at the end may be the half of a line's end.
        cut = (block.rfind(b"\n") if b"\n" in block else block.rfind(b"\r", 0, -1)) + 1
        pieces.append(block[:cut] if cut else block)
        if cut:
            yield from _few_lines(b"".join(pieces))
            pieces = [block[cut:]] if cut < len(block) else []
    if pieces:
        yield from _few_lines(b"".join(pieces))


def _few_lines(data: bytes) -> Iterator[bytes]:
    """The same in parts of so few lines that an object for each of them is not much."""
    if len(data) > MOST_LINES and np.count_nonzero(ends_line(data)) > MOST_LINES:
        start = 0
        for end in line_ends(data)[MOST_LINES - 1 :: MOST_LINES].tolist():
            yield data[start:end]
            start = end
        data = data[start:]
    if data:
        yield data


def lines_of(data: bytes) -> list[bytes]:
    """As `splitlines`, each with its end; thrice as quick where there is no CR."""
    return data.splitlines(keepends=True) if b"\r" in data else io.BytesIO(data).readlines()


def ends_line(data: bytes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which bytes end a line: LF, and CR unless LF follows."""
    codes = np.frombuffer(data, np.uint8)
    ends: np.ndarray[Any, np.dtype[np.bool_]] = codes == LF
    if b"\r" in data:
        ends |= (codes == CR) & (np.append(codes[1:], 0) != LF)
    return ends


def line_ends(data: bytes) -> Positions:
    """Where the lines in `data` end; what comes after the last such end is a line, too."""
    ends = np.flatnonzero(ends_line(data)) + 1
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))
