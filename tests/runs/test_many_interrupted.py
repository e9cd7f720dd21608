"""Many files, and the end comes too early: by a signal, by kill -9, or the server dies. What was answered is kept.

As many kills as CLASSIFY_KILLS says (`CLASSIFY_KILLS=50 pytest --all -k killed_again --time-limit 900`).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fake import FakeServer
from files import hidden, seen, write
from killing import finish, kill_group, start
from whole_runs import alone

from pipeline.servers.model import CANARY

FILES, ROWS, LARGE = 40, 30, 3000
IN_REQUEST, PLACES = 32, 8
ALL = FILES * ROWS + LARGE
KILLS = int(os.environ.get("CLASSIFY_KILLS", "8"))
ENDINGS = ("csv", "jsonl", "parquet", "csv.gz")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Small files in all formats, and one that takes some seconds, all texts different; what each alone gives."""
    folder = tmp_path_factory.mktemp("many") / "in"
    for n in range(FILES):
        name = f"day={n % 3}/{n:02}.{ENDINGS[n % len(ENDINGS)]}"
        write(folder / name, [f"file {n} row {row}" for row in range(ROWS)])
    write(folder / "day=1/large.jsonl", [f"large row {row}" for row in range(LARGE)])
    with FakeServer() as server:
        return folder, alone(folder, server, folder.parent / "alone")


@pytest.fixture
def expected(made: tuple[Path, dict[str, bytes]], tmp_path: Path) -> dict[str, bytes]:
    """Those files in a directory `in` of this test, and their right outputs."""
    shutil.copytree(made[0], tmp_path / "in")
    return made[1]


def arguments_for(folder: Path, server: FakeServer, *more: str) -> list[str]:
    """The command line of a run over `in` below a directory, with small requests."""
    sizes = ["--set", f"request.rows={IN_REQUEST}", "--set", f"request.concurrency={PLACES}", "--quiet"]
    return ["run", "-i", str(folder / "in"), "-o", f"{folder / 'out'}/", "--url", server.url, *sizes, *more]


