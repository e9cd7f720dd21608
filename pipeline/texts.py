"""Texts on their way to the wire: UTF-8, escaped as they stand between the quotes of a JSON string.

Nothing after the loader looks into a text, so it is escaped once, many at a time, and travels as bytes: a Python
string a row would cost more than its answer. Each text has one such form, so equal bytes are equal texts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, overload

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RowError


class TextBlock(NamedTuple):
    """The texts of consecutive rows, escaped (see `escaped`). What has an error is not sent; its text means nothing."""

    position: Position
    texts: Texts
    errors: dict[int, RowError]  # index in `texts` -> why it is not sent


EMPTY = RowError("empty", "no text")


def block_of(position: Position, texts: Sequence[str | None], not_text: Mapping[int, str]) -> TextBlock:
    """Texts as Python strings, None where there is none, as a block; `not_text` says what stands there instead."""
    errors = {index: EMPTY for index, text in enumerate(texts) if not text or text.isspace()}
    errors |= {index: RowError("not_text", what) for index, what in not_text.items()}
    if errors:
        texts = ["" if index in errors else text for index, text in enumerate(texts)]
    return TextBlock(position, escape_all(texts), errors)  # type: ignore[arg-type] # None is an error


class Position(NamedTuple):
    """Where a row begins in the decompressed file: enough to go on reading from there."""

    row: int
    offset: int  # bytes
    line: int  # lines before it


# -- Arrow arrays from their buffers: `pa.array` and `pa.scalar` import pandas where it is installed, which takes long


Mask = np.ndarray[Any, np.dtype[np.bool_]]


def bitmap(mask: Mask) -> pa.Buffer:
    """Which values are there."""
    return pa.py_buffer(np.packbits(mask, bitorder="little"))


def strings(values: Sequence[str | None]) -> pa.Array:
    """An array of `string`."""
    encoded = [(value or "").encode("utf-8", "backslashreplace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    there = bitmap(np.array([value is not None for value in values], bool))
    buffers = [there, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def pieces(data: bytes | memoryview, ends: np.ndarray[Any, np.dtype[np.int64]], there: Mask | None = None) -> pa.Array:
    """An array of `large_binary` of what stands in `data` between each two of `ends`; nothing is copied.

    Null where it is not `there`.
    """
    buffers = [None if there is None or there.all() else bitmap(there), pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)


def binaries(values: Sequence[bytes]) -> pa.Array:
    """An array of `large_binary`."""
    return pieces(b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.int64))


@functools.lru_cache(maxsize=256)
def binary(value: bytes) -> pa.Scalar:
    """One value of `large_binary`."""
    return binaries([value])[0]


def every_other(values: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """The first value, the third and so on."""
    indices = np.arange(0, len(values), 2)
    return values.take(pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(indices)]))


def joined_with(between: bytes, values: pa.LargeBinaryArray) -> bytes:
    """All values as one, `between` each two of them."""
    ends = pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(np.array([0, len(values)]))])
    joined: bytes = pc.binary_join(pa.LargeListArray.from_arrays(ends, values), binary(between))[0].as_py()
    return joined


# -- Texts on their way to the wire: UTF-8, escaped as they stand between the quotes of a JSON string


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(str).decode
_SIGNS = 3  # of a text in a request that are not of the text itself: two quotes and a comma
_QUOTE, _BACKSLASH = b'"\\'
_NO_ASCII = 0x80  # the least byte that is not
_BEGINS = -0x40  # the least signed byte that begins a character: others go on with one
_WORD, _ODD = 8, np.uint64(0x9E3779B97F4A7C15)  # bytes of a number; a large odd one
Offsets = np.ndarray[Any, np.dtype[np.int64]]
Indices = np.ndarray[Any, np.dtype[np.int32]]


class Texts(Sequence[bytes]):
    """Escaped texts in one piece, as they stand in a request: each between its quotes, with a comma after it.

    Text i takes `data` from `offsets[i]` to `offsets[i + 1]`. A sequence of `bytes`, which are cut out only when asked
    for: an object a text would cost more than anything else that is done with it.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: bytes | memoryview, offsets: Offsets) -> None:
        self.data, self.offsets = memoryview(data), offsets

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        """Texts that are there one by one."""
        data = b'"%b",' % b'","'.join(texts) if texts else b""
        return cls(data, np.cumsum([0, *[len(text) + _SIGNS for text in texts]]))

    @classmethod
    def _of_array(cls, array: pa.LargeBinaryArray) -> Texts:
        """Each with its quotes and comma."""
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        return cls(memoryview(data or b"")[ends[0] : ends[-1]], ends - ends[0])

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """All texts of all parts."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *[len(part.data) for part in parts]])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
        return cls(b"".join([part.data for part in parts]), np.concatenate([[0], *offsets]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> bytes | Texts:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            offsets = self.offsets[start : max(start, stop) + 1]
            return Texts(self.data[offsets[0] : offsets[-1]], offsets - offsets[0])
        index = range(len(self))[index]
        return bytes(self.data[self.offsets[index] + 1 : self.offsets[index + 1] - 2])

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.to_list())

    def to_list(self) -> list[bytes]:
        """Each on its own. By their places: a text that ends with quote and comma ends like two texts."""
        data = bytes(self.data)
        return [data[start + 1 : end - 2] for start, end in pairwise(self.offsets.tolist())]

    def views(self) -> Iterator[memoryview]:
        """Each on its own, not copied."""
        data = self.data
        return (data[start + 1 : end - 2] for start, end in pairwise(self.offsets.tolist()))

    def copy(self) -> Texts:
        """The same, holding no more than itself."""
        return Texts(bytes(self.data), self.offsets)

    @property
    def size(self) -> int:
        """Bytes of all texts."""
        return len(self.data) - _SIGNS * len(self)

    def chars(self) -> Offsets:
        """Characters of the first text, of the first two, and so on."""
        codes, ends = np.frombuffer(self.data, np.uint8), self.offsets[1:]
        if len(codes) and codes.max() >= _NO_ASCII:  # numbers of eight bytes for each byte would be large
            begins = codes.view(np.int8) >= _BEGINS
            ends = np.cumsum(np.add.reduceat(begins, self.offsets[:-1], dtype=np.int64))
        counts: Offsets = ends - np.arange(_SIGNS, _SIGNS * len(self) + 1, _SIGNS)
        return counts

    def distinct(self, wanted: Mask) -> tuple[Texts, Indices]:
        """Those that are wanted, each once, in the order of first appearance; and for each text which it is, or -1."""
        if self._are_unlike():
            return self.present(wanted)
        encoded = pieces(self.data, self.offsets, wanted).dictionary_encode()
        found = np.frombuffer(encoded.indices.buffers()[1] or b"", np.int32)[: len(self)]
        return Texts._of_array(encoded.dictionary), np.where(wanted, found, -1)

    def _are_unlike(self) -> bool:
        """Whether no two can be equal, by their lengths and some bytes of each; False says nothing."""
        lengths = np.diff(self.offsets)
        if not len(lengths) or lengths.min() < _WORD:
            return False
        words = np.ndarray((len(self.data) - _WORD + 1,), np.uint64, self.data, strides=(1,))  # from every byte on
        marks = lengths.view(np.uint64)
        for after in ((lengths - _WORD) // 2, lengths - _WORD, 0):  # the middle; the end and the start if need be
            marks = marks * _ODD + words[self.offsets[:-1] + after]
            ordered = np.sort(marks)
            if not (ordered[1:] == ordered[:-1]).any():
                return True
        return False

    def present(self, wanted: Mask) -> tuple[Texts, Indices]:
        """The same, but equal ones stay apart."""
        if wanted.all():
            return self, np.arange(len(self), dtype=np.int32)
        found = Texts._of_array(pieces(self.data, self.offsets, wanted).drop_null())
        return found, np.where(wanted, np.cumsum(wanted, dtype=np.int32) - 1, -1)


def escape(text: str) -> bytes:
    """One text.

    Raises:
        UnicodeEncodeError: it holds half a surrogate pair.
    """
    return _encode(text)[1:-1]


def unescape(escaped: bytes) -> str:
    """The text again."""
    return _decode(b'"%b"' % escaped)


def escape_joined(joined: bytes, count: int, *, doubled: bool = False) -> Texts | None:
    """`count` UTF-8 texts with a byte 0xFF between each two; None if one holds a control character that is rare.

    Where quotes are `doubled` in them, two stand for one.
    """
    escaped = joined.replace(b"\\", b"\\\\")
    escaped = _first_replaced(escaped) if doubled else escaped.replace(b'"', b'\\"')
    escaped = escaped.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")
    codes = np.frombuffer(escaped, np.uint8)
    ends = np.append(np.flatnonzero(codes == 0xFF), len(escaped))  # noqa: PLR2004 - no UTF-8 has that byte
    if len(ends) != count or (escaped and codes.min() < ord(" ")):
        return None
    offsets = ends + np.arange(_SIGNS, 2 * count + _SIGNS, 2)  # two bytes more for each one that is replaced
    return Texts(b'"%b",' % escaped.replace(b"\xff", b'","'), np.concatenate([[0], offsets]))


def _first_replaced(joined: bytes) -> bytes:
    """With a backslash for the first of two quotes: `replace` does not know that all are two, and is slower."""
    codes = np.frombuffer(bytearray(joined), np.uint8)
    quotes = np.flatnonzero(codes == _QUOTE)
    codes[quotes[::2]] = _BACKSLASH
    return codes.tobytes() if len(quotes) else joined


def escape_all(texts: Sequence[str]) -> Texts:
    """Many texts.

    Raises:
        UnicodeEncodeError: one holds half a surrogate pair.
    """
    joined = "\0".join(texts).encode()
    if texts and joined.count(b"\0") == len(texts) - 1:
        escaped = escape_joined(joined.replace(b"\0", b"\xff"), len(texts))
        if escaped is not None:
            return escaped
    return Texts.of([escape(text) for text in texts])


# Every white space as it is escaped. What a blank text begins with is the quote after it, or the first bytes of one.
_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)
_FORMS = [escape(space) for space in _SPACES]
_is_blank = re.compile(b"(?:%b)*+\\Z" % b"|".join(map(re.escape, _FORMS))).match
_MAY_BEGIN = np.zeros((256, 256), bool)  # by the first two bytes
_MAY_BEGIN[_QUOTE] = True
for _form in _FORMS:
    _MAY_BEGIN[_form[0], [*_form[1:2]] or [_QUOTE, *{each[0] for each in _FORMS}]] = True


def blank_ones(texts: Texts) -> list[int]:
    """The indexes of those that are nothing but white space."""
    codes = np.frombuffer(texts.data, np.uint8)
    starts = texts.offsets[:-1] + 1
    suspects = np.flatnonzero(_MAY_BEGIN[codes[starts], codes[starts + 1]])
    return [index for index in suspects.tolist() if _is_blank(texts[index])]
