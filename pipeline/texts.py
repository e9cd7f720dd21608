"""Many texts in one buffer, from the reader of a file to the body of a request.

A text that was read is only ever sent, so it never becomes a Python string: that object alone would cost more than the
answer. `Texts` keeps the texts of many rows as one buffer of UTF-8, escaped as they stand between the quotes of a JSON
string. They are escaped once, many at a time, and a request body is a slice of the buffer. Each text has exactly one
escaped form, so texts are equal where their bytes are.

A reader gives the texts of consecutive rows as a `TextBlock`, with the `Position` of the first row. Its columns are
Arrow arrays made here from their buffers: `pa.array` and `pa.scalar` import pandas where it is installed, which takes
half a second.
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

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Codes = np.ndarray[Any, np.dtype[np.uint8]]  # the bytes of a buffer as numbers
Indices = np.ndarray[Any, np.dtype[np.int32]]
Offsets = np.ndarray[Any, np.dtype[np.int64]]  # bytes from the start of a buffer

EMPTY = RowError("empty", "no text")
SEPARATOR = b"\xff"  # between texts that are joined to be escaped at once: a byte that no UTF-8 has

_ENCLOSING = 3  # bytes of a text in a request that are not its own: two quotes and a comma
_QUOTE, _BACKSLASH = b'"\\'
_NOT_ASCII = 0x80  # the least byte of UTF-8 that is not ASCII
_FIRST_OF_CHARACTER = -0x40  # as signed bytes, those that continue a character are less

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Position(NamedTuple):
    """Where a row begins, which is all that is needed to go on reading from there."""

    row: int  # rows before it
    offset: int  # bytes before it in the decompressed file; 0 in a format that finds a row by its number
    line: int  # line ends before it; it is in line `line + 1` of the file; 0 in a format without lines


class TextBlock(NamedTuple):
    """The texts of consecutive rows as a reader gives them.

    A row with an error is not sent, and its text has no meaning.
    """

    position: Position  # of the first row
    texts: Texts
    errors: dict[int, RowError]  # index in `texts` -> why it is not sent


def block_of(
    position: Position,
    texts: Sequence[str | None],
    not_text: Mapping[int, str],
    seconds: Sequence[str | None] | None = None,
) -> TextBlock:
    """Make a block of Python strings; with `seconds`, of pairs.

    A text that is None, empty or white space gets the error `empty`, and so does its pair. `not_text` says, by index,
    what stands in the place of a text ("a number"); these rows get the error `not_text`.
    """
    both = [texts] if seconds is None else [texts, seconds]
    errors = {index: EMPTY for some in both for index, text in enumerate(some) if not text or text.isspace()}
    errors |= {index: RowError("not_text", what) for index, what in not_text.items()}
    if errors:
        both = [["" if index in errors else text for index, text in enumerate(some)] for some in both]
    escaped = escape_all(*both) if seconds is None else escape_pairs(*both)  # type: ignore[arg-type] # None is an error
    return TextBlock(position, escaped, errors)


# -- Arrow arrays made from their buffers


def bitmap(mask: Mask) -> pa.Buffer:
    """Pack booleans as Arrow does: for which values are valid, or as the values of a boolean array."""
    return pa.py_buffer(np.packbits(mask, bitorder="little"))


def string_array(values: Sequence[str | None]) -> pa.Array:
    """Make an array of type `string`."""
    encoded = [(value or "").encode("utf-8", "backslashreplace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    valid = bitmap(np.array([value is not None for value in values], bool))
    buffers = [valid, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def binary_array(values: Sequence[bytes]) -> pa.LargeBinaryArray:
    """Make an array of type `large_binary`."""
    return binary_slices(b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.int64))


def binary_slices(data: bytes | memoryview, offsets: Offsets, valid: Mask | None = None) -> pa.LargeBinaryArray:
    """Make an array of type `large_binary` of the n slices of `data` between n + 1 offsets. Nothing is copied.

    A value that is not `valid` is null.
    """
    buffers = [None if valid is None or valid.all() else bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


@functools.lru_cache(maxsize=256)
def binary_scalar(value: bytes) -> pa.Scalar:
    """Make one value of type `large_binary`."""
    return binary_array([value])[0]


def even_values(values: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Take the values at the indices 0, 2, 4 and so on."""
    indices = np.arange(0, len(values), 2)
    return values.take(pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(indices)]))


