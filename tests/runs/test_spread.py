"""Several workers: the output is that of one process, whichever is killed; what was in flight is sent again."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fake import LABELS, FakeServer, refuse
from killing import kill_group
from workers import kill, wait_for_workers, wait_until_gone, workers_of

from pipeline.checkpoint import Checkpoint
from pipeline.config import load
from pipeline.engines.channel import Notice
from pipeline.engines.local import WORKER, LocalProcess
from pipeline.errors import ModelChanged
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source
from pipeline.monitoring.progress import Progress
from pipeline.runs.file import RunFile
from pipeline.runs.output import Output
from pipeline.runs.spread import Spread, _Worker
from pipeline.servers.model import CANARY
from pipeline.storage import locate

ROWS, IN_REQUEST, SLOTS = 6000, 32, 8
NAMES = ("in.parquet", "in.csv", "in.jsonl")
ANY_LINES = pyarrow.csv.ParseOptions(newlines_in_values=True)
LATENCY_S = 0.2  # where it matters how much is answered in a second
A_SECOND = SLOTS * IN_REQUEST + int(SLOTS * IN_REQUEST / LATENCY_S)  # texts: in flight, and answered in a second
KILLS = int(os.environ.get("CLASSIFY_WORKER_KILLS", "12"))
# A line feed in a cell is no end of a record.
TEXTS = [f"row {n} says\nsomething {'of its own' if n % 5 else 'twice'}" for n in range(ROWS)]


# Text files are cut where a buffer ends: with small ones a small file has many shards.
SMALL_BUFFERS = (
    "import pipeline.formats.textfile as t, pipeline.cli as cli, sys; t.READ_BYTES = 4096; sys.exit(cli.main())"
)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    command = [sys.executable, "-c", SMALL_BUFFERS, *arguments]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(arguments: list[str], code: int = 0) -> str:
    """Run to the end, which has this exit code: standard error."""
    process = start(arguments)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == code, errors.decode()
    return errors.decode()


def write_input(path: Path, rows: int = ROWS) -> None:
    """Texts that are nearly all distinct, in the format of the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(rows), "text": TEXTS[:rows]}), path, row_group_size=70)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["id", "text"], *enumerate(TEXTS[:rows])])
    else:
        lines = [json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS[:rows])]
        path.write_text("".join(lines))


def arguments_for(source: Path, output: Path | str, server: FakeServer, *more: str, workers: int = 2) -> list[str]:
    """The command line of a run on several workers, with small requests and shards."""
    settings = [f"request.rows={IN_REQUEST}", f"request.concurrency={SLOTS}", "engine.shard_rows=400"]
    words = [word for each in settings for word in ("--set", each)]
    return ["run", str(source), "-o", str(output), "--url", server.url, "--workers", str(workers), *words, *more]


def output_of_one_process(source: Path, server: FakeServer) -> bytes:
    """What it should be."""
    output = source.with_name(f"one_{source.name}")
    finish(["run", str(source), "-o", str(output), "--url", server.url])
    return output.read_bytes()


@pytest.mark.parametrize(
    ("name", "shards"),
    [
        ("in.csv", 7),
        *(pytest.param(name, shards, marks=pytest.mark.slow) for name in NAMES for shards in (1, 7, 40)),
    ],
)
def test_the_output_is_that_of_one_process(name: str, shards: int, tmp_path: Path, fake: FakeServer) -> None:
    """Byte for byte, however many shards there are; and the record says the same of the rows."""
    source, output = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    write_input(source)
    wanted = output_of_one_process(source, fake)
    fake.answered.clear()
    fake.latency_s = 0.02
    more = ["--set", f"engine.shard_rows={ROWS // shards}"]
    finish(arguments_for(source, output, fake, *more, workers=3))
    assert output.read_bytes() == wanted
    canaries = sum(seen.texts == [*CANARY] for seen in fake.requests) - 1
    assert canaries >= min(shards, 2)  # workers
    assert sum(fake.answered.values()) - len(CANARY) * canaries <= ROWS
    record = json.loads((tmp_path / f".{output.name}.run.json").read_text())
    of_one = json.loads((tmp_path / f".one_{name}.run.json").read_text())
    for key in ("rows", "rows_total", "labelled", "labels", "scores", "failed", "empty", "is_whole", "model"):
        assert record[key] == of_one[key], key
    assert record["requests"] == len(fake.requests) - of_one["requests"]
    assert not (tmp_path / f".{output.name}.checkpoint").exists()


