"""The footer of a Parquet file, as far as it takes to give the file more columns. No I/O.

A file keeps its bytes; the pages of new columns come after them, and a footer that names both. Field numbers are those
of parquet.thrift of Apache Parquet.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

import pyarrow as pa

from pipeline.formats import thrift
from pipeline.formats.thrift import NOTHING, Struct

MAGIC, TAIL_BYTES = b"PAR1", 8  # a file ends with its footer, the length of that, and the magic

_SCHEMA, _ROWS, _GROUPS, _NOTES, _ORDERS, _ENCRYPTION, _SIGNATURE = 2, 3, 4, 5, 7, 8, 9  # of FileMetaData
_TYPE, _CHILDREN = 1, 5  # of SchemaElement: only a column has a type
_COLUMNS, _BYTES, _GROUP_ROWS, _COMPRESSED = 1, 2, 3, 6  # of RowGroup
_FILE, _DESCRIPTION = 1, 3  # of ColumnChunk: the name of another file, and ColumnMetaData
_CHUNK_PLACES = (2, 4, 6)  # of ColumnChunk: where it is in the file, and where its indexes are
_PAGE_PLACES = (9, 10, 11, 14)  # of ColumnMetaData: where its pages are, and a Bloom filter
_KEY, _TEXT = 1, 2  # of KeyValue
_ARROW_SCHEMA = b"ARROW:schema"  # Arrow's own note of its types: its IPC message, in base64
_SHAPE = {_SCHEMA: NOTHING, _GROUPS: {_COLUMNS: NOTHING}, _NOTES: NOTHING, _ORDERS: NOTHING}
_SHAPE_TO_MOVE = _SHAPE | {_GROUPS: {_COLUMNS: {_DESCRIPTION: NOTHING}}}


class Footer:
    """What stands at the end of a file.

    Raises:
        ValueError: it is damaged, or the columns are encrypted or in another file.
    """

    def __init__(self, encoded: bytes) -> None:
        self.size = len(encoded)
        try:
            self._file = thrift.take(encoded, _SHAPE)
            groups = [group[_COLUMNS].structs for group in self._file[_GROUPS].structs]
            columns = sum(_TYPE in element for element in self._file[_SCHEMA].structs)
            rows = [thrift.integer(group[_GROUP_ROWS]) for group in self._file[_GROUPS].structs]
            is_sum = sum(rows) == thrift.integer(self._file[_ROWS])
            self._children = thrift.integer(self._file[_SCHEMA].structs[0][_CHILDREN])
        except (KeyError, IndexError):
            raise ValueError("not what Parquet has there") from None
        elsewhere = any(_FILE in chunk for group in groups for chunk in group)
        if _ENCRYPTION in self._file or _SIGNATURE in self._file or elsewhere:
            raise ValueError("columns that can't be read in this file by everybody")
        if not is_sum or any(len(group) != columns for group in groups):
            raise ValueError("row groups that are not those of the file")

    def widened(self, added: bytes, start: int) -> bytes:
        """The footer of a file that has the same row groups, each with the columns of `added` after its own.

        `added` has row groups of the same rows; what it describes begins at byte `start` of the file. With what comes
        after a footer.

        Raises:
            ValueError: it has other rows.
        """
        file, more = self._file, thrift.take(added, _SHAPE_TO_MOVE)
        if thrift.integer(file[_ROWS]) != thrift.integer(more[_ROWS]):
            raise ValueError("other rows")
        # Schema elements stand one after the other, each before its children; the first is the root.
        (root, *elements), (other, *others) = file[_SCHEMA].structs, more[_SCHEMA].structs
        children = thrift.integer_of(self._children + thrift.integer(other[_CHILDREN]), thrift.I32)
        groups = zip(file[_GROUPS].structs, more[_GROUPS].structs, strict=True)
        changed: dict[int, list[Struct]] = {
            _SCHEMA: [root | {_CHILDREN: children}, *elements, *others],
            _GROUPS: [_wider_group(group, new, start) for group, new in groups],
        }
        if _ORDERS in file:
            changed[_ORDERS] = file[_ORDERS].structs + more[_ORDERS].structs
        if _NOTES in file:
            changed[_NOTES] = _wider_notes(file[_NOTES].structs, more[_NOTES].structs)
        encoded = thrift.make(file | {field: file[field]._replace(data=data) for field, data in changed.items()})
        return encoded + struct.pack("<I4s", len(encoded), MAGIC)


def _wider_group(group: Struct, more: Struct, start: int) -> Struct:
    if thrift.integer(group[_GROUP_ROWS]) != thrift.integer(more[_GROUP_ROWS]):
        raise ValueError("other rows")
    columns = [*group[_COLUMNS].structs, *[_moved(chunk, start) for chunk in more[_COLUMNS].structs]]
    wider = group | {_COLUMNS: group[_COLUMNS]._replace(data=columns)}
    for field in (_BYTES, _COMPRESSED):
        if field in group and field in more:
            size = thrift.integer(group[field]) + thrift.integer(more[field])
            wider[field] = thrift.integer_of(size, group[field].kind)
    return wider


def _moved(chunk: Struct, start: int) -> Struct:
    """What is said of the pages of one column, when they begin `start` bytes later."""
    description = _shifted(chunk[_DESCRIPTION].struct, _PAGE_PLACES, start)
    return _shifted(chunk, _CHUNK_PLACES, start) | {_DESCRIPTION: chunk[_DESCRIPTION]._replace(data=description)}


def _shifted(fields: Struct, places: Sequence[int], start: int) -> Struct:
    # Nothing of a column is at byte 0; who has no place to tell writes that, perhaps.
    found = {place: number for place in places if place in fields and (number := thrift.integer(fields[place]))}
    return fields | {place: thrift.integer_of(number + start, fields[place].kind) for place, number in found.items()}


def _wider_notes(notes: list[Struct], more: list[Struct]) -> list[Struct]:
    """Arrow's schema, if there is one, has the new fields, too; every other note stays as it is."""
    new = [field for note in more if (schema := _arrow_schema(note)) is not None for field in schema]
    pairs = [(note, _arrow_schema(note)) for note in notes]
    return [note if schema is None else _with_fields(note, schema, new) for note, schema in pairs]


def _with_fields(note: Struct, schema: pa.Schema, fields: Sequence[pa.Field]) -> Struct:
    for field in fields:
        schema = schema.append(field)
    return note | {_TEXT: thrift.binary_of(base64.b64encode(schema.serialize()))}


def _arrow_schema(note: Struct) -> pa.Schema | None:
    if _KEY not in note or thrift.binary(note[_KEY]) != _ARROW_SCHEMA:
        return None
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(thrift.binary(note[_TEXT]))))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"Arrow's schema: {error}") from None