def wait_until(came: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait as long as the process lives."""
    while process.poll() is None and not came():
        time.sleep(0.002)


def answers(server: FakeServer) -> Counter[str]:
    """How often each text was answered, without the canary."""
    return Counter({text: times for text, times in server.answered.items() if text not in CANARY})


def assert_whole(folder: Path, expected: dict[str, bytes]) -> None:
    """Every output is that of a run of its file alone, and nothing else is left but locks and records."""
    assert seen(folder) == expected
    assert hidden(folder, "*.tmp") == hidden(folder, ".*.checkpoint*") == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_every_answer_that_came_in(
    number: signal.Signals, code: int, expected: dict[str, bytes], tmp_path: Path, fake: FakeServer
) -> None:
    """It ends in time with its code and one line; the same command asks again for no more than was in flight."""
    fake.latency_s = 0.1
    process = start(arguments_for(tmp_path, fake))
    wait_until(lambda: len(fake.answered) > ALL // 2, process)
    process.send_signal(number)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert time.monotonic() - asked < 10
    assert len(errors.splitlines()) == 1, errors
    part = seen(tmp_path / "out")
    assert 0 < len(part) < len(expected)
    assert part.items() <= expected.items()
    assert hidden(tmp_path / "out", "*.tmp") == []
    fake.latency_s = 0
    code, said = finish(arguments_for(tmp_path, fake))
    assert code == 0, said
    assert sum(times - 1 for times in answers(fake).values()) <= PLACES * IN_REQUEST
    assert_whole(tmp_path / "out", expected)


@pytest.mark.slow
@pytest.mark.parametrize("often", [2, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    often: int, expected: dict[str, bytes], tmp_path: Path, fake: FakeServer
) -> None:
    """Killed while it asks and while outputs appear, it finishes with all outputs whole; little was paid for twice."""
    fake.latency_s = 0.2 if often <= 8 else 0.5  # 134 requests, 8 at once: 3.4 s of requests, or 8.4 s
    draw, kills, out = random.Random(20), 0, tmp_path / "out"
    for kill in range(often):
        asked, complete = len(fake.requests), hidden(out, ".*.run.json")
        process = start(arguments_for(tmp_path, fake))
        if kill % 2:
            wait_until(lambda asked=asked: len(fake.requests) > asked, process)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.6))
        else:  # as soon as outputs appear
            wait_until(lambda complete=complete: hidden(out, ".*.run.json") != complete, process)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.01))
        if process.poll() is not None:
            process.communicate()
            break
        kill_group(process)
        kills += 1
        assert seen(out).items() <= expected.items()  # a reader never sees half a file
    assert kills > often / 2
    code, said = finish(arguments_for(tmp_path, fake))
    assert code == 0, said
    assert_whole(out, expected)
    counts = answers(fake)
    assert len(counts) == ALL
    sent = sum(len(each.texts) for each in fake.requests if tuple(each.texts) != CANARY)
    per_kill = (PLACES + PLACES / fake.latency_s) * IN_REQUEST  # in flight, and what was answered in the second before
    print(f"{kills} kills, {sent - ALL} texts sent again")
    assert sent - ALL <= kills * per_kill


@pytest.fixture
def queued(tmp_path: Path) -> set[str]:
    """Two files whose outputs take long to be written, and small ones that are answered meanwhile: their texts."""
    folder, body = tmp_path / "in", random.Random(3).randbytes(500_000).hex()
    large = "".join(json.dumps({"text": f"large {n}", "body": body}) + "\n" for n in range(40)).encode()
    packed = gzip.compress(large, 1)
    folder.mkdir()
    for name in ("a1.jsonl.gz", "a2.jsonl.gz"):
        (folder / name).write_bytes(packed)
    texts = {name: [f"{name} {n}" for n in range(20)] for name in ("b1.csv", "b2.csv", "b3.jsonl")}
    for name, each in texts.items():
        write(folder / name, each)
    return {text for each in texts.values() for text in each}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_answered_but_not_written_yet_is_kept(
    number: signal.Signals, queued: set[str], tmp_path: Path, fake: FakeServer
) -> None:
    """A small file that waits for its turn to be written is not asked again, whatever ends the command meanwhile.

    With kill -9 that holds for what was answered more than a second before.
    """
    arguments = ["run", "-i", str(tmp_path / "in"), "-o", f"{tmp_path / 'out'}/", "--url", fake.url, "--quiet"]
    process = start(arguments)
    wait_until(lambda: queued <= set(fake.answered), process)
    time.sleep(1.1 if number == signal.SIGKILL else 0.5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    ended = time.monotonic()
    _, errors = process.communicate(timeout=20)
    if process.returncode == 0:
        pytest.skip("this machine has written the two large files before the signal came")
    assert time.monotonic() - ended < 10
    assert b"Traceback" not in errors, errors.decode()
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    fake.answered.clear()
    code, said = finish(arguments)
    assert code == 0, said
    assert not queued & set(fake.answered)
    assert sorted(seen(tmp_path / "out")) == ["a1.jsonl.gz", "a2.jsonl.gz", "b1.csv", "b2.csv", "b3.jsonl"]
    assert hidden(tmp_path / "out", "*.tmp") == hidden(tmp_path / "out", ".*.checkpoint*") == []


@pytest.mark.slow
def test_a_server_that_dies_costs_time_and_no_rows(
    expected: dict[str, bytes], tmp_path: Path, fake: FakeServer
) -> None:
    """75 when it stays away; what was complete stays, and the next start goes on with what is open."""
    fake.latency_s = 0.1
    process = start(arguments_for(tmp_path, fake, "--set", "server.wait_s=1"))
    wait_until(lambda: len(fake.answered) > ALL // 2, process)
    fake.down()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    part = seen(tmp_path / "out")
    assert 0 < len(part) < len(expected)
    assert part.items() <= expected.items()
    fake.latency_s = 0
    fake.up()
    code, said = finish(arguments_for(tmp_path, fake))
    assert code == 0, said
    assert sum(times - 1 for times in answers(fake).values()) <= PLACES * IN_REQUEST
    assert part.items() <= seen(tmp_path / "out").items()
    assert_whole(tmp_path / "out", expected)
