"""CSV and TSV files with a header.

Reading: records that are written the regular way are found thousands at a time by `CsvScanner`, from the bytes alone.
From the first other one on, `RecordReader` reads record by record with the csv module. Both find the same cells; not
pyarrow's reader, which drops blank lines and fails on a cell larger than its block.

Writing: `CsvAppender` appends cells to the records of a file of the same format and keeps their bytes, `CsvWriter`
makes records of Arrow columns.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Loader
from pipeline.errors import InputError, OutputError
from pipeline.formats.appended_columns import AppendedColumns, AppendedText
from pipeline.formats.registry import Format
from pipeline.formats.source import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    Destination,
    TextSpec,
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
    ends_line,
    insert,
    is_utf8,
    is_wide,
    whole_lines,
    write_text,
)
from pipeline.formats.values import to_cells
from pipeline.storage import Location
from pipeline.texts import (
    EMPTY,
    SEPARATOR,
    Codes,
    Offsets,
    Position,
    TextBlock,
    Texts,
    binary_slices,
    blank_indexes,
    block_of,
    escape,
    escape_joined,
    even_values,
    join_values,
)

DELIMITERS = {"csv": ",", "tsv": "\t"}  # by the name of the format
LONGEST_RECORD = 256 << 20  # bytes: a longer one is a quote that nobody closed, which could take in the whole file
MOST_HELD = 2 << 20  # bytes without a whole record, from which on the scanner gives up
MOST_AT_ONCE = 16 << 20  # bytes that the scanner looks at: it takes several times as many of memory


class CsvSource:
    """Reads a CSV or TSV file.

    Raises:
        InputError: a column name twice, bytes that are not of the encoding, a ragged or endless record.
    """

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        self.location, self.path, self.format = location, location.shown, file_format
        self.delimiter = loader.delimiter or DELIMITERS[file_format.name]
        self.total_rows: int | None = None
        self.skipped = 0
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.seekable = self.file.seekable
        # The limit is the csv module's, for the whole process; it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
        top = Position(0, len(self.file.bom), 0)
        header = next(RecordReader(self.file, self.delimiter, top, self.file.buffers(top)).records(most=1), None)
        self.is_empty = header is None
        self.columns: list[str] = header.cells[0] if header else []
        self.header_bytes: bytes = header.raw[0] if header else b""  # without the BOM
        self.start = Position(0, top.offset + len(self.header_bytes), header.ends[0] if header else 0)
        refuse_duplicates(self.path, self.columns)

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            if name not in self.columns:
                raise InputError(f"{self.path}: no column {name!r}; {self._advice(name)}")
        refuse_existing(self.path, self.columns, appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        if self.is_empty:
            return
        position = position or self.start
        buffers = self.file.buffers(position)
        indexes = [self.columns.index(name) for name in spec.columns]
        if spec.is_plain and (scanner := self._scanner(buffers, position, indexes[0])):
            for first, records, cells in scanner:
                yield self._block_of_cells(first, records, cells)
            position, buffers = scanner.position, scanner.rest()
        row = position.row
        for found in self._rows(position, buffers):
            texts = [
                cells[indexes[0]] if spec.is_plain else spec.render([cells[index] for index in indexes])
                for cells in found.cells
            ]
            yield block_of(Position(row, found.offset, found.line), texts, {})
            row += len(texts)

    def row_bytes(self) -> Iterator[RowBytes | list[bytes]]:
        """Read the bytes of all rows with their line ends, some thousand at a time."""
        position, buffers = self.start, self.file.buffers(self.start)
        if scanner := self._scanner(buffers, position):
            yield from (records for _, records, _ in scanner)
            position, buffers = scanner.position, scanner.rest()
        yield from (records.raw for records in self._rows(position, buffers))

    def schema(self) -> pa.Schema:
        """See `Source.schema`: all cells are strings."""
        return pa.schema([pa.field(name, pa.string()) for name in self.columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        schema = self.schema()
        self.skipped = 0
        found = self._rows(self.start, self.file.buffers(self.start))
        rows = (cells for records in found for cells in records.cells)
        for block in blocks_of(rows, lambda cells: sum(map(len, cells))):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def appender(self, destination: Destination) -> CsvAppender:
        """See `Source.appender`."""
        return CsvAppender(self, destination)

    def _scanner(self, buffers: Iterator[bytes], position: Position, column: int | None = None) -> CsvScanner | None:
        """Make a scanner, if it knows the encoding and the delimiter."""
        self.skipped = 0
        if self.file.encoding != "utf-8" or not self.delimiter.isascii():
            return None
        return CsvScanner(buffers, position, self.delimiter, width=len(self.columns), column=column)

    def _block_of_cells(self, position: Position, records: RowBytes, cells: pa.LargeBinaryArray) -> TextBlock:
        """Make a block of the cells that were scanned, whose quotes are doubled still."""
        data, size = records.data, int(records.ends[-1])
        if not data.isascii() and not is_utf8(memoryview(data)[:size]):
            for number, line in enumerate(data[:size].splitlines(), position.line + 1):
                self.file.decode(line, number)  # says which line it is
        joined = join_values(cells)
        texts = escape_joined(joined, len(cells), doubled=True)
        if texts is None:
            texts = Texts.of([escape(text.decode()) for text in joined.replace(b'""', b'"').split(SEPARATOR)])
        return TextBlock(position, texts, dict.fromkeys(blank_indexes(texts), EMPTY))

    def _rows(self, position: Position, buffers: Iterator[bytes]) -> Iterator[Records]:
        """Read the records that are rows: those with as many cells as the header."""
        width = len(self.columns)
        for records in RecordReader(self.file, self.delimiter, position, buffers).records():
            rows = records if set(map(len, records.cells)) == {width} else self._only_rows(records, width)
            if rows.cells:
                yield rows

    def _only_rows(self, records: Records, width: int) -> Records:
        """Leave out blank lines, but for files of one column, where they are rows, and bad lines, which are counted."""
        rows: list[tuple[list[str], bytes]] = []
        starts = [records.line, *records.ends[:-1]]
        for cells, raw, line in zip(records.cells, records.raw, starts, strict=True):
            if len(cells) == width:
                rows.append((cells, raw))
            elif not cells:
                rows += [([""], raw)] if width == 1 else []
            elif self._skip_bad:
                self.skipped += 1
            else:
                raise InputError(
                    f"{self.path}:{line + 1}: {len(cells)} cells where the header has {width}; "
                    f'mend the line, or leave such lines out with loader.on_bad_line = "skip"'
                )
        return records._replace(cells=[cells for cells, _ in rows], raw=[raw for _, raw in rows])

    def _advice(self, missing: str) -> str:
        """Say which columns there are, or that the header looks as if another delimiter were meant."""
        if len(self.columns) == 1:
            for other in ";\t|,":
                if other != self.delimiter and other in self.columns[0]:
                    return f"the header is one column {self.columns[0]!r}; set loader.delimiter to {other!r}?"
        return existing_columns(self.columns, missing)


class CsvScanner:
    """Finds the records of a file many at once, as long as all are written the regular way.

    That is: each cell is plain, or quoted as a whole with the quotes in it doubled, and each record has `width` cells.
    `buffers` are the bytes from `position` on. Iterating gives the position of the first of some records, their bytes,
    and the bytes of the cell with the index `column` of each, without its outer quotes. When it ends, `position` and
    `rest()` are where the other records begin.
    """

    def __init__(
        self, buffers: Iterator[bytes], position: Position, delimiter: str, *, width: int, column: int | None = None
    ) -> None:
        self.position = position
        self._delimiter, self._width, self._column = ord(delimiter), width, column
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
                yield here, rows, None if self._column is None else _cells_of(rows, separators, self._column)
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
        marks = np.flatnonzero((codes == QUOTE) | (codes == self._delimiter) | ends_line(data))
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


def _cells_of(rows: RowBytes, separators: Offsets, column: int) -> pa.LargeBinaryArray:
    """Take the cells of one column, without their outer quotes."""
    starts = separators[:, column - 1] + 1 if column else rows.starts
    stops = separators[:, column] if column < separators.shape[1] - 1 else rows.body_ends
    is_quoted = rows.codes[starts] == QUOTE
    edges = np.column_stack([starts + is_quoted, stops - is_quoted]).ravel()
    return even_values(binary_slices(rows.data, edges))  # the odd ones are what stands between two cells


class Records(NamedTuple):
    """Consecutive records as `RecordReader` finds them."""

    cells: list[list[str]]
    raw: list[bytes]  # the bytes of each, with the line end
    offset: int  # bytes before the first
    line: int  # lines before the first
    ends: list[int]  # lines before the end of each


class RecordReader:
    """Reads records with the csv module, and knows the bytes of each.

    The csv module takes lines of text and says how many of them a record took. So the bytes of the lines are held here
    until the record that they belong to is whole. `buffers` are the bytes of the file from `position` on.
    """

    def __init__(self, file: TextFile, delimiter: str, position: Position, buffers: Iterator[bytes]) -> None:
        self._file, self._delimiter, self._position, self._buffers = file, delimiter, position, buffers
        self._held: list[bytes] = []  # lines of records that were not given yet
        self._held_bytes = 0
        self._given = self._whole = 0  # lines of the records that were given, and of those that are whole
        self._at_end = False

    def records(self, most: int = 0) -> Iterator[Records]:
        """Read all records, at most `most` (default: `BLOCK_ROWS`) at a time.

        Raises:
            InputError: a record is longer than `LONGEST_RECORD` or does not end, or bytes are not of the encoding.
        """
        reader = csv.reader(itertools.chain.from_iterable(self._lines()), delimiter=self._delimiter)
        rows, offset, first_line = self._parsed(reader), self._position.offset, self._position.line
        while True:
            cells, ends = [], []  # `ends`: lines that were read when the record was whole
            for row in itertools.islice(rows, most or BLOCK_ROWS):
                if self._at_end:  # the csv module has asked for one more line to finish this record
                    raise self._endless(first_line + self._whole)
                cells.append(row)
                self._whole = reader.line_num
                ends.append(self._whole)
                if self._held_bytes > BLOCK_CHARS:
                    break
            if not cells:
                return
            line = first_line + self._given
            raw = self._take(ends)
            self._refuse_endless(raw, line)
            yield Records(cells, raw, offset, line, [first_line + end for end in ends])
            offset += sum(map(len, raw))

    def _lines(self) -> Iterator[list[str]]:
        """Decode the lines, and hold their bytes."""
        number = self._position.line
        unfinished = whole = size = 0
        for lines in self._file.line_lists(self._buffers, self._position):
            # A record that was begun in the last lines may have taken all of them.
            unfinished = size if self._whole > whole else unfinished + size
            whole = self._whole
            if unfinished > LONGEST_RECORD:
                raise self._endless(self._position.line + whole)
            size = sum(map(len, lines))
            self._held += lines
            self._held_bytes += size
            yield [self._file.decode(line, number + index) for index, line in enumerate(lines, 1)]
            number += len(lines)
        self._at_end = True

    def _parsed(self, reader: Any) -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:  # a line end within a line, from an encoding that has several
            line = self._position.line + reader.line_num
            raise InputError(f"{self._file.path}:{line}: {error}; set loader.encoding?") from None

    def _take(self, ends: list[int]) -> list[bytes]:
        """Take the bytes of the records that were whole after so many lines each."""
        starts = [self._given, *ends[:-1]]
        if ends[-1] - self._given == len(ends):  # each is one line
            raw = self._held[: len(ends)]
        else:
            first = self._given
            raw = [b"".join(self._held[start - first : end - first]) for start, end in zip(starts, ends, strict=True)]
        del self._held[: ends[-1] - self._given]
        self._given = ends[-1]
        self._held_bytes -= sum(map(len, raw))
        return raw

    def _refuse_endless(self, records: list[bytes], line: int) -> None:
        if max(map(len, records)) > LONGEST_RECORD:
            before = next(index for index, record in enumerate(records) if len(record) > LONGEST_RECORD)
            raise self._endless(line + len(b"".join(records[:before]).splitlines()))

    def _endless(self, line: int) -> InputError:
        """Make the error about a record that begins after `line` lines."""
        return InputError(
            f"{self._file.path}:{line + 1}: a quote is opened in this record and never closed, or the record is longer "
            f"than {LONGEST_RECORD >> 20} MiB; mend it"
        )


class CsvAppender:
    """Copies each record's bytes and appends cells before its line end, in the file's own encoding."""

    def __init__(self, source: CsvSource, destination: Destination) -> None:
        self._source = source
        self._stream = write_text(destination.draft)
        self._encoding = source.file.encoding
        delimiter, columns = source.delimiter, destination.columns
        names = delimiter.join([_quote(name, delimiter) for name in columns.names])
        if source.is_empty:  # there are no columns that ours could follow
            header = f"{names}\n".encode()
        else:
            header = self._append(source.header_bytes, (delimiter + names).encode())
        self._stream.write(source.file.bom + header)
        self._appended = _appended_cells(columns, destination.labels, delimiter, self._encoding)

    def rows(self) -> Iterator[RowBytes | list[bytes]]:
        """See `Appender.rows`."""
        return self._source.row_bytes()

    def write(self, rows: RowBytes | list[bytes], answers: Answers) -> None:
        """See `Writer.write`."""
        appended = self._appended.of(answers)
        if isinstance(rows, RowBytes):
            for part in insert(rows, rows.body_ends, appended):
                self._stream.write(part)
        else:
            self._stream.write(b"".join(map(self._append, rows, appended.to_pylist())))

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.close()

    def _append(self, record: bytes, appended: bytes) -> bytes:
        """Append cells, which are UTF-8 still, before a record's line end."""
        try:
            if is_wide(self._encoding):
                text = record.decode(self._encoding)
                body = text.rstrip("\r\n")
                return (body + appended.decode() + text[len(body) :]).encode(self._encoding)
            if self._encoding != "utf-8":
                appended = appended.decode().encode(self._encoding)
        except UnicodeEncodeError as error:
            what = error.object[error.start : error.end]
            raise OutputError(
                f"{what!r} can't be written in {self._encoding}, the encoding of the input; choose another format"
            ) from None
        body_bytes = record.rstrip(b"\r\n")
        return body_bytes + appended + record[len(body_bytes) :]


class CsvWriter:
    """Writes CSV or TSV: UTF-8, LF, quotes only where they are needed."""

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        self._stream = write_text(destination.draft)
        self._names, self._delimiter = schema.names, DELIMITERS[destination.format.name]
        self._appended = _appended_cells(destination.columns, destination.labels, self._delimiter)
        self._stream.write(self._line([*self._names, *destination.columns.names]) + b"\n")

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        columns = [to_cells(column, name) for column, name in zip(rows.columns, self._names, strict=True)]
        lines = zip(map(self._line, zip(*columns, strict=True)), self._appended.of(answers).to_pylist(), strict=True)
        self._stream.write(b"".join([b"%b%b\n" % line for line in lines]))

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.close()

    def _line(self, cells: Sequence[str | None]) -> bytes:
        # Not csv.writer: with LF as its line end it leaves a cell with a lone CR unquoted (Python 3.11).
        delimiter = self._delimiter
        return delimiter.join([_quote(cell, delimiter) if cell else "" for cell in cells]).encode()


def _appended_cells(
    columns: AppendedColumns, labels: Sequence[str], delimiter: str, encoding: str = "utf-8"
) -> AppendedText:
    """Make the cells that are appended to a record, each after a delimiter.

    They are UTF-8 still, with escapes for the characters of error messages that the file's `encoding` does not have:
    the words of a server are no reason to end the run.
    """

    def spell(value: Any) -> bytes:
        return _cell(value, delimiter)

    def spell_error(value: str | None) -> bytes:
        return spell(value and value.encode(encoding, "backslashreplace").decode(encoding))

    count = len(columns.names)
    spells = [spell] * count
    spells[2] = spell_error
    return AppendedText(columns, labels, [delimiter.encode()] * count, spells)


def _cell(value: Any, delimiter: str) -> bytes:
    """Write a value of an appended column as a cell."""
    if value is None:
        return b""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _quote(text, delimiter).encode()


def _quote(text: str, delimiter: str) -> str:
    if delimiter in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text
