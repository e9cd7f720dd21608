"""The members of JSON objects as Arrow columns: one type for a member over the whole file, else JSON text.

Values travel as tokens, the JSON text of one value, so nothing is decoded that is only passed on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.streams import storable

DEEPEST = 500  # objects and lists in one another
SHALLOW = 2 * DEEPEST  # bytes of a line that can't nest deeper: each level takes two
MOST_COLUMNS = 10_000
EXACT_IN_DOUBLE = 1 << 53
LONGEST_INT = 24  # characters; 64 bits take 20

Members = Mapping[str, bytes]  # name -> token
Kind = Literal["string", "bool", "int", "uint", "float", "json"]
ARROW_TYPES: dict[Kind, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "uint": pa.uint64(),
    "float": pa.float64(),
    "json": pa.string(),
}
_KINDS = {  # of a token by its first byte; what is not here is a number
    b'"': "string",
    b"{": "json",
    b"[": "json",
    b"t": "bool",
    b"f": "bool",
    b"n": "null",
    b"N": "float",
    b"I": "float",
}
_SPACE = re.compile(r"[ \t\r\n]*+")
_STRINGS, _BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"'), re.compile(rb"[\[{}\]]")
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode


def is_too_deep(line: bytes) -> bool:
    """Whether a line nests deeper than `DEEPEST`. Parsers have bounds, too, but these depend on who calls them."""
    if len(line) <= SHALLOW or line.count(b"[") + line.count(b"{") <= DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            return True
    return False


def parse_members(line: bytes) -> dict[str, bytes]:
    """Parse a JSON object into the tokens of its members.

    What msgspec refuses goes to Python's own parser, which takes lone surrogates, NaN and Infinity.

    Raises:
        ValueError: it is no JSON, or no object; the message says why.
    """
    try:
        return {name: bytes(raw) for name, raw in _decode_members(line).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = line.decode("utf-8", "surrogatepass")
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")  # as in "Invalid control character at"
        of_line = f" of its line {error.lineno}" if error.lineno > 1 else ""
        raise ValueError(f"{what} at column {error.colno}{of_line}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(tree, dict):
        raise ValueError("not an object in braces")  # noqa: TRY004 - one kind of error for a line that is no row
    return _cut_members(text)


def _cut_members(text: str) -> dict[str, bytes]:
    """Cut an object, which is known to be one, into the tokens of its members."""
    decode, members = json.JSONDecoder().raw_decode, dict[str, bytes]()

    def after(mark: str, start: int) -> int:
        """Find what comes after a mark, and white space, behind `start`."""
        space = _SPACE.match(text, text.index(mark, start) + len(mark))
        return space.end() if space else start

    end = after("{", 0)
    while text[end] != "}":
        name, end = decode(text, end)
        start = after(":", end)
        _, end = decode(text, start)
        members[name] = text[start:end].encode("utf-8", "backslashreplace")  # which is how JSON escapes a surrogate
        end = after("", end)
        end = after(",", end) if text[end] == "," else end
    return members


def reach(members: Members, name: str) -> bytes | None:
    """Find the token of the member of exactly that name; else `a.b` is the member `b` of the object `a`."""
    token = members.get(name)
    head, dot, rest = name.partition(".")
    if token is not None or not dot:
        return token
    inner = members.get(head)
    return reach(parse_members(inner), rest) if inner is not None and inner.startswith(b"{") else None


def text_of(token: bytes | None) -> str | None:
    """Decode the text that a token holds; None for null or a missing member.

    Raises:
        ValueError: it is no text; the message says what it is.
    """
    if token is None or token == b"null":
        return None
    if token[:1] != b'"':
        kind = _KINDS.get(token[:1], "number")
        raise ValueError({"json": "an object or a list", "bool": "a boolean"}.get(kind, "a number"))
    try:
        return _decode_string(token)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("a string with half a surrogate pair") from None


def as_text(token: bytes | None) -> str | None:
    """Decode a string, or return a value of another type as JSON text; None for null or a missing member."""
    try:
        return text_of(token)
    except ValueError:
        return (token or b"").decode()


class ColumnKinds:
    """Finds one kind for each member over all lines, the members in the order of their first appearance."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: dict[str, set[str]] = {}
        self._ranges: dict[str, tuple[int, int]] = {}

    def add(self, members: Members) -> None:
        """Take one row into account.

        Raises:
            InputError: there are more than `MOST_COLUMNS` different members.
        """
        for name, token in members.items():
            kind = _KINDS.get(token[:1]) or _number_kind(token)
            self._seen.setdefault(name, set()).add(kind)
            if kind == "int":
                value = int(token[:LONGEST_INT])  # of a longer one it only matters that it is too large
                low, high = self._ranges.get(name, (value, value))
                self._ranges[name] = (min(low, value), max(high, value))
        if len(self._seen) > MOST_COLUMNS:
            raise InputError(
                f"{self._path}: more than {MOST_COLUMNS:,} different members; only a JSONL output can hold them"
            )

    def by_name(self) -> dict[str, Kind]:
        """Give the kind of each member: the one that all its values have, else JSON text."""
        return {name: self._kind(name, seen - {"null"}) for name, seen in self._seen.items()}

    def _kind(self, name: str, seen: set[str]) -> Kind:
        low, high = self._ranges.get(name, (0, 0))
        if seen <= {"string"}:
            return "string"
        if seen == {"bool"}:
            return "bool"
        if seen == {"int"} and low >= -(1 << 63) and high < 1 << 63:
            return "int"
        if seen == {"int"} and low >= 0 and high < 1 << 64:
            return "uint"
        if seen <= {"int", "float"} and max(-low, high) <= EXACT_IN_DOUBLE:
            return "float"
        return "json"


def column_array(tokens: Sequence[bytes | None], kind: Kind) -> pa.Array:
    """Make an Arrow array of type `ARROW_TYPES[kind]` of the tokens of one member; a missing one is null."""
    of = _CONVERT[kind]
    values = [None if token is None or token == b"null" else of(token) for token in tokens]
    return pa.array(values, ARROW_TYPES[kind])


def _storable_text(token: bytes) -> str:
    try:
        return _decode_string(token)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return storable(json.loads(token))


_CONVERT: dict[Kind, Callable[[bytes], object]] = {
    "string": _storable_text,
    "bool": b"true".__eq__,
    "int": int,
    "uint": int,
    "float": float,
    "json": bytes.decode,
}


def _number_kind(token: bytes) -> Kind:
    digits = token.lstrip(b"-")
    if digits.isdigit():
        return "int"
    return "json" if digits[:1].isdigit() and math.isinf(float(token)) else "float"  # 1e400 is no double
