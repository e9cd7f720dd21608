"""What every format offers, and what the formats share: the text of a row, checks of columns, blocks of rows.

A `Source` reads one input file, a `Writer` makes one output file. Where both have the same format, a source may offer
an appender, which keeps the rows' own bytes; else the rows go to the writer as Arrow columns.
"""

from __future__ import annotations

import difflib
import string
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Config, Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.registry import Format
from pipeline.storage import Draft, Location, Pipe
from pipeline.texts import Position, TextBlock, block_of

# A block of rows ends at whichever comes first. Nothing outside the formats may depend on where.
BLOCK_ROWS = 4096
BLOCK_CHARS = 4 << 20

_SHOWN_COLUMNS = 20  # in a message about a column that is not there
Row = TypeVar("Row")


class Source(ABC):
    """One input file.

    Each method that reads starts again from the file, so that texts and whole rows can be read at different times.
    """

    total_rows: int | None = None  # None: not known before the end is read
    skipped: int = 0  # bad lines that the latest complete reading left out
    seekable: bool = True  # whether reading can start at a position without reading what is before it
    growth: float = 1.0  # bytes that a position counts for one of the file, about: decompressed, and as UTF-8
    is_empty: bool = False  # whether the file has not even a header
    columns: Sequence[str] = ()  # the names that a header gives; JSON has none

    def __init__(self, location: Location, file_format: Format) -> None:
        self.location, self.format = location, file_format
        self.path = location.shown  # as messages show it

    @abstractmethod
    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See that the text columns exist and hold texts, and that none of the appended columns exists already.

        Raises:
            InputError: naming the column.
        """

    @abstractmethod
    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """Read the texts of all rows from `position` on, which is one that a block began at; by default from the first.

        Raises:
            InputError: the file can't be read.
        """

    def cuts(self, rows: int, position: Position | None = None) -> Iterator[Position]:  # noqa: ARG002 - a default
        """Find where reading can start, about every `rows` rows from `position` on (default: the first row).

        Of the last one, the end of the file, only the row has a meaning. Yields nothing where a file can only be read
        from its start.

        Raises:
            InputError: the file can't be read, or a row is bad.
        """
        yield from ()

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Find the columns and their Arrow types."""

    @abstractmethod
    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read all columns of all rows."""

    def see_rows_left(self) -> None:
        """See that a reading which found no row has not left out all lines as bad ones.

        Raises:
            InputError: it has.
        """
        if self.skipped:
            raise InputError(
                f"{self.path}: all of its {self.skipped:,} lines are bad, so nothing would be left; if it is no "
                f"{self.format.name} file, set loader.format"
            )

    def see_columns(self, names: Sequence[str]) -> None:
        """See that columns are there, of whatever type; `a.b` may be a field of a struct or a JSON object.

        Raises:
            InputError: naming the first that is not.
        """
        for name in names:
            if name not in self.columns:
                raise InputError(f"{self.path}: no column {name!r}; {existing_columns(self.columns, name)}")

    def select(self, names: Sequence[str], *, repeated: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """Read only the columns `names` of all rows; the values of those that are `repeated` may be dictionaries."""
        for batch in self.batches():
            yield batch.select(names)

    def in_words(self) -> str:
        """Say how the file is read, as `check` shows it; "" where there is nothing to say."""
        return ""

    def doubts(self) -> list[str]:
        """Say what other settings would fit the first rows better, each as what follows the path in a message."""
        return []

    def see_appendable(self, config: Config) -> None:  # noqa: B027 - most files hold anything
        """See that a file of this format and encoding can hold what will be appended, as far as that is known.

        Raises:
            OutputError: naming what it can't hold, and the setting to change.
        """

    def appender(self, destination: Destination) -> tuple[Writer, Iterator[Any]] | None:  # noqa: ARG002 - a default
        """Open what appends columns to the rows of this file, keeping their bytes, in a file of the same format.

        Returns it with the rows that it takes, in sized pieces of some thousand, which can be sliced. None where there
        is no such way; then `batches` go to the format's writer.
        """
        return None


class Destination(NamedTuple):
    """Where rows are written, and what is appended to them."""

    draft: Draft | Pipe
    format: Format
    columns: AppendedColumns
    labels: Sequence[str]  # names by label id; while a run is going on, more may come
    compression: str | None = None  # of the pages of a Parquet file, `writer.compression`
    all_rows: bool = False  # whether every row of the input is wanted
    has_header: bool = True  # whether a CSV output begins with the names of the columns


class Writer(Protocol):
    """Makes one output file."""

    def write(self, rows: Any, answers: Answers) -> None:
        """Append rows, an Arrow record batch (what comes with an appender takes other rows), and their answers.

        Raises:
            OutputError: they can't be written in this format.
        """

    def close(self) -> None:
        """Write what is left, and end the file."""


class ColumnWriter(Writer, Protocol):
    """The writer of a format, which takes columns."""

    @staticmethod
    def see_type(kind: pa.DataType) -> None:
        """See that the format can hold a column of a type.

        Raises:
            pa.ArrowException: it can't; the message says why.
        """


class TextSpec:
    """How the text of a row is made of its columns.

    `columns` are the distinct names in the order of first use, that of the second text of a pair last; `render` takes
    their values in that order.

    Raises:
        ConfigError: the template holds something else than names in braces, or a text column is named twice.
    """

    def __init__(self, loader: Loader) -> None:
        if loader.template is not None:
            parts = _parse_template(loader.template)
        else:
            parts = [("\n" if index else "", name) for index, name in enumerate(loader.text_columns)]
            if twice := [name for name, times in Counter(loader.text_columns).items() if times > 1]:
                raise ConfigError(f"the text column {twice[0]!r} is named twice; name it once, or set loader.template")
        self.columns = list(dict.fromkeys(name for _, name in parts if name is not None))
        self.pair = loader.pair_column
        if self.pair is not None and self.pair not in self.columns:
            self.columns.append(self.pair)
        self.is_plain = len(self.columns) == 1 and loader.template is None  # the value of the one column is the text
        self._parts = [(text, None if name is None else self.columns.index(name)) for text, name in parts]

    def advice(self, name: str) -> str:
        """Return the end of a message about a column that is not there, where none is like it."""
        return "; choose another loader.pair_column" if name == self.pair else "; choose one with --text-column"

    def render(self, values: Sequence[str | None]) -> str | None:
        """Make the text of one row; a null is "". Returns None if no value holds more than white space."""
        own = [values[index] for _, index in self._parts if index is not None]
        if all(value is None or not value.strip() for value in own):
            return None
        return "".join(text + ("" if index is None else values[index] or "") for text, index in self._parts)

    def block_of(
        self, position: Position, rows: Iterable[Row], values_of: Callable[[Row], Sequence[str | None]]
    ) -> TextBlock:
        """Make a block row by row.

        `values_of` gives the values of `columns` in a row, or raises a ValueError that says what is there instead of a
        text; such a row gets the error `not_text`.
        """
        texts: list[str | None] = []
        seconds: list[str | None] = []
        not_text: dict[int, str] = {}
        for row in rows:
            text: str | None = None
            second: str | None = None
            try:
                values = values_of(row)
                text = values[0] if self.is_plain else self.render(values)
                second = None if self.pair is None else values[self.columns.index(self.pair)]
            except ValueError as error:
                not_text[len(texts)] = str(error)
            texts.append(text)
            seconds.append(second)
        return block_of(position, texts, not_text, None if self.pair is None else seconds)


def _parse_template(template: str) -> list[tuple[str, str | None]]:
    """Split a template into pairs of a literal text and the column after it, None after the last text."""
    like = 'it looks like "{title}\\n\\n{body}"'
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"loader.template {template!r}: {error}; {like}") from None
    if any(name == "" or spec or conversion for _, name, spec, conversion in parts):
        raise ConfigError(f"loader.template {template!r}: only names may stand in braces; {like}")
    if all(name is None for _, name, _, _ in parts):
        raise ConfigError(f"loader.template {template!r} names no column; {like}")
    return [(text, name) for text, name, _, _ in parts]


def refuse_existing(path: str, columns: Collection[str], appended: Sequence[str]) -> None:
    """Raise an InputError if a column has the name of one that is to be appended."""
    for name in appended:
        if name in columns:
            raise InputError(f"{path}: has a column {name!r} already; choose another writer.prefix")


def refuse_duplicates(path: str, columns: Sequence[str], wanted: Sequence[str] | None = None) -> None:
    """Raise an InputError if one of the columns `wanted`, by default all, is there twice: its name tells not which."""
    for name, times in Counter(columns).items():
        if times > 1 and (wanted is None or name in wanted):
            raise InputError(f"{path}: the column {name!r} is there twice; rename one")


def existing_columns(columns: Sequence[str], missing: str, advice: str = "") -> str:
    """Say which columns there are, and which of them was probably meant: the end of a message about a missing one."""
    same = [each for each in columns if unicodedata.normalize("NFKC", each) == unicodedata.normalize("NFKC", missing)]
    if same:
        return f"{same[0]!r} only looks the same: there it is {same[0]!a}; copy the name from the file"
    several = [name.strip() for name in missing.split(",")]
    if len(several) > 1 and set(several) <= set(columns):
        return f"several columns are named one by one: {' '.join(f'-t {name}' for name in several)}"
    near = difflib.get_close_matches(missing, columns, n=1)
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", ..." if len(columns) > _SHOWN_COLUMNS else "")
    return f"the columns are {shown}" + (f"; did you mean {near[0]!r}?" if near else advice)


def blocks_of(rows: Iterator[Row], size_of: Callable[[Row], int]) -> Iterator[list[Row]]:
    """Gather rows into blocks of at most `BLOCK_ROWS` rows; a block ends when their sizes reach `BLOCK_CHARS`."""
    block: list[Row] = []
    size = 0
    for row in rows:
        block.append(row)
        size += size_of(row)
        if len(block) == BLOCK_ROWS or size >= BLOCK_CHARS:
            yield block
            block, size = [], 0
    if block:
        yield block
