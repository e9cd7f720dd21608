"""CSV and TSV: the csv module over lines whose bytes are remembered, so that a record can be copied as it is."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from pipeline.arrow import joined_with
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.escaped import Texts, blank_ones, escape, escape_joined
from pipeline.loader.line_feed import LONGEST_RECORD, LineFeed
from pipeline.loader.lines import Place, TextFile, is_utf8
from pipeline.loader.regular import RegularRecords
from pipeline.loader.rows import RawRows
from pipeline.loader.texts import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    EMPTY,
    TextBlock,
    TextSpec,
    block_of,
    blocks_of,
    no_column,
    refuse_doubled,
    refuse_existing,
)
from pipeline.places import Location


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
        top = Place(0, len(self.file.bom), 0)
        header = next(self._records(top, self.file.blocks(top), at_once=1), None)
        self.is_empty = header is None
        self.columns: list[str] = header.cells[0] if header else []
        self.header_raw: bytes = self.file.bom + (header.raw[0] if header else b"")
        self.start = Place(0, len(self.header_raw), header.ends[0] if header else 0)
        refuse_doubled(self.path, self.columns)

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            if name not in self.columns:
                raise InputError(
                    f"{self.path}: no column {name!r}; {_what_there_is(self.columns, name, self.delimiter)}"
                )
        refuse_existing(self.path, self.columns, added)

    def texts(self, spec: TextSpec, place: Place | None = None) -> Iterator[TextBlock]:
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
            yield block_of(Place(row, found.offset, found.line), texts, {})
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

    def _regular(self, blocks: Iterator[bytes], place: Place, column: int | None = None) -> RegularRecords | None:
        """The records that can be read many at once, where that is possible at all."""
        self.skipped = 0
        if self.file.encoding != "utf-8" or not self.delimiter.isascii():
            return None
        return RegularRecords(blocks, place, self.delimiter, width=len(self.columns), column=column)

    def _block_at_once(self, place: Place, records: RawRows, cells: pa.LargeBinaryArray) -> TextBlock:
        data, size = records.data, int(records.ends[-1])
        if not data.isascii() and not is_utf8(memoryview(data)[:size]):
            for number, line in enumerate(data[:size].splitlines(), place.line + 1):
                self.file.decode(line, number)  # says which line it is
        joined = joined_with(b"\xff", cells)
        texts = escape_joined(joined, len(cells), doubled=True)
        if texts is None:
            texts = Texts.of([escape(text.decode()) for text in joined.replace(b'""', b'"').split(b"\xff")])
        return TextBlock(place, texts, dict.fromkeys(blank_ones(texts), EMPTY))

    def _rows(self, place: Place, blocks: Iterator[bytes]) -> Iterator[Records]:
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

    def _records(self, place: Place, blocks: Iterator[bytes], at_once: int = 0) -> Iterator[Records]:
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

    def _parsed(self, reader: Any, place: Place) -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:  # a line end within a line, from an encoding that has several
            raise InputError(f"{self.path}:{place.line + reader.line_num}: {error}; set loader.encoding?") from None


def _what_there_is(columns: Sequence[str], name: str, delimiter: str) -> str:
    other = next((mark for mark in ";\t|," if mark != delimiter and len(columns) == 1 and mark in columns[0]), None)
    if other:
        return f"the header is one column {columns[0]!r}; set loader.delimiter to {other!r}?"
    return no_column(columns, name)