def join_values(values: pa.LargeBinaryArray) -> bytes:
    """Join all values, as `SEPARATOR.join` does."""
    ends = pa.Array.from_buffers(pa.int64(), 2, [None, pa.py_buffer(np.array([0, len(values)]))])
    joined: bytes = pc.binary_join(pa.LargeListArray.from_arrays(ends, values), binary_scalar(SEPARATOR))[0].as_py()
    return joined


# -- Escaped texts


class Texts(Sequence[bytes]):
    """Escaped texts in one buffer, as they stand in a request: each between quotes, with a comma after it.

    Text i, with its quotes and comma, is `data[offsets[i]:offsets[i + 1]]`; `offsets[0]` is 0. A sequence of `bytes`
    without the quotes; each is cut out of the buffer when it is asked for.

    They may all be pairs: then brackets stand where else the quotes are, and between them both texts with their quotes
    and a comma. A quote in a text is escaped, so no text can look like two.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: bytes | memoryview, offsets: Offsets) -> None:
        self.data, self.offsets = memoryview(data), offsets

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        """Gather escaped texts in a buffer."""
        data = b'"%b",' % b'","'.join(texts) if texts else b""
        return cls(data, np.cumsum([0, *[len(text) + _ENCLOSING for text in texts]]))

    @classmethod
    def _of_array(cls, array: pa.LargeBinaryArray) -> Texts:
        """Take over the buffer of an array whose values have their quotes and comma."""
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        return cls(memoryview(data or b"")[ends[0] : ends[-1]], ends - ends[0])

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Concatenate texts into one buffer."""
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
        return map(bytes, self.views())

    @property
    def are_pairs(self) -> bool:
        """Whether each has a second text; without texts, False."""
        return bytes(self.data[:1]) == b"["

    def unescaped(self) -> list[Any]:
        """Return the texts as they were before they were escaped, pairs as lists."""
        texts: list[Any] = _decode(b"[%b]" % bytes(self.data[:-1]))
        return texts

    def replaced(self, texts: Sequence[str] | None) -> Texts:
        """Return other texts in the place of this one, each with the second text if it is a pair; None: this one."""
        if texts is None:
            return self
        return escape_pairs(texts, [self.unescaped()[0][1]] * len(texts)) if self.are_pairs else escape_all(texts)

    def views(self) -> Iterator[memoryview]:
        """Iterate over the texts without copying them."""
        data = self.data
        return (data[start + 1 : end - 2] for start, end in pairwise(self.offsets.tolist()))

    def copy(self) -> Texts:
        """Copy the texts into a buffer of their own, so that a larger one they are a slice of can be freed."""
        return Texts(bytes(self.data), self.offsets)

    @property
    def size(self) -> int:
        """Bytes of all texts, as they are escaped."""
        return len(self.data) - _ENCLOSING * len(self)

    def chars(self) -> Offsets:
        """Count the characters, as they are escaped, of the first text, of the first two, and so on."""
        codes, ends = np.frombuffer(self.data, np.uint8), self.offsets[1:]
        if len(codes) and codes.max() >= _NOT_ASCII:  # not always: a number of eight bytes for each byte would be large
            begins = codes.view(np.int8) >= _FIRST_OF_CHARACTER
            ends = np.cumsum(np.add.reduceat(begins, self.offsets[:-1], dtype=np.int64))
        counts: Offsets = ends - np.arange(_ENCLOSING, _ENCLOSING * len(self) + 1, _ENCLOSING)
        return counts

    def distinct(self, wanted: Mask) -> tuple[Texts, Indices]:
        """Find the distinct texts among the wanted ones.

        Returns the distinct texts in the order of their first appearance, and for each text of `self` which of them
        it is, -1 where it is not wanted.
        """
        if _have_no_repeats(self):
            return self.present(wanted)
        encoded = binary_slices(self.data, self.offsets, wanted).dictionary_encode()
        found = np.frombuffer(encoded.indices.buffers()[1] or b"", np.int32)[: len(self)]
        return Texts._of_array(encoded.dictionary), np.where(wanted, found, -1)

    def present(self, wanted: Mask) -> tuple[Texts, Indices]:
        """Take the wanted texts as `distinct` does, but keep equal ones apart."""
        if wanted.all():
            return self, np.arange(len(self), dtype=np.int32)
        found = Texts._of_array(binary_slices(self.data, self.offsets, wanted).drop_null())
        return found, np.where(wanted, np.cumsum(wanted, dtype=np.int32) - 1, -1)


_WORD = 8  # bytes that are compared as one number
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # large and odd: spreads the bits of a number over all of its product


