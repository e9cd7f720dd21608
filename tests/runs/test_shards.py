"""Shards are the open rows of a file, each in one of them, and each is read from where it says."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import answers_of
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import sent

import pipeline.formats.textfile
from pipeline.checkpoint import Checkpoint, Range
from pipeline.config import Config, Loader, Run
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source
from pipeline.runs.file import RunFile
from pipeline.runs.output import Output
from pipeline.runs.shards import OpenShard, shards_of
from pipeline.storage import locate
from pipeline.texts import Position

ROWS = 40


@pytest.fixture(params=["csv", "jsonl", "parquet"], scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows, one line each."""
    path, texts = tmp_path_factory.mktemp("shards") / f"in.{request.param}", [f"row {row}" for row in range(ROWS)]
    if request.param == "parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=7)
    elif request.param == "csv":
        path.write_text("\n".join(["text", *texts]) + "\n")
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(autouse=True, scope="module")
def small_buffers() -> object:
    """Text files are cut where a buffer ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.formats.textfile, "READ_BYTES", 30)
        yield


def position_of(source: Path, row: int) -> Position:
    """Where a row begins."""
    if source.suffix == ".parquet":
        return Position(row, 0, 0)
    lines = source.read_text().splitlines(keepends=True)
    before = row + (source.suffix == ".csv")
    return Position(row, sum(map(len, lines[:before])), before)


def opened(source: Path, checkpoint: Checkpoint, limit: int | None) -> RunFile:
    """A file as a run has opened it."""
    config = Config(loader=Loader(input=str(source), text_column="text"), run=Run(limit_rows=limit))
    spec, output = TextSpec(config.loader), Output(locate(str(source.with_name("out"))))
    return RunFile(config, open_source(config.loader), spec, {}, output, checkpoint, datetime.now(UTC), 0.0)


def rows_read(shard: OpenShard) -> list[tuple[int, str | None]]:
    """The rows of a shard as its worker reads them: with a source of its own, from a position that it is given."""
    config, found = shard.file.config, list[tuple[int, str | None]]()
    for start, stop in shard.ranges:
        at = next((each for each in reversed(shard.positions) if each.row <= start), None)
        rows = [
            (block.position.row + index, text)
            for block in open_source(config.loader).texts(shard.file.spec, at)
            for index, text in enumerate(sent(block))
        ]
        assert not rows or rows[0][0] <= start
        found += [(row, text) for row, text in rows if start <= row and (stop is None or row < stop)]
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(1, 9)), max_size=4),
    st.integers(1, 50),
    st.sampled_from([None, None, 13, ROWS, 2 * ROWS]),
)
def test_shards_are_the_open_rows_each_once(
    source: Path, done: list[tuple[int, int]], every: int, limit: int | None
) -> None:
    """Whatever was answered before, and however many rows are wanted."""
    answered = set[int]()
    with closing(Checkpoint(source.with_name("checkpoint"), in_memory=True)) as checkpoint:
        path = source.with_name("checkpoint")
        path.unlink(missing_ok=True)
        for first, count in done:
            rows = [row for row in range(first, min(first + count, ROWS)) if row not in answered]
            if rows == [*range(first, first + len(rows))] and rows:
                answers = answers_of(["a"] * len(rows), [1.0] * len(rows))
                checkpoint.add(first, position_of(source, first), answers, 0)
                answered |= {*rows}
        checkpoint.flush()
        file = opened(source, checkpoint, limit)
        shards = list(shards_of(file, every))
        wanted = min(limit or ROWS, ROWS)
        found = [row for shard in shards for row in rows_read(shard)]
        assert found == [(row, f"row {row}") for row in range(wanted) if row not in answered]
        if limit is None and file.feed.ranges:
            assert file.total == ROWS
    for name in ("checkpoint", "checkpoint-wal", "checkpoint-shm"):
        source.with_name(name).unlink(missing_ok=True)


def test_a_shard_that_was_begun_has_its_open_rows_left(source: Path) -> None:
    """What its worker had answered is taken out; reading starts after that."""
    with closing(Checkpoint(source.with_name("begun"), in_memory=True)) as checkpoint:
        file = opened(source, checkpoint, None)
        shard = OpenShard(file, [Range(10, 30)], [position_of(source, 10)])
        for first, count in ((0, 10), (10, 5), (20, 4)):
            answers = answers_of(["a"] * count, [1.0] * count)
            checkpoint.add(first, position_of(source, first), answers, 0)
        checkpoint.flush()
        assert shard.has_rows_left()
        assert shard.ranges == [Range(15, 20), Range(24, 30)]
        assert rows_read(shard) == [(row, f"row {row}") for row in (*range(15, 20), *range(24, 30))]
        for first, count in ((15, 5), (24, 6)):
            checkpoint.add(first, position_of(source, first), answers_of(["a"] * count, [1.0] * count), 0)
        checkpoint.flush()
        assert not shard.has_rows_left()
    for name in ("begun", "begun-wal", "begun-shm"):
        source.with_name(name).unlink(missing_ok=True)


def test_an_untouched_file_has_many_shards(source: Path) -> None:
    """They follow each other from its first row to its last one, and all but the first say where they are read from."""
    with closing(Checkpoint(source.with_name("none"), in_memory=True)) as checkpoint:
        file = opened(source, checkpoint, None)
        shards = list(shards_of(file, 9))
        assert len(shards) >= 3
        assert all(shard.positions[-1].row == shard.ranges[0].start for shard in shards[1:])
        ranges = [each for shard in shards for each in shard.ranges]
        assert (ranges[0].start, ranges[-1].stop) == (0, ROWS)
        assert all(one.stop == other.start for one, other in pairwise(ranges))
