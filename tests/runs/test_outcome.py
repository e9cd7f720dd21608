"""What the morning sees: metrics and a notification of every run, however it ended, and one last line."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from commands import Command, run_arguments, running, wait_until_answered
from fake import FakeServer, label_of, refuse
from files import rows_of, write
from prometheus_client.parser import text_string_to_metric_families
from receiving import Receiver

from pipeline._version import __version__
from pipeline.config import Config, Loader, Run, Server, Writer
from pipeline.monitoring.progress import Progress
from pipeline.runs.outcome import run_and_report

TEXTS = [f"text {n}" for n in range(60)]
NAME = "reviews.prom"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody who wants to know how runs end."""
    with Receiver() as server:
        yield server


def metrics(path: Path) -> dict[tuple[str, str], float]:
    """The samples of a metrics file: (name, value of the label beside `output`) -> value."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert Path(labels.pop("output")).is_absolute()
            found[sample.name.removeprefix("classify_"), "".join(labels.values())] = sample.value
    return found


def told(receiver: Receiver) -> tuple[str, ...]:
    """The flags that ask for both, metrics and notification."""
    return ("--set", f"run.metrics_file={NAME}", "--set", f"run.notify_url={receiver.url}/hook/t0ken-s3cret")


def test_a_good_night(tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command) -> None:
    """Rows, labels, failures by code, seconds and the time of the success are in both; the rest of the record, too."""
    write(tmp_path / "in.csv", [*TEXTS, "", TEXTS[0]])
    fake.rules.append((lambda text: text == "text 7", refuse(400, "no")))
    before = time.time()
    flags = ("--set", "run.max_failed_rows=1", "--set", "request.rows=100")
    classify(*run_arguments(fake), *flags, *told(receiver))
    seen, (body,) = metrics(tmp_path / NAME), receiver.bodies
    assert (
        before - 1 < seen["last_success_timestamp_seconds", ""] == seen["last_run_timestamp_seconds", ""] <= time.time()
    )
    assert (seen["last_run_exit_code", ""], seen["last_run_already_complete", ""]) == (0, 0)
    assert seen["last_run_duration_seconds", ""] == body["seconds"] > 0
    assert (seen["rows", ""], seen["rows_empty", ""], seen["rows_shared", ""]) == (62, 1, 1)
    assert (seen["rows_failed", "rejected"], seen["rows_failed", "timeout"]) == (1, 0)
    for label in set(map(label_of, TEXTS)):
        rows = sum(label_of(text) == label for text in [*TEXTS, TEXTS[0]] if text != "text 7")
        assert seen["rows_labelled", label] == body["labels"][label] == rows
    record = json.loads((tmp_path / ".out.csv.run.json").read_text())
    text = body.pop("text")
    assert body == record
    assert text.startswith("out.csv: 62 rows")
    assert (record["labelled"], record["rows_total"], record["exit_code"], record["error"]) == (60, 62, 0, None)
    assert datetime.fromisoformat(record["started"]) <= datetime.fromisoformat(record["finished"])
    assert record["versions"].items() >= {"classify-pipeline": __version__, "pyarrow": pa.__version__}.items()
    assert record["host"]
    assert receiver.paths == ["/hook/t0ken-s3cret"]
    assert receiver.seen[0]["Content-Type"] == "application/json"
    assert sorted(path.name for path in tmp_path.glob(f"*{NAME}*")) == [NAME]


def in_trouble(kind: str, tmp_path: Path, fake: FakeServer) -> tuple[str, ...]:
    """Bring about a night that fails in some way; the flags that go with it."""
    if kind == "no input":
        (tmp_path / "in.csv").unlink()
    if kind == "rows failed":
        fake.rules.append((lambda text: text == "text 37", refuse(400, "no")))
    if kind == "deadline":
        fake.latency_s = 1.5
        return ("--set", "run.deadline=2s")
    if kind == "server gone":
        fake.each = lambda texts: refuse(500, "broken") if "text 30" in texts or len(fake.requests) > 4 else None
        return ("--set", "server.wait_s=0.5", "--set", "retry.max_delay_s=0.1")
    if kind == "not there":
        fake.down()
        return ("--set", "server.start_wait_s=0")
    return ()


NIGHTS = {
    "no input": (2, "in.csv: no such file"),
    "rows failed": (3, "1 rows failed, 0 may"),
    "deadline": (4, "the deadline 2s came"),
    "server gone": (75, "no server answered for 0.5 s"),
    "not there": (75, "connection refused"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NIGHTS)
def test_a_bad_night(kind: str, tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command) -> None:
    """Exit code, when, and the one line that says why are told; the time of the last success stays what it was."""
    code, said = NIGHTS[kind]
    write(tmp_path / "in.csv", TEXTS)
    classify(*run_arguments(fake), "--limit-rows", 20, *told(receiver))
    success = metrics(tmp_path / NAME)["last_success_timestamp_seconds", ""]
    flags = in_trouble(kind, tmp_path, fake)
    done = classify(*run_arguments(fake), *flags, *told(receiver), expect=code)
    if kind == "not there":
        fake.up()
    seen, body = metrics(tmp_path / NAME), receiver.bodies[1]
    assert seen["last_success_timestamp_seconds", ""] == success < seen["last_run_timestamp_seconds", ""]
    assert seen["last_run_exit_code", ""] == body["exit_code"] == code
    assert said in body["error"]
    assert (body["input"], body["output"]) == ("in.csv", "out.csv")
    assert datetime.fromisoformat(body["started"]) <= datetime.fromisoformat(body["finished"])
    assert seen["last_run_duration_seconds", ""] == body["seconds"]
    assert seen["rows", ""] == body["rows"] == {2: 0, 3: 60}.get(code, body["rows"])
    assert seen["rows_failed", "rejected"] == (1 if code == 3 else 0)
    last = done.stderr.splitlines()[-1]
    assert said in last
    assert f"exit {code}" in last
    if code in (4, 75):
        assert body["rows"] >= 20
        assert body["rows_total"] == 60
        assert f"out.csv: {body['rows']} of 60 rows answered" in last


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_signal_is_told_too(
    number: signal.Signals, code: int, *, is_slow: bool, tmp_path: Path, fake: FakeServer, receiver: Receiver
) -> None:
    """One quick try: a receiver that takes its time does not hold up the end."""
    write(tmp_path / "in.csv", TEXTS)
    fake.latency_s = 0.15
    receiver.latency_s = 60 if is_slow else 0
    with running(tmp_path, *run_arguments(fake), *told(receiver)) as process:
        wait_until_answered(fake, 24)
        began = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == code, errors
        assert time.monotonic() - began < 8
    assert receiver.bodies[0]["exit_code"] == metrics(tmp_path / NAME)["last_run_exit_code", ""] == code
    assert receiver.bodies[0]["rows"] >= 20
    assert metrics(tmp_path / NAME)["last_success_timestamp_seconds", ""] == 0
    assert ("notify_url" in errors) == is_slow
    assert len(errors.splitlines()) == 1 + is_slow


def test_a_signal_while_telling_changes_nothing(tmp_path: Path, fake: FakeServer, receiver: Receiver) -> None:
    """The output is complete by then: the telling is cut short, and the code stays 0."""
    write(tmp_path / "in.csv", TEXTS[:3])
    receiver.latency_s = 60
    with running(tmp_path, *run_arguments(fake), *told(receiver)) as process:
        until = time.monotonic() + 20
        while not receiver.bodies and time.monotonic() < until:
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert time.monotonic() - began < 5
    assert errors.splitlines()[-1].startswith("out.csv: 3 rows")


class Broken(Progress):
    """Meets a bug as soon as it is to show something."""

    def begin(self) -> None:
        """Fail."""
        raise ZeroDivisionError("k3y-s3cret")


async def test_a_bug_is_told_without_its_words(tmp_path: Path, fake: FakeServer, receiver: Receiver) -> None:
    """What an unforeseen error says may hold anything; its kind and place do."""
    write(tmp_path / "in.csv", TEXTS[:3])
    config = Config(
        loader=Loader(input=str(tmp_path / "in.csv")),
        writer=Writer(output=str(tmp_path / "out.csv")),
        server=Server(url=fake.url),
        run=Run(metrics_file=str(tmp_path / NAME), notify_url=receiver.url),
    )
    with pytest.raises(ZeroDivisionError):
        await run_and_report(config, Broken("quiet"), {})
    (body,) = receiver.bodies
    assert body["exit_code"] == metrics(tmp_path / NAME)["last_run_exit_code", ""] == 1
    assert "ZeroDivisionError in test_outcome.py" in body["error"]
    assert "s3cret" not in json.dumps(body)


def test_nothing_to_do_is_a_good_night(tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command) -> None:
    """The night happened: its time is new, it says that the output was complete, and that nothing was spent."""
    write(tmp_path / "in.csv", TEXTS)
    classify(*run_arguments(fake), *told(receiver))
    first = metrics(tmp_path / NAME)
    done = classify(*run_arguments(fake), *told(receiver))
    seen, (made, found) = metrics(tmp_path / NAME), receiver.bodies
    assert seen["last_success_timestamp_seconds", ""] > first["last_success_timestamp_seconds", ""]
    assert (first["last_run_already_complete", ""], seen["last_run_already_complete", ""]) == (0, 1)
    assert (seen["rows", ""], seen["requests", ""], seen["texts_sent", ""]) == (60, 0, 0)
    assert (made["already_complete"], found["already_complete"]) == (False, True)
    assert found["labels"] == made["labels"]
    assert datetime.fromisoformat(found["started"]) > datetime.fromisoformat(made["finished"])
    assert "complete already" in done.stderr.splitlines()[-1]
    assert "60 labelled" in done.stderr.splitlines()[-1]
    assert "complete already" in found["text"]


# -- those who can't be told


@pytest.mark.parametrize("kind", ["no directory", "directory", "pipe"])
def test_metrics_that_cannot_be_written(kind: str, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """One line says so before the last one; the run is as good as without."""
    import os

    write(tmp_path / "in.csv", TEXTS[:3])
    path = tmp_path / ("none/x.prom" if kind == "no directory" else "x.prom")
    if kind == "directory":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    done = classify(*run_arguments(fake), "--set", f"run.metrics_file={path}")
    about = [line for line in done.stderr.splitlines() if "metrics_file" in line]
    assert len(about) == 1
    assert str(path) in about[0]
    assert done.stderr.splitlines()[-1].startswith("out.csv: 3 rows")


TROUBLES = {
    "down": "connection refused",
    "nowhere": "the name does not resolve",
    "no": "answers 403",
    "moved": "answers 307, a redirect",
    "no tls": "TLS fails",
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_notification_that_fails(
    kind: str, tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command
) -> None:
    """One line names scheme and host and what happened; no redirect is followed, and the exit code stays."""
    write(tmp_path / "in.csv", TEXTS[:3])
    receiver.status = {"no": 403, "moved": 307}.get(kind, 200)
    receiver.headers = {"Location": f"{receiver.url}/elsewhere"} if kind == "moved" else {}
    base = {
        "down": "http://127.0.0.1:1",
        "nowhere": "http://nowhere.invalid",
        "no tls": receiver.url.replace("http:", "https:"),
    }.get(kind, receiver.url)
    url = base.replace("//", "//me:pa55-s3cret@") + "/hook/t0ken-s3cret?k=qu3ry-s3cret"
    done = classify(*run_arguments(fake), "--set", f"run.notify_url={url}")
    about = [line for line in done.stderr.splitlines() if "notify_url" in line]
    assert len(about) == 1
    assert TROUBLES[kind] in about[0]
    assert f"{base.partition(':')[0]}://{'nowhere.invalid' if kind == 'nowhere' else '127.0.0.1'}: " in about[0]
    assert receiver.paths == (["/hook/t0ken-s3cret?k=qu3ry-s3cret"] if kind in ("no", "moved") else [])
    assert done.stderr.splitlines()[-1].startswith("out.csv: 3 rows")
    assert "s3cret" not in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if b"s3cret" in path.read_bytes()]


# -- secrets


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_url_may_come_from_the_environment(
    command: str, tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command
) -> None:
    """It is used, by `run` alone, and shown by nobody; user and password become a header."""
    write(tmp_path / "in.csv", TEXTS[:3])
    hook = {"HOOK": receiver.url.replace("//", "//me:pa55-s3cret@") + "/hook/t0ken-s3cret\n"}
    done = classify(command, *run_arguments(fake)[1:], "--set", "run.notify_url=env:HOOK", env=hook)
    assert receiver.paths == (["/hook/t0ken-s3cret"] if command == "run" else [])
    if command == "check":
        assert 'run.notify_url = "env:HOOK"' in done.stdout
        assert "notification: http://127.0.0.1\n" in done.stdout
    else:
        assert receiver.seen[0]["Authorization"].startswith("Basic ")
        record = json.loads((tmp_path / ".out.csv.run.json").read_text())
        assert record["settings"]["run"]["notify_url"] == "env:HOOK"
    assert "s3cret" not in done.stdout + done.stderr + json.dumps(receiver.bodies)
    assert not [path.name for path in tmp_path.iterdir() if b"s3cret" in path.read_bytes()]


@pytest.mark.parametrize("value", [None, "hooks.example/t0ken-s3cret", ""])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_variable_without_a_url_stops_before_anything_is_sent(
    command: str, value: str | None, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Exit 2 and the variable's name; the metrics of the night say so, those of a mere look are not written."""
    write(tmp_path / "in.csv", TEXTS[:3])
    flags = ("--set", "run.notify_url=env:HOOK", "--set", f"run.metrics_file={NAME}")
    environment = {} if value is None else {"HOOK": value}
    done = classify(command, *run_arguments(fake)[1:], *flags, env=environment, expect=2)
    assert "HOOK" in done.stderr
    assert "s3cret" not in done.stderr
    assert fake.requests == []
    assert (tmp_path / NAME).exists() == (command == "run")
    if command == "run":
        assert metrics(tmp_path / NAME)["last_run_exit_code", ""] == 2


