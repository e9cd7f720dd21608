"""Of a JSON line, only the members that matter: as tokens, line by line, or the texts of many lines at once."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from pipeline.escaped import Texts, blank_ones, escape
from pipeline.loader.json_columns import SHALLOW, is_too_deep, parse_members, reach, text_of
from pipeline.loader.lines import Place, is_utf8
from pipeline.loader.rows import QUOTE, Codes, RawRows, line_ends
from pipeline.loader.texts import EMPTY, TextBlock

_BACKSLASH = ord("\\")
_find_long_escape = re.compile(rb"\\[u/]").search


@functools.lru_cache(maxsize=16)  # a struct costs as much as reading a small file
def reader_at_once(name: str, exact: tuple[str, ...]) -> Callable[[Place, bytes], TextBlock | None]:
    """A function from whole lines to the texts of their member `name`; None where a line is out of the ordinary.

    Out of the ordinary are blank and broken lines, no text, and the members `exact`, which no line should have.
    """
    if not _can_be_fields([name, *exact]):
        return lambda _, __: None
    nothing = Annotated[int, msgspec.Meta(ge=1, le=0)]  # no value is that
    never = [(f"n{index}", nothing | msgspec.UnsetType, msgspec.UNSET) for index in range(len(exact))]
    names = {"text": name, **{f"n{index}": other for index, other in enumerate(exact)}}
    struct: Any = msgspec.defstruct("Row", [("text", msgspec.Raw), *never], rename=names, gc=False)
    decode = msgspec.json.Decoder(struct).decode_lines

    def read(place: Place, data: bytes) -> TextBlock | None:
        lines = RawRows(data, 0, line_ends(data))
        if not _are_in_braces(lines) or (not data.isascii() and not is_utf8(data)):
            return None
        try:
            tokens = [row.text for row in decode(data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(tokens) != len(lines) or _are_deep(lines):
            return None
        texts = _texts_of(tokens)
        return None if texts is None else TextBlock(place, texts, dict.fromkeys(blank_ones(texts), EMPTY))

    return read


def _are_in_braces(lines: RawRows) -> bool:
    """Whether each line begins and ends with a brace.

    Then whole objects are in it, at least one, for within JSON no opening brace comes right after a closing one. If
    there are as many objects as lines, each line is one.
    """
    opens, closes = lines.codes[lines.starts] == ord("{"), lines.codes[lines.body_ends - 1] == ord("}")
    return bool((opens & closes).all())


def _are_deep(lines: RawRows) -> bool:
    """Whether one nests too deeply."""
    long = np.flatnonzero(lines.ends - lines.starts > SHALLOW)
    return any(is_too_deep(line) for index in long.tolist() for line in lines[index : index + 1])


def _texts_of(tokens: Sequence[Any]) -> Texts | None:
    """What stands between the quotes of tokens; None if one is no string that could be sent."""
    texts = Texts(b",".join([*tokens, b""]), np.cumsum([0, *[len(token) + 1 for token in tokens]]))
    codes = np.frombuffer(texts.data, np.uint8)
    if not (codes[texts.offsets[:-1]] == QUOTE).all():
        return None
    try:
        return _spelled_alike(texts) if _has_long_escape(codes) else texts
    except ValueError:  # half a surrogate pair
        return None


def _has_long_escape(codes: Codes) -> bool:
    """Whether there may be one; a search for two bytes in a row takes longer."""
    after = codes[np.flatnonzero(codes == _BACKSLASH) + 1]
    return bool(((after == ord("u")) | (after == ord("/"))).any())


def _spelled_alike(texts: Texts) -> Texts:
    """Escapes that need not be there, or could be shorter, are spelled as `escape` does: equal texts, equal bytes."""
    return Texts.of(
        [escape(text_of(b'"%b"' % text) or "") if _find_long_escape(text) else text for text in texts.to_list()]
    )


@functools.lru_cache(maxsize=16)
def token_reader(names: tuple[str, ...], exact: tuple[str, ...]) -> Callable[[bytes], list[bytes | None]]:
    """A function from a line to the tokens of the members `names`, then `exact`; None where one is missing.

    A dot in one of `names` may reach into an object; one in `exact` is part of the name.
    """

    def pick(members: Mapping[str, bytes]) -> list[bytes | None]:
        return [*(reach(members, name) for name in names), *(members.get(name) for name in exact)]

    heads = list(dict.fromkeys([*names, *exact, *(name.partition(".")[0] for name in names)]))
    if not _can_be_fields(heads):
        return lambda line: pick(parse_members(line))
    fields = [(f"f{i}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for i in range(len(heads))]
    struct = msgspec.defstruct("Line", fields, rename={f"f{i}": head for i, head in enumerate(heads)}, gc=False)
    decode, plain = msgspec.json.Decoder(struct).decode, heads == [*names, *exact]

    def read(line: bytes) -> list[bytes | None]:
        try:
            values = msgspec.structs.astuple(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return pick(parse_members(line))
        tokens = [None if value is msgspec.UNSET else bytes(value) for value in values]
        if plain:
            return tokens
        return pick({head: token for head, token in zip(heads, tokens, strict=True) if token is not None})

    return read


def _can_be_fields(names: Sequence[str]) -> bool:
    """Whether the fast parser takes these names; what needs an escape or comes twice it does not."""
    return len(set(names)) == len(names) and all(
        name.isprintable() and '"' not in name and "\\" not in name for name in names
    )
