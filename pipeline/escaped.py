"""Texts on their way to the wire: UTF-8, escaped as they stand between the quotes of a JSON string.

Nothing after the loader looks into a text, so it is escaped once, many at a time, and travels as bytes: a Python
string a row would cost more than its answer. Each text has one such form, so equal bytes are equal texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import numpy as np

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(str).decode


def escape(text: str) -> bytes:
    """One text.

    Raises:
        UnicodeEncodeError: it holds half a surrogate pair.
    """
    return _encode(text)[1:-1]


def unescape(escaped: bytes) -> str:
    """The text again."""
    return _decode(b'"%b"' % escaped)


def escape_joined(joined: bytes, count: int) -> list[bytes] | None:
    """`count` UTF-8 texts with a byte 0xFF between each two; None if one holds a control character that is rare."""
    escaped = joined.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    escaped = escaped.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")
    if escaped and np.frombuffer(escaped, np.uint8).min() < ord(" "):
        return None
    texts = escaped.split(b"\xff")
    return texts if len(texts) == count else None


def escape_all(texts: Sequence[str]) -> list[bytes]:
    """Many texts.

    Raises:
        UnicodeEncodeError: one holds half a surrogate pair.
    """
    if not texts:
        return []
    joined = "\0".join(texts).encode()
    if joined.count(b"\0") == len(texts) - 1:
        escaped = escape_joined(joined.replace(b"\0", b"\xff"), len(texts))
        if escaped is not None:
            return escaped
    return [escape(text) for text in texts]


# Every white space as it is escaped; a blank text is empty, or begins with the first byte of one.
_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + "\u2028\u2029\u202f\u205f\u3000"
)
_is_blank = re.compile(b"(?:%b)*+\\Z" % b"|".join(re.escape(escape(space)) for space in _SPACES)).match
_MAY_BEGIN_BLANK = np.zeros(256, bool)
_MAY_BEGIN_BLANK[[0xFF, ord('"'), *(form[0] for space in _SPACES for form in (space.encode(), escape(space)))]] = True


def blank_ones(texts: Sequence[bytes], joined: bytes | None = None, quotes: int = 0) -> list[int]:
    """The indexes of those that are nothing but white space.

    `joined` are the same texts, escaped or not, with a byte 0xFF between each two: it is quicker to look there.
    Each may stand between so many `quotes`.
    """
    if not texts:
        return []
    # With a last 0xFF after each text comes one, so that (or the closing quote) is where an empty text would begin.
    data = np.frombuffer((b"\xff".join(texts) if joined is None else joined) + b"\xff", np.uint8)
    starts = np.flatnonzero(data == 0xFF) + 1  # noqa: PLR2004 - no UTF-8 has that byte
    starts[1:], starts[0] = starts[:-1].copy(), 0
    starts += quotes
    return [index for index in np.flatnonzero(_MAY_BEGIN_BLANK[data[starts]]).tolist() if _is_blank(texts[index])]
