"""What no other test noticed when it was broken on purpose; `seeded.py` names the bug that each of these kills."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from answers import answers, failed
from commands import Command
from fake import Action, FakeServer, label_of, refuse
from files import rows_of
from joining import joined, predictions_of, sent
from killing import KILLED_AFTER_RENAME
from whole_runs import assert_all_right, classified
from wire import BAD, body, item

from pipeline import Config, classify_texts, run_async
from pipeline.answers import Answers
from pipeline.checkpoint import Checkpoint
from pipeline.config import Loader, Request, Run, Server, Writer
from pipeline.errors import BadAnswer, CheckpointMismatch, ConnectionLost, TimedOut
from pipeline.formats.source import BLOCK_ROWS, TextSpec
from pipeline.loader import open_source
from pipeline.monitoring.progress import Progress
from pipeline.servers.dialects.vllm import Vllm
from pipeline.servers.model import CANARY, ModelFacts
from pipeline.servers.pool import Endpoints
from pipeline.storage import Draft
from pipeline.texts import Position

# -- answers


def test_a_number_of_classes_without_as_many_values_is_not_believed() -> None:
    """All items agree on four classes and bring three values."""
    with pytest.raises(BadAnswer, match="3 values"):
        Vllm().decode(body(item(0, BAD, num_classes=4)), 1, ModelFacts())


def late(server: FakeServer, seconds: float = 0.3) -> Action:
    """The right answer, after all the others."""

    async def act(_: web.Request, texts: list[str]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(server.answer(texts))

    return act


def test_texts_in_memory_keep_their_order(fake: FakeServer) -> None:
    """`classify_texts` gives the first text's prediction first, although its answer is the last to come."""
    texts = [f"text {n}" for n in range(20)]
    fake.rules.append((texts[0].__eq__, late(fake)))
    predictions = classify_texts([*texts, None], url=fake.url, config=Config(request=Request(rows=3, concurrency=4)))
    assert [prediction.label for prediction in predictions] == [*map(label_of, texts), None]


# -- failures


def test_who_waits_holds_no_place(tmp_path: Path, fake: FakeServer) -> None:
    """With one place, a request that is told to come back in two seconds lets another one go first."""
    asked: list[tuple[str, float]] = []

    def action(texts: list[str]) -> Action | None:
        if texts == list(CANARY):
            return None
        asked.append((texts[0], time.monotonic()))
        return refuse(503, "busy", Retry_After="2") if len(asked) == 1 else None

    fake.each = action
    classified(tmp_path, ["first", "second"], fake, request=Request(rows=1, concurrency=1))
    assert [text for text, _ in asked] == ["first", "second", "first"]
    assert asked[1][1] - asked[0][1] < 1


def test_no_row_is_blamed_for_a_sick_server(tmp_path: Path, fake: FakeServer) -> None:
    """For a second and a half everything gets a 500, the canary too: that costs time and no row."""
    texts = [f"text {n}" for n in range(400)]
    sick_until = 0.0

    def action(_: list[str]) -> Action | None:
        nonlocal sick_until
        if not sick_until and len(fake.answered) > 100:
            sick_until = time.monotonic() + 1.5
        return refuse(500, "sick") if time.monotonic() < sick_until else None

    fake.each = action
    classified(tmp_path, texts, fake, request=Request(rows=8))
    assert sick_until
    assert_all_right(tmp_path, texts)


async def test_a_later_examination_has_the_word(fake: FakeServer) -> None:
    """A request times out, then the connection breaks: the first canary does not say who is there now."""
    async with Endpoints(Config(), [fake.url], {}, Progress("quiet")) as endpoints:
        await endpoints.connect()
        (endpoint,) = endpoints.all
        fake.script.extend([late(fake), late(fake, 2.0)])
        first = endpoints.check(endpoint, TimedOut("no answer"))
        await asyncio.sleep(0.1)
        second = endpoints.check(endpoint, ConnectionLost("reset"))
        assert await first
        assert (second.done(), endpoint.is_doubtful) == (False, True)
        assert await second
        assert not endpoint.is_doubtful


def test_patience_starts_anew_with_every_answer(tmp_path: Path, fake: FakeServer) -> None:
    """A server that refuses every other request for longer than wait_s is busy, not gone."""
    texts = [f"text {n}" for n in range(40)]
    fake.latency_s = 0.02
    refused: set[str] = set()

    def action(asked: list[str]) -> Action | None:
        is_new = asked != list(CANARY) and asked[0] not in refused
        refused.update(asked)
        return refuse(503, "busy") if is_new else None

    fake.each = action
    server = Server(url=fake.url, wait_s=0.5)
    classified(tmp_path, texts, fake, server=server, request=Request(rows=1, concurrency=1))
    assert_all_right(tmp_path, texts)


def test_rows_without_a_text_are_no_failure(tmp_path: Path, fake: FakeServer) -> None:
    """Empty rows are counted as such: no row may fail, and the run ends well."""
    record = classified(tmp_path, ["a", "", None, " "], fake)
    assert (record.exit_code, record.failed, record.empty) == (0, {}, 3)


# -- the checkpoint


