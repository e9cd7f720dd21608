"""Resume: kill -9 at any moment, and the same command finishes the job, byte for byte."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import FakeServer, label_of, refuse
from killing import finish, kill_group, random_moments, run_with_kills, start
from receiving import Receiver

from pipeline.servers.model import CANARY

ROWS, IN_REQUEST, PLACES = 6000, 32, 8
KILLS = int(os.environ.get("CLASSIFY_KILLS", "6"))
NAMES = ("in.parquet", "in.csv", "in.jsonl", "in.jsonl.gz")
TEXTS = [f"row {n} says something of its own" for n in range(ROWS)]


def write_input(path: Path) -> None:
    """`ROWS` distinct texts, in the format of the ending."""
    if path.suffix == ".parquet":
        table = pa.table({"id": range(ROWS), "text": TEXTS})
        pq.write_table(table, path, row_group_size=1000)
        return
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    with plain.open("w", newline="") as file:
        if plain.suffix == ".csv":
            csv.writer(file).writerows([["id", "text"], *enumerate(TEXTS)])
        else:
            file.writelines(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS))
    if plain != path:
        with pa.output_stream(path, compression="gzip") as out:
            out.write(plain.read_bytes())


def arguments_for(source: Path, output: Path, server: FakeServer, *more: str) -> list[str]:
    """The command line of a run with small requests, so that there is much to lose."""
    sizes = ["--set", f"request.rows={IN_REQUEST}", "--set", f"request.concurrency={PLACES}", "--quiet"]
    return ["run", "-i", str(source), "-o", str(output), "--url", server.url, *sizes, *more]


@pytest.mark.parametrize(
    ("name", "kills"), [("in.csv", 3), *(pytest.param(name, KILLS, marks=pytest.mark.slow) for name in NAMES)]
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    name: str, kills: int, tmp_path: Path, fake: FakeServer
) -> None:
    """After kills -9 the output equals that of an uninterrupted run, and little was paid for twice.

    As many kills as CLASSIFY_KILLS says (`CLASSIFY_KILLS=50 pytest --all -k random_moments --time-limit 900`).
    """
    source, output = tmp_path / name, tmp_path / f"out{name[2:]}"
    write_input(source)
    whole = tmp_path / f"whole{name[2:]}"
    assert finish(arguments_for(source, whole, fake))[0] == 0
    fake.requests.clear()
    fake.latency_s = 0.1 if kills <= 6 else 0.4  # 6000 rows by 32 with 8 at once: 2.4 s of requests, or 9.4 s
    moments = random_moments(zlib.crc32(name.encode()), kills, 0.9)
    done = run_with_kills(arguments_for(source, output, fake), output, moments)
    print(f"{name}: {done}")
    assert done.kills > kills / 2
    assert output.read_bytes() == whole.read_bytes()
    starts = fake.texts.count(CANARY[0])
    again = len(fake.texts) - ROWS - starts * len(CANARY)
    # In flight, and what was answered in the second before.
    per_kill = (PLACES + PLACES / fake.latency_s) * IN_REQUEST
    assert again <= done.kills * per_kill, done
    assert not list(tmp_path.glob(f".{output.name}.tmp"))
    assert not list(tmp_path.glob(f".{output.name}.checkpoint*"))


@pytest.mark.slow
def test_nothing_answered_a_second_before_the_kill_is_sent_again(tmp_path: Path, fake: FakeServer) -> None:
    """What was answered longer ago than the commits are apart is on the disk."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.latency_s = 0.05
    process = start(arguments_for(source, output, fake))
    while len(fake.answered) < 1000:
        time.sleep(0.01)
    old = set(fake.answered) - set(CANARY)
    time.sleep(1.0)
    kill_group(process)
    fake.answered.clear()
    assert finish(arguments_for(source, output, fake))[0] == 0
    assert not old & set(fake.answered)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_every_answer_that_came_in(
    number: signal.Signals, code: int, tmp_path: Path, fake: FakeServer
) -> None:
    """SIGINT and SIGTERM end the run in time with their code, and only what was in flight is asked for again."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.latency_s = 0.2
    process = start(arguments_for(source, output, fake))
    while len(fake.answered) < 1000:
        time.sleep(0.01)
    process.send_signal(number)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert time.monotonic() - asked < 10
    assert len(errors.splitlines()) == 1
    before = set(fake.answered) - set(CANARY)
    fake.answered.clear()
    fake.latency_s = 0
    assert finish(arguments_for(source, output, fake))[0] == 0
    assert len(before & set(fake.answered)) <= PLACES * IN_REQUEST
    assert not output.with_name(".out.csv.checkpoint").exists()


@pytest.mark.slow
def test_a_second_sigint_ends_at_once(tmp_path: Path, fake: FakeServer) -> None:
    """A second SIGINT ends the run at once; answers that are a second old are kept, as after kill -9."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.latency_s = 0.2
    with Receiver(latency_s=60) as receiver:  # a slow notification holds up the end of the run
        process = start(arguments_for(source, output, fake, "--set", f"run.notify_url={receiver.url}"))
        while len(fake.answered) < 1000:
            time.sleep(0.01)
        old = set(fake.answered) - set(CANARY)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        while not receiver.bodies:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == b""  # not even the receiver's silence is told
    fake.latency_s = 0
    fake.answered.clear()
    assert finish(arguments_for(source, output, fake))[0] == 0
    assert not old & set(fake.answered)


