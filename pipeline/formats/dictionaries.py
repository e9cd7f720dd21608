"""Columns of dictionaries, which pandas calls categories: each batch of a file may bring a dictionary of its own."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

_WIDE = pa.int32()  # the index type of dictionaries that Arrow makes
_ZEROS = pa.py_buffer(bytes(64))


def has_dictionary(kind: pa.DataType, is_meant: Callable[[pa.DataType], bool] = pa.types.is_dictionary) -> bool:
    """Whether a type is a dictionary, or holds one; on request only those dictionaries that are meant."""
    if pa.types.is_dictionary(kind):
        return is_meant(kind)
    return any(has_dictionary(kind.field(index).type, is_meant) for index in range(kind.num_fields))


def is_narrow(kind: pa.DataType) -> bool:
    """Whether the dictionaries of some batches may have more values than indexes can count."""
    return has_dictionary(kind, lambda each: each.index_type.bit_width < _WIDE.bit_width)


def with_wide_indexes(kind: pa.DataType) -> pa.DataType:
    """Give the type with indexes of 32 bits."""
    types = pa.types
    if types.is_dictionary(kind):
        return pa.dictionary(_WIDE, kind.value_type, kind.ordered)
    if types.is_struct(kind):
        return pa.struct([field.with_type(with_wide_indexes(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(with_wide_indexes(kind.key_type), with_wide_indexes(kind.item_type), kind.keys_sorted)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        value = kind.value_field.with_type(with_wide_indexes(kind.value_type))
        if types.is_fixed_size_list(kind):
            return pa.list_(value, kind.list_size)
        return pa.list_(value) if types.is_list(kind) else pa.large_list(value)
    return kind


def with_null_indexes(column: pa.Array) -> pa.Array:
    """Give a column null indexes for nulls in its dictionaries: Parquet has no such values, Arrow (26) joins none."""
    types, kind = pa.types, column.type
    if not has_dictionary(kind):
        return column
    if types.is_dictionary(kind):
        if not column.dictionary.null_count:
            return column
        is_valid = column.dictionary.is_valid().to_numpy(zero_copy_only=False)
        index_of = pa.array(is_valid.cumsum() - 1, kind.index_type, mask=~is_valid)
        values = column.dictionary.cast(value_type(kind)).drop_null().cast(kind.value_type)
        return pa.DictionaryArray.from_arrays(index_of.take(column.indices), values, ordered=kind.ordered)
    if types.is_struct(kind):
        fields = [with_null_indexes(column.field(index)) for index in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=[*kind], mask=column.is_null())
    if types.is_map(kind):
        parts = with_null_indexes(column.keys), with_null_indexes(column.items)
        values = pa.StructArray.from_arrays(parts, fields=[kind.key_field, kind.item_field])
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        values = with_null_indexes(column.values)
    else:
        return column
    own = column.buffers()[: 1 if types.is_fixed_size_list(kind) else 2]
    return pa.Array.from_buffers(kind, len(column), own, offset=column.offset, children=[values])


def is_closed(kind: pa.DataType) -> bool:
    """Whether Arrow (26) can't take values out of dictionaries of a type, where these are inside of another column."""
    return bool(pa.types.is_nested(kind.value_type) or value_type(kind) != kind.value_type)


def value_type(kind: pa.DataType) -> pa.DataType:
    """Find the type of the values that are taken out of dictionaries of a type: Arrow (26) takes no views."""
    if pa.types.is_string_view(kind.value_type):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind.value_type) else kind.value_type


def decoded(column: pa.Array) -> pa.Array:
    """Give a column its values, if it is one of a dictionary."""
    if not pa.types.is_dictionary(column.type):
        return column
    return column.dictionary.cast(value_type(column.type)).take(column.indices)


def grown(known: pa.Array | None, column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Encode a column with the dictionaries of those before it, to which its own values are appended.

    Args:
        known: what was returned first for the column before it; None for the first one.
        column: of one batch.

    Returns:
        an array without rows that has the dictionaries; the column.

    Raises:
        pa.ArrowInvalid: there are more values than its indexes can count.
        pa.ArrowNotImplementedError: the values are nested, and others than before.
    """
    is_plain = pa.types.is_dictionary(column.type)
    if known is None:  # Arrow files know no dictionary without values that grows: it gets one that no row has
        may_grow = not is_plain or not pa.types.is_null(column.type.value_type)
        known = _empty(column.type) if may_grow and not (is_plain and len(column.dictionary)) else column.slice(0, 0)
    if is_plain and known.dictionary.equals(column.dictionary):
        return known, column
    chunks = pa.table({"": pa.chunked_array([known, column])}).unify_dictionaries()[0].chunks
    return chunks[0], chunks[1]


def _empty(kind: pa.DataType) -> pa.Array:
    """Make an array without rows, each dictionary in which has one value, of bytes that are zero."""
    if pa.types.is_dictionary(kind):
        buffers = [None, *[_ZEROS] * (kind.value_type.num_buffers - 1)]
        children = [_empty(kind.value_type.field(index).type) for index in range(kind.value_type.num_fields)]
        value = pa.Array.from_buffers(kind.value_type, 1, buffers, children=children)
        return pa.DictionaryArray.from_arrays(pa.nulls(0, kind.index_type), value, ordered=kind.ordered)
    children = [_empty(kind.field(index).type) for index in range(kind.num_fields)]
    return pa.Array.from_buffers(kind, 0, [None, *[_ZEROS] * (kind.num_buffers - 1)], children=children)