def test_a_commit_is_synced(tmp_path: Path) -> None:
    """SQLite syncs each commit: in WAL mode, less than FULL (2) loses the last ones in a power cut."""
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        settings = [checkpoint._first(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")]
    assert settings == [("wal",), (2,)]


def test_rows_beside_a_failed_one_keep_their_marks(tmp_path: Path) -> None:
    """After a failed row is taken out of its record, a text that was cut is still the one that is marked."""
    rows = Answers.joined([answers(0, 1), failed("timeout: no answer"), answers(2, 3)])
    rows.truncated = frozenset({0, 3})
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        checkpoint.add(0, Position(0, 0, 0), rows, 2)
        checkpoint.flush()
        assert checkpoint.reopen_failed() == 1
        assert [(len(record), set(record.truncated)) for record in checkpoint.answers(2)] == [(1, {0}), (3, {1})]


def test_a_run_is_not_finished_by_another_model(tmp_path: Path, fake: FakeServer) -> None:
    """Other weights behind the same name and address, between two runs: the second one stops, and sends no row."""
    texts = [f"text {n}" for n in range(20)]
    classified(tmp_path, texts, fake, run=Run(limit_rows=10))
    fake.weights = "others"
    fake.requests.clear()
    with pytest.raises(CheckpointMismatch, match="another model"):
        classified(tmp_path, texts, fake)
    assert not set(fake.texts) - set(CANARY)


def test_a_large_row_group_is_entered_at_any_of_its_blocks(tmp_path: Path) -> None:
    """A run that goes on in the third block of a row group gets the texts from there on, each with its own row."""
    texts = [f"text {n}" for n in range(3 * BLOCK_ROWS)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    settings = Loader(input=str(tmp_path / "in.parquet"))
    for start in (0, 1, BLOCK_ROWS, 2 * BLOCK_ROWS, 3 * BLOCK_ROWS - 1):
        blocks = list(open_source(settings).texts(TextSpec(settings), Position(start, 0, 0)))
        assert blocks[0].position.row == start
        assert [text for block in blocks for text in sent(block)] == texts[start:]


# -- the output


def test_marks_stay_with_their_rows_where_records_meet(tmp_path: Path) -> None:
    """The mark of a cut text is that of its row, whatever record it is in."""
    (tmp_path / "in.csv").write_text("text\n" + "a\n" * 7)
    predictions = predictions_of(7)
    predictions.truncated = frozenset({1, 4, 6})
    joined(tmp_path / "in.csv", tmp_path / "out.parquet", predictions, request={"too_long": "truncate"})
    rows = rows_of(tmp_path / "out.parquet")
    assert [n for n, row in enumerate(rows) if row["predicted_truncated"]] == [1, 4, 6]


def test_an_output_is_synced_before_and_after_its_rename(tmp_path: Path) -> None:
    """First the content is on the disk, then the name, then the directory that holds the name."""
    called: list[str] = []

    def note(_: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function in (os.fsync, os.replace):
            called.append(function.__name__)

    with Draft(tmp_path / "out") as draft:
        draft.file.write(b"whole")
        sys.setprofile(note)
        try:
            draft.sync()
            draft.publish()
        finally:
            sys.setprofile(None)
    assert called == ["fsync", "replace", "fsync"]
    assert (tmp_path / "out").read_bytes() == b"whole"


async def test_small_outputs_are_synced_before_and_after_their_rename(
    tmp_path: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content first, outputs and records of all of them; then the names, a record's before its output's; then those."""
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "in" / name).write_text("text\nx\n")
    called: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        called.append("fsync")
        fsync(descriptor)

    def renamed(source: str, target: str) -> None:
        called.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    loader, writer = Loader(input=str(tmp_path / "in")), Writer(output=f"{tmp_path / 'out'}/")
    await run_async(Config(loader=loader, writer=writer, server=Server(url=fake.url)))
    begun, ended = [at for at, name in enumerate(called) if name == ".classify.run.json"]  # that of the whole
    called = called[begun + 2 : ended - 1]
    first, last = called.index(".a.csv.run.json"), called.index("a.csv")
    assert first < last
    assert called[:first].count("fsync") >= 2  # of the output and its record
    assert called[-1] == "fsync"  # of the directory
    assert sorted(name for name in called if name != "fsync") == [
        ".a.csv.run.json",
        ".b.csv.run.json",
        "a.csv",
        "b.csv",
    ]


def test_drafts_that_are_not_renamed_leave_nothing(tmp_path: Path) -> None:
    """Wherever it broke off: before anything was on the disk, before it was synced, before the rename."""
    for steps in ([], ["begin_sync"], ["begin_sync", "sync"]):
        with Draft(tmp_path / "out") as draft:
            draft.write_bytes().write(b"content")
            for step in steps:
                getattr(draft, step)()
        assert list(tmp_path.iterdir()) == []


def test_killed_right_after_the_rename_the_same_command_finishes(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """The output is there and the run record is not: it is known as ours, and nothing is asked for again."""
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    arguments = ("run", "-i", "in.jsonl", "-o", "out.jsonl", "--url", fake.url)
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_RENAME, *arguments], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    content = (tmp_path / "out.jsonl").read_bytes()
    assert (tmp_path / ".out.jsonl.checkpoint").exists()
    assert not (tmp_path / ".out.jsonl.run.json").exists()
    fake.answered.clear()
    classify(*arguments)
    assert not fake.answered
    assert (tmp_path / "out.jsonl").read_bytes() == content
    assert not (tmp_path / ".out.jsonl.checkpoint").exists()
