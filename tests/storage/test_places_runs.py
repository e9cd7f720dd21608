"""Runs from and to a store: the same output as on a disk, the same promises, and messages without secrets."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import FakeServer, hang, refuse
from s3 import KEY, Bucket, Way, environment_for, only_reading

from pipeline.servers.model import CANARY
from pipeline.storage import locate
from pipeline.storage.state import state_of

NOWHERE = ("--url", "http://127.0.0.1:1", "--set", "server.start_wait_s=0")
TEXTS = [f"row {n} says something of its own" for n in range(600)]
FORMATS = ["csv", "tsv", "parquet", "jsonl", "csv.gz", "jsonl.zst", "csv.bz2"]


def content_of(name: str, folder: Path) -> bytes:
    """The bytes of a file of `TEXTS`, in the format of an ending."""
    path = folder / f"made.{name}"
    if name == "parquet":
        table = pa.table({"id": range(len(TEXTS)), "text": TEXTS, "n": [float(n) for n in range(len(TEXTS))]})
        pq.write_table(table, path, row_group_size=100)
        return path.read_bytes()
    kind, _, codec = name.partition(".")
    if kind == "jsonl":
        lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)]
    else:
        mark = {"csv": ",", "tsv": "\t"}[kind]
        lines = [f"id{mark}text", *(f"{n}{mark}{text}" for n, text in enumerate(TEXTS))]
    with pa.output_stream(path, compression={"gz": "gzip", "zst": "zstd", "bz2": "bz2"}.get(codec)) as out:
        out.write("".join(f"{line}\n" for line in lines).encode())
    return path.read_bytes()


@pytest.fixture
def source(bucket: Bucket, tmp_path: Path) -> str:
    """The URI of a CSV of `TEXTS`."""
    return bucket.put("in/a.csv", content_of("csv", tmp_path))


@pytest.fixture
def inside(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process work where the command does, with the same environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)


def started(arguments: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The command, running, in a process group of its own."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {**os.environ, **(env or {})}
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment)


def complaint(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The one line of a failure holds `words`."""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


# -- the same as on a disk


@pytest.mark.parametrize("name", FORMATS)
def test_from_store_to_store_is_as_from_disk_to_disk(
    name: str, tmp_path: Path, bucket: Bucket, fake: FakeServer, classify: Command
) -> None:
    """Any format, read in a store and written there, has the bytes of the same run on a disk; and so has a mixture."""
    (tmp_path / f"in.{name}").write_bytes(content_of(name, tmp_path))
    bucket.put(f"in.{name}", content_of(name, tmp_path))
    local, remote = f"in.{name}", bucket.uri(f"in.{name}")
    sent = ("--url", fake.url, "--quiet")
    classify("run", local, "-o", f"out.{name}", *sent)
    expected = (tmp_path / f"out.{name}").read_bytes()
    classify("run", remote, "-o", bucket.uri(f"out.{name}"), *sent, env=bucket.environment)
    assert bucket.get(f"out.{name}") == expected
    classify("run", local, "-o", bucket.uri(f"mixed.{name}"), *sent, env=bucket.environment)
    assert bucket.get(f"mixed.{name}") == expected
    classify("run", remote, "-o", f"mixed.{name}", *sent, env=bucket.environment)
    assert (tmp_path / f"mixed.{name}").read_bytes() == expected
    assert list((tmp_path / "state" / "classify").iterdir()) == []  # nothing is kept of what is finished
    assert bucket.uploads() == []


def test_the_same_command_again_anywhere(
    tmp_path: Path, bucket: Bucket, source: str, fake: FakeServer, classify: Command
) -> None:
    """What stands in the store says that it is ours and complete: nothing is sent, also from another machine."""
    arguments = ("run", source, "-o", bucket.uri("out.csv"))
    classify(*arguments, "--url", fake.url, env=bucket.environment)
    assert sorted(bucket.keys()) == [".out.csv.run.json", "in/a.csv", "out.csv"]
    for machine in ("state", "elsewhere"):
        environment = {**bucket.environment, "XDG_STATE_HOME": str(tmp_path / machine)}
        again = classify(*arguments, *NOWHERE, env=environment)
        assert "complete already, nothing to do: 600 rows" in again.stderr
        status = classify("status", bucket.uri("out.csv"), env=environment)
        assert f"{bucket.uri('out.csv')}: complete, 600 of 600 rows" in status.stdout
    bucket.put("in/a.csv", b"text\nanother\n")
    classify(*arguments, "--url", fake.url, env=bucket.environment)
    assert (bucket.get("out.csv") or b"").startswith(b"text,predicted_label")


