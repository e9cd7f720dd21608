"""Thrift's compact protocol without a schema: structs are taken apart as far as is asked for, and put together again.

A `Shape` says which fields to open. All others stay the bytes they were, also those that this program has never heard
of, which a library that reads by a schema would drop. Source: thrift-compact-protocol.md of Apache Thrift.
"""

from __future__ import annotations

from typing import NamedTuple

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)
_SIZES = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8, _UUID: 16}  # bytes of a value, where its kind says it
_MOST_IN_HEADER = 14  # elements of a list
_MOST_SHIFT = 63  # bits of a number before its last byte
I32 = 5


class Value(NamedTuple):
    """A value and its kind: as it is encoded, or opened if it is a struct or a list of structs.

    Raises:
        ValueError: it is not what it is asked for.
    """

    kind: int
    data: bytes | Struct | list[Struct]

    @property
    def structs(self) -> list[Struct]:
        """The elements of a list that was opened."""
        if not isinstance(self.data, list):
            raise ValueError("no list of structs")  # noqa: TRY004 - one kind of error for whatever is damaged
        return self.data

    @property
    def encoded(self) -> bytes:
        """A value that was not opened."""
        if not isinstance(self.data, bytes):
            raise ValueError("opened")  # noqa: TRY004
        return self.data

    @property
    def struct(self) -> Struct:
        """A struct that was opened."""
        if not isinstance(self.data, dict):
            raise ValueError("no struct")  # noqa: TRY004
        return self.data


Struct = dict[int, Value]  # by id of the field
Shape = dict[int, "Shape"]  # ids of the fields to open, each with the shape of the structs in it
CLOSED: Shape = {}  # of structs in which no field is to be opened


def decode(data: bytes, shape: Shape) -> Struct:
    """Decode a struct that takes all of `data`.

    Raises:
        ValueError: it is none, or something that is to be opened is neither a struct nor a list of structs.
    """
    try:
        fields, end = _read_struct(data, 0, shape)
    except IndexError:
        raise ValueError("cut short") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(data):
        raise ValueError("more than a struct, or less")
    return fields


def encode(fields: Struct) -> bytes:
    """Encode a struct."""
    encoded, before = bytearray(), 0
    for number, (kind, data) in sorted(fields.items()):
        step = number - before
        encoded += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _varint(_zigzag(number))  # noqa: PLR2004
        if isinstance(data, list):
            is_short = len(data) <= _MOST_IN_HEADER
            encoded.append((len(data) if is_short else _MOST_IN_HEADER + 1) << 4 | _STRUCT)
            encoded += b"" if is_short else _varint(len(data))
            encoded += b"".join(map(encode, data))
        else:
            encoded += data if isinstance(data, bytes) else encode(data)
        before = number
    return bytes(encoded) + b"\0"


def decode_integer(value: Value) -> int:
    """Decode an integer of 16, 32 or 64 bits.

    Raises:
        ValueError: it is none.
    """
    if value.kind not in _INTEGERS or not isinstance(value.data, bytes):
        raise ValueError("no integer")
    number, _ = _read_varint(value.data, 0)
    return (number >> 1) ^ -(number & 1)


def encode_integer(number: int, kind: int) -> Value:
    """Encode an integer as a value of that kind."""
    return Value(kind, _varint(_zigzag(number)))


def decode_binary(value: Value) -> bytes:
    """Decode bytes, or a string as UTF-8.

    Raises:
        ValueError: it is neither.
    """
    if value.kind != _BINARY or not isinstance(value.data, bytes):
        raise ValueError("no string")
    size, start = _read_varint(value.data, 0)
    return value.data[start : start + size]


def encode_binary(content: bytes) -> Value:
    """Encode bytes, or a string as UTF-8."""
    return Value(_BINARY, _varint(len(content)) + content)


def _read_struct(data: bytes, at: int, shape: Shape) -> tuple[Struct, int]:
    """Read the struct that begins at `at`, and say where it ends."""
    fields: Struct = {}
    number = 0
    while header := data[at]:
        at, kind = at + 1, header & 15
        if step := header >> 4:
            number += step
        else:
            coded, at = _read_varint(data, at)
            number = (coded >> 1) ^ -(coded & 1)
        if number in shape:
            fields[number], at = _read_opened(data, kind, at, shape[number])
        else:
            start, at = at, _skip(data, kind, at)
            fields[number] = Value(kind, data[start:at])
    return fields, at + 1


def _read_opened(data: bytes, kind: int, at: int, shape: Shape) -> tuple[Value, int]:
    """Read a struct or a list of structs, and say where it ends."""
    if kind == _STRUCT:
        fields, at = _read_struct(data, at, shape)
        return Value(kind, fields), at
    if kind != _LIST:
        raise ValueError("neither a struct nor a list")
    inner, count, at = _list_header(data, at)
    if count and inner != _STRUCT:
        raise ValueError("a list of something else than structs")
    structs = []
    for _ in range(count):
        fields, at = _read_struct(data, at, shape)
        structs.append(fields)
    return Value(kind, structs), at


def _skip(data: bytes, kind: int, at: int) -> int:
    """Find the end of the value that begins at `at`."""
    if kind in _INTEGERS:
        return _read_varint(data, at)[1]
    if kind in _SIZES:
        return at + _SIZES[kind]
    if kind == _BINARY:
        size, at = _read_varint(data, at)
        return at + size
    if kind == _STRUCT:
        while header := data[at]:
            at = _skip(data, header & 15, at + 1 if header >> 4 else _read_varint(data, at + 1)[1])
        return at + 1
    if kind in (_LIST, _SET):
        inner, count, at = _list_header(data, at)
        return _skip_many(data, [inner], count, at)
    if kind == _MAP:
        count, at = _read_varint(data, at)
        return _skip_many(data, [data[at] >> 4, data[at] & 15], count, at + 1) if count else at
    raise ValueError(f"no kind of value: {kind}")


def _skip_many(data: bytes, kinds: list[int], count: int, at: int) -> int:
    """Find the end of `count` elements, each of which is a value of each of `kinds`."""
    sizes = [max(1, _SIZES[kind]) for kind in kinds if kind in _SIZES]
    if len(sizes) == len(kinds):  # damaged bytes may say that there are 2 ** 60
        return at + count * sum(sizes)
    for _ in range(count):
        for kind in kinds:
            at = _skip(data, _BYTE if kind in (_TRUE, _FALSE) else kind, at)  # only a field has it in its header
    return at


def _list_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Read the kind of the elements, how many there are, and where the first one begins."""
    header, at = data[at], at + 1
    count = header >> 4
    if count > _MOST_IN_HEADER:
        count, at = _read_varint(data, at)
    return header & 15, count, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := data[at]) > 127:  # noqa: PLR2004 - seven bits are the number's
        number |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if shift > _MOST_SHIFT:
            raise ValueError("a number of more than 64 bits")
    return number | byte << shift, at + 1


def _varint(number: int) -> bytes:
    coded = bytearray()
    while number > 127:  # noqa: PLR2004
        coded.append(number & 127 | 128)
        number >>= 7
    return bytes([*coded, number])


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1
