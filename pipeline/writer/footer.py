"""The footer of a Parquet file, as far as it takes to give the file more columns. No I/O.

A file keeps its bytes; the pages of new columns come after them, and a footer that names both. Field numbers are those
of parquet.thrift of Apache Parquet.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

import pyarrow as pa

from pipeline.loader.parquet import MAGIC
from pipeline.writer import thrift
from pipeline.writer.thrift import Struct, Value

_SCHEMA, _ROWS, _GROUPS, _NOTES, _ORDERS, _ENCRYPTION, _SIGNATURE = 2, 3, 4, 5, 7, 8, 9  # of FileMetaData
_CHILDREN = 5  # of SchemaElement
_COLUMNS, _BYTES, _GROUP_ROWS, _COMPRESSED = 1, 2, 3, 6  # of RowGroup
_FILE, _DESCRIPTION = 1, 3  # of ColumnChunk: the name of another file, and ColumnMetaData
_CHUNK_PLACES = (2, 4, 6)  # of ColumnChunk: where it is in the file, and where its indexes are
_PAGE_PLACES = (9, 10, 11, 14)  # of ColumnMetaData: where its pages are, and a Bloom filter
_KEY, _TEXT = 1, 2  # of KeyValue
_ARROW_SCHEMA = b"ARROW:schema"  # Arrow's own note of its types: its IPC message, in base64


def sealed(footer: bytes) -> bytes:
    """The footer with what comes after it."""
    return footer + struct.pack("<I4s", len(footer), MAGIC)


def can_be_widened(footer: bytes) -> bool:
    """Whether the columns of the file are in it, and not encrypted."""
    try:
        file = thrift.take_struct(footer)
        chunks = [chunk for group in _structs(file[_GROUPS]) for chunk in _structs(thrift.take_struct(group)[_COLUMNS])]
        elsewhere = any(_FILE in thrift.take_struct(chunk) for chunk in chunks)
    except (ValueError, IndexError, KeyError):
        return False
    return not elsewhere and _ENCRYPTION not in file and _SIGNATURE not in file


def widened(footer: bytes, added: bytes, start: int = 0) -> bytes:
    """The footer of a file that has the row groups of `footer`, each with the columns of `added` after its own.

    `added` has row groups of the same rows; what it describes begins at byte `start` of the file.

    Raises:
        ValueError: one of them is not as it should be.
    """
    try:
        return _widened(thrift.take_struct(footer), thrift.take_struct(added), start)
    except (IndexError, KeyError) as error:
        raise ValueError(f"{error} is missing") from None


def _widened(file: Struct, more: Struct, start: int) -> bytes:
    if file[_ROWS] != more[_ROWS]:
        raise ValueError("other rows")
    file[_SCHEMA] = _wider_schema(file[_SCHEMA], more[_SCHEMA])
    groups, new = (_structs(each[_GROUPS]) for each in (file, more))
    pairs = [map(thrift.take_struct, pair) for pair in zip(groups, new, strict=True)]
    file[_GROUPS] = thrift.make_items(thrift.items_of(_wider_group(group, other, start) for group, other in pairs))
    if _ORDERS in file and _ORDERS in more:
        file[_ORDERS] = _both(file[_ORDERS], more[_ORDERS])
    if _NOTES in file and _NOTES in more:
        file[_NOTES] = _wider_notes(file[_NOTES], more[_NOTES])
    return thrift.make_struct(file)


def _both(first: Value, second: Value) -> Value:
    return thrift.make_items(thrift.together(thrift.take_items(first), thrift.take_items(second)))


def _wider_schema(schema: Value, more: Value) -> Value:
    """The elements stand one after the other, each before its children; the first is the root, which counts its own."""
    (root, *elements), (other, *others) = (_structs(each) for each in (schema, more))
    top, new = thrift.take_struct(root), thrift.take_struct(other)
    children = sum(thrift.take_integer(each[_CHILDREN]) for each in (top, new))
    top[_CHILDREN] = thrift.make_integer(children, thrift.I32)
    return thrift.make_items(thrift.items_of([thrift.make_struct(top), *elements, *others]))


def _wider_group(group: Struct, more: Struct, start: int) -> bytes:
    if group[_GROUP_ROWS] != more[_GROUP_ROWS]:
        raise ValueError("other rows")
    for field in (_BYTES, _COMPRESSED):
        if field in group and field in more:
            size = thrift.take_integer(group[field]) + thrift.take_integer(more[field])
            group[field] = thrift.make_integer(size, group[field].kind)
    moved = thrift.make_items(thrift.items_of(_moved_chunk(chunk, start) for chunk in _structs(more[_COLUMNS])))
    return thrift.make_struct(group | {_COLUMNS: _both(group[_COLUMNS], moved)})


def _moved_chunk(chunk: bytes, start: int) -> bytes:
    """What is said of the pages of one column, when they begin `start` bytes later."""
    fields = thrift.take_struct(chunk)
    description = thrift.take_struct(fields[_DESCRIPTION].data)
    _move(description, _PAGE_PLACES, start)
    _move(fields, _CHUNK_PLACES, start)
    fields[_DESCRIPTION] = fields[_DESCRIPTION]._replace(data=thrift.make_struct(description))
    return thrift.make_struct(fields)


def _move(fields: Struct, places: Sequence[int], start: int) -> None:
    for place in places:
        # Nothing of a column is at byte 0; who has no place to tell writes that, perhaps.
        if place in fields and (number := thrift.take_integer(fields[place])):
            fields[place] = thrift.make_integer(number + start, fields[place].kind)


def _wider_notes(notes: Value, more: Value) -> Value:
    """Arrow's schema, if there is one, has the new fields, too; every other note stays as it is."""
    new = [schema for note in _structs(more) if (schema := _arrow_schema(note)) is not None]
    pieces = []
    for note in _structs(notes):
        schema = _arrow_schema(note)
        if schema is None:
            pieces.append(note)
            continue
        for field in (field for each in new for field in each):
            schema = schema.append(field)
        text = thrift.make_binary(base64.b64encode(schema.serialize()))
        pieces.append(thrift.make_struct(thrift.take_struct(note) | {_TEXT: text}))
    return thrift.make_items(thrift.items_of(pieces))


def _arrow_schema(note: bytes) -> pa.Schema | None:
    fields = thrift.take_struct(note)
    if thrift.take_binary(fields[_KEY]) != _ARROW_SCHEMA:
        return None
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(thrift.take_binary(fields[_TEXT]))))


def _structs(value: Value) -> list[bytes]:
    return thrift.structs_of(thrift.take_items(value))
