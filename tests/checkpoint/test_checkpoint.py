"""What is answered comes out as it went in, and what is not there is known."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from answers import add, answers, answers_of, failed, labels_of
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import Answers, Labels
from pipeline.checkpoint import Checkpoint, Range
from pipeline.checkpoint.store import record_of
from pipeline.errors import RowError
from pipeline.texts import Position

# -- in and out again


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    """Labels, scores, probabilities, errors and marks of each row, in the order of the rows, whatever was first."""
    mixed = Answers.joined([answers(0, 2), failed("timeout: no answer"), answers(3, 1)])
    mixed.truncated = frozenset({1})
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        add(checkpoint, 4, 3, classes=2)
        checkpoint.flush()
        checkpoint.add(0, Position(0, 0, 0), mixed, 2)
        checkpoint.flush()
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        first, second = checkpoint.answers(2)
        assert labels_of(first) == ["label 0", "label 1", None, "label 3"]
        assert labels_of(second) == ["label 4", "label 0", "label 1"]
        np.testing.assert_array_equal(first.scores, [0, 1 / 7, math.nan, 3 / 7])
        assert first.probs is not None
        np.testing.assert_array_equal(first.probs[[1, 3]], [[1 / 7, -1 / 7], [3 / 7, -3 / 7]])
        assert np.isnan(first.probs[2]).all()
        assert (first.errors, set(first.truncated)) == ({2: RowError("timeout", "no answer")}, {1})
        assert (second.errors, set(second.truncated)) == ({}, set())
        assert checkpoint.counts() == (7, {"timeout": 1})
        assert checkpoint.has_truncated()


def test_probabilities_are_kept_only_where_they_are_wanted(tmp_path: Path) -> None:
    """With no number of classes nothing is kept of them."""
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        add(checkpoint, 0, 3)
        checkpoint.flush()
        (record,) = checkpoint.answers(2)
        assert record.probs is None


def test_labels_keep_their_ids_over_runs(tmp_path: Path) -> None:
    """A label of any characters gets one id, which later runs use on."""
    for label in ("a", "ü😀\n'\"", "b", "a"):
        with closing(Checkpoint(tmp_path / "c")) as checkpoint:
            first = checkpoint.counts()[0]
            checkpoint.add(first, Position(first, 0, 0), answers_of([label], [1.0]), 0)
            checkpoint.flush()
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert checkpoint.labels.ids == {"a": 0, "ü😀\n'\"": 1, "b": 2}
        assert [int(record.ids[0]) for record in checkpoint.answers(0)] == [0, 1, 2, 0]


def test_records_of_another_vocabulary_keep_their_labels(tmp_path: Path) -> None:
    """A worker numbers labels in the order in which it meets them, and a row without a label has none here either."""
    labels = Labels(["b", "c", "a"])
    mixed = Answers.joined(
        [answers_of(["a", "c"], [1.0, 0.5]), failed("timeout: no answer"), answers_of(["b"], [0.25])]
    )
    record = record_of(7, Position(7, 0, 0), mixed, labels, 0)
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        checkpoint.add(0, Position(0, 0, 0), answers_of(["a", "b"], [1.0, 1.0]), 0)
        checkpoint.add_records([record], labels.names)
        checkpoint.flush()
        first, second = checkpoint.answers(0)
        assert (labels_of(first), labels_of(second)) == (["a", "b"], ["a", "c", None, "b"])
        assert second.errors == {2: RowError("timeout", "no answer")}
        assert checkpoint.open_ranges(12) == [Range(2, 7), Range(11, 12)]


def test_what_is_known_of_the_run_is_kept(tmp_path: Path) -> None:
    """`put` is at once; `put_later` comes with the next flush."""
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        checkpoint.put(now={"a": [1, None, "ü"]})
        checkpoint.put_later(later=1)
        assert (checkpoint.get("now"), checkpoint.get("later")) == ({"a": [1, None, "ü"]}, None)
        checkpoint.flush()
        assert checkpoint.get("later") == 1
        checkpoint.put_later(lost=1)
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert (checkpoint.get("later"), checkpoint.get("lost")) == (1, None)


def test_a_second_reader_sees_what_was_flushed(tmp_path: Path) -> None:
    """`classify status` may look while the run goes on."""
    with closing(Checkpoint(tmp_path / "c")) as writing:
        add(writing, 0, 3)
        writing.flush()
        add(writing, 3, 4)
        with closing(Checkpoint(tmp_path / "c", read_only=True)) as reading:
            assert reading.counts() == (3, {})
            writing.flush()
            assert reading.counts() == (7, {})


def test_in_memory_there_is_no_file_before_the_first_flush(tmp_path: Path) -> None:
    """All answers are open and can be read, in the order of the rows; the file has the same, and goes on from there."""
    checkpoint = Checkpoint(tmp_path / "c", in_memory=True)
    assert (checkpoint.open_ranges(None), checkpoint.open_ranges(0)) == ([Range(0, None)], [])
    assert (checkpoint.counts(), checkpoint.position_before(9), checkpoint.has_truncated()) == ((0, {}), None, False)
    add(checkpoint, 3, 4, classes=2)
    add(checkpoint, 0, 3, classes=2)
    checkpoint.put(identity={"a": 1})
    checkpoint.put_later(total_rows=7)
    before = [(labels_of(record), record.scores.tolist()) for record in checkpoint.answers(2)]
    assert [score for _, scores in before for score in scores] == [row / 7 for row in range(7)]
    assert checkpoint.is_in_memory
    assert list(tmp_path.iterdir()) == []
    checkpoint.flush()
    assert not checkpoint.is_in_memory
    add(checkpoint, 7, 1, classes=2)
    checkpoint.flush()
    checkpoint.close()
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert [(labels_of(record), record.scores.tolist()) for record in checkpoint.answers(2)][:2] == before
        assert (checkpoint.get("identity"), checkpoint.get("total_rows")) == ({"a": 1}, 7)
        assert checkpoint.open_ranges(9) == [Range(8, 9)]


def test_a_flush_of_nothing_makes_the_file(tmp_path: Path) -> None:
    """What is put into it from then on is durable at once."""
    checkpoint = Checkpoint(tmp_path / "c", in_memory=True)
    checkpoint.flush()
    checkpoint.put(published="1-ab")
    checkpoint.close()
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert checkpoint.get("published") == "1-ab"


def test_two_threads_may_make_the_file(tmp_path: Path) -> None:
    """The end of a command and its clock: one of them makes the checkpoint, the other waits, and both come back."""
    for number in range(20):
        checkpoint = Checkpoint(tmp_path / f"{number}", in_memory=True)
        add(checkpoint, 0, 3)
        flushing = threading.Thread(target=checkpoint.flush)
        flushing.start()
        while not checkpoint.path.exists():
            time.sleep(0)
        add(checkpoint, 3, 3)
        checkpoint.flush()
        flushing.join(timeout=20)
        assert not flushing.is_alive()
        assert checkpoint.counts() == (6, {})
        checkpoint.close()


def test_in_memory_closing_and_removing_touch_no_file(tmp_path: Path) -> None:
    """A small output that is complete leaves nothing, and what stands at the path of its checkpoint stays."""
    (tmp_path / "c").write_text("")
    for end in (Checkpoint.close, Checkpoint.remove):
        end(Checkpoint(tmp_path / "c", in_memory=True))
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    """The checkpoint and SQLite's side files are gone."""
    checkpoint = Checkpoint(tmp_path / "c")
    add(checkpoint, 0, 3)
    checkpoint.flush()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_stranger_s_side_file_is_not_believed(tmp_path: Path) -> None:
    """A write-ahead log without its checkpoint is left from something else, and removed."""
    (tmp_path / "c-wal").write_bytes(b"old" * 1000)
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert checkpoint.counts() == (0, {})


