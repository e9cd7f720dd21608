"""Metadata of Parquet and Arrow files in which other programs list the columns: they read what is listed, or fail."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa


def schema_with_fields(schema: pa.Schema, fields: Sequence[pa.Field]) -> pa.Schema:
    """Append fields to a schema, also where its metadata lists the columns for another program."""
    metadata = {key: list_with_fields(key, value, fields) for key, value in (schema.metadata or {}).items()}
    return pa.schema([*schema, *fields], metadata or None)


def _add_to_pandas(pandas: dict[str, Any], names: list[str], kinds: list[pa.DataType]) -> None:  # noqa: ARG001 - no kinds there
    """Keep names of columns that are no strings, beside new ones that are: both are `object`s then."""
    levels = pandas["column_indexes"]
    if len(levels) == 1 and levels[0]["pandas_type"] in _STRINGS_OF_PANDAS:
        return
    parsers = [_NUMBERS_OF_PANDAS.get(level["pandas_type"].rstrip("0123456789"), str) for level in levels]
    is_nested = len(levels) > 1  # then a name is a tuple, as text
    for column in pandas["columns"]:
        if column["field_name"] not in pandas["index_columns"]:
            parts = ast.literal_eval(column["name"]) if is_nested else [column["name"]]
            parsed = tuple(parse(part) for parse, part in zip(parsers, parts, strict=True))
            column["name"] = str(parsed) if is_nested else parsed[0]
    if is_nested:
        blank = [""] * (len(levels) - 1)
        described = {"pandas_type": "object", "numpy_type": "object", "metadata": None}
        pandas["columns"] += [{"name": str((name, *blank)), "field_name": name, **described} for name in names]
    for level in levels:
        level |= {"pandas_type": "mixed", "numpy_type": "object"}


def _add_to_spark(spark: dict[str, Any], names: list[str], kinds: list[pa.DataType]) -> None:
    spark["fields"] += [_spark_field(name, kind) for name, kind in zip(names, kinds, strict=True)]


def _spark_field(name: str, kind: pa.DataType) -> dict[str, Any]:
    return {"name": name, "type": _spark_type(kind), "nullable": True, "metadata": {}}


def _spark_type(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return {"type": "array", "elementType": _spark_type(kind.value_type), "containsNull": True}
    if pa.types.is_struct(kind):
        return {"type": "struct", "fields": [_spark_field(field.name, field.type) for field in kind]}
    return _PLAIN[kind]


def _add_to_avro(avro: dict[str, Any], names: list[str], kinds: list[pa.DataType]) -> None:
    avro["fields"] += [_avro_field(name, kind, name) for name, kind in zip(names, kinds, strict=True)]


def _avro_field(name: str, kind: pa.DataType, record: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", _avro_type(kind, record)], "default": None}


def _avro_type(kind: pa.DataType, record: str) -> Any:
    """Return a type; `record` is the name of a record in it: each has a name of its own there."""
    if pa.types.is_list(kind):
        return {"type": "array", "items": ["null", _avro_type(kind.value_type, record)]}
    if pa.types.is_struct(kind):
        name = re.sub(r"\W", "_", record, flags=re.ASCII)
        return {"type": "record", "name": name, "fields": [_avro_field(each.name, each.type, "") for each in kind]}
    return _PLAIN[kind]


def _add_to_hugging_face(datasets: dict[str, Any], names: list[str], kinds: list[pa.DataType]) -> None:
    datasets["info"]["features"] |= {name: _feature(kind) for name, kind in zip(names, kinds, strict=True)}


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):  # a Sequence of these would be a dict of lists
        return [_feature(kind.value_type)]
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    plain = _PLAIN[kind]
    return {"dtype": {"double": "float64", "boolean": "bool"}.get(plain, plain), "_type": "Value"}


_STRINGS_OF_PANDAS = ("unicode", "string", "mixed", "mixed-integer", "empty")
_NUMBERS_OF_PANDAS: dict[str, Callable[[str], Any]] = {"int": int, "uint": int, "float": float}
_PLAIN = {pa.string(): "string", pa.float64(): "double", pa.bool_(): "boolean"}
_LISTS: dict[bytes, Callable[[dict[str, Any], list[str], list[pa.DataType]], None]] = {
    b"pandas": _add_to_pandas,
    b"org.apache.spark.sql.parquet.row.metadata": _add_to_spark,
    b"parquet.avro.schema": _add_to_avro,
    b"huggingface": _add_to_hugging_face,
}


def list_with_fields(key: bytes, value: bytes, fields: Sequence[pa.Field]) -> bytes:
    """Add fields to the list of columns that a program keeps under `key`; what is none of that stays as it is."""
    if key not in _LISTS:
        return value
    try:
        listed = json.loads(value)
        before = json.dumps(listed)
        _LISTS[key](listed, [field.name for field in fields], [field.type for field in fields])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError):
        return value
    return value if json.dumps(listed) == before else json.dumps(listed).encode()


def is_list(key: bytes) -> bool:
    """Return whether a program keeps a list of the columns under `key`."""
    return key in _LISTS
