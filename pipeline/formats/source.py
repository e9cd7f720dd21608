"""Which text stands for a row: one column, several joined, or a template; and how texts travel."""

from __future__ import annotations

import difflib
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

from pipeline.config import PIPE, Format, Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.records import RawRows
from pipeline.formats.textfile import TextFile
from pipeline.storage import CODECS, Location
from pipeline.texts import Position, TextBlock


class Source(Protocol):
    """One input file. Every reading starts anew, so the texts and the whole rows can be read apart."""

    location: Location
    path: str  # as messages name it
    total_rows: int | None  # None: unknown before the end
    skipped: int  # bad lines left out by the latest complete reading
    seekable: bool  # a place can be reached without reading what is before it
    is_empty: bool  # not even a header

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See that the text columns are there and hold texts, and that no column to be added is there already.

        Raises:
            InputError: naming the column.
        """

    def texts(self, spec: TextSpec, place: Position | None = None) -> Iterator[TextBlock]:
        """The texts of all rows from `place` on (default: the first row), in order."""

    def schema(self) -> pa.Schema:
        """The columns as Arrow types."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, all columns, in order."""


class RawSource(Source, Protocol):
    """A text file, whose rows can be copied byte for byte."""

    file: TextFile

    def records(self) -> Iterator[RawRows | list[bytes]]:
        """The bytes of all rows with their line ends, some thousand at a time; `RawRows` where that is quicker."""


def format_of(path: str | Location, given: Format | None, key: str) -> Format:
    """The format of a file: as given, else by its ending, a compression's ending set aside; JSONL through a pipe.

    Raises:
        ConfigError: the ending says nothing.
    """
    if given is not None:
        return "jsonl" if given == "ndjson" else given
    if path == PIPE:
        return "jsonl"
    if found := ending_format(path if isinstance(path, str) else path.path):
        return found
    raise ConfigError(f"{path}: the ending names no format; end it in .csv, .tsv, .parquet or .jsonl, or set {key}")


def ending_format(path: str) -> Format | None:
    """The format that a name's ending says, a compression's ending set aside; None if it says none."""
    name = path.rpartition("/")[2].lower()
    for ending in CODECS:
        name = name.removesuffix(ending)
    stem, _, ending = name.rpartition(".")
    if not stem:  # a name that begins with its only dot has no ending
        return None
    if ending in ("csv", "tsv", "parquet", "jsonl", "ndjson"):
        return "jsonl" if ending == "ndjson" else ending  # type: ignore[return-value]
    return None


# A block ends at whichever comes first; nothing outside the loader may depend on where.
BLOCK_ROWS = 4096
BLOCK_CHARS = 4 << 20

T = TypeVar("T")


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
