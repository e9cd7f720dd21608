"""The input read once more, predictions joined by position, one output file.

The output is a function of the input and of the checkpoint alone, so it can't depend on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.checkpoint import Checkpoint
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.loader import Source, format_of
from pipeline.loader.delimited import CsvSource
from pipeline.loader.jsonl import JsonlSource
from pipeline.writer.columns import Layout, PredictionReader, Tally
from pipeline.writer.draft import Draft, disk_errors, write_whole

if TYPE_CHECKING:
    from pipeline.writer.delimited import CsvAppender, CsvSink
    from pipeline.writer.jsonl import JsonlAppender, JsonlSink
    from pipeline.writer.parquet import ParquetSink

    Sink = CsvAppender | CsvSink | JsonlAppender | JsonlSink | ParquetSink

__all__ = ["Draft", "Layout", "Tally", "check_types", "join", "write_whole"]


def join(
    config: Config,
    source: Source,
    checkpoint: Checkpoint,
    layout: Layout,
    draft: Draft,
    *,
    rows: int,
    tick: Callable[[int], None],
) -> Tally:
    """Write the first `rows` rows of `source` with their predictions into `draft`, sync it, and say what was written.

    `tick(rows written)` is called between blocks; what it raises ends the join.

    Raises:
        OutputError, DiskTrouble: the output can't be written. InputError: the input can't be read any more.
    """
    labels = list(checkpoint.label_ids)
    tally = Tally(labels)
    predictions = PredictionReader(checkpoint.slabs(layout.num_classes))
    with disk_errors(draft.path):
        sink, blocks = _open_sink(config, source, layout, draft, labels)
        try:
            written = 0
            for block in blocks:
                part = block[: rows - written]
                slab = predictions.take(len(part))
                sink.write(part, slab)
                tally.count(slab)
                written += len(part)
                tick(written)
                if written == rows == config.run.limit_rows:
                    break  # else what follows are lines that are left out, and they are counted
        except BaseException:
            with suppress(Exception):  # the sink lets go of the file; what it says then does not matter any more
                sink.close()
            raise
        sink.close()
        if written < rows:
            raise InputError(f"{source.path}: has {written:,} rows where {rows:,} were read before; it has changed")
        draft.sync()
    return tally


def _open_sink(
    config: Config, source: Source, layout: Layout, draft: Draft, labels: Sequence[str]
) -> tuple[Any, Iterator[Any]]:
    """What writes, and what it is given: the rows' own bytes where they can stay, else Arrow columns."""
    kind = format_of(config.writer.output, config.writer.format, "writer.format")
    delimiter = "\t" if kind == "tsv" else ","
    if kind == "parquet":
        from pipeline.writer.parquet import ParquetSink

        return ParquetSink(draft, source.schema(), layout, labels, config.writer.compression), source.batches()
    if kind == "jsonl":
        from pipeline.writer.jsonl import JsonlAppender, JsonlSink

        if isinstance(source, JsonlSource):
            return JsonlAppender(draft, source, layout, labels), source.records()
        return JsonlSink(draft, source.schema(), layout, labels), source.batches()
    from pipeline.writer.delimited import CsvAppender, CsvSink

    if isinstance(source, CsvSource) and source.kind == kind:
        return CsvAppender(draft, source, layout, labels), source.records()
    return CsvSink(draft, source.schema(), layout, labels, delimiter), source.batches()


def check_types(config: Config, source: Source) -> None:
    """See that every column of a Parquet file can be written as text, if text is wanted.

    Raises:
        OutputError: naming the column and its type.
    """
    from pipeline.loader.parquet import ParquetSource
    from pipeline.writer.values import to_cells

    if isinstance(source, ParquetSource) and format_of(config.writer.output, config.writer.format, "") != "parquet":
        for field in source.schema():
            to_cells(pa.nulls(0, field.type), field.name)
