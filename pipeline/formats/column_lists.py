"""Metadata of Parquet and Arrow files in which other programs list the columns: they read what is listed, or fail."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa


def schema_with_fields(schema: pa.Schema, fields: Sequence[pa.Field]) -> pa.Schema:
    """Append fields to a schema, also where its metadata lists the columns for another program."""
    metadata = {key: list_with_fields(key, value, fields) for key, value in (schema.metadata or {}).items()}
    return pa.schema([*schema, *fields], metadata or None)


def _add_to_pandas(pandas: dict[str, Any], names: list[str], kinds: list[str]) -> None:  # noqa: ARG001 - no kinds there
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


def _add_to_spark(spark: dict[str, Any], names: list[str], kinds: list[str]) -> None:
    array = {"type": "array", "elementType": "double", "containsNull": True}
    types = [array if kind == "list" else kind for kind in kinds]
    spark["fields"] += [
        {"name": name, "type": type_, "nullable": True, "metadata": {}}
        for name, type_ in zip(names, types, strict=True)
    ]


def _add_to_avro(avro: dict[str, Any], names: list[str], kinds: list[str]) -> None:
    array = {"type": "array", "items": ["null", "double"]}
    types = [array if kind == "list" else kind for kind in kinds]
    avro["fields"] += [
        {"name": name, "type": ["null", type_], "default": None} for name, type_ in zip(names, types, strict=True)
    ]


def _add_to_hugging_face(datasets: dict[str, Any], names: list[str], kinds: list[str]) -> None:
    for name, kind in zip(names, kinds, strict=True):
        value = {"dtype": {"double": "float64", "list": "float64", "boolean": "bool"}.get(kind, kind), "_type": "Value"}
        datasets["info"]["features"][name] = {"feature": value, "_type": "Sequence"} if kind == "list" else value


_STRINGS_OF_PANDAS = ("unicode", "string", "mixed", "mixed-integer", "empty")
_NUMBERS_OF_PANDAS: dict[str, Callable[[str], Any]] = {"int": int, "uint": int, "float": float}
_KINDS = {pa.string(): "string", pa.float64(): "double", pa.bool_(): "boolean"}  # others are lists of doubles
_LISTS: dict[bytes, Callable[[dict[str, Any], list[str], list[str]], None]] = {
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
        _LISTS[key](listed, [field.name for field in fields], [_KINDS.get(field.type, "list") for field in fields])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError):
        return value
    return value if json.dumps(listed) == before else json.dumps(listed).encode()


def is_list(key: bytes) -> bool:
    """Return whether a program keeps a list of the columns under `key`."""
    return key in _LISTS
