"""Text that may hold what UTF-8 can't."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""`text` with half surrogate pairs, which no file format but JSON can hold, spelled out as `\ud800`.

    JSON strings have them, and so do file names and arguments that were bytes of no UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())
