"""JSON Lines: each line kept as it is, only the members that matter decoded."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import pyarrow as pa

from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.loader.json_columns import (
    ARROW_TYPES,
    Columns,
    Kind,
    column_array,
    is_too_deep,
    parse_members,
    reach,
    text_of,
)
from pipeline.loader.lines import Lines, Place, TextFile
from pipeline.loader.members import reader_at_once, token_reader
from pipeline.loader.rows import RawRows, rows_of_lines
from pipeline.loader.texts import (
    TextBlock,
    TextSpec,
    block_of,
    blocks_of,
    no_column,
    refuse_existing,
)
from pipeline.places import Location
from pipeline.text import storable

# So many lines may lack the text column before we believe that it does not exist.
FIRST_LINES = 1_000
T = TypeVar("T")


class Line(NamedTuple):
    """One row: its bytes as they stand in the file, and where it begins."""

    raw: bytes
    line: int  # lines before it


class JsonlSource:
    """A file of one JSON object a line; blank lines are no rows.

    Raises:
        InputError: a line that is no JSON object (unless it may be skipped), or not of the encoding.
    """

    def __init__(self, location: Location, loader: Loader) -> None:
        self.location, self.path = location, location.shown
        self.total_rows: int | None = None
        self.skipped = 0  # bad lines left out by the latest complete reading
        self._is_regular = False  # as was seen by a reading of all texts: every line is a row, none has what we add
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.seekable = self.file.seekable
        self.is_empty = False  # no bytes are no lines: a file without rows, not a broken one
        self.start = Place(0, len(self.file.bom), 0)
        self._added: tuple[str, ...] = ()
        self._all: list[Lines] | None = None  # the lines of a small file
        self._first: tuple[TextSpec, TextBlock] | None = None  # what `check` has read already, for the next reading

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See `Source.check`: looks at the first 1,000 lines."""
        self._added = tuple(added)  # looked for in every later line, too
        self._first, self._is_regular = None, False
        if self._is_usual(spec):
            return
        seen: dict[str, None] = {}
        missing, is_blank = set(spec.columns), True
        for members in itertools.islice(self._members(), FIRST_LINES):
            seen.update(dict.fromkeys(members))
            is_blank = False
            missing -= {name for name in missing if reach(members, name) is not None}
        if missing and not is_blank:
            name = min(missing)
            raise InputError(
                f"{self.path}: no {name!r} in the first {FIRST_LINES:,} lines; {no_column(list(seen), name)}"
            )
        refuse_existing(self.path, list(seen), added)

    def _is_usual(self, spec: TextSpec) -> bool:
        """Whether the first lines hold texts, and none of the columns to be added; if so, that is seen at once."""
        if not (at_once := self._reader_at_once(spec)):
            return False
        left = FIRST_LINES
        for lines in self._lines(self.start):
            if (block := at_once(self.start, lines.data)) is None:
                return False
            lines.count = len(block.texts)
            self._first = self._first or (spec, block)
            left -= lines.count
            if left <= 0:
                break
        return left < FIRST_LINES

    def _reader_at_once(self, spec: TextSpec) -> Callable[[Place, bytes], TextBlock | None] | None:
        is_plain = spec.is_plain and self.file.encoding == "utf-8"
        return reader_at_once(spec.columns[0], self._added) if is_plain else None

    def texts(self, spec: TextSpec, place: Place | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        place = place or self.start
        row, self.skipped = place.row, 0
        self._is_regular, is_regular, added = False, place == self.start, self._added
        at_once, by_line = self._reader_at_once(spec), token_reader(tuple(spec.columns), self._added)
        known, self._first = self._first, None
        for lines in self._lines(place):
            if known is not None and known[0] is spec and lines.offset == self.start.offset:
                block: TextBlock | None = known[1]
            else:
                block = at_once(Place(row, lines.offset, lines.number), lines.data) if at_once else None
            if block is not None:
                lines.count = len(block.texts)
            else:
                is_regular = False
                block = self._block_by_line(Place(row, lines.offset, lines.number), self._rows(lines, by_line), spec)
            if block.texts:
                yield block
            row += len(block.texts)
        self._is_regular = is_regular and added == self._added

    def _block_by_line(
        self, place: Place, rows: Iterator[tuple[Line, list[bytes | None]]], spec: TextSpec
    ) -> TextBlock:
        texts: list[str | None] = []
        not_text: dict[int, str] = {}
        for row, tokens in rows:
            self._refuse_added(row, tokens[len(spec.columns) :])
            text: str | None = None
            try:
                values = [text_of(token) for token in tokens[: len(spec.columns)]]
                text = values[0] if spec.is_plain else spec.render(values)
            except ValueError as error:
                not_text[len(texts)] = str(error)
            texts.append(text)
        return block_of(place, texts, not_text)

    def records(self) -> Iterator[RawRows | list[bytes]]:
        """See `RawSource.records`."""
        if self._is_regular:
            self.skipped = 0
            yield from rows_of_lines(self.file.blocks(self.start))
            return
        # The first reading has parsed every line. This one does so only where lines may be left out, and where
        # a name that we add seems to be there already: the prefix may have changed since a run was interrupted.
        marks = [f'"{name}"'.encode() for name in self._added]
        by_line, self.skipped = token_reader((), self._added), 0
        for lines in self._lines(self.start):
            if self._skip_bad or self.file.encoding != "utf-8" or any(mark in lines.data for mark in marks):
                rows = list(self._rows(lines, by_line))
                for row, tokens in rows:
                    self._refuse_added(row, tokens)
                yield [row.raw for row, _ in rows]
            else:
                yield [line for line in lines.lines if not line.isspace()]

    def schema(self) -> pa.Schema:
        """The Arrow schema of all members; the first call reads the whole file."""
        return pa.schema([(storable(name), ARROW_TYPES[kind]) for name, kind in self._kinds.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows as Arrow columns of `schema`."""
        schema, kinds = self.schema(), self._kinds
        for block in blocks_of(self._members(), lambda members: sum(map(len, members.values()))):
            columns = [column_array([members.get(name) for members in block], kind) for name, kind in kinds.items()]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    @functools.cached_property
    def _kinds(self) -> dict[str, Kind]:
        columns = Columns(self.path)
        for members in self._members():
            columns.add(members)
        return columns.kinds()

    def _members(self) -> Iterator[dict[str, bytes]]:
        """All rows, parsed one by one."""
        self.skipped = 0
        for lines in self._lines(self.start):
            yield from (members for _, members in self._rows(lines, parse_members))

    def _lines(self, place: Place) -> Iterator[Lines]:
        """The lines from `place` on; those of a small file are cut once."""
        if self.location.content is None or place != self.start:
            return self.file.lines(place)
        self._all = self._all or list(self.file.lines(place))
        return iter(self._all)

    def _rows(self, lines: Lines, parse: Callable[[bytes], T]) -> Iterator[tuple[Line, T]]:
        """The lines that are rows, each with what `parse` makes of it (given as UTF-8); those left out are counted."""
        is_utf8 = self.file.encoding == "utf-8"
        for number, raw in enumerate(lines.lines, lines.number):
            line = raw
            if not is_utf8 or not raw.isascii():  # decoding is also the check of the encoding
                line = self.file.decode(raw, number + 1).encode("utf-8", "surrogatepass")
            if line.isspace():
                continue
            try:
                if is_too_deep(line):
                    raise ValueError("nested too deeply")  # noqa: TRY301 - one kind of error for a line that is no row
                yield Line(raw, number), parse(line)
            except ValueError as error:
                if not self._skip_bad:
                    raise InputError(
                        f"{self.path}:{number + 1}: no JSON object: {error}; mend the line, or leave such lines out "
                        f'with loader.on_bad_line = "skip"'
                    ) from None
                self.skipped += 1

    def _refuse_added(self, row: Line, tokens: Sequence[bytes | None]) -> None:
        for name, token in zip(self._added, tokens, strict=False):
            if token is not None:
                refuse_existing(f"{self.path}:{row.line + 1}", [name], [name])
