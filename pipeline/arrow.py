"""Arrow arrays from their buffers: `pa.array` and `pa.scalar` import pandas where it is installed, which takes long."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def bitmap(mask: Mask) -> pa.Buffer:
    """Which values are there."""
    return pa.py_buffer(np.packbits(mask, bitorder="little"))


def strings(values: Sequence[str | None]) -> pa.Array:
    """An array of `string`."""
    encoded = [(value or "").encode("utf-8", "backslashreplace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    there = bitmap(np.array([value is not None for value in values], bool))
    buffers = [there, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def pieces(data: bytes | memoryview, ends: np.ndarray[Any, np.dtype[np.int64]], there: Mask | None = None) -> pa.Array:
    """An array of `large_binary` of what stands in `data` between each two of `ends`; nothing is copied.

    Null where it is not `there`.
    """
    buffers = [None if there is None or there.all() else bitmap(there), pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)


def binaries(values: Sequence[bytes]) -> pa.Array:
    """An array of `large_binary`."""
    return pieces(b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.int64))


@functools.lru_cache(maxsize=256)
def binary(value: bytes) -> pa.Scalar:
    """One value of `large_binary`."""
    return binaries([value])[0]


def every_other(values: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """The first value, the third and so on."""
    indices = np.arange(0, len(values), 2)
    return values.take(pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(indices)]))


def joined_with(between: bytes, values: pa.LargeBinaryArray) -> bytes:
    """All values as one, `between` each two of them."""
    ends = pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(np.array([0, len(values)]))])
    joined: bytes = pc.binary_join(pa.LargeListArray.from_arrays(ends, values), binary(between))[0].as_py()
    return joined