def test_check_tells_nobody(tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command) -> None:
    """It shows who would be told, and what would go wrong."""
    write(tmp_path / "in.csv", TEXTS[:3])
    shown = classify("check", *run_arguments(fake)[1:], *told(receiver)).stdout
    assert f"metrics: {NAME}\n" in shown
    assert "notification: http://127.0.0.1\n" in shown
    assert "s3cret" not in shown
    assert (receiver.paths, (tmp_path / NAME).exists()) == ([], False)
    troubles = {
        "none/m.prom": "its directory does not exist",
        "in.csv": "no metrics file of ours",
        "m.txt": "end in .prom",
    }
    for path, trouble in troubles.items():
        shown = classify("check", *run_arguments(fake)[1:], "--set", f"run.metrics_file={path}").stdout
        assert f"metrics: {path}: " in shown
        assert trouble in shown


@pytest.mark.parametrize("name", ["in.csv", "out.csv"])
def test_metrics_never_replace_rows(name: str, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """What is there and is no metrics file of ours stays, be it a mistake in the config: one line says so."""
    write(tmp_path / "in.csv", TEXTS[:3])
    before = (tmp_path / "in.csv").read_bytes()
    for code in (0, 2):
        flags = ("--set", f"run.metrics_file=./{name}", *(("-t", "nothing") if code else ()))
        done = classify(*run_arguments(fake), *flags, expect=code)
        assert f"run.metrics_file ./{name}: can't be written: it is there" in done.stderr
    assert (tmp_path / "in.csv").read_bytes() == before
    assert len(rows_of(tmp_path / "out.csv")) == 3


@pytest.mark.slow
def test_nobody_to_tell_costs_nothing(tmp_path: Path, fake: FakeServer) -> None:
    """Without a metrics file, Prometheus' package is not even imported."""
    import subprocess
    import sys

    write(tmp_path / "in.csv", TEXTS[:3])
    code = "import sys; from pipeline.cli import main; main(sys.argv[1:]); print('prometheus_client' in sys.modules)"
    for flags, imported in (((), "False"), (("--set", f"run.metrics_file={NAME}"), "True")):
        command = [sys.executable, "-c", code, *map(str, run_arguments(fake)), "--restart", *flags]
        assert subprocess.check_output(command, cwd=tmp_path, text=True, stderr=subprocess.DEVNULL).strip() == imported


def test_the_last_line_says_it_all(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Path, rows by outcome, time, speed, and what the exit code means: in one line, whatever stands before it."""
    write(tmp_path / "in.csv", [*TEXTS, "", TEXTS[0]])
    fake.rules.append((lambda text: text == "text 7", refuse(400, "no")))
    arguments = ("run", "-i", "in.csv", "-o", "out.csv", "--url", fake.url)
    for _ in range(2):
        last = classify(*arguments, expect=3).stderr.splitlines()[-1]
        for part in ("out.csv: ", "62 rows", "60 labelled", "1 failed", "1 empty", "exit 3: 1 rows failed, 0 may"):
            assert part in last
    last = classify(*arguments, "-o", "b.csv", "--limit-rows", 5).stderr.splitlines()[-1]
    for part in ("b.csv: 5 rows in ", " rows/s)", "5 labelled, 0 failed, 0 empty", "requests, 0 retries"):
        assert part in last
    assert "exit" not in last