def test_an_output_without_a_name_stands_beside_its_input_or_in_a_directory(
    bucket: Bucket, source: str, fake: FakeServer, classify: Command
) -> None:
    """NAME_labelled beside it, or the same name below a prefix that ends in a slash or has objects already."""
    for output in ((), ("-o", bucket.uri("new/")), ("-o", bucket.uri("new")), ("-o", bucket.uri().rstrip("/"))):
        classify("run", source, *output, "--url", fake.url, env=bucket.environment)
    keys = [key for key in bucket.keys() if "/." not in f"/{key}"]  # noqa: SIM118 - it is no dict
    assert sorted(keys) == ["a.csv", "in/a.csv", "in/a_labelled.csv", "new/a.csv"]


def test_an_empty_object_is_an_empty_file(bucket: Bucket, fake: FakeServer, classify: Command) -> None:
    """0 bytes of CSV are a mistake, 0 bytes of JSONL are no rows."""
    bucket.put("none.csv", b"")
    bucket.put("none.jsonl", b"")
    complaint(classify("run", bucket.uri("none.csv"), *NOWHERE, expect=2, env=bucket.environment), "empty")
    classify("run", bucket.uri("none.jsonl"), "-o", bucket.uri("out.jsonl"), *NOWHERE, env=bucket.environment)
    assert bucket.get("out.jsonl") == b""
    assert fake.requests == []


def test_check_looks_at_a_store_and_leaves_it_as_it_was(
    tmp_path: Path, bucket: Bucket, source: str, fake: FakeServer, classify: Command
) -> None:
    """Rows of the input, whether the output exists; nothing is written, there or here."""
    said = classify("check", source, "-o", bucket.uri("out.csv"), "--url", fake.url, env=bucket.environment).stdout
    assert f"{source}: 600 rows" in said
    assert f"{bucket.uri('out.csv')}: will be made" in said
    assert bucket.keys() == ["in/a.csv"]
    assert not (tmp_path / "state").exists()


# -- what is refused


def test_what_is_not_there_is_named(bucket: Bucket, source: str, fake: FakeServer, classify: Command) -> None:
    """No such bucket, object or directory, the input as output: exit 2, one line, and nothing is sent or made."""
    environment = bucket.environment
    run = ("run", "--url", fake.url)
    complaint(classify(*run, "s3://nobody-has-it/a.csv", expect=2, env=environment), "no bucket nobody-has-it")
    complaint(classify(*run, source, "-o", "s3://nobody-has-it/", expect=2, env=environment), "no bucket nobody-has-it")
    complaint(classify(*run, bucket.uri("gone.csv"), expect=2, env=environment), "gone.csv: no such file")
    complaint(classify(*run, bucket.uri("nothing/"), expect=2, env=environment), "nothing: no such file")
    for output in (source, f"s3://{KEY}:x@{bucket.name}/in/a.csv", bucket.uri("in/"), bucket.uri("in")):
        done = classify(*run, source, "-o", output, "--overwrite", expect=2, env=environment)
        complaint(done, f"{source}: is the input")
    assert bucket.keys() == ["in/a.csv"]
    assert fake.requests == []


def test_an_object_of_somebody_else_stays(bucket: Bucket, source: str, fake: FakeServer, classify: Command) -> None:
    """It is refused, untouched, before anything is sent; --overwrite replaces it."""
    bucket.put("out.csv", b"precious")
    arguments = ("run", source, "-o", bucket.uri("out.csv"), "--url", fake.url)
    complaint(classify(*arguments, expect=2, env=bucket.environment), bucket.uri("out.csv"), "--overwrite")
    assert bucket.get("out.csv") == b"precious"
    assert fake.requests == []
    classify(*arguments, "--overwrite", env=bucket.environment)
    assert (bucket.get("out.csv") or b"").startswith(b"id,text,predicted_label")