def _have_no_repeats(texts: Texts) -> bool:
    """Whether a quick look shows that no two texts are equal; False says nothing.

    Each text gets a number made of its length and of its middle, last and first eight bytes, as many of these as it
    takes until all numbers differ. Equal texts have equal numbers, so then all texts differ. Most files repeat no text
    within a request, and there this spares hashing whole texts: 0.2 to 0.6 microseconds of CPU a text, of the 6 that a
    row costs from end to end.
    """
    lengths = np.diff(texts.offsets)
    if not len(lengths) or lengths.min() < _WORD:
        return False
    # The eight bytes from each byte of the buffer on, as a view: words[i] is made of data[i:i + 8].
    words = np.ndarray((len(texts.data) - _WORD + 1,), np.uint64, texts.data, strides=(1,))
    starts, marks = texts.offsets[:-1], lengths.view(np.uint64)
    for offsets in (starts + (lengths - _WORD) // 2, starts + (lengths - _WORD), starts):
        marks = marks * _MULTIPLIER + words[offsets]
        ordered = np.sort(marks)
        if not (ordered[1:] == ordered[:-1]).any():
            return True
    return False


def escape(text: str) -> bytes:
    """Escape one text.

    Raises:
        UnicodeEncodeError: it holds half a surrogate pair.
    """
    return _encode(text)[1:-1]


def escape_all(texts: Sequence[str]) -> Texts:
    """Escape many texts; see `escape`."""
    return Texts.of([escape(text) for text in texts])


def escape_pairs(firsts: Sequence[str], seconds: Sequence[str]) -> Texts:
    """Escape many pairs; see `escape`."""
    pairs = [_encode(pair) + b"," for pair in zip(firsts, seconds, strict=True)]
    return Texts(b"".join(pairs), np.cumsum([0, *map(len, pairs)]))


def escape_joined(joined: bytes, count: int, *, doubled: bool = False) -> Texts | None:
    """Escape `count` texts in UTF-8 that are joined with `SEPARATOR`.

    With `doubled`, two quotes in a row stand for one, as in CSV. Returns None if there is a control character other
    than tab, CR and LF: its escape has another length.
    """
    escaped = joined.replace(b"\\", b"\\\\")
    escaped = _escape_doubled_quotes(escaped) if doubled else escaped.replace(b'"', b'\\"')
    escaped = escaped.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")
    codes = np.frombuffer(escaped, np.uint8)
    ends = np.append(np.flatnonzero(codes == SEPARATOR[0]), len(escaped))
    if len(ends) != count or (escaped and codes.min() < ord(" ")):
        return None
    offsets = ends + np.arange(_ENCLOSING, 2 * count + _ENCLOSING, 2)  # each separator of one byte becomes three
    return Texts(b'"%b",' % escaped.replace(SEPARATOR, b'","'), np.concatenate([[0], offsets]))


def _escape_doubled_quotes(joined: bytes) -> bytes:
    """Put a backslash in the place of the first of each two quotes: `replace` would have to look for pairs."""
    codes = np.frombuffer(bytearray(joined), np.uint8)
    quotes = np.flatnonzero(codes == _QUOTE)
    codes[quotes[::2]] = _BACKSLASH
    return codes.tobytes() if len(quotes) else joined


# -- Blank texts


_WHITE_SPACE = (  # all that `str.isspace` knows
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)
_ESCAPED_SPACES = [escape(space) for space in _WHITE_SPACE]
_is_blank = re.compile(b"(?:%b)*+\\Z" % b"|".join(map(re.escape, _ESCAPED_SPACES))).match


# Whether a blank text may begin with two bytes, where its closing quote counts as one of them.
_MAY_BE_BLANK = np.zeros((256, 256), bool)
_MAY_BE_BLANK[_QUOTE] = True
for _space in _ESCAPED_SPACES:
    _MAY_BE_BLANK[_space[0], _space[1] if len(_space) > 1 else [_QUOTE, *{each[0] for each in _ESCAPED_SPACES}]] = True


def block_of_escaped(position: Position, texts: Texts) -> TextBlock:
    """Make a block of escaped texts. One that is empty or white space gets the error `empty`."""
    codes = np.frombuffer(texts.data, np.uint8)
    starts = texts.offsets[:-1] + 1
    suspects = np.flatnonzero(_MAY_BE_BLANK[codes[starts], codes[starts + 1]])
    return TextBlock(position, texts, {index: EMPTY for index in suspects.tolist() if _is_blank(texts[index])})
