"""Writes one output: the rows of the input, read once more, joined by position with their answers.

The output is a function of the input and of the checkpoint alone, so it can't depend on where a run was interrupted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from pipeline.answers import Answers, Labels
from pipeline.cancellation import raise_if_cancelled
from pipeline.checkpoint import Checkpoint
from pipeline.config import PIPE, Config
from pipeline.errors import InputError, OutputError
from pipeline.formats.appended_columns import AppendedColumns, Tally
from pipeline.formats.registry import FORMATS, Format, format_of
from pipeline.formats.source import ColumnWriter, Destination, Source, Writer, refuse_duplicates
from pipeline.storage import Draft, Pipe, disk_errors
from pipeline.storage.draft import LOOK_S
from pipeline.thresholds import Thresholds


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
    checkpoint: Checkpoint,
    columns: AppendedColumns,
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
    labels = columns.thresholds.names_with(checkpoint.labels)
    tally = Tally(labels)
    answers = OrderedAnswers(checkpoint.answers(columns.num_classes))
    destination = Destination(
        draft,
        format_of(config.writer.output, config.writer.format, "writer.format"),
        columns,
        labels,
        compression=config.writer.compression,
        all_rows=rows == source.total_rows,
        has_header=config.loader.header,
    )
    with disk_errors(draft.path):
        writer, blocks = _open_writer(source, destination)
        pairs = _pairs(blocks, answers, rows, to_end=rows != config.run.limit_rows)
        written = _write(writer, pairs, columns.thresholds, tally, on_rows)
        if written < rows:
            raise InputError(f"{source.path}: has {written:,} rows where {rows:,} were read before; it has changed")
        draft.close()
    return tally


def follow(
    source: Source, records: Iterator[Answers], known: Labels, columns: AppendedColumns, kind: str | None
) -> tuple[Tally, int]:
    """Write the rows of `source` to standard output as the records of their answers come; return tally and rows.

    `known` are the labels so far, which grow; `kind` is `writer.format`, by default JSON Lines.

    Raises:
        ReaderGone, DiskTrouble: see `Pipe`. InputError: the input can't be read any more.
    """
    labels = columns.thresholds.names_with(known)
    tally = Tally(labels)
    destination = Destination(Pipe(), format_of(PIPE, kind, "writer.format"), columns, labels)
    writer, blocks = _open_writer(source, destination)
    pairs = _pairs(blocks, OrderedAnswers(records), sys.maxsize, to_end=True, least=1)
    return tally, _write(writer, pairs, columns.thresholds, tally, lambda _: None)


def _write(
    writer: Writer,
    pairs: Iterator[tuple[Answers, Any]],
    thresholds: Thresholds,
    tally: Tally,
    on_rows: Callable[[int], None],
) -> int:
    written = 0
    try:
        for found, rows in pairs:
            answers = thresholds.applied(found)
            writer.write(rows, answers)
            tally.count(answers)
            written += len(rows)
            raise_if_cancelled()
            on_rows(written)
    except BaseException:
        with suppress(Exception):  # the writer lets go of the file; what it says then does not matter any more
            writer.close()
        raise
    writer.close()
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


def _open_writer(source: Source, destination: Destination) -> tuple[Writer, Iterator[Any]]:
    """Open what writes the output, and the rows that it takes: as their own bytes where possible, else as columns."""
    objects = {FORMATS["json"], FORMATS["jsonl"]}  # which differ only in what stands between two rows
    is_same = source.format == destination.format or objects == {source.format, destination.format}
    if is_same and (appender := source.appender(destination)):
        return appender
    open_writer = destination.format.load(destination.format.writer)
    return open_writer(destination, source.schema()), source.batches()


def check_types(config: Config, source: Source) -> None:
    """See that the output can hold the columns: their types, and their names.

    Raises:
        InputError: two columns have the same name, or the rows can't be read. OutputError: naming column and type, or
            the name that the encoding has no characters for.
    """
    output = format_of(config.writer.output, config.writer.format, "writer.format")
    if source.format == output:
        source.see_appendable(config)
    if source.format != output or not (output.is_text or output.name == "parquet"):  # these two take any names
        refuse_duplicates(source.path, source.columns)
    is_copied = source.format == output and config.run.limit_rows is None and config.writer.compression is None
    if source.format.is_text or (is_copied and output.name == "parquet"):
        return
    fields = [*source.schema()]
    for field in fields:
        if reason := _refusal(output, field):
            others = [
                f".{each.name}"
                for each in FORMATS.values()
                if each.writer and not any(_refusal(each, every) for every in fields)
            ]
            advice = f"choose an output that ends in {' or '.join(others)}" if others else "write the input without it"
            raise OutputError(
                f"{config.writer.output}: no .{output.name} holds the column {field.name!r} of type {field.type} "
                f"({reason}); {advice}"
            )


def _refusal(output: Format, field: pa.Field) -> str | None:
    """Say why a format can't hold a column; None if it can."""
    writer: type[ColumnWriter] = output.load(output.writer)
    try:
        writer.see_type(field.type)
    except pa.ArrowException as error:
        return str(error).strip().splitlines()[0]
    return None