def kill_at_random(process: subprocess.Popen[bytes], draw: random.Random) -> str:
    """Kill a worker, or the run itself with all that belongs to its process group; say which."""
    time.sleep(draw.uniform(0.2, 2.5))
    if process.poll() is not None:
        return "nothing"
    if draw.random() < 0.6 and (workers := workers_of(process.pid)):
        kill(draw.choice(workers))
        return "a worker"
    kill_group(process)
    return "the run"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(name: str, tmp_path: Path, fake: FakeServer) -> None:
    """Workers and the run are killed, as often as CLASSIFY_WORKER_KILLS says: what was in flight is asked for again."""
    source, output = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    write_input(source)
    wanted = output_of_one_process(source, fake)
    draw, kills = random.Random(name), 0
    while kills < KILLS:
        output.unlink(missing_ok=True)
        (tmp_path / f".{output.name}.run.json").unlink(missing_ok=True)
        fake.answered.clear()
        fake.latency_s, kills_before = LATENCY_S, kills
        process = start(arguments_for(source, output, fake, workers=draw.choice([2, 3])))
        for _ in range(3):
            killed = kill_at_random(process, draw)
            kills += killed != "nothing"
            if killed == "the run":
                process = start(arguments_for(source, output, fake, workers=draw.choice([1, 2, 3])))
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors.decode()
        assert output.read_bytes() == wanted
        again = sum(fake.answered.values()) - len(set(fake.answered))
        assert again <= (kills - kills_before) * A_SECOND + 50
        print(f"{name}: {kills - kills_before} kills, {again} texts sent again")


def test_a_worker_that_is_killed_costs_what_was_in_flight(tmp_path: Path, fake: FakeServer) -> None:
    """The others go on, another one takes its place, and what it had said is kept."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    wanted = output_of_one_process(source, fake)
    fake.answered.clear()
    fake.hold_after = 2000
    process = start(arguments_for(source, output, fake))
    workers = wait_for_workers(process.pid, 2)
    while sum(fake.answered.values()) < 2000:
        time.sleep(0.01)
    time.sleep(1)  # longer than answers stay with a worker
    kill(workers[0])
    fake.hold_after = None
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert b"a worker was ended by SIGKILL; what it had not answered goes to another one" in errors
    assert output.read_bytes() == wanted
    again = sum(fake.answered.values()) - len(fake.answered)
    assert again <= SLOTS * IN_REQUEST + 3 * len(CANARY)


def test_a_worker_that_has_stopped_is_ended(tmp_path: Path, fake: FakeServer) -> None:
    """Its connection is still there, but it says nothing: its rows go to another one."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    wanted = output_of_one_process(source, fake)
    fake.answered.clear()
    fake.requests.clear()
    fake.latency_s = LATENCY_S
    impatient = f"import pipeline.runs.spread as s; s.SILENT_S = 2; {SMALL_BUFFERS}"
    command = [sys.executable, "-c", impatient, *arguments_for(source, output, fake)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    workers = wait_for_workers(process.pid, 2)
    while sum(seen.texts == [*CANARY] for seen in fake.requests) < 2:  # until both have begun
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGSTOP)
    fake.latency_s = 0.0
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert b"a worker was ended by SIGKILL" in errors
    assert output.read_bytes() == wanted


def test_workers_end_with_their_run(tmp_path: Path, fake: FakeServer) -> None:
    """When the run is killed nobody keeps what workers would pay for: they end at once."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.hold_after = 500
    process = start(arguments_for(source, output, fake))
    while sum(fake.answered.values()) < 500:
        time.sleep(0.01)
    workers = workers_of(process.pid)
    kill(process.pid)
    process.communicate()
    assert len(workers) == 2
    assert wait_until_gone(workers, within_s=5) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_small_files_that_were_begun_go_on(number: signal.Signals, tmp_path: Path, fake: FakeServer) -> None:
    """A signal, or the end of the run, in the middle of files: what was answered a second before is kept."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in range(12):
        write_input(folder / f"{name}.csv", 600)
    fake.hold_after = 3000
    process = start(arguments_for(folder, f"{output}/", fake))
    while sum(fake.answered.values()) < 3000:
        time.sleep(0.01)
    time.sleep(1.2)
    workers = workers_of(process.pid)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert wait_until_gone(workers, within_s=5) == []
    fake.hold_after = None
    asked = sum(fake.answered.values())
    finish(arguments_for(folder, f"{output}/", fake))
    assert sum(fake.answered.values()) <= 12 * 600 + SLOTS * IN_REQUEST + 6 * len(CANARY), asked
    rows = [pyarrow.csv.read_csv(path, parse_options=ANY_LINES).num_rows for path in output.glob("[0-9]*.csv")]
    assert rows == [600] * 12


