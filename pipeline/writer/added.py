"""What is added to the rows of a text file, and how it comes into them: for many rows at once, as Arrow does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrow import binaries, binary, pieces
from pipeline.checkpoint import NO_LABEL, Slab
from pipeline.loader.rows import Positions, RawRows
from pipeline.writer.columns import Layout

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

    def of(self, slab: Slab) -> pa.Array:
        """As `large_binary`, one for each row of `slab`."""
        parts: list[pa.Array | pa.Scalar] = [self._label_of(slab)]
        constant = b""  # since the last piece
        columns = self._layout.after_label(slab)
        for head, spell, column in zip(self._heads[1:], self._spells[1:], columns, strict=True):
            constant += head
            if column.null_count == len(column):
                constant += spell(None)
                continue
            at_once = self._numbers_as_json and pa.types.is_float64(column.type) and not column.null_count
            parts += [binary(constant), _numbers(column) if at_once else _spelled(column, spell)]
            constant = b""
        return _joined(*parts, binary(constant))

    def _label_of(self, slab: Slab) -> pa.Array:
        labels, by_id = self._labels, self._by_id
        if len(by_id) != len(labels) + 1:
            values = [*labels, None]  # what has no label takes the last
            by_id = self._by_id = binaries([self._heads[0] + self._spells[0](value) for value in values])
        ids = slab.labels
        if NO_LABEL in ids:
            ids = np.where(ids == NO_LABEL, np.int32(len(labels)), ids)
        return by_id.take(pa.Array.from_buffers(pa.int32(), len(ids), [None, pa.py_buffer(ids)]))


def spliced(rows: RawRows, places: Positions, added: pa.Array) -> tuple[memoryview, memoryview]:
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
