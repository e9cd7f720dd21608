"""Thrift's compact protocol without names: structs and lists taken apart, changed, and put together again.

What is not touched stays the bytes it was, whatever it means: fields that this program has never heard of, too.
Source: thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)
_SIZES = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8, _UUID: 16}  # bytes of a value, where its kind says it
_MOST_IN_HEADER = 14  # elements of a list, or steps between the ids of fields
I32 = 5


class Value(NamedTuple):
    """A value as it is encoded, and of which kind it is."""

    kind: int
    data: bytes


class Items(NamedTuple):
    """A list: the kind of its elements, how many, and the elements as they are encoded."""

    kind: int
    size: int
    data: bytes


Struct = dict[int, Value]  # by id of the field


def take_struct(data: bytes) -> Struct:
    """The fields of a struct.

    Raises:
        ValueError: it is no struct, or more than one.
    """
    try:
        fields, end = _fields(data, 0)
    except IndexError:
        raise ValueError("cut short") from None
    if end != len(data):
        raise ValueError("more than one struct")
    return fields


def make_struct(fields: Struct) -> bytes:
    """A struct of these fields."""
    pieces, before = bytearray(), 0
    for number, value in sorted(fields.items()):
        step = number - before
        short = 0 < step <= _MOST_IN_HEADER + 1
        pieces += bytes([step << 4 | value.kind]) if short else bytes([value.kind]) + _varint(_zigzag(number))
        pieces += value.data
        before = number
    return bytes(pieces) + b"\0"


def take_items(value: Value) -> Items:
    """The elements of a list.

    Raises:
        ValueError: it is no list.
    """
    if value.kind != _LIST:
        raise ValueError("no list")
    kind, count, start = _list_header(value.data, 0)
    return Items(kind, count, value.data[start:])


def make_items(items: Items) -> Value:
    """A list of these elements."""
    is_short = items.size <= _MOST_IN_HEADER
    header = bytes([(items.size if is_short else 15) << 4 | items.kind])
    return Value(_LIST, header + (b"" if is_short else _varint(items.size)) + items.data)


def together(first: Items, second: Items) -> Items:
    """All elements of both.

    Raises:
        ValueError: they are of different kinds.
    """
    if first.kind != second.kind and first.size and second.size:
        raise ValueError("lists of different kinds")
    kind = first.kind if first.size else second.kind
    return Items(kind, first.size + second.size, first.data + second.data)


def structs_of(items: Items) -> list[bytes]:
    """The structs in a list, each as it is encoded.

    Raises:
        ValueError: there is something else in it.
    """
    if items.size and items.kind != _STRUCT:
        raise ValueError("no list of structs")
    found, at = [], 0
    for _ in range(items.size):
        end = _skip(items.data, _STRUCT, at)
        found.append(items.data[at:end])
        at = end
    return found


def items_of(structs: Iterable[bytes]) -> Items:
    """A list of structs."""
    found = list(structs)
    return Items(_STRUCT, len(found), b"".join(found))


def take_integer(value: Value) -> int:
    """An integer of 16, 32 or 64 bits.

    Raises:
        ValueError: it is none.
    """
    if value.kind not in _INTEGERS:
        raise ValueError("no integer")
    number, _ = _read_varint(value.data, 0)
    return (number >> 1) ^ -(number & 1)


def make_integer(number: int, kind: int) -> Value:
    """An integer of that kind."""
    return Value(kind, _varint(_zigzag(number)))


def take_binary(value: Value) -> bytes:
    """Bytes, or a string.

    Raises:
        ValueError: it is neither.
    """
    if value.kind != _BINARY:
        raise ValueError("no string")
    size, start = _read_varint(value.data, 0)
    return value.data[start : start + size]


def make_binary(content: bytes) -> Value:
    """Bytes, or a string."""
    return Value(_BINARY, _varint(len(content)) + content)


def _fields(data: bytes, at: int) -> tuple[Struct, int]:
    fields: Struct = {}
    number = 0
    while header := data[at]:
        at += 1
        if step := header >> 4:
            number += step
        else:
            coded, at = _read_varint(data, at)
            number = (coded >> 1) ^ -(coded & 1)
        end = _skip(data, header & 15, at)
        fields[number] = Value(header & 15, data[at:end])
        at = end
    return fields, at + 1


def _skip(data: bytes, kind: int, at: int) -> int:
    """Where the value that begins at `at` ends."""
    if kind in _INTEGERS:
        return _read_varint(data, at)[1]
    if kind in _SIZES:
        return at + _SIZES[kind]
    if kind == _BINARY:
        size, at = _read_varint(data, at)
        return at + size
    if kind == _STRUCT:
        return _skip_struct(data, at)
    if kind in (_LIST, _SET):
        inner, count, at = _list_header(data, at)
        return _skip_many(data, [inner], count, at)
    if kind == _MAP:
        count, at = _read_varint(data, at)
        return _skip_many(data, [data[at] >> 4, data[at] & 15], count, at + 1) if count else at
    raise ValueError(f"kind {kind}")


def _skip_struct(data: bytes, at: int) -> int:
    while header := data[at]:
        at = _skip(data, header & 15, at + 1 if header >> 4 else _read_varint(data, at + 1)[1])
    return at + 1


def _skip_many(data: bytes, kinds: list[int], count: int, at: int) -> int:
    for _ in range(count):
        for kind in kinds:
            at = _skip(data, _BYTE if kind in (_TRUE, _FALSE) else kind, at)  # only a field has it in its header
    return at


def _list_header(data: bytes, at: int) -> tuple[int, int, int]:
    """The kind of the elements, how many, and where the first one begins."""
    header, at = data[at], at + 1
    count = header >> 4
    if count > _MOST_IN_HEADER:
        count, at = _read_varint(data, at)
    return header & 15, count, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 - seven bits are the number's
            return number, at
        shift += 7


def _varint(number: int) -> bytes:
    coded = bytearray()
    while number > 127:  # noqa: PLR2004
        coded.append(number & 127 | 128)
        number >>= 7
    return bytes([*coded, number])


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1
