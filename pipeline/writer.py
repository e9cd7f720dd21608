"""The input read once more, predictions joined by position, one output file.

The output is a function of the input and of the checkpoint alone, so it can't depend on where a run was interrupted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from pipeline.answers import Answers
from pipeline.cancellation import raise_if_cancelled
from pipeline.checkpoint import Checkpoint, MemoryCheckpoint
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.formats.columns import Layout, Tally
from pipeline.formats.csv import CsvSource
from pipeline.formats.jsonl import JsonlSource
from pipeline.formats.source import Source, format_of
from pipeline.storage import Draft, Pipe, disk_errors
from pipeline.storage.draft import LOOK_S


class OrderedAnswers:
    """The answers of rows in order, in pieces of any size, whatever the size of the records they are read from."""

    def __init__(self, records: Iterator[Answers]) -> None:
        self._records = records
        self._rest = Answers.none()  # of the record that was read last

    def take(self, most: int, least: int) -> Answers:
        """Return the answers of the next rows, `most` at most; fewer than `least` only at the end of the records."""
        parts: list[Answers] = []
        rows = 0
        while rows < least:
            if not len(self._rest):
                record = next(self._records, None)
                if record is None:
                    break
                self._rest = record
            parts.append(self._rest[: most - rows])
            self._rest = self._rest[len(parts[-1]) :]
            rows += len(parts[-1])
        return Answers.joined(parts) if parts else Answers.none()


def records_as_answered(checkpoint: Checkpoint, num_classes: int, is_done: Callable[[], bool]) -> Iterator[Answers]:
    """Yield the records of a checkpoint that is being filled, in the order of the rows, each as soon as it can be.

    When `is_done()`, no more records come; until then the run may be cancelled.
    """
    row = 0
    while True:
        was_done = is_done()  # what is not there after that will never be
        answers = checkpoint.answers_at(row, num_classes)
        if answers is not None:
            row += len(answers)
            yield answers
        elif was_done:
            return
        else:
            raise_if_cancelled()
            time.sleep(LOOK_S)


def join(
    config: Config,
    source: Source,
    checkpoint: Checkpoint | MemoryCheckpoint,
    layout: Layout,
    draft: Draft,
    *,
    rows: int,
    on_rows: Callable[[int], None],
) -> Tally:
    """Write the first `rows` rows of `source` with their answers into `draft`, and count what was written.

    `on_rows(rows written)` is called between blocks; what it raises ends the join, as cancelling the run does.

    Raises:
        OutputError, DiskTrouble: the output can't be written. InputError: the input can't be read any more.
    """
    labels = checkpoint.labels.names
    tally = Tally(labels)
    answers = OrderedAnswers(checkpoint.answers(layout.num_classes))
    with disk_errors(draft.path):
        may_copy = rows == source.total_rows
        sink, blocks = _open_sink(config, source, layout, draft, labels, may_copy=may_copy)
        pairs = _pairs(blocks, answers, rows, to_end=rows != config.run.limit_rows)
        written = _write(sink, pairs, tally, on_rows)
        if written < rows:
            raise InputError(f"{source.path}: has {written:,} rows where {rows:,} were read before; it has changed")
        draft.close()
    return tally


def follow(
    source: Source, records: Iterator[Answers], labels: Sequence[str], layout: Layout, pipe: Pipe
) -> tuple[Tally, int]:
    """Write the rows of `source` into `pipe` as the records of their answers come; return the tally and the rows.

    Raises:
        ReaderGone, DiskTrouble: see `Pipe`. InputError: the input can't be read any more.
    """
    tally = Tally(labels)
    sink, blocks = _open_jsonl(source, layout, pipe, labels)
    pairs = _pairs(blocks, OrderedAnswers(records), sys.maxsize, to_end=True, least=1)
    return tally, _write(sink, pairs, tally, lambda _: None)


def _write(sink: Any, pairs: Iterator[tuple[Answers, Any]], tally: Tally, on_rows: Callable[[int], None]) -> int:
    written = 0
    try:
        for answers, rows in pairs:
            sink.write(rows, answers)
            tally.count(answers)
            written += len(rows)
            raise_if_cancelled()
            on_rows(written)
    except BaseException:
        with suppress(Exception):  # the sink lets go of the file; what it says then does not matter any more
            sink.close()
        raise
    sink.close()
    return written


def _pairs(
    blocks: Iterator[Any], answers: OrderedAnswers, rows: int, *, to_end: bool, least: int | None = None
) -> Iterator[tuple[Answers, Any]]:
    """Yield the first `rows` rows, as many at a time as a block has, with their answers.

    With `least`, they come in smaller pieces of at least so many rows, until there are no more answers. With `to_end`
    the rest of the input is read, too: bad lines that are left out are counted.
    """
    left = rows
    for block in blocks:
        block = block[:left]  # noqa: PLW2901 - the rest does not matter
        left -= len(block)
        while len(block):
            taken = answers.take(len(block), least or len(block))
            if not len(taken):
                if least is None:
                    raise InputError("the input has more rows than were answered; it has changed since")
                return
            yield taken, block[: len(taken)]
            block = block[len(taken) :]  # noqa: PLW2901 - what is left of it
        if not left and not to_end:
            return


def _open_sink(
    config: Config,
    source: Source,
    layout: Layout,
    draft: Draft,
    labels: Sequence[str],
    *,
    may_copy: bool,
) -> tuple[Any, Iterator[Any]]:
    """What writes, and what it is given: the rows' own bytes where they can stay, else Arrow columns.

    With `may_copy`, where all rows are wanted, the file itself may be copied.
    """
    kind = format_of(config.writer.output, config.writer.format, "writer.format")
    delimiter = "\t" if kind == "tsv" else ","
    if kind == "parquet":
        from pipeline.formats.parquet import ParquetAppender, ParquetSink, ParquetSource

        if isinstance(source, ParquetSource) and may_copy and config.writer.compression is None:
            appender = ParquetAppender.of(draft, source, layout, labels)
            if appender is not None:
                return appender, appender.blocks()
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
