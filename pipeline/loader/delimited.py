"""CSV and TSV: the csv module over lines whose bytes are remembered, so that a record can be copied as it is."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import pyarrow as pa

from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.loader.lines import Place, TextFile
from pipeline.loader.texts import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    TextBlock,
    TextSpec,
    block_of,
    blocks_of,
    no_column,
    refuse_doubled,
    refuse_existing,
)

# A record longer than this is a quote that nobody closed; without a bound it would take in the whole file.
LONGEST_RECORD = 256 << 20


class Record(NamedTuple):
    """One row: its cells, its bytes as they stand in the file, and where it begins."""

    cells: list[str]
    raw: bytes
    offset: int
    line: int  # lines before it
    lines: int  # that it takes


class CsvSource:
    """A CSV or TSV file with a header.

    Raises:
        InputError: empty (see `is_empty`), a column name twice, not of the encoding, a ragged or endless record.
    """

    def __init__(self, path: str, loader: Loader, kind: Literal["csv", "tsv"]) -> None:
        self.path, self.kind = path, kind
        self.delimiter = loader.delimiter or {"csv": ",", "tsv": "\t"}[kind]
        self.total_rows: int | None = None
        self.skipped = 0  # bad lines left out by the latest complete reading
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(path, loader.encoding)
        self.seekable = self.file.seekable
        # The limit is the csv module's, for the whole process; we only ever raise it.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
        header = next(self._records(Place(0, len(self.file.bom), 0)), None)
        self.is_empty = header is None
        self.columns: list[str] = header.cells if header else []
        self.header_raw: bytes = self.file.bom + (header.raw if header else b"")
        self.start = Place(0, len(self.header_raw), header.lines if header else 0)
        refuse_doubled(path, self.columns)

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
        indexes = [self.columns.index(name) for name in spec.columns]
        pick: Callable[[list[str]], str | None]
        if spec.is_plain:
            pick = lambda cells, index=indexes[0]: cells[index]  # type: ignore[misc] # noqa: E731
        else:
            pick = lambda cells: spec.render([cells[i] for i in indexes])  # noqa: E731
        first = place = place or self.start
        texts: list[str | None] = []
        chars = 0
        for record in self._rows(place):
            if not texts:
                first = Place(place.row, record.offset, record.line)
            text = pick(record.cells)
            texts.append(text)
            chars += len(text or "")
            if len(texts) == BLOCK_ROWS or chars >= BLOCK_CHARS:
                yield block_of(first, texts, {})
                place = Place(place.row + len(texts), 0, 0)
                texts, chars = [], 0
        if texts:
            yield block_of(first, texts, {})

    def records(self) -> Iterator[list[bytes]]:
        """The bytes of all records, some thousand at a time."""
        yield from blocks_of((record.raw for record in self._rows(self.start)), len)

    def schema(self) -> pa.Schema:
        """All cells are text."""
        return pa.schema([pa.field(name, pa.string()) for name in self.columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows as Arrow strings."""
        schema = self.schema()
        rows = (record.cells for record in self._rows(self.start))
        for block in blocks_of(rows, lambda cells: sum(map(len, cells))):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _rows(self, place: Place) -> Iterator[Record]:
        """The records that are rows: as many cells as the header, blank lines only where one column is all there is."""
        width, skipped = len(self.columns), 0
        for record in self._records(place):
            if len(record.cells) == width:
                yield record
            elif not record.cells:
                if width == 1:
                    yield record._replace(cells=[""])
            elif self._skip_bad:
                skipped += 1
            else:
                raise InputError(
                    f"{self.path}:{record.line + 1}: {len(record.cells)} cells where the header has {width}; "
                    f'mend the line, or leave such lines out with loader.on_bad_line = "skip"'
                )
        self.skipped = skipped

    def _endless(self, line: int) -> InputError:
        """A record that began after so many lines and does not end."""
        return InputError(
            f"{self.path}:{line + 1}: a quote is opened in this record and never closed, or the record is longer than "
            f"{LONGEST_RECORD >> 20} MiB; mend it"
        )

    def _records(self, place: Place) -> Iterator[Record]:
        """Every record with the bytes of the lines it took."""
        taken: list[bytes] = []
        line, size, at_end = place.line, 0, False

        def lines() -> Iterator[str]:
            nonlocal line, size, at_end
            for raw in self.file.lines(place):
                taken.append(raw)
                line += 1
                size += len(raw)
                if size > LONGEST_RECORD:
                    raise self._endless(line - len(taken))
                yield self.file.decode(raw, line)
            at_end = True

        offset = place.offset
        reader = csv.reader(lines(), delimiter=self.delimiter)
        for cells in reader:
            first = line - len(taken)
            if at_end:  # the reader asked for one more line to finish this record
                raise self._endless(first)
            raw = taken[0] if len(taken) == 1 else b"".join(taken)
            yield Record(cells, raw, offset, first, len(taken))
            offset += size
            size = 0
            taken.clear()


def _what_there_is(columns: Sequence[str], name: str, delimiter: str) -> str:
    other = next((mark for mark in ";\t|," if mark != delimiter and len(columns) == 1 and mark in columns[0]), None)
    if other:
        return f"the header is one column {columns[0]!r}; set loader.delimiter to {other!r}?"
    return no_column(columns, name)