@pytest.mark.slow
def test_what_workers_began_one_process_finishes(tmp_path: Path, fake: FakeServer) -> None:
    """The number of workers is no part of a run's identity; what was answered is not asked again."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source)
    wanted = output_of_one_process(source, fake)
    fake.answered.clear()
    fake.hold_after = 2500
    process = start(arguments_for(source, output, fake))
    while sum(fake.answered.values()) < 2500:
        time.sleep(0.01)
    time.sleep(1)
    kill_group(process)
    fake.hold_after = None
    finish(arguments_for(source, output, fake, workers=1))
    assert output.read_bytes() == wanted
    assert sum(fake.answered.values()) - len(fake.answered) <= SLOTS * IN_REQUEST + 3 * len(CANARY)
    record = json.loads((tmp_path / ".out.jsonl.run.json").read_text())
    assert record["resumed_rows"] >= 2500 - SLOTS * IN_REQUEST


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_keeps_every_answer_that_came_in(
    number: signal.Signals, code: int, tmp_path: Path, fake: FakeServer
) -> None:
    """The run tells its workers, which send what they have; a terminal's Ctrl-C does not reach them."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.latency_s = 0.1
    process = start(arguments_for(source, output, fake, "--quiet"))
    while sum(fake.answered.values()) < 1000:
        time.sleep(0.01)
    workers = workers_of(process.pid)
    os.killpg(process.pid, number)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert time.monotonic() - asked < 8
    assert len(errors.splitlines()) == 1, errors
    assert wait_until_gone(workers, within_s=5) == []
    before = set(fake.answered) - set(CANARY)
    fake.answered.clear()
    fake.latency_s = 0
    finish(arguments_for(source, output, fake))
    assert len(before & set(fake.answered)) <= SLOTS * IN_REQUEST


@pytest.mark.slow
def test_the_deadline_ends_the_sending_and_keeps_what_was_in_flight(tmp_path: Path, fake: FakeServer) -> None:
    """Exit code 4; workers wait for what they have sent."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.latency_s = 0.5
    errors = finish(arguments_for(source, output, fake, "--set", "run.deadline=4s"), code=4)
    assert "the deadline 4s came" in errors
    fake.latency_s = 0
    asked = sum(fake.answered.values())
    finish(arguments_for(source, output, fake))
    assert sum(fake.answered.values()) - asked <= ROWS - asked + 5 * len(CANARY)


def test_a_fixed_concurrency_is_that_of_all_workers(tmp_path: Path, fake: FakeServer) -> None:
    """They share the slots, and there are no more workers than half of them."""
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write_input(source)
    fake.latency_s = 0.02
    more = ["--set", "request.concurrency=5"]
    finish(arguments_for(source, output, fake, *more, workers=4))
    assert 2 <= fake.most_at_once <= 5
    canaries = sum(seen.texts == [*CANARY] for seen in fake.requests)
    assert canaries == 2  # workers


@pytest.mark.slow
def test_a_file_that_is_wrong_does_not_stop_the_others(tmp_path: Path, fake: FakeServer) -> None:
    """Its error names the line of the file, not of a shard."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_input(folder / "a.csv", 3000)
    write_input(folder / "c.csv", 3000)
    lines = [f'{{"text": "row {n}"}}' for n in range(3000)]
    lines[2500] = "no JSON"
    (folder / "b.jsonl").write_text("\n".join(lines))
    errors = finish(arguments_for(folder, f"{tmp_path}/out/", fake), code=2)
    assert "b.jsonl:2501: no JSON object" in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == ["a.csv", "c.csv"]


def test_small_files_are_given_out_whole(tmp_path: Path, fake: FakeServer) -> None:
    """A worker opens, answers and writes them, so that is done at once, too; one that is killed costs no file."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        name = f"{number:02}.{('csv', 'jsonl', 'parquet')[number % 3]}"
        write_input(folder / name, 10 + number)
    (folder / "41.csv").write_text("text\na,b\n")
    fake.hold_after = 500
    process = start(arguments_for(folder, f"{output}/", fake))
    while sum(fake.answered.values()) < 500:
        time.sleep(0.01)
    kill(wait_for_workers(process.pid, 2)[0])
    time.sleep(0.5)
    fake.hold_after = None
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        kill_group(process)
        raise
    assert process.returncode == 2, errors
    # One that was written right before the kill is found complete by the next worker.
    closing = errors.decode().splitlines()[-1].removeprefix(f"{output}/: ")
    assert re.match(r"41 files \((\d complete already, )?1 failed\), 1,180 rows", closing), closing
    assert b"41.csv:2: 2 cells where the header has 1" in errors
    assert b"a worker was ended by SIGKILL" in errors
    finish(arguments_for(folder, f"{tmp_path}/one/", fake, workers=1), code=2)
    names = sorted(path.name for path in output.iterdir() if path.is_file() and path.name[0] != ".")
    assert len(names) == 40
    for name in names:
        assert (output / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    fake.requests.clear()
    again = finish(arguments_for(folder, f"{output}/", fake), code=2)
    assert not fake.requests
    assert "41.csv" in again


@pytest.mark.slow
def test_a_file_of_refused_rows_does_not_end_the_run(tmp_path: Path, fake: FakeServer) -> None:
    """The first rows of its worker all fail, but others were answered: the server does not refuse everything."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_input(folder / f"{name}.csv", 2000)
    (folder / "d.csv").write_text("text\n" + "".join(f"poison {n}\n" for n in range(100)))
    fake.rules.append((lambda text: text.startswith("poison"), refuse(400, "no")))
    fake.latency_s = 0.01
    errors = finish(arguments_for(folder, f"{tmp_path}/out/", fake), code=3)
    assert "100 failed" in errors
    assert len(list((tmp_path / "out").glob("*.csv"))) == 4


def test_variables_that_are_no_utf8_are_no_trouble(
    tmp_path: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers get the environment as it is."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source, 100)
    monkeypatch.setenv("ODD", os.fsdecode(b"\xe9"))
    finish(arguments_for(source, output, fake))


@pytest.mark.slow
def test_another_model_is_refused(tmp_path: Path, fake: FakeServer) -> None:
    """A worker meets another model than that whose answers are there: nothing is mixed."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    fake.hold_after = 500
    process = start(arguments_for(source, output, fake))
    while sum(fake.answered.values()) < 500:
        time.sleep(0.01)
    time.sleep(1)
    kill_group(process)
    fake.hold_after, fake.weights = None, "other"
    errors = finish(arguments_for(source, output, fake), code=2)
    assert "another model" in errors
    assert not output.exists()


def test_workers_that_meet_different_models_end_the_run(tmp_path: Path, fake: FakeServer) -> None:
    """Behind one address a second model answers the second worker: nothing of the two is mixed."""
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write_input(source)

    def change_after_the_first(texts: list[str]) -> None:
        if texts == [*CANARY] and sum(seen.texts == texts for seen in fake.requests) > 1:
            fake.weights = "other"

    fake.each = change_after_the_first
    errors = finish(arguments_for(source, output, fake), code=2)
    assert re.search(r"(workers of this run met different models|another model) \(model\.canary", errors)
    assert not output.exists()


@pytest.mark.slow
def test_rows_that_fail_are_those_of_one_process(tmp_path: Path, fake: FakeServer) -> None:
    """Poison is found by its own worker; --retry-failed asks for these rows alone."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source)
    fake.rules.append((lambda text: text.startswith(("row 77 ", "row 4444 ")), refuse(400, "no")))
    errors = finish(arguments_for(source, output, fake), code=3)
    assert "2 failed" in errors
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows if row["predicted_label"] is None] == [77, 4444]
    fake.rules.clear()
    fake.answered.clear()
    finish(arguments_for(source, output, fake, "--retry-failed"))
    assert set(fake.answered) - set(CANARY) == {TEXTS[77], TEXTS[4444]}
    assert output.read_bytes() == output_of_one_process(source, fake)


