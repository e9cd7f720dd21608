"""Texts on their way to the wire: UTF-8, escaped as they stand between the quotes of a JSON string.

Nothing after the loader looks into a text, so it is escaped once, many at a time, and travels as bytes: a Python
string a row would cost more than its answer. Each text has one such form, so equal bytes are equal texts.
"""

from __future__ import annotations

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
    if np.count_nonzero(np.frombuffer(escaped, np.uint8) < ord(" ")):
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


# A text that begins with anything else is not blank; what begins so is looked at as a whole. Escapes begin with a
# backslash, the spaces beyond ASCII with one of six pairs of bytes.
_MAY_BE_BLANK = (b" ", b"\\", b"\xc2\x85", b"\xc2\xa0", b"\xe1\x9a", b"\xe2\x80", b"\xe2\x81", b"\xe3\x80")


def is_blank(escaped: bytes) -> bool:
    """Whether there is nothing but white space."""
    return not escaped or (escaped.startswith(_MAY_BE_BLANK) and unescape(escaped).isspace())
