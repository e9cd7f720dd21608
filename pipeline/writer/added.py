"""What is added to the rows of a text file, and how it comes into them: for many rows at once, as Arrow does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.loader.rows import Positions, RawRows

_NOTHING = pa.scalar(b"", pa.large_binary())


def added_text(heads: Sequence[bytes], columns: Sequence[pa.Array], spell: Callable[[Any], bytes]) -> pa.Array:
    """For each row, the columns' values one after the other, each with its head before it, as `large_binary`.

    `spell` says how a value is written (null: None); numbers are written as JSON does if it writes one so.
    """
    pieces: list[pa.Array | pa.Scalar] = []
    for head, column in zip(heads, columns, strict=True):
        pieces += [pa.scalar(head, pa.large_binary()), _spelled(column, spell)]
    return pc.binary_join_element_wise(*pieces, _NOTHING)


def spliced(rows: RawRows, places: Positions, added: pa.Array) -> tuple[memoryview, memoryview]:
    """The bytes of all rows with what is added to each at its place; in two parts, the second is the end of the last.

    `places` are positions in `rows.data`, one within each row.
    """
    # The pieces between two places lie one after the other, so they are an Arrow array as they stand.
    offsets = np.concatenate([[rows.start], places])
    pieces = pa.Array.from_buffers(
        pa.large_binary(), len(places), [None, pa.py_buffer(offsets), pa.py_buffer(rows.data)]
    )
    joined = pc.binary_join_element_wise(pieces, added, _NOTHING)
    return memoryview(joined.buffers()[2]), memoryview(rows.data)[places[-1] : rows.ends[-1]]


def binary_array(values: Sequence[bytes]) -> pa.Array:
    """`large_binary`. `pa.array` imports pandas where it is installed: 0.2 s for nothing."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return pa.Array.from_buffers(
        pa.large_binary(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    )


def _spelled(column: pa.Array, spell: Callable[[Any], bytes]) -> pa.Array | pa.Scalar:
    """The values as text, one each; where all are null one stands for all."""
    if column.null_count == len(column):
        return pa.scalar(spell(None), pa.large_binary())
    kind = column.type
    if pa.types.is_float64(kind) and not column.null_count and spell(0.5) == b"0.5":
        return _numbers(column)
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):  # few come often, and each is spelled once
        column = column.dictionary_encode("encode")
        return binary_array([*map(spell, column.dictionary.to_pylist())]).take(column.indices)
    return binary_array([*map(spell, column.to_pylist())])


def _numbers(column: pa.Array) -> pa.Array:
    """Numbers as JSON, all encoded at once: what stands between their commas."""
    text = msgspec.json.encode(column.to_numpy().tolist())[1:-1]
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    ends = np.concatenate([[0], commas, [len(text)]])
    ends[1:] -= np.arange(len(column))  # the commas that are taken out before it
    data = text.replace(b",", b"")
    return pa.Array.from_buffers(pa.large_binary(), len(column), [None, pa.py_buffer(ends), pa.py_buffer(data)])