def test_what_workers_are_told_is_in_no_argument(
    tmp_path: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is read from the environment, which the process inherits, and else travels through the socket alone."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    monkeypatch.setenv("VLLM_API_KEY", "s3cret-key")
    fake.api_key, fake.hold_after = "s3cret-key", 500
    process = start(arguments_for(source, output, fake))
    while sum(fake.answered.values()) < 500:
        time.sleep(0.01)
    for worker in workers_of(process.pid):
        assert b"s3cret" not in Path(f"/proc/{worker}/cmdline").read_bytes()
    fake.hold_after = None
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert b"s3cret" not in errors
    assert all(seen.headers.get("Authorization") == "Bearer s3cret-key" for seen in fake.requests)


# A worker that dies whenever it is given a shard, and a run with such workers.
DIES = """
import os, signal, pipeline.runs.worker as worker
worker.Worker._open = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
worker.main()
"""
RUN_WITH_THESE = """
import sys, pipeline.engines.local as local, pipeline.cli as cli
local.WORKER = "dies"
sys.exit(cli.main())
"""


def test_workers_that_die_again_and_again_end_the_run(tmp_path: Path, fake: FakeServer) -> None:
    """Exit code 75, after as many as `engine.retries` says; the message says what ended them."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    (tmp_path / "dies.py").write_text(DIES)
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITH_THESE, *arguments_for(source, output, fake, "--set", "engine.retries=1")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert re.search(r"a worker was ended by SIGKILL, 2 times before it had answered anything", done.stderr)


async def test_what_workers_learn_of_the_model_must_agree(tmp_path: Path) -> None:
    """Names may be added; another answer to the canary is another model."""
    write_input(tmp_path / "in.csv", 10)
    config = load(None, {"loader.input": str(tmp_path / "in.csv"), "loader.text_column": "text", "engine.workers": 2})
    spread = Spread(config, Progress("quiet"), {}, lambda _: None)
    spec, output = TextSpec(config.loader), Output(locate(str(tmp_path / "out.csv")))
    with closing(Checkpoint(tmp_path / "checkpoint")) as checkpoint:
        source, now = open_source(config.loader), datetime.now(UTC)
        file = RunFile(config, source, spec, {"input": "1-a"}, output, checkpoint, now, 0.0)
        model = {"model.id": "m", "model.num_classes": 2, "model.canary": [[0.25, 0.75]]}
        spread._learn(file, model | {"model.names": {"0": "a"}})
        spread._learn(file, model | {"model.names": {"1": "b"}})
        checkpoint.flush()
        assert checkpoint.get("identity") == {"input": "1-a", **model, "model.names": {"0": "a", "1": "b"}}
        with pytest.raises(ModelChanged, match=r"met different models \(model.canary"):
            spread._learn(file, model | {"model.canary": [[0.75, 0.25]], "model.names": {}})


async def test_one_worker_speaks_for_all(capfd: pytest.CaptureFixture[str]) -> None:
    """All meet the same servers: what several say is said once, and by another one when the first has ended."""
    progress = Progress("quiet")
    spread = Spread(load(None, {"engine.workers": 2}), progress, {}, lambda _: None)
    workers = [_Worker(number, LocalProcess(WORKER)) for number in range(2)]
    for worker in workers:
        spread._take(worker, Notice("the server is gone", "gone"))
        spread._take(worker, Notice("texts may be cut", ""))
    spread._take(workers[0], Notice("texts may be cut", ""))
    assert capfd.readouterr().err == "the server is gone\ntexts may be cut\n"
    spread._take(workers[0], Notice("the server is gone again", "gone"))
    progress.end()
    assert capfd.readouterr().err == "the server is gone again\n"


@pytest.mark.slow
def test_standard_input_and_output(tmp_path: Path, fake: FakeServer) -> None:
    """Rows go out in their order, whichever worker answers first."""
    source = tmp_path / "in.jsonl"
    write_input(source)
    wanted = output_of_one_process(source, fake)
    command = [sys.executable, "-m", "pipeline", *arguments_for(Path("-"), Path("-"), fake, "--quiet")]
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == wanted


@pytest.mark.slow
def test_stored_answers_are_shared_by_all_workers(tmp_path: Path, fake: FakeServer) -> None:
    """A second night with run.reuse asks for nothing that the first one has answered."""
    source = tmp_path / "in.csv"
    write_input(source)
    more = ["--set", f"run.reuse={tmp_path / 'answers.sqlite'}"]
    finish(arguments_for(source, tmp_path / "first.csv", fake, *more))
    fake.answered.clear()
    finish(arguments_for(source, tmp_path / "second.csv", fake, *more))
    assert sum(fake.answered.values()) <= 2 * (len(CANARY) + len(LABELS))  # one text of each class tells its name
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


@pytest.mark.slow
def test_a_complete_output_starts_nobody(tmp_path: Path, fake: FakeServer) -> None:
    """There is nothing to classify, so no worker and no server is needed."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source, 100)
    finish(arguments_for(source, output, fake))
    fake.requests.clear()
    errors = finish(arguments_for(source, output, fake))
    assert "complete already" in errors
    assert fake.requests == []


@pytest.mark.slow
def test_only_the_first_rows(tmp_path: Path, fake: FakeServer) -> None:
    """--limit-rows cuts the last shard; a later run goes on from there."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_input(source)
    wanted: Any = output_of_one_process(source, fake)
    fake.answered.clear()
    finish(arguments_for(source, output, fake, "--limit-rows", "1234"))
    assert len(output.read_text().splitlines()) == 1234
    assert sum(fake.answered.values()) <= 1234 + 2 * len(CANARY)
    finish(arguments_for(source, output, fake))
    assert output.read_bytes() == wanted
