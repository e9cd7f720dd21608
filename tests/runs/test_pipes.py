"""`-`: rows in through standard input, out through standard output, and what can't be promised then."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import FakeServer, hang, label_of, refuse
from killing import KILLED_AFTER_RENAME
from pyarrow import feather, orc
from s3 import Bucket

from pipeline.servers.model import CANARY

TEXTS = [f"row {n} says something of its own" for n in range(400)]
LINES = [json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)]
JSONL = "".join(f"{line}\n" for line in LINES)
NO_RESUME = "no resume"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state directory of all commands; nothing is left in it in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    root = tmp_path / "xdg" / "classify"
    yield root
    assert not root.exists() or list(root.iterdir()) == []


def piped(
    *arguments: str, given: str | bytes = JSONL, expect: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The command with `given` on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", *arguments],
        input=given.encode() if isinstance(given, str) else given,
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == expect, done.stderr.decode()
    return done


def started(*arguments: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """The command, running, in a process group of its own."""
    command = [sys.executable, "-m", "pipeline", "run", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True)


def small(fake: FakeServer) -> tuple[str, ...]:
    """Options of a run with many small requests."""
    return ("--url", fake.url, "--set", "request.rows=8", "--set", "request.concurrency=4")


# -- the same rows


@pytest.mark.usefixtures("state")
def test_through_pipes_the_rows_are_those_of_a_file(tmp_path: Path, fake: FakeServer) -> None:
    """Pipe to pipe has the bytes of file to file; stderr says once that there is no resume, stdout is data only."""
    (tmp_path / "in.jsonl").write_text(JSONL)
    piped("in.jsonl", "-o", "out.jsonl", *small(fake))
    done = piped("-i", "-", "-o", "-", *small(fake))
    assert done.stdout == (tmp_path / "out.jsonl").read_bytes()
    said = done.stderr.decode().splitlines()
    assert NO_RESUME in said[0]
    assert NO_RESUME not in "".join(said[1:])
    assert said[-1].startswith("stdout: 400 rows in ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".out.jsonl.lock", ".out.jsonl.run.json", "in.jsonl", "out.jsonl", "xdg")
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_cells_through_pipes_are_those_of_a_file(tmp_path: Path, fake: FakeServer, kind: str, delimiter: str) -> None:
    """From CSV to CSV the bytes of each record stay, with a header before them; from JSON Lines cells are made."""
    rows = "".join(f'{n}{delimiter}"{text}"\r\n' for n, text in enumerate(TEXTS))
    (tmp_path / f"in.{kind}").write_bytes(f"id{delimiter}text\r\n{rows}".encode())
    piped(f"in.{kind}", "-o", f"out.{kind}", *small(fake))
    formats = ("--set", f"loader.format={kind}", "--set", f"writer.format={kind}")
    done = piped("-i", "-", "-o", "-", *formats, *small(fake), given=(tmp_path / f"in.{kind}").read_bytes())
    assert done.stdout == (tmp_path / f"out.{kind}").read_bytes()
    (tmp_path / "in.jsonl").write_text(JSONL)
    piped("in.jsonl", "-o", f"from_lines.{kind}", *small(fake))
    done = piped("-i", "-", "-o", "-", *formats[2:], *small(fake))
    assert done.stdout == (tmp_path / f"from_lines.{kind}").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("state")
def test_one_end_may_be_a_file(tmp_path: Path, fake: FakeServer, bucket: Bucket) -> None:
    """Any file to stdout, stdin to any file, a store among them: the same rows in the same order."""
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(TEXTS)))
    pq.write_table(pa.table({"id": range(400), "text": TEXTS}), tmp_path / "in.parquet", row_group_size=70)
    for name in ("in.csv", "in.parquet"):
        rows = [json.loads(line) for line in piped(name, "-o", "-", *small(fake)).stdout.splitlines()]
        assert [(int(row["id"]), row["predicted_label"]) for row in rows] == [
            (n, label_of(text)) for n, text in enumerate(TEXTS)
        ]
    piped("-i", "-", "-o", "out.parquet", *small(fake))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == list(range(400))
    assert table["predicted_label"].to_pylist() == [label_of(text) for text in TEXTS]
    piped("-i", "-", "-o", bucket.uri("folder/"), *small(fake), env=bucket.environment)
    lines = (bucket.get("folder/stdin.jsonl") or b"").splitlines()
    assert [json.loads(line)["predicted_label"] for line in lines] == [label_of(text) for text in TEXTS]


@pytest.mark.slow
@pytest.mark.usefixtures("state")
def test_standard_input_may_be_of_any_format(tmp_path: Path, fake: FakeServer) -> None:
    """JSON Lines unless loader.format says otherwise; a line that is none is named."""
    text = ("--set", "loader.format=csv", "--url", fake.url)
    assert piped("-i", "-", "-o", "out.csv", *text, given='text\n"a,b"\n').stderr
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith('"a,b",')
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    done = piped("-i", "-", "-o", "-", "--set", "loader.format=parquet", "--url", fake.url, given=content)
    assert json.loads(done.stdout)["predicted_label"] == label_of("x")
    wrong = piped("-i", "-", "-o", "-", "--url", fake.url, given='{"text": "a"}\nb\n', expect=2)
    assert b"stdin:2: no JSON object" in wrong.stderr
    assert wrong.stdout == b""


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("kind", "out"),
    [("arrow", "json"), ("stream", "csv"), ("orc", "tsv"), ("xlsx", "jsonl"), ("json", "csv"), ("parquet", "json")],
)
def test_formats_with_an_index_come_through_a_pipe_too(kind: str, out: str, tmp_path: Path, fake: FakeServer) -> None:
    """Standard input is a file by then; every text format goes out."""
    table, path = pa.table({"text": ["a, b", "c"]}), tmp_path / "in"
    if kind == "json":
        path.write_text(json.dumps(table.to_pylist()))
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        for index, text in enumerate(["text", "a, b", "c"], 1):
            book.worksheets[0].cell(index, 1, text)
        book.save(path)
    elif kind == "stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    else:
        {"arrow": feather.write_feather, "orc": orc.write_table, "parquet": pq.write_table}[kind](table, path)
    given = ("--set", f"loader.format={'arrow' if kind == 'stream' else kind}", "--set", f"writer.format={out}")
    content = piped("-i", "-", "-o", "-", *given, "--url", fake.url, given=path.read_bytes()).stdout.decode()
    if out == "json":
        rows = json.loads(content)
    elif out == "jsonl":
        rows = [*map(json.loads, content.splitlines())]
    else:
        rows = [*csv.DictReader(content.splitlines(), delimiter="\t" if out == "tsv" else ",")]
    assert [(row["text"], row["predicted_label"]) for row in rows] == [(text, label_of(text)) for text in ("a, b", "c")]


@pytest.mark.usefixtures("state")
def test_no_rows_through_a_pipe(fake: FakeServer) -> None:
    """Nothing in, nothing out, nothing sent."""
    assert piped("-i", "-", "-o", "-", "--url", fake.url, given="").stdout == b""
    assert fake.requests == []


@pytest.mark.usefixtures("state")
def test_first_rows_and_all_columns_through_a_pipe(fake: FakeServer) -> None:
    """--limit-rows ends the output; a column for each class is known before the first row is written."""
    more = ("--limit-rows", "10", "--set", "writer.probs=columns")
    rows = [json.loads(line) for line in piped("-i", "-", "-o", "-", *small(fake), *more).stdout.splitlines()]
    assert [row["id"] for row in rows] == list(range(10))
    assert list(rows[0])[-3:] == ["predicted_prob_0", "predicted_prob_1", "predicted_prob_2"]


# -- as they are answered


@pytest.mark.usefixtures("state")
def test_rows_go_out_while_the_run_goes_on(fake: FakeServer, tmp_path: Path) -> None:
    """All rows before the first that is not answered are there to be read; then the run is interrupted."""
    (tmp_path / "in.jsonl").write_text(JSONL)
    fake.rules.append((TEXTS[200].__eq__, hang()))
    process = started("in.jsonl", "-o", "-", *small(fake))
    assert process.stdout
    rows = [json.loads(process.stdout.readline()) for _ in range(200)]
    assert [row["id"] for row in rows] == list(range(200))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    assert rest == b""
    assert process.returncode == 130
    assert "kept" not in errors.decode()


@pytest.mark.usefixtures("state")
def test_a_row_waits_for_those_before_it(fake: FakeServer) -> None:
    """Answers that come in any order leave in the order of the rows."""
    fake.script.extend([refuse(503, "busy", Retry_After="1")] * 2)
    rows = [json.loads(line) for line in piped("-i", "-", "-o", "-", *small(fake)).stdout.splitlines()]
    assert [(row["id"], row["predicted_label"]) for row in rows] == [
        (n, label_of(text)) for n, text in enumerate(TEXTS)
    ]


@pytest.mark.usefixtures("state")
def test_a_reader_that_has_seen_enough_ends_the_run(fake: FakeServer, tmp_path: Path) -> None:
    """`| head`: the code of SIGPIPE, no word of it, and the rest is neither sent nor paid for."""
    rows = 20_000
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"{n}"}) + "\n" for n in range(rows)))
    fake.latency_s = 0.02
    process = started("in.jsonl", "-o", "-", *small(fake))
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["text"] == "0"
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert len(process.stderr.read().splitlines()) == 1
    process.stderr.close()
    assert len(fake.answered) < rows / 2


@pytest.mark.usefixtures("state")
def test_a_run_that_fails_writes_what_is_finished(fake: FakeServer) -> None:
    """Failed rows are 3; a server that has gone is 75, after the rows that were answered before it went."""
    fake.rules.append((TEXTS[7].__eq__, refuse(400, "no")))
    rows = [json.loads(line) for line in piped("-i", "-", "-o", "-", *small(fake), expect=3).stdout.splitlines()]
    assert len(rows) == 400
    assert rows[7]["predicted_error"] == "rejected: HTTP 400: no"
    fake.rules.append((TEXTS[200].__eq__, refuse(401, "who are you?")))
    done = piped("-i", "-", "-o", "-", *small(fake), expect=2)
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert ids == list(range(len(ids)))
    assert 100 < len(ids) <= 200


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_reader_that_does_not_read_holds_nobody_up(number: signal.Signals, fake: FakeServer, tmp_path: Path) -> None:
    """A full pipe: a signal ends the run in time."""
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": str(n), "more": "x" * 900}) + "\n" for n in range(500))
    )
    process = started("in.jsonl", "-o", "-", *small(fake))
    while len(fake.answered) < 500:
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(timeout=7) == 128 + number
    process.communicate()


# -- mistakes


@pytest.mark.usefixtures("state")
def test_mistakes_with_pipes_are_said_in_a_line(fake: FakeServer, tmp_path: Path) -> None:
    """No output named, a format that stdout does not take: exit 2, nothing sent."""
    (tmp_path / "in.csv").write_text("text\na\n")
    for arguments, words in (
        (("-i", "-"), "--output"),
        (("in.csv", "-o", "-", "--set", "writer.format=parquet"), "jsonl"),
    ):
        done = piped(*arguments, "--url", fake.url, expect=2)
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr.decode()
        assert done.stdout == b""
    assert fake.requests == []


@pytest.mark.usefixtures("state")
def test_a_terminal_is_no_input(fake: FakeServer) -> None:
    """Whoever forgets the pipe is told, instead of being waited for."""
    ours, theirs = pty.openpty()
    process = started("-i", "-", "-o", "-", "--url", fake.url, stdin=theirs)
    _, errors = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 2
    assert b"terminal" in errors


@pytest.mark.usefixtures("state")
def test_check_looks_at_what_comes_through_a_pipe(fake: FakeServer, tmp_path: Path) -> None:
    """Rows and columns of standard input; the copy of it is gone afterwards."""
    command = [sys.executable, "-m", "pipeline", "check", "-i", "-", "-o", "-", "--url", fake.url]
    done = subprocess.run(command, input=JSONL, capture_output=True, text=True, check=True)
    assert "stdin: 400 rows, text from text" in done.stdout
    assert "stdout: rows go out as they are answered" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["xdg"]


# -- interrupted


def test_what_came_through_a_pipe_goes_with_the_run(state: Path, fake: FakeServer, classify: Command) -> None:
    """SIGTERM removes the copy of standard input, also half of it; after kill -9 the next run does."""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = started("-i", "-", "-o", "-", "--url", fake.url, stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(JSONL.encode())
        process.stdin.flush()
        while not [path for path in state.glob("pipe-*/stdin.jsonl") if path.stat().st_size]:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=20) == code
        process.communicate()
        assert bool(list(state.iterdir())) == (number == signal.SIGKILL)
    assert fake.requests == []
    Path("in.jsonl").write_text(JSONL)
    classify("run", "in.jsonl", "-o", "-", "--url", fake.url, env={"XDG_STATE_HOME": str(state.parent)})


@pytest.mark.slow
@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_from_a_pipe_starts_over(number: signal.Signals, tmp_path: Path, fake: FakeServer) -> None:
    """Whatever comes through the pipe next time, the same or not, begins with its first row and is not mixed."""
    (tmp_path / "in.jsonl").write_text(JSONL)
    for given in (LINES, LINES[:300]):
        fake.rules = [(TEXTS[200].__eq__, hang())]
        with (tmp_path / "in.jsonl").open() as source:
            process = started("-i", "-", "-o", "out.jsonl", *small(fake), stdin=source.fileno())
        fake.answered.clear()
        while len(fake.answered) < 150:
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(number)
        process.communicate(timeout=20)
        assert (tmp_path / ".out.jsonl.checkpoint").exists() == (number == signal.SIGKILL)
        fake.rules.clear()
        fake.answered.clear()
        piped("-i", "-", "-o", "out.jsonl", *small(fake), given="\n".join(given))
        assert sum(text in fake.answered for text in TEXTS) == len(given)
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(given)
        assert not (tmp_path / ".out.jsonl.checkpoint").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("state")
def test_what_a_file_has_begun_is_not_thrown_away_for_a_pipe(tmp_path: Path, fake: FakeServer) -> None:
    """An unfinished run from a file is not taken up by one from a pipe, nor silently forgotten: exit 2."""
    (tmp_path / "in.jsonl").write_text(JSONL)
    fake.rules.append((lambda text: text not in CANARY, hang()))
    piped("in.jsonl", "-o", "out.jsonl", *small(fake), "--set", "run.deadline=1s", expect=4)
    fake.rules.clear()
    done = piped("-i", "-", "-o", "out.jsonl", *small(fake), expect=2)
    assert b"was begun differently (input: was " in done.stderr
    piped("-i", "-", "-o", "out.jsonl", *small(fake), "--restart")


@pytest.mark.slow
@pytest.mark.usefixtures("state")
def test_the_same_rows_again_for_a_complete_output_cost_nothing(tmp_path: Path, fake: FakeServer) -> None:
    """Into a file that has these rows already nothing is sent; other rows replace it."""
    piped("-i", "-", "-o", "out.jsonl", *small(fake))
    fake.requests.clear()
    again = piped("-i", "-", "-o", "out.jsonl", *small(fake))
    assert b"complete already" in again.stderr
    assert fake.requests == []
    piped("-i", "-", "-o", "out.jsonl", *small(fake), given=LINES[5])
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_killed_right_after_the_rename_the_output_is_known_as_ours(
    tmp_path: Path, state: Path, fake: FakeServer, classify: Command
) -> None:
    """The output of a pipe is there and its record is not: the next run may replace it."""
    arguments = ("run", "-i", "-", "-o", "out.jsonl", *small(fake))
    command = [sys.executable, "-c", KILLED_AFTER_RENAME, *arguments]
    killed = subprocess.run(command, input=JSONL.encode(), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    content = (tmp_path / "out.jsonl").read_bytes()
    assert not (tmp_path / ".out.jsonl.run.json").exists()
    piped(*arguments[1:])
    assert (tmp_path / "out.jsonl").read_bytes() == content
    assert not (tmp_path / ".out.jsonl.checkpoint").exists()
    assert list(state.iterdir()) == []
    assert "complete" in classify("status", "out.jsonl").stdout
