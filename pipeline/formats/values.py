"""How a value is written in a format that does not have its type; the documentation shows the same table.

nested (list, struct, map)     JSON, a map as a list of pairs; as text in CSV and Parquet, as it is in JSONL
binary                         base64
decimal, timestamp, date, time text; beyond the years that Arrow prints, the integer it is stored as
duration                       the integer it is stored as
NaN and infinite numbers       null in JSONL and inside nested values; `nan`, `inf` in CSV
null                           null in JSONL, an empty cell in CSV
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import OutputError
from pipeline.formats.dictionaries import decoded, is_closed, value_type

_BEYOND = re.compile(r"<value out of range: (-?\d+)>")  # what Arrow writes instead of a date or time
_YEARS_S = 97 * 10**10  # seconds of almost 32,767 years after 1970, the last one that Arrow prints
# Of a timestamp whose local time Arrow can compute: with nanoseconds, a day less than 64 bits hold.
_MOST_LOCAL = {"s": _YEARS_S, "ms": _YEARS_S * 10**3, "us": _YEARS_S * 10**6, "ns": 2**63 - 86_400 * 10**9}


def to_cells(array: pa.Array, name: str) -> list[str | None]:
    """Make CSV cells of a column, None where it is null.

    Raises:
        OutputError: the values can't be written as text; naming the column, `name`.
    """
    array = decoded(array)
    plain = _plain(array, name)
    if pa.types.is_nested(plain.type):
        return [None if value is None else msgspec.json.encode(value).decode() for value in _values(plain)]
    if _is_binary(plain.type):
        return [None if value is None else base64.b64encode(value).decode() for value in plain.to_pylist()]
    return _printed(array, _texts(pc.cast(plain, pa.large_string())))


def to_json(array: pa.Array, name: str) -> list[Any]:
    """Make values that msgspec writes as JSON of a column; it writes bytes as base64, and NaN as null.

    Raises:
        OutputError: see `to_cells`.
    """
    array = decoded(array)
    plain = _plain(array, name)
    if pa.types.is_large_string(plain.type) or pa.types.is_string(plain.type):
        return list(_printed(array, _texts(plain)))
    return _values(plain)


def _texts(array: pa.Array) -> list[str | None]:
    """Decode strings; bytes that are no UTF-8, which Parquet does not check, become escapes."""
    try:
        texts: list[str | None] = array.to_pylist()
    except UnicodeDecodeError:
        raw = array.cast(pa.large_binary()).to_pylist()
        texts = [None if value is None else value.decode("utf-8", "backslashreplace") for value in raw]
    return texts


def _values(array: pa.Array) -> list[Any]:
    """Make Python values; strings inside that are no UTF-8 become escapes, as `_texts` says."""
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        values = [_value(scalar) for scalar in array]
    return values


def _value(scalar: pa.Scalar) -> Any:
    if scalar.is_valid and isinstance(scalar, pa.StructScalar):
        return {field.name: _value(scalar[index]) for index, field in enumerate(scalar.type)}
    if scalar.is_valid and isinstance(scalar, pa.ListScalar):
        values = [_value(each) for each in scalar.values]
        return [[*pair.values()] for pair in values] if pa.types.is_map(scalar.type) else values
    if scalar.is_valid and isinstance(scalar, pa.StringScalar):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    return scalar.as_py()


def _printed(array: pa.Array, texts: list[str | None]) -> list[str | None]:
    """Put the integer in the place of each date or time that Arrow can't print, or whose local time wraps around."""
    if not pa.types.is_temporal(array.type):
        return texts
    texts = [text and _BEYOND.sub(r"\1", text) for text in texts]
    if pa.types.is_timestamp(array.type) and array.type.tz:
        stored = np.frombuffer(array.buffers()[1] or b"", np.int64)[array.offset : array.offset + len(array)]
        most = _MOST_LOCAL[array.type.unit]
        for index in np.flatnonzero((stored > most) | (stored < -most)).tolist():
            texts[index] = texts[index] and str(stored[index])
    return texts


def _plain(array: pa.Array, name: str) -> pa.Array:
    """Cast values to types that every format has."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    try:
        return pc.cast(array, _plain_type(array.type))
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise OutputError(f"the column {name!r} of type {array.type} can't be written as text: {reason}") from None


def see_type(kind: pa.DataType) -> None:
    """See that there is a text for values of a type.

    Raises:
        pa.ArrowException: there is none.
    """
    _plain_type(value_type(kind) if pa.types.is_dictionary(kind) else kind)


def _plain_type(kind: pa.DataType) -> pa.DataType:  # noqa: C901, PLR0911 - one line a kind of type
    """Find the type, of those that every format has, that the values of a type are cast to.

    Raises:
        pa.ArrowInvalid: there is none.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if types.is_dictionary(kind) and not is_closed(kind):
        return _plain_type(kind.value_type)
    if types.is_struct(kind):
        if len({field.name for field in kind}) < kind.num_fields:
            raise pa.ArrowInvalid("two fields of a struct have the same name")
        return pa.struct([pa.field(field.name, _plain_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if _is_binary(kind):
        return pa.large_binary()
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind) or types.is_floating(kind):
        return pa.float32() if types.is_float16(kind) else kind
    if types.is_duration(kind):
        return pa.int64()
    if types.is_interval(kind) or types.is_nested(kind) or types.is_dictionary(kind):
        # Casting a list view loses its values (Arrow 26).
        raise pa.ArrowInvalid("there is no text for such values")
    return pa.large_string()


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )
