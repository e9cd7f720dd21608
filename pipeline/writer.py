"""The input read once more, predictions joined by position, one output file.

The output is a function of the input and of the checkpoint alone, so it can't depend on where a run was interrupted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.checkpoint import Checkpoint, MemoryCheckpoint, Slab
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.formats.columns import Layout, Tally, concatenate, slice_of
from pipeline.formats.csv import CsvSource
from pipeline.formats.jsonl import JsonlSource
from pipeline.formats.source import Source, format_of
from pipeline.storage import Draft, Pipe, disk_errors
from pipeline.storage.draft import LOOK_S


class PredictionReader:
    """The checkpoint's records, cut anew: as many rows at a time as the input gives."""

    def __init__(self, slabs: Iterator[Slab]) -> None:
        self._slabs = slabs
        self._slab = Slab(np.empty(0, np.int32), np.empty(0), None, {}, frozenset())
        self._from = 0

    def take(self, rows: int) -> Slab:
        """The predictions of the next `rows` rows."""
        parts: list[Slab] = []
        while rows:
            if self._from == len(self._slab.labels):
                slab = next(self._slabs, None)
                if slab is None:
                    raise InputError("the input has more rows than were answered; it has changed since")
                self._slab, self._from = slab, 0
            until = min(self._from + rows, len(self._slab.labels))
            parts.append(slice_of(self._slab, self._from, until))
            rows -= until - self._from
            self._from = until
        return parts[0] if len(parts) == 1 else concatenate(parts)


# -- The finished front of a run that is going on, and the pipe that it leaves through


class Front:
    """The predictions of a checkpoint that is being filled, in the order of the rows, each as soon as it has its turn.

    `ids` are the labels' ids, more of which may come; `labels` are their names by id. What `tick`, called often,
    raises ends the waiting.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ids: Mapping[str, int],
        num_classes: int,
        is_done: Callable[[], bool],
        tick: Callable[[], None],
    ) -> None:
        self.labels: list[str] = []
        self._checkpoint, self._ids, self._num_classes = checkpoint, ids, num_classes
        self._is_done, self._tick = is_done, tick
        self._slab = Slab(np.empty(0, np.int32), np.empty(0), None, {}, frozenset())
        self._from = self._row = 0

    def take(self, rows: int) -> Slab:
        """The predictions of the next rows, at least one and at most `rows`; of none, when no more will come."""
        while self._from == len(self._slab.labels):
            was_done = self._is_done()  # what is not there after that will never be
            slab = self._checkpoint.slab_at(self._row, self._num_classes)
            if slab is not None:
                self._slab, self._from = slab, 0
                self._row += len(slab.labels)
                self.labels += list(self._ids)[len(self.labels) :]
            elif was_done:
                return self._slab._replace(labels=self._slab.labels[:0])
            else:
                self._tick()
                time.sleep(LOOK_S)
        start, self._from = self._from, min(self._from + rows, len(self._slab.labels))
        return slice_of(self._slab, start, self._from)


# -- The input read once more, predictions joined by position, one output file


def join(
    config: Config,
    source: Source,
    checkpoint: Checkpoint | MemoryCheckpoint,
    layout: Layout,
    draft: Draft,
    *,
    rows: int,
    tick: Callable[[int], None],
) -> Tally:
    """Write the first `rows` rows of `source` with their predictions into `draft`, and say what was written.

    `tick(rows written)` is called between blocks; what it raises ends the join.

    Raises:
        OutputError, DiskTrouble: the output can't be written. InputError: the input can't be read any more.
    """
    labels = list(checkpoint.label_ids)
    tally = Tally(labels)
    predictions = PredictionReader(checkpoint.slabs(layout.num_classes))
    with disk_errors(draft.path):
        copying = partial(tick, 0) if rows == source.total_rows else None
        sink, blocks = _open_sink(config, source, layout, draft, labels, copying=copying)
        written = _write(
            sink, _pairs(blocks, predictions.take, rows, to_end=rows != config.run.limit_rows), tally, tick
        )
        if written < rows:
            raise InputError(f"{source.path}: has {written:,} rows where {rows:,} were read before; it has changed")
        draft.close()
    return tally


def follow(source: Source, front: Front, layout: Layout, pipe: Pipe) -> tuple[Tally, int]:
    """Write the rows of `source` into `pipe` as their predictions come to the front; what was written, and how many.

    Raises:
        ReaderGone, DiskTrouble: see `Pipe`. InputError: the input can't be read any more.
    """
    tally = Tally(front.labels)
    sink, blocks = _open_jsonl(source, layout, pipe, front.labels)
    return tally, _write(sink, _pairs(blocks, front.take, sys.maxsize, to_end=True), tally, lambda _: None)


def _write(sink: Any, pairs: Iterator[tuple[Slab, Any]], tally: Tally, tick: Callable[[int], None]) -> int:
    written = 0
    try:
        for slab, part in pairs:
            sink.write(part, slab)
            tally.count(slab)
            written += len(part)
            tick(written)
    except BaseException:
        with suppress(Exception):  # the sink lets go of the file; what it says then does not matter any more
            sink.close()
        raise
    sink.close()
    return written


def _pairs(
    blocks: Iterator[Any], take: Callable[[int], Slab], rows: int, *, to_end: bool
) -> Iterator[tuple[Slab, Any]]:
    """The predictions of the first `rows` rows, as far as there are any, and the rows they belong to.

    With `to_end` the rest is read, too: there are lines that are left out, perhaps, and they are counted.
    """
    left = rows
    for block in blocks:
        block = block[:left]  # noqa: PLW2901 - the rest does not matter
        left -= len(block)
        while len(block):
            slab = take(len(block))
            if not len(slab.labels):
                return
            yield slab, block[: len(slab.labels)]
            block = block[len(slab.labels) :]  # noqa: PLW2901 - what is left of it
        if not left and not to_end:
            return


def _open_sink(
    config: Config,
    source: Source,
    layout: Layout,
    draft: Draft,
    labels: Sequence[str],
    *,
    copying: Callable[[], None] | None,
) -> tuple[Any, Iterator[Any]]:
    """What writes, and what it is given: the rows' own bytes where they can stay, else Arrow columns.

    Where all rows are wanted, the file itself may be copied, and `copying` is called meanwhile.
    """
    kind = format_of(config.writer.output, config.writer.format, "writer.format")
    delimiter = "\t" if kind == "tsv" else ","
    if kind == "parquet":
        from pipeline.formats.parquet import ParquetAppender, ParquetSink, ParquetSource

        if isinstance(source, ParquetSource) and copying and config.writer.compression is None:
            appender = ParquetAppender.of(draft, source, layout, labels)
            if appender is not None:
                return appender, appender.blocks(copying)
        return ParquetSink(draft, source.schema(), layout, labels, config.writer.compression), source.batches()
    if kind == "jsonl":
        return _open_jsonl(source, layout, draft, labels)
    from pipeline.formats.csv import CsvAppender, CsvSink

    if isinstance(source, CsvSource) and source.kind == kind:
        return CsvAppender(draft, source, layout, labels), source.records()
    return CsvSink(draft, source.schema(), layout, labels, delimiter), source.batches()


def _open_jsonl(
    source: Source, layout: Layout, draft: Draft | Pipe, labels: Sequence[str]
) -> tuple[Any, Iterator[Any]]:
    from pipeline.formats.jsonl import JsonlAppender, JsonlSink

    if isinstance(source, JsonlSource):
        return JsonlAppender(draft, source, layout, labels), source.records()
    return JsonlSink(draft, source.schema(), layout, labels), source.batches()


def check_types(config: Config, source: Source) -> None:
    """See that every column of a Parquet file can be written as text, if text is wanted.

    Raises:
        OutputError: naming the column and its type.
    """
    is_text = isinstance(source, CsvSource | JsonlSource)
    if is_text or format_of(config.writer.output, config.writer.format, "") == "parquet":
        return
    from pipeline.formats.values import to_cells

    for field in source.schema():
        to_cells(pa.nulls(0, field.type), field.name)
