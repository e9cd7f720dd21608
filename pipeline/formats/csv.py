"""CSV and TSV files.

Reading: records that are written the regular way are found thousands at a time by `CsvScanner`, from the bytes alone.
From the first other one on, `RecordReader` reads record by record with the csv module. Both find the same cells; not
pyarrow's reader, which drops blank lines and fails on a cell larger than its block.

Writing: `CsvAppender` appends cells to the records of a file of the same format and keeps their bytes, `CsvWriter`
makes records of Arrow columns.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Config, Loader
from pipeline.config import Writer as Settings
from pipeline.errors import InputError, OutputError
from pipeline.formats.appended_columns import AppendedColumns, AppendedText
from pipeline.formats.dialect import LOOK_BYTES, Dialect, doubts
from pipeline.formats.registry import Format
from pipeline.formats.source import (
    Destination,
    Source,
    TextSpec,
    Writer,
    blocks_of,
    existing_columns,
    refuse_duplicates,
    refuse_existing,
)
from pipeline.formats.textfile import (
    CR,
    LF,
    QUOTE,
    RowBytes,
    TextFile,
    TextWriter,
    ends_line,
    insert,
    is_utf8,
    rows_of_lines,
    whole_lines,
)
from pipeline.formats.values import to_cells
from pipeline.storage import Location
from pipeline.texts import (
    SEPARATOR,
    Codes,
    Offsets,
    Position,
    TextBlock,
    Texts,
    binary_slices,
    block_of_escaped,
    escape,
    escape_joined,
    even_values,
    join_values,
)

DELIMITERS = {"csv": ",", "tsv": "\t"}  # by the name of the format
LONGEST_RECORD = 256 << 20  # bytes: a longer one is a quote that nobody closed, which could take in the whole file
MOST_HELD = 2 << 20  # bytes without a whole record, from which on the scanner gives up
MOST_AT_ONCE = 16 << 20  # bytes that the scanner looks at: it takes several times as many of memory
_LONG_NAME = 60  # characters: a longer one is a text, and no name of a column
_delimiter_line = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*').fullmatch  # the first line of what Excel is to open


class CsvSource(Source):
    """Reads a CSV or TSV file.

    Raises:
        InputError: a column name twice, bytes that are not of the encoding, a ragged or endless record.
    """

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        super().__init__(location, file_format)
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.growth = self.file.growth
        self.seekable = self.file.seekable
        # The limit is the csv module's, for the whole process; it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
        self.dialect = Dialect.of(loader, DELIMITERS[file_format.name])
        self.header_bytes = b""  # what is before the first row, without the BOM
        self.has_header, self.columns = loader.header, list[str]()
        self.start = Position(0, len(self.file.bom), 0)
        self.is_empty = not self._read_header(loader)

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            if name not in self.columns:
                raise InputError(f"{self.path}: no column {name!r}; {self._advice(name, spec.advice(name))}")
        refuse_duplicates(self.path, self.columns, spec.columns)
        refuse_existing(self.path, self.columns, appended)
        for name in appended:
            if not self.dialect.can_hold(name):
                raise InputError(f"{self.path}: a cell without quotes can't hold the name {name!r}; set loader.escape")

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        if self.is_empty:
            return
        position, rest = position or self.start, None
        indexes = [self.columns.index(name) for name in spec.columns]
        if spec.is_plain and (scanner := self._scanner(position, indexes[0])):
            for first, records, cells in scanner:
                yield self._block_of_cells(first, records, cells)
            position, rest = scanner.position, scanner.rest()
        for here, rows in self._rows(position, rest):
            yield spec.block_of(here, rows, lambda row: [row.cells[index] for index in indexes])

    def cuts(self, rows: int, position: Position | None = None) -> Iterator[Position]:
        """See `Source.cuts`: reads all records, as nothing else tells a line end of a record from one in a cell."""
        if not self.seekable or self.is_empty:
            return
        last = position or self.start
        end = last
        for here, records in self._located_rows(last):
            if here.row - last.row >= rows:
                last = here
                yield here
            end = Position(here.row + len(records), 0, 0)
        yield end

    def row_bytes(self) -> Iterator[RowBytes]:
        """Read the bytes of all rows with their line ends, some thousand at a time."""
        return (records for _, records in self._located_rows(self.start))

    def _located_rows(self, position: Position) -> Iterator[tuple[Position, RowBytes]]:
        """Read the bytes of rows, see `row_bytes`; with them comes the position of the first."""
        rest = None
        if scanner := self._scanner(position):
            yield from ((here, records) for here, records, _ in scanner)
            position, rest = scanner.position, scanner.rest()
        yield from ((here, RowBytes.of([row.raw for row in rows])) for here, rows in self._rows(position, rest))

    def schema(self) -> pa.Schema:
        """See `Source.schema`: all cells are strings."""
        return pa.schema([pa.field(name, pa.string()) for name in self.columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        schema = self.schema()
        self.skipped = 0
        for _, rows in self._rows(self.start):
            cells = zip(*[row.cells for row in rows], strict=True)
            columns = [pa.array(column, pa.string()) for column in cells]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def see_appendable(self, config: Config) -> None:
        """See `Source.see_appendable`: names and labels in the encoding, and a list of probabilities in a cell."""
        encoding, named = (
            config.loader.encoding,
            [*AppendedColumns(config, 0).names, *(config.writer.class_names or ()), config.writer.unsure_label or ""],
        )
        for name in named if self.columns else ():
            if name.encode(encoding, "replace").decode(encoding) != name:
                raise OutputError(
                    f"{config.writer.output}: {name!r} can't be written in {encoding}, the encoding of the input; "
                    f"choose another writer.prefix, writer.labels or writer.unsure_label, or a JSON Lines output"
                )
        for key, text in _cells_of_settings(config.writer):
            if not self.dialect.can_hold(text):
                raise OutputError(f"{self.path}: a cell without quotes can't hold writer.{key}; set loader.escape")

    def appender(self, destination: Destination) -> tuple[Writer, Iterator[RowBytes]]:
        """See `Source.appender`."""
        return CsvAppender(self, destination), self.row_bytes()

    def _scanner(self, position: Position, column: int | None = None) -> CsvScanner | None:
        """Make a scanner, if it knows the encoding and the delimiter."""
        self.skipped = 0
        if not self.file.is_utf8 or not self.dialect.delimiter.isascii() or self.dialect.escape:
            return None
        buffers = self.file.buffers(position)
        return CsvScanner(buffers, position, self.dialect, width=len(self.columns), column=column)

    def _block_of_cells(self, position: Position, records: RowBytes, cells: pa.LargeBinaryArray) -> TextBlock:
        """Make a block of the cells that were scanned, whose quotes are doubled still."""
        data, size = records.data, int(records.ends[-1])
        if not data.isascii() and not is_utf8(memoryview(data)[:size]):
            for number, line in enumerate(data[:size].splitlines(), position.line + 1):
                self.file.decode(line, number)  # says which line it is
        joined, doubled = join_values(cells), self.dialect.has_quotes
        texts = escape_joined(joined, len(cells), doubled=doubled)
        if texts is None:
            joined = joined.replace(b'""', b'"') if doubled else joined
            texts = Texts.of([escape(text.decode()) for text in joined.split(SEPARATOR)])
        return block_of_escaped(position, texts)

    def _rows(
        self, position: Position, buffers: Iterator[bytes] | None = None
    ) -> Iterator[tuple[Position, list[Record]]]:
        """Read the records that are rows, some thousand at a time; with them comes the position of the first."""
        row = position.row
        records = RecordReader(self.file, self.dialect, position, buffers)
        for block in blocks_of(self._only_rows(records), lambda record: len(record.raw)):
            yield Position(row, block[0].offset, block[0].line), block
            row += len(block)

    def _only_rows(self, records: Iterable[Record]) -> Iterator[Record]:
        """Leave out blank lines, but for files of one column, where they are rows, and bad lines, which are counted."""
        width = len(self.columns)
        for record in records:
            if len(record.cells) == width:
                yield record
            elif not record.cells:
                if width == 1:
                    yield record._replace(cells=[""])
            elif self._skip_bad:
                self.skipped += 1
            else:
                raise InputError(
                    f"{self.path}:{record.line + 1}: {len(record.cells)} cells where the header has {width}; "
                    f'mend the line, or leave such lines out with loader.on_bad_line = "skip"'
                )

    def in_words(self) -> str:
        """See `Source.in_words`."""
        header = "yes" if self.has_header else f"no, columns are column_1 to column_{len(self.columns)}"
        return f"{self.dialect.in_words()}, header {header}, encoding {self.file.encoding}"

    def doubts(self) -> list[str]:
        """See `Source.doubts`, and `dialect.doubts`."""
        buffers, head = self.file.buffers(Position(0, 0, 0)), b""
        for buffer in buffers:
            head += buffer
            if len(head) > LOOK_BYTES:
                break
        text = head[:LOOK_BYTES].decode("utf-8" if self.file.is_utf8 else self.file.encoding, "replace")
        return doubts(text, self.dialect, len(self.columns), is_whole=len(head) <= LOOK_BYTES)

    def _read_header(self, loader: Loader) -> bool:
        """Read what is before the rows: blank lines, `sep=;`, the names of the columns.

        Returns:
            Whether there are columns.
        """
        here, before = self.start, b""
        while record := next(iter(RecordReader(self.file, self.dialect, here)), None):
            after = Position(0, record.offset + len(record.raw), record.line + len(record.raw.splitlines()))
            raw = before + record.raw
            named = _delimiter_line(self.file.decode(record.raw, record.line + 1))
            if named and here == self.start:
                self.dialect = self.dialect._replace(delimiter=loader.delimiter or named[1])
                self.header_bytes, self.start = raw, after
            elif record.cells:
                self.columns = record.cells
                if self.has_header:
                    self.header_bytes, self.start = self.header_bytes + raw, after
                else:
                    self.columns = [f"column_{number}" for number in range(1, len(self.columns) + 1)]
                return True
            before, here = b"" if named else raw, after
        return False

    def _advice(self, missing: str, advice: str) -> str:
        """Say which columns there are, or that the header looks as if another delimiter or no header were meant."""
        if len(self.columns) == 1:
            for other in ";\t|,":
                if other != self.dialect.delimiter and other in self.columns[0]:
                    return f"the header is one column {self.columns[0]!r}; set loader.delimiter to {other!r}?"
        advice = existing_columns(self.columns, missing, advice)
        if self.has_header and any(not name or name[0].isdigit() or len(name) > _LONG_NAME for name in self.columns):
            advice += "; if the first record is a row and no header, set loader.header = false"
        return advice


class CsvScanner:
    """Finds the records of a file many at once, as long as all are written the regular way.

    That is: each cell is plain, or quoted as a whole with the quotes in it doubled, and each record has `width` cells.
    `buffers` are the bytes from `position` on. Iterating gives the position of the first of some records, their bytes,
    and the bytes of the cell with the index `column` of each, without its outer quotes. When it ends, `position` and
    `rest()` are where the other records begin.
    """

    def __init__(
        self, buffers: Iterator[bytes], position: Position, dialect: Dialect, *, width: int, column: int | None = None
    ) -> None:
        self.position = position
        self._delimiter, self._has_quotes = ord(dialect.delimiter), dialect.has_quotes
        self._width, self._column = width, column
        self._buffers, self._held = whole_lines(buffers), b""
        self._may_stand_beside_quotes = np.zeros(256, bool)
        self._may_stand_beside_quotes[[self._delimiter, LF, CR, QUOTE]] = True

    def __iter__(self) -> Iterator[tuple[Position, RowBytes, pa.LargeBinaryArray | None]]:
        for buffer in self._buffers:
            self._held += buffer
            if len(self._held) > MOST_AT_ONCE:
                return
            separators, lines = self._separators(self._held)
            if len(separators):
                rows, here = RowBytes(self._held, 0, separators[:, -1] + 1), self.position
                size = int(rows.ends[-1])
                self._held = self._held[size:]
                self.position = Position(here.row + len(rows), here.offset + size, here.line + lines)
                column, has_quotes = self._column, self._has_quotes
                yield here, rows, None if column is None else _cells_of(rows, separators, column, has_quotes=has_quotes)
            elif len(self._held) > MOST_HELD:
                return

    def rest(self) -> Iterator[bytes]:
        """Give the bytes from `position` on."""
        return itertools.chain([self._held] if self._held else [], self._buffers)

    def _separators(self, data: bytes) -> tuple[Offsets, int]:
        """Find where the cells of the regular and whole records at the start of `data` end.

        Returns the offsets of the delimiter or line end after each cell, (records, width), and the number of lines.
        """
        codes = np.frombuffer(data, np.uint8)
        separates = (codes == self._delimiter) | ends_line(data)
        marks = np.flatnonzero(separates | (codes == QUOTE) if self._has_quotes else separates)
        kinds = codes[marks]
        is_quote, is_line_end = kinds == QUOTE, (kinds == LF) | (kinds == CR)
        is_open = np.cumsum(is_quote, dtype=np.uint8) & 1
        separates = ~is_quote & (is_open == 0) & (marks < self._first_odd_quote(codes, marks[is_quote]))
        separators = marks[separates]
        records_end = np.flatnonzero(is_line_end[separates]) + 1  # after so many separators
        whole = np.arange(1, len(records_end) + 1) * self._width
        unlike = np.flatnonzero(records_end != whole)
        records = int(unlike[0]) if len(unlike) else len(whole)
        separators = separators[: records * self._width].reshape(records, self._width)
        lines = np.count_nonzero(is_line_end[: np.searchsorted(marks, separators[-1, -1], "right")]) if records else 0
        return separators, int(lines)

    def _first_odd_quote(self, codes: Codes, quotes: Offsets) -> int:
        """Find the first quote that is neither at the edge of its cell nor doubled; the end of the data if none is."""
        opening, closing = quotes[0::2], quotes[1::2]
        before, after = opening[opening > 0] - 1, closing[closing < len(codes) - 1] + 1
        odd_before = before[~self._may_stand_beside_quotes[codes[before]]] + 1
        odd_after = after[~self._may_stand_beside_quotes[codes[after]]] - 1
        return int(min([len(codes), *odd_before[:1], *odd_after[:1]]))


def _cells_of(rows: RowBytes, separators: Offsets, column: int, *, has_quotes: bool = True) -> pa.LargeBinaryArray:
    """Take the cells of one column, without their outer quotes."""
    starts = separators[:, column - 1] + 1 if column else rows.starts
    stops = separators[:, column] if column < separators.shape[1] - 1 else rows.body_ends
    is_quoted = (rows.codes[starts] == QUOTE) & has_quotes
    edges = np.column_stack([starts + is_quoted, stops - is_quoted]).ravel()
    return even_values(binary_slices(rows.data, edges))  # the odd ones are what stands between two cells


class Record(NamedTuple):
    """One record as `RecordReader` finds it."""

    cells: list[str]
    raw: bytes  # with the line end
    offset: int  # bytes before it
    line: int  # lines before it


class RecordReader:
    """Reads records with the csv module, and knows the bytes of each.

    The csv module takes lines of text, so their bytes are held here until the record that they belong to is whole.
    `buffers` are the bytes of the file from `position` on. Afterwards `reached` is the offset and the line up to which
    records were given.

    Raises:
        InputError: a record is longer than `LONGEST_RECORD` or does not end, or bytes are not of the encoding.
    """

    def __init__(
        self, file: TextFile, dialect: Dialect, position: Position, buffers: Iterator[bytes] | None = None
    ) -> None:
        self._file, self._dialect = file, dialect
        self._buffers = file.buffers(position) if buffers is None else buffers
        self.reached = position.offset, position.line
        self._held: list[bytes] = []  # the lines of the record that is not whole yet
        self._at_end = False

    def __iter__(self) -> Iterator[Record]:
        reader = self._dialect.reader(self._lines())
        while (cells := self._next(reader)) is not None:
            if self._at_end:  # the csv module has asked for one more line to finish this record
                raise self._endless()
            raw, (offset, line) = b"".join(self._held), self.reached
            self.reached = offset + len(raw), line + len(self._held)
            self._held.clear()
            yield Record(cells, raw, offset, line)

    def _next(self, reader: Iterator[list[str]]) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:  # a line end within a line, from an encoding that has several
            line = self.reached[1] + len(self._held)
            raise InputError(f"{self._file.path}:{line}: {error}; set loader.encoding?") from None

    def _lines(self) -> Iterator[str]:
        """Decode the lines, and hold their bytes."""
        held, size = self._held, 0
        for lines in rows_of_lines(self._buffers):
            for line in lines:
                size = len(line) + (size if held else 0)
                if size > LONGEST_RECORD:
                    raise self._endless()
                held.append(line)
                yield self._file.decode(line, self.reached[1] + len(held))
        self._at_end = True

    def _endless(self) -> InputError:
        if not self._dialect.has_quotes:
            return InputError(
                f"{self._file.path}:{self.reached[1] + 1}: the last line end of this record is part of a cell, so the "
                f"record does not end, or it is longer than {LONGEST_RECORD >> 20} MiB; add a line end"
            )
        return InputError(
            f"{self._file.path}:{self.reached[1] + 1}: a quote is opened in this record and never closed, or the "
            f'record is longer than {LONGEST_RECORD >> 20} MiB; mend it, or set loader.quoting = "none" if quotes are '
            f"plain characters"
        )


class CsvAppender(TextWriter):
    """Copies each record's bytes and appends cells before its line end, in the file's own encoding."""

    def __init__(self, source: CsvSource, destination: Destination) -> None:
        file, dialect = source.file, source.dialect
        encoding = "utf-8" if file.is_utf8 else file.encoding
        super().__init__(destination.draft, file.encoding)
        self._appended = _appended_cells(destination, dialect, encoding)
        names = _encode(_line(destination.columns.names, dialect), encoding)
        if not source.has_header:
            header = source.header_bytes
        elif source.is_empty:  # there are no columns that ours could follow
            header = names + b"\n"
        else:
            body = source.header_bytes.rstrip(b"\r\n")
            header = body + _encode(dialect.delimiter, encoding) + names + source.header_bytes[len(body) :]
        self._stream.write(file.bom + header)

    def write(self, rows: RowBytes, answers: Answers) -> None:
        """See `Writer.write`."""
        for part in insert(rows, rows.body_ends, self._appended.of(answers)):
            self._stream.write(part)


class CsvWriter(TextWriter):
    """Writes CSV or TSV: UTF-8, LF, quotes only where they are needed."""

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        super().__init__(destination.draft)
        self._names, self._dialect = schema.names, Dialect(DELIMITERS[destination.format.name])
        self._appended = _appended_cells(destination, self._dialect, "utf-8")
        if destination.has_header:
            self._stream.write(_line([*self._names, *destination.columns.names], self._dialect).encode() + b"\n")

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        columns = [to_cells(column, name) for column, name in zip(rows.columns, self._names, strict=True)]
        lines = [_line(cells, self._dialect).encode() for cells in zip(*columns, strict=True)]
        pairs = zip(lines, self._appended.of(answers).to_pylist(), strict=True)
        self._stream.write(b"".join([b"%b%b\n" % pair for pair in pairs]))


def _cells_of_settings(writer: Settings) -> Iterator[tuple[str, str]]:
    """Yield keys with a cell that they bring: lists are JSON text, whose commas may be delimiters."""
    if writer.probs == "list":
        yield "probs", "[0,1]"
    if writer.multi_label is not None:
        yield "multi_label", '["",""]'
    if writer.top_k is not None:
        yield "top_k", '[{"label":"","score":1}]'
    yield "unsure_label", writer.unsure_label or ""


def _appended_cells(destination: Destination, dialect: Dialect, encoding: str) -> AppendedText:
    """Make the cells that are appended to a record, each after a delimiter.

    Characters of error messages that the encoding does not have become escapes, and those that the dialect can't write
    become spaces: the words of a server are no reason to end the run.
    """
    write = dialect.cell_writer()

    def spell(value: Any) -> bytes:
        if value is None:
            return b""
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if not isinstance(value, str) and not text.isascii() and encoding != "utf-8":
            text = json.dumps(value)  # names of classes in a list: JSON has escapes for what the encoding lacks
        return _encode(write(text), encoding)

    def spell_error(value: str | None) -> bytes:
        return spell(value and dialect.softened(value).encode(encoding, "backslashreplace").decode(encoding))

    count = len(destination.columns.names)
    spells = [spell] * count
    spells[2] = spell_error
    return AppendedText(destination.columns, destination.labels, [_encode(dialect.delimiter, encoding)] * count, spells)


def _line(cells: Sequence[str | None], dialect: Dialect) -> str:
    # Not csv.writer: with LF as its line end it leaves a cell with a lone CR unquoted (Python 3.11).
    write = dialect.cell_writer()
    return dialect.delimiter.join([write(cell) if cell else "" for cell in cells])


def _encode(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        what = error.object[error.start : error.end]
        raise OutputError(
            f"{what!r} can't be written in {encoding}, the encoding of the input; what was answered is kept: "
            f"run the same command with --set writer.format=jsonl"
        ) from None
