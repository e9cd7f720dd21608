"""What is added to the rows of a text file, and how it comes into them: for many rows at once, as Arrow does it."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.answers import NO_LABEL, Answers
from pipeline.formats.columns import Layout
from pipeline.texts import binaries, binary, pieces

# -- The rows of a text file as their bytes stand there, thousands at a time, without an object a row


LF, CR, QUOTE = b'\n\r"'
MOST_LINES = 16_384  # of a piece: a line of one byte becomes an object of forty
Codes = np.ndarray[Any, np.dtype[np.uint8]]
Offsets = np.ndarray[Any, np.dtype[np.int64]]


class RawRows:
    """Consecutive rows with their line ends: a sequence of `bytes`, which are cut from `data` only when asked for.

    The first row begins at `start`; each ends at its place in `ends`, where the next one begins.
    """

    def __init__(self, data: bytes, start: int, ends: Offsets) -> None:
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
    def starts(self) -> Offsets:
        """Where each row begins."""
        return np.append(self.start, self.ends[:-1])

    @functools.cached_property
    def body_ends(self) -> Offsets:
        """Where the line end of each row begins: LF, CRLF or CR; the last row may have none."""
        last = self.codes[self.ends - 1]
        ends: Offsets = self.ends - ((last == LF) | (last == CR))
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


def line_ends(data: bytes) -> Offsets:
    """Where the lines in `data` end; what comes after the last such end is a line, too."""
    ends = np.flatnonzero(ends_line(data)) + 1
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))


# -- What is added to the rows of a text file, and how it comes into them: for many rows at once, as Arrow does it


Spell = Callable[[Any], bytes]
_EVERY_SIGN = (1234567890.5, -1e-9)  # that a number may be written with; one of them may be a file's delimiter


class AddedText:
    """For each row the added columns' values, one after the other, each with its head before it.

    `heads` and `spells` are one a column: what stands before a value, and how it is written (a null is None). Numbers
    are written as JSON does where that is how they are spelled.
    """

    def __init__(self, layout: Layout, labels: Sequence[str], heads: Sequence[bytes], spells: Sequence[Spell]) -> None:
        self._layout, self._labels = layout, labels  # more may come
        self._heads, self._spells = heads, spells
        self._by_id: pa.Array = binaries([])
        self._numbers_as_json = all(spells[1](value) == msgspec.json.encode(value) for value in _EVERY_SIGN)

    def of(self, answers: Answers) -> pa.Array:
        """As `large_binary`, one for each row of `answers`."""
        parts: list[pa.Array | pa.Scalar] = [self._label_of(answers)]
        constant = b""  # since the last piece
        columns = self._layout.after_label(answers)
        for head, spell, column in zip(self._heads[1:], self._spells[1:], columns, strict=True):
            constant += head
            if column.null_count == len(column):
                constant += spell(None)
                continue
            at_once = self._numbers_as_json and pa.types.is_float64(column.type) and not column.null_count
            parts += [binary(constant), _numbers(column) if at_once else _spelled(column, spell)]
            constant = b""
        return _joined(*parts, binary(constant))

    def _label_of(self, answers: Answers) -> pa.Array:
        labels, by_id = self._labels, self._by_id
        if len(by_id) != len(labels) + 1:
            values = [*labels, None]  # what has no label takes the last
            by_id = self._by_id = binaries([self._heads[0] + self._spells[0](value) for value in values])
        ids = answers.ids
        if NO_LABEL in ids:
            ids = np.where(ids == NO_LABEL, np.int32(len(labels)), ids)
        return by_id.take(pa.Array.from_buffers(pa.int32(), len(ids), [None, pa.py_buffer(ids)]))


def spliced(rows: RawRows, places: Offsets, added: pa.Array) -> tuple[memoryview, memoryview]:
    """The bytes of all rows with what is added to each at its place; in two parts, the second is the end of the last.

    `places` are positions in `rows.data`, one within each row.
    """
    # What is between two places stands next to what is between the next two: it is an Arrow array as it is.
    between = pieces(rows.data, np.concatenate([[rows.start], places]))
    return memoryview(_joined(between, added).buffers()[2]), memoryview(rows.data)[places[-1] : rows.ends[-1]]


def _joined(*parts: pa.Array | pa.Scalar) -> pa.Array:
    return pc.binary_join_element_wise(*parts, binary(b""))


def _spelled(column: pa.Array, spell: Spell) -> pa.Array:
    """The values as text, one each."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):  # few come often, and each is spelled once
        column = column.dictionary_encode("encode")
        return binaries([*map(spell, column.dictionary.to_pylist())]).take(column.indices)
    return binaries([*map(spell, column.to_pylist())])


def _numbers(column: pa.Array) -> pa.Array:
    """Numbers as JSON, all encoded at once: what stands between their commas."""
    values = np.frombuffer(column.buffers()[1], np.float64)  # `to_numpy` imports pandas, too
    values = values[column.offset : column.offset + len(column)]
    text = msgspec.json.encode(values.tolist())[1:-1]
    offsets = np.empty(len(values) + 1, np.int64)
    offsets[0], offsets[-1] = 0, len(text) + 1
    offsets[1:-1] = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(",")) + 1
    offsets -= np.arange(len(offsets))  # the commas are taken out
    return pieces(text.replace(b",", b""), offsets)