def test_adding_and_flushing_at_once_loses_nothing(tmp_path: Path) -> None:
    """Answers come in on the loop's thread while another thread commits: each is stored once."""
    before = sys.getswitchinterval()
    stop = threading.Event()
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:

        def flush() -> None:
            while not stop.is_set():
                checkpoint.flush()

        thread = threading.Thread(target=flush)
        sys.setswitchinterval(1e-6)
        try:
            thread.start()
            for row in range(0, 200_000, 20):
                add(checkpoint, row, 20)
        finally:
            stop.set()
            thread.join()
            sys.setswitchinterval(before)
        checkpoint.flush()
        assert checkpoint.open_ranges(200_000) == []
        assert checkpoint.counts() == (200_000, {})


class Interrupted:
    """Scores during whose reading another thread gets its turn, as any line of Python allows."""

    def __init__(self, scores: Any, turn: Callable[[], object]) -> None:
        self.scores, self.turn = scores, turn

    def tobytes(self) -> bytes:
        """Let the other thread have its turn first."""
        thread = threading.Thread(target=self.turn)
        thread.start()
        thread.join()
        return bytes(self.scores.tobytes())


@pytest.mark.parametrize("before", [0, 3])
def test_a_flush_in_the_middle_of_an_addition_loses_nothing(tmp_path: Path, before: int) -> None:
    """The commit of another thread may come at any moment of `add`: the record is in this commit or the next."""
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        if before:
            add(checkpoint, 0, before)
        rows = answers(before, 4)
        rows.scores = cast("Any", Interrupted(rows.scores, checkpoint.flush))
        checkpoint.add(before, Position(0, 0, 0), rows, 2)
        checkpoint.flush()
        assert checkpoint.counts() == (before + 4, {})


