"""How a value is written in a format that does not have its type; the documentation shows the same table.

nested (list, struct, map)     JSON, a map as a list of pairs; as text in CSV and Parquet, as it is in JSONL
binary                         base64
decimal, timestamp, date, time text
duration                       the integer it is stored as
NaN and infinite numbers       null in JSONL and inside nested values; `nan`, `inf` in CSV
null                           null in JSONL, an empty cell in CSV
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import OutputError


def to_cells(array: pa.Array, name: str) -> list[str | None]:
    """Make CSV cells of a column, None where it is null.

    Raises:
        OutputError: the values can't be written as text; naming the column, `name`.
    """
    plain = _plain(array, name)
    if pa.types.is_nested(plain.type):
        return [None if value is None else msgspec.json.encode(value).decode() for value in plain.to_pylist()]
    if _is_binary(plain.type):
        return [None if value is None else base64.b64encode(value).decode() for value in plain.to_pylist()]
    return _texts(pc.cast(plain, pa.large_string()))


def to_json(array: pa.Array, name: str) -> list[Any]:
    """Make values that msgspec writes as JSON of a column; it writes bytes as base64, and NaN as null.

    Raises:
        OutputError: see `to_cells`.
    """
    plain = _plain(array, name)
    if pa.types.is_large_string(plain.type) or pa.types.is_string(plain.type):
        return list(_texts(plain))
    values: list[Any] = plain.to_pylist()
    return values


def _texts(array: pa.Array) -> list[str | None]:
    """Decode strings; bytes that are no UTF-8, which Parquet does not check, become escapes."""
    try:
        texts: list[str | None] = array.to_pylist()
    except UnicodeDecodeError:
        raw = array.cast(pa.large_binary()).to_pylist()
        texts = [None if value is None else value.decode("utf-8", "backslashreplace") for value in raw]
    return texts


def _plain(array: pa.Array, name: str) -> pa.Array:
    """Cast values to types that every format has."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    try:
        return pc.cast(array, _plain_type(array.type))
    except pa.ArrowException as error:
        raise OutputError(
            f"the column {name!r} of type {array.type} can't be written as text ({str(error).splitlines()[0]}); "
            f"choose a Parquet output"
        ) from None


def _plain_type(kind: pa.DataType) -> pa.DataType:  # noqa: C901, PLR0911 - one line a kind of type
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):  # casting a list view loses its values (Arrow 26): refused
        return pa.large_list(_plain_type(kind.value_type))
    if _is_binary(kind):
        return pa.large_binary()
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind) or types.is_floating(kind):
        return pa.float32() if types.is_float16(kind) else kind
    if types.is_duration(kind):
        return pa.int64()
    return pa.large_string()


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )
