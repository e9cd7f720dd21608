"""CSV and TSV out: cells appended to the record's own bytes, or records made from Arrow columns."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Loader
from pipeline.errors import InputError, OutputError
from pipeline.formats.columns import Layout
from pipeline.formats.records import (
    CR,
    LF,
    QUOTE,
    AddedText,
    Codes,
    Offsets,
    RawRows,
    ends_line,
    spliced,
    whole_lines,
)
from pipeline.formats.source import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    TextSpec,
    blocks_of,
    no_column,
    refuse_doubled,
    refuse_existing,
)
from pipeline.formats.textfile import TextFile, is_utf8, is_wide
from pipeline.formats.values import to_cells
from pipeline.storage import Draft, Location
from pipeline.texts import (
    EMPTY,
    Position,
    TextBlock,
    Texts,
    blank_ones,
    block_of,
    escape,
    escape_joined,
    every_other,
    joined_with,
    pieces,
)

if TYPE_CHECKING:
    pass


# -- CSV records written the regular way, many at once: a cell is plain, or quoted as a whole with its quotes doubled


MOST_HELD = 2 << 20  # bytes that hold no whole record: then it is not regular, or not worth the trouble
MOST_AT_ONCE = 16 << 20  # bytes of one line: to look at them at once would take several times as many


class RegularRecords:
    """The records in `blocks`, which begin at `place`; of each its bytes, and those of the cell `column`.

    A cell is what stands between its quotes, if it has some. When it ends, `place` and `rest()` are where the others
    begin.
    """

    def __init__(
        self, blocks: Iterator[bytes], place: Position, delimiter: str, *, width: int, column: int | None = None
    ) -> None:
        self.place = place
        self._delimiter, self._width, self._column = ord(delimiter), width, column
        self._pieces, self._held = whole_lines(blocks), b""
        self._may_stand_beside_quotes = np.zeros(256, bool)
        self._may_stand_beside_quotes[[self._delimiter, LF, CR, QUOTE]] = True

    def __iter__(self) -> Iterator[tuple[Position, RawRows, pa.LargeBinaryArray | None]]:
        for piece in self._pieces:
            self._held += piece
            if len(self._held) > MOST_AT_ONCE:
                return
            separators, lines = self._separators(self._held)
            if len(separators):
                rows, here = RawRows(self._held, 0, separators[:, -1] + 1), self.place
                size = int(rows.ends[-1])
                self._held = self._held[size:]
                self.place = Position(here.row + len(rows), here.offset + size, here.line + lines)
                yield here, rows, None if self._column is None else _cells(rows, separators, self._column)
            elif len(self._held) > MOST_HELD:
                return

    def rest(self) -> Iterator[bytes]:
        """The bytes from `place` on."""
        return itertools.chain([self._held] if self._held else [], self._pieces)

    def _separators(self, data: bytes) -> tuple[Offsets, int]:
        """For each record, as far as they are regular and whole, where its cells end; and how many lines they take."""
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
        """Where the first quote is that neither stands at the edge of its cell nor is doubled."""
        opening, closing = quotes[0::2], quotes[1::2]
        before, after = opening[opening > 0] - 1, closing[closing < len(codes) - 1] + 1
        odd_before = before[~self._may_stand_beside_quotes[codes[before]]] + 1
        odd_after = after[~self._may_stand_beside_quotes[codes[after]]] - 1
        return int(min([len(codes), *odd_before[:1], *odd_after[:1]]))


def _cells(rows: RawRows, separators: Offsets, column: int) -> pa.LargeBinaryArray:
    """What stands in one column."""
    starts = separators[:, column - 1] + 1 if column else rows.starts
    stops = separators[:, column] if column < separators.shape[1] - 1 else rows.body_ends
    is_quoted = rows.codes[starts] == QUOTE
    edges = np.column_stack([starts + is_quoted, stops - is_quoted]).ravel()
    return every_other(pieces(rows.data, edges))  # cells, and what is between them


# -- The lines of a CSV file as the csv module takes them, while their bytes are held


# A record longer than this is a quote that nobody closed; without a bound it would take in the whole file.
LONGEST_RECORD = 256 << 20


class LineFeed:
    """The lines of a file for the csv module, their bytes held until the record they belong to is whole."""

    def __init__(self, source: CsvSource, place: Position, blocks: Iterator[bytes]) -> None:
        self._source, self._place, self._blocks = source, place, blocks
        self._held: list[bytes] = []
        self.held_bytes = 0
        self.taken = self.whole = 0  # lines of records that were taken, or are whole
        self.at_end = False

    def texts(self) -> Iterator[list[str]]:
        """The lines as text."""
        file, number = self._source.file, self._place.line
        unfinished = whole = size = 0
        for lines in file.split(self._blocks, self._place):
            # A record that was begun in the last lines may have taken all of them.
            unfinished = size if self.whole > whole else unfinished + size
            whole = self.whole
            if unfinished > LONGEST_RECORD:
                raise self._source.endless(self._place.line + whole)
            size = sum(map(len, lines))
            self._held += lines
            self.held_bytes += size
            yield [file.decode(line, number + index) for index, line in enumerate(lines, 1)]
            number += len(lines)
        self.at_end = True

    def take(self, ends: list[int]) -> list[bytes]:
        """The bytes of the records that were whole after so many lines each."""
        starts = [self.taken, *ends[:-1]]
        if ends[-1] - self.taken == len(ends):
            raw = self._held[: len(ends)]
        else:
            first = self.taken
            raw = [b"".join(self._held[start - first : end - first]) for start, end in zip(starts, ends, strict=True)]
        del self._held[: ends[-1] - self.taken]
        self.taken = ends[-1]
        self.held_bytes -= sum(map(len, raw))
        return raw


# -- CSV and TSV: the csv module over lines whose bytes are remembered, so that a record can be copied as it is


class Records(NamedTuple):
    """Consecutive records: their cells, their bytes as they stand in the file, and where the first begins."""

    cells: list[list[str]]
    raw: list[bytes]
    offset: int
    line: int  # lines before the first
    ends: list[int]  # lines before the end of each


class CsvSource:
    """A CSV or TSV file with a header.

    Raises:
        InputError: empty (see `is_empty`), a column name twice, not of the encoding, a ragged or endless record.
    """

    def __init__(self, location: Location, loader: Loader, kind: Literal["csv", "tsv"]) -> None:
        self.location, self.path, self.kind = location, location.shown, kind
        self.delimiter = loader.delimiter or {"csv": ",", "tsv": "\t"}[kind]
        self.total_rows: int | None = None
        self.skipped = 0  # bad lines left out by the latest complete reading
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.seekable = self.file.seekable
        # The limit is the csv module's, for the whole process; we only ever raise it.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
        top = Position(0, len(self.file.bom), 0)
        header = next(self._records(top, self.file.blocks(top), at_once=1), None)
        self.is_empty = header is None
        self.columns: list[str] = header.cells[0] if header else []
        self.header_raw: bytes = self.file.bom + (header.raw[0] if header else b"")
        self.start = Position(0, len(self.header_raw), header.ends[0] if header else 0)
        refuse_doubled(self.path, self.columns)

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            if name not in self.columns:
                raise InputError(
                    f"{self.path}: no column {name!r}; {_what_there_is(self.columns, name, self.delimiter)}"
                )
        refuse_existing(self.path, self.columns, added)

    def texts(self, spec: TextSpec, place: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        if self.is_empty:
            return
        place = place or self.start
        blocks = self.file.blocks(place)
        indexes = [self.columns.index(name) for name in spec.columns]
        if spec.is_plain and (regular := self._regular(blocks, place, indexes[0])):
            for first, records, cells in regular:
                yield self._block_at_once(first, records, cells)
            place, blocks = regular.place, regular.rest()
        row = place.row
        for found in self._rows(place, blocks):
            texts = [
                cells[indexes[0]] if spec.is_plain else spec.render([cells[index] for index in indexes])
                for cells in found.cells
            ]
            yield block_of(Position(row, found.offset, found.line), texts, {})
            row += len(texts)

    def records(self) -> Iterator[RawRows | list[bytes]]:
        """See `RawSource.records`."""
        place, blocks = self.start, self.file.blocks(self.start)
        if regular := self._regular(blocks, place):
            yield from (records for _, records, _ in regular)
            place, blocks = regular.place, regular.rest()
        yield from (records.raw for records in self._rows(place, blocks))

    def schema(self) -> pa.Schema:
        """All cells are text."""
        return pa.schema([pa.field(name, pa.string()) for name in self.columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows as Arrow strings."""
        schema = self.schema()
        self.skipped = 0
        found = self._rows(self.start, self.file.blocks(self.start))
        rows = (cells for records in found for cells in records.cells)
        for block in blocks_of(rows, lambda cells: sum(map(len, cells))):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _regular(self, blocks: Iterator[bytes], place: Position, column: int | None = None) -> RegularRecords | None:
        """The records that can be read many at once, where that is possible at all."""
        self.skipped = 0
        if self.file.encoding != "utf-8" or not self.delimiter.isascii():
            return None
        return RegularRecords(blocks, place, self.delimiter, width=len(self.columns), column=column)

    def _block_at_once(self, place: Position, records: RawRows, cells: pa.LargeBinaryArray) -> TextBlock:
        data, size = records.data, int(records.ends[-1])
        if not data.isascii() and not is_utf8(memoryview(data)[:size]):
            for number, line in enumerate(data[:size].splitlines(), place.line + 1):
                self.file.decode(line, number)  # says which line it is
        joined = joined_with(b"\xff", cells)
        texts = escape_joined(joined, len(cells), doubled=True)
        if texts is None:
            texts = Texts.of([escape(text.decode()) for text in joined.replace(b'""', b'"').split(b"\xff")])
        return TextBlock(place, texts, dict.fromkeys(blank_ones(texts), EMPTY))

    def _rows(self, place: Position, blocks: Iterator[bytes]) -> Iterator[Records]:
        """The records that are rows: as many cells as the header, blank lines only where one column is all there is."""
        width = len(self.columns)
        for records in self._records(place, blocks):
            kept = records if set(map(len, records.cells)) == {width} else self._sorted_out(records, width)
            if kept.cells:
                yield kept

    def _sorted_out(self, records: Records, width: int) -> Records:
        """Without blank lines and without bad ones, which are counted."""
        kept: list[tuple[list[str], bytes]] = []
        starts = [records.line, *records.ends[:-1]]
        for cells, raw, line in zip(records.cells, records.raw, starts, strict=True):
            if len(cells) == width:
                kept.append((cells, raw))
            elif not cells:
                kept += [([""], raw)] if width == 1 else []
            elif self._skip_bad:
                self.skipped += 1
            else:
                raise InputError(
                    f"{self.path}:{line + 1}: {len(cells)} cells where the header has {width}; "
                    f'mend the line, or leave such lines out with loader.on_bad_line = "skip"'
                )
        return records._replace(cells=[cells for cells, _ in kept], raw=[raw for _, raw in kept])

    def _refuse_endless(self, records: list[bytes], line: int) -> None:
        if max(map(len, records)) > LONGEST_RECORD:
            before = next(index for index, record in enumerate(records) if len(record) > LONGEST_RECORD)
            raise self.endless(line + len(b"".join(records[:before]).splitlines()))

    def endless(self, line: int) -> InputError:
        """A record that began after so many lines and does not end."""
        return InputError(
            f"{self.path}:{line + 1}: a quote is opened in this record and never closed, or the record is longer than "
            f"{LONGEST_RECORD >> 20} MiB; mend it"
        )

    def _records(self, place: Position, blocks: Iterator[bytes], at_once: int = 0) -> Iterator[Records]:
        """Every record with the bytes of the lines it took."""
        feed = LineFeed(self, place, blocks)
        reader = csv.reader(itertools.chain.from_iterable(feed.texts()), delimiter=self.delimiter)
        rows, offset = self._parsed(reader, place), place.offset
        while True:
            cells, ends = [], []  # `ends`: how many lines were read when the record was whole
            for row in itertools.islice(rows, at_once or BLOCK_ROWS):
                if feed.at_end:  # the reader asked for one more line to finish this record
                    raise self.endless(place.line + feed.whole)
                cells.append(row)
                feed.whole = reader.line_num
                ends.append(feed.whole)
                if feed.held_bytes > BLOCK_CHARS:
                    break
            if not cells:
                return
            line = place.line + feed.taken
            raw = feed.take(ends)
            self._refuse_endless(raw, line)
            yield Records(cells, raw, offset, line, [place.line + end for end in ends])
            offset += sum(map(len, raw))

    def _parsed(self, reader: Any, place: Position) -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:  # a line end within a line, from an encoding that has several
            raise InputError(f"{self.path}:{place.line + reader.line_num}: {error}; set loader.encoding?") from None


def _what_there_is(columns: Sequence[str], name: str, delimiter: str) -> str:
    other = next((mark for mark in ";\t|," if mark != delimiter and len(columns) == 1 and mark in columns[0]), None)
    if other:
        return f"the header is one column {columns[0]!r}; set loader.delimiter to {other!r}?"
    return no_column(columns, name)


# -- CSV and TSV out: cells appended to the record's own bytes, or records made from Arrow columns


class CsvAppender:
    """Copies each record's bytes and appends cells before its line end, in the file's own encoding."""

    def __init__(self, draft: Draft, source: CsvSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._delimiter, self._encoding = source.delimiter, source.file.encoding
        bom = source.file.bom
        header = source.header_raw.removeprefix(bom)
        names = self._delimiter.join([_quote(name, self._delimiter) for name in layout.names])
        # A file of no bytes has no columns that ours could follow.
        first = f"{names}\n".encode() if source.is_empty else self._append(header, (self._delimiter + names).encode())
        self._stream.write(bom + first)
        self._added = _added_cells(layout, labels, self._delimiter, self._encoding)

    def write(self, records: RawRows | Sequence[bytes], answers: Answers) -> None:
        """Append rows."""
        added = self._added.of(answers)
        if isinstance(records, RawRows):
            for part in spliced(records, records.body_ends, added):
                self._stream.write(part)
        else:
            self._stream.write(b"".join(map(self._append, records, added.to_pylist())))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _append(self, record: bytes, added: bytes) -> bytes:
        """`added` is UTF-8, and comes before the record's line end."""
        try:
            if is_wide(self._encoding):
                text = record.decode(self._encoding)
                body = text.rstrip("\r\n")
                return (body + added.decode() + text[len(body) :]).encode(self._encoding)
            if self._encoding != "utf-8":
                added = added.decode().encode(self._encoding)
        except UnicodeEncodeError as error:
            what = error.object[error.start : error.end]
            raise OutputError(
                f"{what!r} can't be written in {self._encoding}, the encoding of the input; choose another format"
            ) from None
        body_bytes = record.rstrip(b"\r\n")
        return body_bytes + added + record[len(body_bytes) :]


class CsvSink:
    """Writes record batches as CSV: UTF-8, LF, quotes where they are needed."""

    def __init__(self, draft: Draft, schema: pa.Schema, layout: Layout, labels: Sequence[str], delimiter: str) -> None:
        self._stream = draft.write_text()
        self._names, self._delimiter = schema.names, delimiter
        self._added = _added_cells(layout, labels, delimiter)
        self._stream.write(self._line([*self._names, *layout.names]) + b"\n")

    def write(self, batch: pa.RecordBatch, answers: Answers) -> None:
        """Append rows."""
        columns = [to_cells(column, name) for column, name in zip(batch.columns, self._names, strict=True)]
        lines = map(self._line, zip(*columns, strict=True))
        rows = zip(lines, self._added.of(answers).to_pylist(), strict=True)
        self._stream.write(b"".join([b"%b%b\n" % row for row in rows]))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _line(self, cells: Sequence[str | None]) -> bytes:
        # Not csv.writer: with LF as its line end it leaves a cell with a lone CR unquoted (Python 3.11).
        delimiter = self._delimiter
        return delimiter.join([_quote(cell, delimiter) if cell else "" for cell in cells]).encode()


def _added_cells(layout: Layout, labels: Sequence[str], delimiter: str, encoding: str = "utf-8") -> AddedText:
    """What is added to a record: cells, each after a delimiter, in UTF-8 still; `encoding` is that of the file."""

    def spell(value: Any) -> bytes:
        return _cell(value, delimiter)

    def spell_error(value: str | None) -> bytes:
        # A server's words, with escapes for what the encoding does not have: they are no reason to stop.
        return spell(value and value.encode(encoding, "backslashreplace").decode(encoding))

    columns = len(layout.names)
    spells = [spell] * columns
    spells[2] = spell_error
    return AddedText(layout, labels, [delimiter.encode()] * columns, spells)


def _cell(value: Any, delimiter: str) -> bytes:
    """A value that we add as a cell."""
    if value is None:
        return b""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _quote(text, delimiter).encode()


def _quote(text: str, delimiter: str) -> str:
    if delimiter in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text
