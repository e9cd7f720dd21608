"""`classify check` is the first half of a run: the same decision, in the same words, with the same exit code."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import Command, run_arguments, running, wait_until_answered
from fake import FakeServer, refuse
from files import write

TEXTS = [f"text {n}" for n in range(60)]


class At(NamedTuple):
    """What a situation is made of."""

    folder: Path
    fake: FakeServer
    classify: Command


Prepare = Callable[[At], list[str]]


def message(stderr: str) -> str:
    """Return the last line, without the counts that a run adds to it."""
    last = stderr.splitlines()[-1] if stderr else ""
    return last.partition(" (out.csv: ")[0].partition(" (exit ")[0]


def not_ours(at: At) -> list[str]:
    """Somebody else's file is at the output's place."""
    (at.folder / "out.csv").write_text("precious")
    return []


def other_setting(at: At) -> list[str]:
    """The output is complete, and was written with another prefix."""
    at.classify(*run_arguments(at.fake))
    return ["--set", "writer.prefix=p_"]


def other_model(at: At) -> list[str]:
    """The first rows were answered by other weights."""
    at.classify(*run_arguments(at.fake), "--limit-rows", "5")
    at.fake.weights = "other"
    return []


def changed_input(at: At) -> list[str]:
    """The input was changed after an interruption."""
    interrupt(at.folder, at.fake)
    write(at.folder / "in.csv", TEXTS[1:])
    return []


def failed_rows(at: At) -> list[str]:
    """The output is complete, and more rows failed than may."""
    at.fake.rules.append((lambda text: text == TEXTS[3], refuse(400, "no")))
    at.classify(*run_arguments(at.fake), expect=3)
    return []


def no_server(at: At) -> list[str]:
    """Nobody listens."""
    at.fake.down()
    return ["--set", "server.start_wait_s=0"]


def no_folder(_: At) -> list[str]:
    """The output's directory does not exist."""
    return ["-o", "nowhere/out.csv"]


def interrupt(folder: Path, fake: FakeServer) -> None:
    """Run until some rows are answered."""
    fake.latency_s = 0.1
    with running(folder, *run_arguments(fake), "--set", "request.concurrency=1") as process:
        wait_until_answered(fake, 20)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    fake.latency_s = 0


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (not_ours, 2),
        (other_setting, 2),
        (other_model, 2),
        (changed_input, 2),
        (no_folder, 2),
        (failed_rows, 3),
        (no_server, 75),
    ],
)
def test_check_stops_where_run_stops(
    prepare: Prepare, code: int, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """The exit code and the message are those of run; nothing is changed."""
    write(tmp_path / "in.csv", TEXTS)
    more = prepare(At(tmp_path, fake, classify))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix not in (".checkpoint-shm", ".tmp")}
    checked = classify("check", *run_arguments(fake)[1:], *more, expect=code)
    assert {path: path.read_bytes() for path in before} == before
    ran = classify(*run_arguments(fake), *more, expect=code)
    assert message(checked.stderr).removeprefix("classify: ") == message(ran.stderr).removeprefix("classify: ") != ""


def test_an_output_that_another_run_holds_is_not_now(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """As for run: exit code 75, and who holds it."""
    write(tmp_path / "in.csv", TEXTS)
    fake.hold_after = 10
    with running(tmp_path, *run_arguments(fake)) as process:
        wait_until_answered(fake, 8)
        held = classify("check", *run_arguments(fake)[1:], expect=75)
        assert f"another run (pid {process.pid}" in held.stderr
        process.terminate()
        process.communicate(timeout=20)


def test_what_becomes_of_the_output_is_said(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Made, continued, replaced, or left alone."""
    write(tmp_path / "in.csv", TEXTS)

    def shown(*more: str) -> str:
        printed = classify("check", *run_arguments(fake)[1:], *more).stdout
        return printed.partition("output\n  ")[2].partition("\n")[0]

    assert shown() == "out.csv: will be made"
    interrupt(tmp_path, fake)
    assert shown().endswith("rows are answered, goes on from there")
    assert shown("--restart") == "out.csv: will be made"
    classify(*run_arguments(fake))
    assert shown() == "out.csv: 60 rows are answered, complete already, nothing to do"
    assert shown("--restart") == "out.csv: exists, will be replaced"
    fake.down()
    assert "not asked: there is nothing to send" in classify("check", *run_arguments(fake)[1:]).stdout


def test_of_many_files_the_exit_code_is_that_of_run(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Which files can't be classified is said before the run, one that is complete with failed rows included."""
    for name in "abcd":
        write(tmp_path / f"in/{name}.csv", [name])
    fake.rules.append((lambda text: text == "a", refuse(400, "no")))
    common = ("in", "-o", "out/", "--url", fake.url)
    classify("run", *common, expect=3)
    assert "1 of 4 files failed" in classify("check", *common, expect=3).stderr
    (tmp_path / "out/b.csv").write_text("precious")
    checked, ran = (classify(name, *common, expect=2).stderr for name in ("check", "run"))
    assert "exists, and was not made by this program" in checked
    assert checked.splitlines()[-1].partition("2 of 4 files failed")[2] in ran
