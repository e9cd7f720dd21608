"""Parquet to Parquet: the file's own bytes as they stand, and after them the columns that are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrow import strings
from pipeline.checkpoint import Slab
from pipeline.errors import InputError, OutputError
from pipeline.loader.parquet import BATCH_ROWS, MAGIC, TAIL_BYTES, ParquetSource
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft
from pipeline.writer.footer import Footer
from pipeline.writer.parquet import GROUP_BYTES, PAGE_BYTES

PIECE_BYTES = 4 << 20
MOST_FOOTER = 1 << 20  # bytes: ours is slow at reading them
MOST_CHUNKS = 10_000  # of new columns in row groups: each takes half a millisecond and 300 bytes
LABEL_BYTES, VALUE_BYTES = 32, 8  # of memory: of a row with its label, about, and of each of its values


class ParquetAppender:
    """Copies a Parquet file and adds columns: what was there is neither decoded nor encoded again.

    So encodings, compression, statistics, indexes and types that Arrow has no name for stay as they are. A row group
    gets its new columns as a whole, which is how many rows of them are held in memory.
    """

    def __init__(
        self, draft: Draft, source: ParquetSource, footer: Footer, layout: Layout, labels: Sequence[str]
    ) -> None:
        self._path, self._source, self._layout = draft.path, source, layout
        self._labels = strings(labels)
        self._schema = pa.schema(layout.fields())
        self._stream = draft.write_bytes()
        self._footer = footer
        self._end = source.location.look()[1] - TAIL_BYTES - footer.size  # of what is copied
        self._groups = list(source.group_rows)  # rows of the row groups that are not complete
        self._batches: list[pa.RecordBatch] = []  # of the first of them
        self._rows = 0
        self._described: list[pq.FileMetaData] = []
        self._writer: pq.ParquetWriter | None = None

    @classmethod
    def of(cls, draft: Draft, source: ParquetSource, layout: Layout, labels: Sequence[str]) -> ParquetAppender | None:
        """One for this file; None where it can't be copied, or the new columns of a row group would be too large."""
        groups = source.group_rows
        values = layout.num_classes if layout.has_probs else 1
        row = max([LABEL_BYTES, *(len(label) for label in labels)]) + VALUE_BYTES * values
        if max(groups, default=0) * row > GROUP_BYTES or len(groups) * len(layout.names) > MOST_CHUNKS:
            return None
        try:
            return cls(draft, source, Footer(source.footer(MOST_FOOTER) or b""), layout, labels)
        except ValueError:
            return None

    def blocks(self, tick: Callable[[], None]) -> Iterator[range]:
        """Copy the file, with a `tick` now and then; then its rows, as many at a time as belong to one row group."""
        for piece in _pieces(self._source, self._end):
            self._stream.write(piece)
            tick()
        for rows in self._source.group_rows:
            for start in range(0, rows, BATCH_ROWS):
                yield range(min(BATCH_ROWS, rows - start))

    def write(self, rows: range, slab: Slab) -> None:
        """Add the predictions of the next rows, which are in one row group."""
        self._end_groups()
        self._batches.append(pa.RecordBatch.from_arrays(self._layout.arrays(slab, self._labels), schema=self._schema))
        self._rows += len(rows)
        self._end_groups()

    def close(self) -> None:
        """Write the footer, if all rows are there."""
        try:
            self._end_groups()
            if not self._groups:
                self._open().close()  # the footer that this writes stays before ours, and nobody reads it
        finally:
            if self._writer is not None:
                self._writer.is_open = False  # else it tries once more when it goes, and says that it can't
        if self._groups:
            return
        sink = pa.BufferOutputStream()
        self._described[0].write_metadata_file(sink)
        added = sink.getvalue().to_pybytes()[len(MAGIC) : -TAIL_BYTES]
        try:
            footer = self._footer.widened(added, self._end)
        except ValueError as error:
            raise InputError(f"{self._source.path}: has another footer than it had ({error}); it has changed") from None
        found = pq.read_schema(pa.BufferReader(MAGIC + footer))
        if not found.equals(pa.schema([*self._source.schema(), *self._schema])):
            raise OutputError(f"{self._path}: the columns can't be copied; set writer.compression to snappy")
        self._stream.write(footer)

    def _end_groups(self) -> None:
        """Write the row groups that are complete, also those without rows."""
        while self._groups and self._rows == self._groups[0]:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._open().write_table(table, row_group_size=max(1, self._rows))
            self._groups.pop(0)
            self._batches, self._rows = [], 0

    def _open(self) -> pq.ParquetWriter:
        """What writes the new columns: a file of its own, where the copy ends; places in it count from there."""
        if self._writer is None:
            names = self._schema.names
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._stream, "w"),
                self._schema,
                use_dictionary=[names[0], names[2]],  # labels and errors, which repeat
                data_page_size=PAGE_BYTES,
                metadata_collector=self._described,
            )
        return self._writer


def _pieces(source: ParquetSource, size: int) -> Iterator[bytes]:
    """The first `size` bytes of the file.

    Raises:
        InputError: they can't be read. StoreRefused, StoreGone: its store.
    """
    try:
        with source.location.stream() as stream:
            while size > 0 and (piece := stream.read(min(size, PIECE_BYTES))):
                yield piece
                size -= len(piece)
    except OSError as error:
        raise InputError(f"{source.path}: can't be read any more: {error.strerror or error}") from None
    if size > 0:
        raise InputError(f"{source.path}: is shorter than it was; it has changed")
