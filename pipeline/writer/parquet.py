"""Parquet out: the input's schema with its metadata, the new columns after it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.arrow import strings
from pipeline.checkpoint import Slab
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft

GROUP_ROWS = 65_536
GROUP_BYTES = 64 << 20  # a row group is gathered in memory: rows of a megabyte are cut earlier
FEW_ROWS = 1024  # a dictionary gains nothing there, and to see whether values repeat costs as much as to write them
PAGE_BYTES = 256 << 10  # stays in the processor's cache while it is compressed: an eighth less than pages of 1 MiB


class ParquetSink:
    """Writes record batches with their predictions; row groups are cut by position, so they are always the same."""

    def __init__(
        self, draft: Draft, schema: pa.Schema, layout: Layout, labels: Sequence[str], compression: str | None
    ) -> None:
        for field in layout.fields():
            schema = schema.append(field)
        self._schema, self._layout = schema, layout
        self._labels = strings(labels)
        self._draft, self._compression = draft, compression or "snappy"
        self._writer: pq.ParquetWriter | None = None
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch, slab: Slab) -> None:
        """Append rows."""
        arrays = [*batch.columns, *self._layout.arrays(slab, self._labels)]
        while True:
            whole = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
            part = whole.slice(0, GROUP_ROWS - self._rows)
            self._batches.append(part)
            self._rows += part.num_rows
            self._bytes += part.nbytes
            if self._rows == GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()
            if part.num_rows == batch.num_rows:
                return
            batch = batch.slice(part.num_rows)
            arrays = [array.slice(part.num_rows) for array in arrays]

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._open([]).close()

    def _flush(self) -> None:
        if self._rows:
            writer = self._open(self._batches)
            writer.write_table(pa.Table.from_batches(self._batches), row_group_size=GROUP_ROWS)
        self._batches, self._rows, self._bytes = [], 0, 0

    def _open(self, first: list[pa.RecordBatch]) -> pq.ParquetWriter:
        """The writer, made for what the first row group holds."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._draft.write_bytes(),
                self._schema,
                compression=self._compression,
                use_dictionary=_with_dictionary(self._schema, first),
                data_page_size=PAGE_BYTES,
            )
        return self._writer


def _with_dictionary(schema: pa.Schema, first: list[pa.RecordBatch]) -> list[str] | bool:
    """The columns to be written with a dictionary: not those whose values hardly repeat, where it is tried in vain."""
    if sum(batch.num_rows for batch in first) <= FEW_ROWS:
        return False
    if any(pa.types.is_nested(field.type) for field in schema):
        return True
    table = pa.Table.from_batches(first)
    plain = [field.name for field in schema if _is_plain(field.type)]
    unlike = {name for name in plain if pc.count_distinct(table[name]).as_py() > table.num_rows / 2}
    return [name for name in schema.names if name not in unlike]


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return bool(is_text or types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind))