def test_a_resumed_run_asks_only_for_what_is_open(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`--limit-rows` first and the whole file later: the first rows are not paid for again."""
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write_input(source)
    classify(*arguments_for(source, output, fake, "--limit-rows", "1500"))
    assert pq.read_metadata(output).num_rows == 1500
    first = set(fake.answered) - set(CANARY)
    fake.answered.clear()
    classify(*arguments_for(source, output, fake))
    assert not first & set(fake.answered)
    assert pq.read_table(output)["predicted_label"].to_pylist() == [label_of(text) for text in TEXTS]


def test_failed_rows_are_classified_again_and_no_others(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`--retry-failed` asks for the failed rows only, replaces the output, and then nothing is left to do."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    whole = tmp_path / "whole.csv"
    classify(*arguments_for(source, whole, fake))
    bad = {TEXTS[n] for n in (0, 31, 32, 1000, ROWS - 1)}
    fake.rules.append((bad.__contains__, refuse(400, "I don't like it")))
    classify(*arguments_for(source, output, fake), expect=3)
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert {row["text"] for row in rows if row["predicted_error"]} == bad
    classify(*arguments_for(source, output, fake), expect=3)
    fake.rules.clear()
    fake.answered.clear()
    classify(*arguments_for(source, output, fake, "--retry-failed"))
    assert set(fake.answered) == bad | set(CANARY)
    assert output.read_bytes() == whole.read_bytes()
    assert "complete already" in classify(*arguments_for(source, output, fake)[:-1]).stderr


def test_status_tells_how_far_a_run_is_while_it_runs(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`classify status` reads beside the writer: rows, who holds it, and afterwards that it is complete."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    assert "no run has begun" in classify("status", output, expect=2).stderr
    fake.hold_after = 3000  # so that it is running however long the other command takes to start
    process = start(arguments_for(source, output, fake))
    while len(fake.answered) < 3000:
        time.sleep(0.01)
    running = json.loads(classify("status", output, "--log-json").stdout)
    while not running["rows"]:  # the next commit
        running = json.loads(classify("status", output, "--log-json").stdout)
    assert running["state"] == "running"
    assert f"pid {process.pid} " in running["held_by"]
    assert 0 < running["rows"] < ROWS
    assert abs(running["rows_total"] - ROWS) < ROWS / 10  # a CSV's rows are estimated
    kill_group(process)
    fake.hold_after = None
    assert "interrupted" in classify("status", output).stdout
    classify(*arguments_for(source, output, fake))
    assert f"complete, {ROWS:,} of {ROWS:,} rows" in classify("status", output).stdout


def test_a_second_run_on_the_same_output_is_told_who_holds_it(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Two runs never write to one output: the second ends with 75 and names the first."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.hold_after = 100
    process = start(arguments_for(source, output, fake))
    while fake.answered.total() < 100:
        time.sleep(0.01)
    assert f"pid {process.pid} " in classify(*arguments_for(source, output, fake), expect=75).stderr
    kill_group(process)
    fake.hold_after = None
    classify(*arguments_for(source, output, fake))


@pytest.mark.slow
def test_the_deadline_ends_the_sending_and_keeps_everything(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Exit 4 in time, nothing published; the next night goes on with what is open and asks for nothing twice."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.latency_s = 0.2
    message = classify(*arguments_for(source, output, fake, "--set", "run.deadline=2s"), expect=4).stderr
    assert "the deadline 2s came" in message
    assert not output.exists()
    fake.latency_s = 0
    classify(*arguments_for(source, output, fake))
    counts = {text: times for text, times in fake.answered.items() if text not in CANARY}
    assert len(counts) == ROWS
    assert set(counts.values()) == {1}