def test_missing_permission_is_said_before_anything_is_paid_for(
    bucket: Bucket, source: str, fake: FakeServer, classify: Command
) -> None:
    """Unknown credentials can't read; those that may only read can't write: exit 2 at the start."""
    with only_reading(bucket) as (key, secret):
        unknown = {**bucket.environment, "AWS_ACCESS_KEY_ID": "AKIANOBODY"}
        reader = {**bucket.environment, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        run = ("run", source, "--url", fake.url, "-o")
        complaint(classify(*run, "out.csv", expect=2, env=unknown), source, "ACCESS_DENIED", "credentials")
        complaint(classify(*run, bucket.uri("out.csv"), expect=2, env=reader), "out.csv", "ACCESS_DENIED")
        assert fake.requests == []
        classify(*run, "out.csv", env=reader)
    assert bucket.keys() == ["in/a.csv"]


@pytest.mark.slow
def test_a_store_that_is_not_there_is_not_now(bucket: Bucket, source: str, classify: Command, way: Way) -> None:
    """Refused connections are 75; so is a store that breaks off while it is read."""
    nobody = {**bucket.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    complaint(classify("run", source, *NOWHERE, expect=75, env=nobody), source, "try again later")
    way.allow = 0
    complaint(classify("run", source, *NOWHERE, expect=75, env=environment_for(way.port)), source, "try again later")


# -- secrets


@pytest.mark.usefixtures("source")
def test_credentials_in_a_uri_appear_nowhere(
    tmp_path: Path, bucket: Bucket, fake: FakeServer, classify: Command
) -> None:
    """Not in `check`, in messages, in status, in what a stopped run keeps, nor in the record; and they do work."""
    options = f"?endpoint_override=127.0.0.1:{bucket.port}&scheme=http"
    place = f"s3://AKIASECRET:wJalr%2FXUtnFEMI%2BK7MDENG@{bucket.name}"
    arguments = [f"{place}/in/a.csv{options}", "-o", f"{place}/out.csv{options}"]
    environment = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL": ""}
    said = []
    for command in (
        ["check", *arguments, "--url", fake.url],
        ["run", *arguments, "--url", fake.url, "--set", "run.deadline=0s"],
        ["status", arguments[2]],
    ):
        done = classify(*command, expect=None, env=environment)
        said.append(done.stdout + done.stderr)
    assert "600 rows" in said[0]
    assert "the deadline" in said[1]
    assert "interrupted" in said[2]
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(content.startswith(b"SQLite") for content in kept)
    for command in (
        ["run", *arguments, "--url", fake.url, "--log-json"],
        ["run", *arguments],
        ["run", *arguments, arguments[0]],
        ["run", *arguments, "-i", arguments[0]],
        ["run", arguments[0].replace("a.csv", "gone.csv")],
        ["run", arguments[0].replace("%2F", "/")],
    ):
        done = classify(*command, expect=None, env=environment)
        said.append(done.stdout + done.stderr)
    assert [text for text in said if "AKIASECRET" in text or "wJalr" in text or "XUtn" in text] == []
    kept.append(bucket.get(".out.csv.run.json") or b"")
    assert b'"rows": 600' in kept[-1]
    assert [content for content in kept if b"AKIASECRET" in content or b"wJalr" in content or b"XUtn" in content] == []


# -- interrupted


@pytest.mark.slow
def test_killed_at_random_moments_a_store_gets_the_same_bytes(
    tmp_path: Path, bucket: Bucket, source: str, fake: FakeServer, classify: Command
) -> None:
    """After kills -9 the object equals that of an uninterrupted run, no answer older than a second is asked again."""
    environment = {**os.environ, **bucket.environment, "XDG_STATE_HOME": str(tmp_path / "state")}
    sizes = ("--set", "request.rows=8", "--set", "request.concurrency=4", "--url", fake.url, "--quiet")
    classify("run", source, "-o", bucket.uri("whole.csv"), *sizes, env=bucket.environment)
    fake.requests.clear()
    fake.latency_s = 0.1  # 600 rows by 8 with 4 at once: 2 s of requests
    draw, kills = random.Random(7), 0
    command = [sys.executable, "-m", "pipeline", "run", source, "-o", bucket.uri("out.csv"), *sizes]
    for _ in range(5):
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            process.wait(draw.uniform(0.7, 1.8))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills > 2
    assert bucket.get("out.csv") is None or bucket.get("out.csv") == bucket.get("whole.csv")
    classify(*command[3:], env=bucket.environment)
    assert bucket.get("out.csv") == bucket.get("whole.csv")
    again = len(fake.texts) - len(TEXTS) - fake.texts.count(CANARY[0]) * len(CANARY)
    assert again <= kills * (4 + 4 / fake.latency_s) * 8
    assert list((tmp_path / "state" / "classify").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.usefixtures("inside")
def test_stopped_while_it_is_sent_no_half_object_appears(
    number: signal.Signals, bucket: Bucket, fake: FakeServer, way: Way, classify: Command
) -> None:
    """The store hangs in the middle of an upload, and the run is stopped: what stood there stays, nothing is lost."""
    text = random.Random(3).randbytes(8 << 20).hex()  # a row of 16 MiB: two parts
    uri = bucket.put("in.jsonl", json.dumps({"text": "x", "body": text}).encode() + b"\n")
    arguments = ["run", uri, "-o", bucket.uri("out.jsonl"), "--url", fake.url, "--quiet"]
    way.allow, way.hangs = 12 << 20, True
    process = started(arguments, environment_for(way.port))
    assert way.is_blocked.wait(60)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert bucket.get("out.jsonl") is None
    assert bucket.uploads() == ["out.jsonl"]
    fake.answered.clear()
    classify(*arguments)
    assert "x" not in fake.answered
    assert (bucket.get("out.jsonl") or b"").endswith(b'"predicted_error":null}\n')


# The interpreter reports what returns: when the output has been sent, everything ends.
KILLED_AFTER_UPLOAD = """
import runpy, signal, sys, threading

def look(frame, event, _):
    name = frame.f_locals.get("path", "") if event == "return" and frame.f_code.co_name == "put" else ""
    if isinstance(name, str) and name.endswith("/out.csv"):
        signal.raise_signal(signal.SIGKILL)

threading.setprofile(look)
sys.setprofile(look)
runpy.run_module("pipeline", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("inside")
def test_killed_right_after_the_upload_the_same_command_finishes(
    bucket: Bucket, source: str, fake: FakeServer, classify: Command
) -> None:
    """The object is there and its record is not: it is known as ours, and nothing is asked for again."""
    arguments = ("run", source, "-o", bucket.uri("out.csv"), "--url", fake.url)
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_UPLOAD, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    content = bucket.get("out.csv")
    assert content
    assert bucket.get(".out.csv.run.json") == b""
    assert "interrupted" in classify("status", bucket.uri("out.csv")).stdout
    fake.answered.clear()
    classify(*arguments)
    assert not fake.answered
    assert bucket.get("out.csv") == content
    assert "complete" in classify("status", bucket.uri("out.csv")).stdout


@pytest.fixture
def running(bucket: Bucket, source: str, fake: FakeServer, inside: None) -> Iterator[subprocess.Popen[str]]:
    """A run to `out.csv` in the bucket, in the middle of its requests, which never end."""
    assert inside is None
    fake.rules.append((TEXTS[500].__eq__, hang()))
    process = started(["run", source, "-o", bucket.uri("out.csv"), "--url", fake.url, "--set", "request.rows=8"])
    while len(fake.answered) < 400:
        time.sleep(0.01)
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_two_runs_never_send_to_one_object(
    running: subprocess.Popen[str], bucket: Bucket, source: str, classify: Command
) -> None:
    """The second on this machine ends with 75 and names the first; status tells of it while it runs."""
    done = classify("run", source, "-o", bucket.uri("out.csv"), *NOWHERE, expect=75)
    complaint(done, f"pid {running.pid} ")
    status = json.loads(classify("status", bucket.uri("out.csv"), "--log-json").stdout)
    assert status["state"] == "running"
    assert f"pid {running.pid} " in status["held_by"]


# -- the state directory


def test_the_state_directory_holds_what_a_local_run_keeps(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """With run.state_dir checkpoint and lock go there, the record stays beside the output; status finds it as told."""
    (tmp_path / "in.csv").write_bytes(content_of("csv", tmp_path))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "c.toml").write_text(
        f'[loader]\ninput = "../in.csv"\n[writer]\noutput = "../out.csv"\n[server]\nurl = "{fake.url}"\n'
        '[run]\nstate_dir = "../own state"\n'
    )
    fake.rules.append((TEXTS[7].__eq__, refuse(400, "no")))
    before = set(tmp_path.iterdir())
    classify("run", "conf/c.toml", expect=3)
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"out.csv", ".out.csv.run.json", "own state"}
    state = state_of(tmp_path / "own state", locate(str(tmp_path / "out.csv")))
    assert sorted(path.name for path in (tmp_path / "own state").iterdir()) == [state.name, f"{state.name}.lock"]
    assert (state / "checkpoint").exists()
    fake.rules.clear()
    fake.answered.clear()
    classify("run", "conf/c.toml", "--retry-failed")
    assert set(fake.answered) == {TEXTS[7], *CANARY}
    assert list((tmp_path / "own state").iterdir()) == []


def test_status_finds_a_run_in_its_state_directory(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`classify status OUTPUT --set run.state_dir=...` for an interrupted run; without it there is no trace."""
    (tmp_path / "in.csv").write_bytes(content_of("csv", tmp_path))
    there = ("--set", "run.state_dir=kept")
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *there, "--set", "run.deadline=0s", expect=4)
    assert "out.csv: interrupted" in classify("status", "./out.csv", *there).stdout
    assert "no run has begun" in classify("status", "out.csv", expect=2).stderr
    assert re.search(r'run\.state_dir = "kept"', classify("check", "in.csv", "--url", fake.url, *there).stdout)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_an_output_larger_than_an_upload_may_be_is_refused(
    verb: str, classify: Command, tmp_path: Path, bucket: Bucket, fake: FakeServer
) -> None:
    """Before a text is sent: S3 takes 10,000 parts, which pyarrow makes of 10 MiB each."""
    source = tmp_path / "in.csv"
    source.write_bytes(content_of("csv", tmp_path))
    os.truncate(source, 130_000_000_000)  # a file with a hole takes no room
    output = bucket.uri("out.csv")
    done = classify(verb, source, "-t", "text", "-o", output, "--url", fake.url, expect=2, env=bucket.environment)
    assert (
        f"{output}: the input has 130 GB, and an object can be written there up to 105 GB (10,000 parts)" in done.stderr
    )
    assert fake.requests == []