# -- which rows are open


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), max_size=8),
    st.randoms(use_true_random=False),
    st.none() | st.integers(0, 70),
)
def test_the_open_rows_are_those_without_a_record(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[tuple[int, int]],
    random: object,
    rows: int | None,
) -> None:
    """For any set of stored chunks: the ranges are in order, apart, and hold exactly the rows that are missing."""
    stored: list[tuple[int, int]] = []
    end = 0
    for gap, length in pieces:
        stored.append((end + gap, length))
        end += gap + length
    random.shuffle(stored)  # type: ignore[attr-defined]
    path = tmp_path_factory.mktemp("ranges") / "c"
    with closing(Checkpoint(path)) as checkpoint:
        for first, length in stored:
            add(checkpoint, first, length)
        checkpoint.flush()
        ranges = checkpoint.open_ranges(rows)
        positions = [checkpoint.position_before(row) for row in range(end + 3)]
    horizon = max(end, rows or 0) + 10 if rows is None else rows
    done = {row for first, length in stored for row in range(first, first + length)}
    open_rows = [row for start, stop in ranges for row in range(start, horizon if stop is None else stop)]
    assert open_rows == [row for row in range(horizon) if row not in done]
    assert all(one.stop is not None and one.stop < other.start for one, other in itertools.pairwise(ranges))
    for row, position in enumerate(positions):
        known = max((first for first, _ in stored if first <= row), default=None)
        assert position == (None if known is None else Position(known, 10 * known, known + 1))


def test_nothing_stored_is_all_open(tmp_path: Path) -> None:
    """An empty checkpoint has one open range, with an end if the rows were counted."""
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert checkpoint.open_ranges(None) == [Range(0, None)]
        assert checkpoint.open_ranges(5) == [Range(0, 5)]
        assert checkpoint.open_ranges(0) == []
        assert checkpoint.position_before(100) is None


@given(st.lists(st.lists(st.sampled_from(["fine", "empty", "timeout"]), min_size=1, max_size=6), max_size=4))
def test_reopening_forgets_failed_rows_only(tmp_path_factory: pytest.TempPathFactory, chunks: list[list[str]]) -> None:
    """For --retry-failed: rows with an error are open again, all others keep what they have, and empty ones too."""
    kinds = [kind for chunk in chunks for kind in chunk]
    with closing(Checkpoint(tmp_path_factory.mktemp("failed") / "c")) as checkpoint:
        first = 0
        for chunk in chunks:
            rows = [
                answers(first + offset, 1) if kind == "fine" else failed(f"{kind}: why")
                for offset, kind in enumerate(chunk)
            ]
            checkpoint.add(first, Position(first, 0, 0), Answers.joined(rows), 2)
            first += len(chunk)
        checkpoint.flush()
        assert checkpoint.reopen_failed() == kinds.count("timeout")
        open_rows = [row for start, stop in checkpoint.open_ranges(len(kinds)) for row in range(start, stop or 0)]
        assert open_rows == [row for row, kind in enumerate(kinds) if kind == "timeout"]
        kept = [row for row, kind in enumerate(kinds) if kind != "timeout"]
        scores = [score for record in checkpoint.answers(2) for score in record.scores]
        expected = [row / 7 if kinds[row] == "fine" else math.nan for row in kept]
        np.testing.assert_array_equal(scores, expected)
        assert checkpoint.counts() == (len(kept), {"empty": kinds.count("empty")} if "empty" in kinds else {})
