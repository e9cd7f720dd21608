"""Which text stands for a row: one column, several joined, or a template; and how texts travel."""

from __future__ import annotations

import difflib
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pipeline.config import Loader
from pipeline.errors import ConfigError, InputError
from pipeline.escaped import Texts, escape_all
from pipeline.loader.lines import Place

# A block ends at whichever comes first; nothing outside the loader may depend on where.
BLOCK_ROWS = 4096
BLOCK_CHARS = 4 << 20

T = TypeVar("T")


class TextBlock(NamedTuple):
    """The texts of consecutive rows, escaped (see `escaped`). What has an error is not sent; its text means nothing."""

    place: Place
    texts: Texts
    errors: dict[int, str]  # index in `texts` -> "code: message"


EMPTY = "empty: no text"


def block_of(place: Place, texts: Sequence[str | None], not_text: Mapping[int, str]) -> TextBlock:
    """Texts as Python strings, None where there is none, as a block; `not_text` says what stands there instead."""
    errors = {index: EMPTY for index, text in enumerate(texts) if not text or text.isspace()}
    errors |= {index: f"not_text: {what}" for index, what in not_text.items()}
    if errors:
        texts = ["" if index in errors else text for index, text in enumerate(texts)]
    return TextBlock(place, escape_all(texts), errors)  # type: ignore[arg-type] # None is an error


class TextSpec:
    """How the text of a row is made of columns.

    `columns` are the distinct names in order of first use; `render` takes their values in that order.

    Raises:
        ConfigError: the template is not made of names in braces only.
    """

    def __init__(self, loader: Loader) -> None:
        if loader.template is not None:
            pieces = _parse_template(loader.template)
        else:
            pieces = [("\n" if position else "", name) for position, name in enumerate(loader.text_columns)]
        self.columns = list(dict.fromkeys(name for _, name in pieces if name is not None))
        # One plain column needs no rendering: its value is the text.
        self.is_plain = loader.template is None and len(pieces) == 1
        self._pieces = [(text, None if name is None else self.columns.index(name)) for text, name in pieces]

    def render(self, values: Sequence[str | None]) -> str | None:
        """The text of one row: a null is "", and None comes back when no value holds more than white space."""
        if all(value is None or not value.strip() for value in values):
            return None
        return "".join(text + ("" if index is None else values[index] or "") for text, index in self._pieces)


def _parse_template(template: str) -> list[tuple[str, str | None]]:
    like = 'it looks like "{title}\\n\\n{body}"'
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"loader.template {template!r}: {error}; {like}") from None
    if any(name == "" or spec or conversion for _, name, spec, conversion in pieces):
        raise ConfigError(f"loader.template {template!r}: only names may stand in braces; {like}")
    if all(name is None for _, name, _, _ in pieces):
        raise ConfigError(f"loader.template {template!r} names no column; {like}")
    return [(text, name) for text, name, _, _ in pieces]


def refuse_existing(path: str, columns: Sequence[str], added: Sequence[str]) -> None:
    """A column that we would add must not be there already.

    Raises:
        InputError: naming it.
    """
    for name in added:
        if name in columns:
            raise InputError(f"{path}: has a column {name!r} already; choose another writer.prefix")


def refuse_doubled(path: str, columns: Sequence[str]) -> None:
    """Each name may stand once, or nobody knows which column is meant.

    Raises:
        InputError: naming the column.
    """
    for name, times in Counter(columns).items():
        if times > 1:
            raise InputError(f"{path}: the column {name!r} is there twice; rename one")


def no_column(columns: Sequence[str], name: str) -> str:
    """The rest of a message about a column that is not there: what is there, and which was probably meant."""
    near = difflib.get_close_matches(name, columns, n=1)
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")  # noqa: PLR2004
    return f"the columns are {shown}" + (f"; did you mean {near[0]!r}?" if near else "; choose one with --text-column")


def blocks_of(rows: Iterator[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Gather rows into lists bounded in rows and in size."""
    block: list[T] = []
    size = 0
    for row in rows:
        block.append(row)
        size += size_of(row)
        if len(block) == BLOCK_ROWS or size >= BLOCK_CHARS:
            yield block
            block, size = [], 0
    if block:
        yield block
