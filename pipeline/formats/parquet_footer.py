"""The footer of a Parquet file, as far as it takes to give the file more columns. No I/O.

A file that gets more columns keeps its bytes up to the footer. The pages of the new columns come after them, written by
pyarrow, and then a footer that names both. No library adds columns to a file, so the footer is taken apart here, only
as far as it must be; what is not understood stays as it is. The ids of fields are those of parquet.thrift of Apache
Parquet.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline.formats import thrift
from pipeline.formats.column_lists import is_list, list_with_fields, schema_with_fields
from pipeline.formats.thrift import CLOSED, Struct

MAGIC, TAIL_BYTES = b"PAR1", 8  # a file ends with its footer, the length of that, and the magic

# Field ids, by the struct they are in.
_SCHEMA, _ROWS, _GROUPS, _KEY_VALUES, _ORDERS, _ENCRYPTION, _SIGNATURE = 2, 3, 4, 5, 7, 8, 9  # FileMetaData
_TYPE, _CHILDREN = 1, 5  # SchemaElement: only a column has a type
_COLUMNS, _BYTES, _GROUP_ROWS, _COMPRESSED = 1, 2, 3, 6  # RowGroup
_FILE, _METADATA = 1, 3  # ColumnChunk: the name of another file, and ColumnMetaData
_CHUNK_OFFSETS = (2, 4, 6)  # ColumnChunk: where it is in the file, and where its indexes are
_PAGE_OFFSETS = (9, 10, 11, 14)  # ColumnMetaData: where its pages are, and a Bloom filter
_VALUES = 5  # ColumnMetaData: how many there are
_KEY, _VALUE = 1, 2  # KeyValue

_ARROW_SCHEMA = b"ARROW:schema"  # the key under which Arrow keeps its own types: an IPC message, in base64
_SHAPE = {_SCHEMA: CLOSED, _GROUPS: {_COLUMNS: CLOSED}, _KEY_VALUES: CLOSED, _ORDERS: CLOSED}
_SHAPE_TO_MOVE = _SHAPE | {_GROUPS: {_COLUMNS: {_METADATA: CLOSED}}}


class Footer:
    """A footer, taken apart.

    Raises:
        ValueError: it is damaged, or columns are encrypted or in another file.
    """

    def __init__(self, encoded: bytes) -> None:
        self.size = len(encoded)
        try:
            self._file = thrift.decode(encoded, _SHAPE)
            groups = [group[_COLUMNS].structs for group in self._file[_GROUPS].structs]
            columns = sum(_TYPE in element for element in self._file[_SCHEMA].structs)
            rows = [thrift.decode_integer(group[_GROUP_ROWS]) for group in self._file[_GROUPS].structs]
            is_sum = sum(rows) == thrift.decode_integer(self._file[_ROWS])
            self._children = thrift.decode_integer(self._file[_SCHEMA].structs[0][_CHILDREN])
        except (KeyError, IndexError):
            raise ValueError("not what Parquet has there") from None
        elsewhere = any(_FILE in chunk for group in groups for chunk in group)
        if _ENCRYPTION in self._file or _SIGNATURE in self._file or elsewhere:
            raise ValueError("columns that can't be read in this file by everybody")
        if not is_sum or any(len(group) != columns for group in groups):
            raise ValueError("row groups that are not those of the file")

    def lengths(self) -> Iterator[tuple[int, list[int]]]:
        """Yield of each row group its rows, and how many values each column has.

        Raises:
            ValueError: it is damaged.
        """
        for group in self._file[_GROUPS].structs:
            chunks = [thrift.decode(chunk[_METADATA].encoded, CLOSED) for chunk in group[_COLUMNS].structs]
            yield thrift.decode_integer(group[_GROUP_ROWS]), [thrift.decode_integer(chunk[_VALUES]) for chunk in chunks]

    def with_columns(self, appended: bytes, start: int) -> bytes:
        """Make the footer of a file in which each row group has more columns, and the 8 bytes that follow a footer.

        `appended` is the footer of a file of the new columns, with row groups of the same rows. That file stands in
        the new one from byte `start` on.

        Raises:
            ValueError: it has other rows.
        """
        file, more = self._file, thrift.decode(appended, _SHAPE_TO_MOVE)
        if thrift.decode_integer(file[_ROWS]) != thrift.decode_integer(more[_ROWS]):
            raise ValueError("other rows")
        # Schema elements stand one after the other, each before its children; the first is the root.
        (root, *elements), (other, *others) = file[_SCHEMA].structs, more[_SCHEMA].structs
        children = thrift.encode_integer(self._children + thrift.decode_integer(other[_CHILDREN]), thrift.I32)
        groups = zip(file[_GROUPS].structs, more[_GROUPS].structs, strict=True)
        changed: dict[int, list[Struct]] = {
            _SCHEMA: [root | {_CHILDREN: children}, *elements, *others],
            _GROUPS: [_group_with_columns(group, new, start) for group, new in groups],
        }
        if _ORDERS in file:
            changed[_ORDERS] = file[_ORDERS].structs + more[_ORDERS].structs
        if _KEY_VALUES in file:
            changed[_KEY_VALUES] = _key_values_with_fields(file[_KEY_VALUES].structs, more[_KEY_VALUES].structs)
        encoded = thrift.encode(file | {field: file[field]._replace(data=data) for field, data in changed.items()})
        return encoded + struct.pack("<I4s", len(encoded), MAGIC)


def _group_with_columns(group: Struct, more: Struct, start: int) -> Struct:
    """Put the columns of a row group of the appended file after those of `group`."""
    if thrift.decode_integer(group[_GROUP_ROWS]) != thrift.decode_integer(more[_GROUP_ROWS]):
        raise ValueError("other rows")
    columns = [*group[_COLUMNS].structs, *[_moved(chunk, start) for chunk in more[_COLUMNS].structs]]
    changed = group | {_COLUMNS: group[_COLUMNS]._replace(data=columns)}
    for field in (_BYTES, _COMPRESSED):
        if field in group and field in more:
            size = thrift.decode_integer(group[field]) + thrift.decode_integer(more[field])
            changed[field] = thrift.encode_integer(size, group[field].kind)
    return changed


def _moved(chunk: Struct, start: int) -> Struct:
    """Change what is said of the pages of one column to pages that stand `start` bytes later."""
    metadata = _shifted(chunk[_METADATA].struct, _PAGE_OFFSETS, start)
    return _shifted(chunk, _CHUNK_OFFSETS, start) | {_METADATA: chunk[_METADATA]._replace(data=metadata)}


def _shifted(fields: Struct, offsets: Sequence[int], start: int) -> Struct:
    """Add `start` to the fields `offsets`, but for zeros: no column is at byte 0, some writers say so of none."""
    found = {field: number for field in offsets if field in fields and (number := thrift.decode_integer(fields[field]))}
    return fields | {
        field: thrift.encode_integer(number + start, fields[field].kind) for field, number in found.items()
    }


def _key_values_with_fields(key_values: list[Struct], more: list[Struct]) -> list[Struct]:
    """Add the new fields wherever the columns are listed; every other pair of key and value stays as it is."""
    new = [field for pair in more if (schema := _arrow_schema(pair)) is not None for field in schema]
    return [_with_fields(pair, new) for pair in key_values]


def _with_fields(pair: Struct, fields: Sequence[pa.Field]) -> Struct:
    if (schema := _arrow_schema(pair)) is not None:
        return pair | {_VALUE: thrift.encode_binary(base64.b64encode(schema_with_fields(schema, fields).serialize()))}
    if _KEY not in pair or _VALUE not in pair or not is_list(key := thrift.decode_binary(pair[_KEY])):
        return pair
    return pair | {_VALUE: thrift.encode_binary(list_with_fields(key, thrift.decode_binary(pair[_VALUE]), fields))}


def _arrow_schema(pair: Struct) -> pa.Schema | None:
    """Decode Arrow's schema; None if the key is another.

    Raises:
        ValueError: it can't be decoded.
    """
    if _KEY not in pair or thrift.decode_binary(pair[_KEY]) != _ARROW_SCHEMA:
        return None
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(thrift.decode_binary(pair[_VALUE]))))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"Arrow's schema: {error}") from None
