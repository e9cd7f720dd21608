"""The file of `run.reuse` among other files, runs and kills: what is not ours is left alone, what is ours holds."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from commands import SUPPORT, python
from hypothesis import given
from hypothesis import strategies as st
from identities import identity
from reuse_files import TEXTS, found, opened, remember, said

from pipeline.checkpoint import Checkpoint
from pipeline.errors import ClassifyError, DiskTrouble, ReuseError
from pipeline.reuse import Reuse, inspect

RIGHT = [(*said(number)[:2], None) for number in range(len(TEXTS))]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed file of some hundred kilobytes."""
    with opened(tmp_path / "r") as store:
        remember(store, TEXTS)
    return tmp_path / "r"


# -- files that are not ours


def another_database(path: Path) -> None:
    """A SQLite file of another program."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE answers (key INTEGER PRIMARY KEY, answer BLOB)")


def another_version(path: Path) -> None:
    """What a later version of this program may make."""
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")


def a_checkpoint(path: Path) -> None:
    """The file beside an output."""
    Checkpoint(path).close()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: path.write_bytes(b"id,text\n1,not a database at all\n" * 100), "damaged"),
        (lambda path: path.write_bytes(b"PAR1" + bytes(5000)), "damaged"),
        (lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000), "damaged"),
        (another_database, "another program"),
        (a_checkpoint, "another program"),
        (another_version, "format 99, here 1"),
    ],
    ids=["csv", "parquet", "garbage", "database", "checkpoint", "version"],
)
def test_what_is_not_ours_is_refused_and_left_as_it_is(make: object, word: str, tmp_path: Path) -> None:
    """The message names the file and the way out; not a byte of it changes."""
    path = tmp_path / "r"
    assert callable(make)
    make(path)
    before = path.read_bytes()
    for look in (lambda: Reuse(path, max_bytes=10**9), lambda: inspect(path)):
        with pytest.raises(ReuseError, match=rf"r: .*{word}.*run\.reuse"):
            look()
    assert path.read_bytes() == before


def test_an_empty_file_is_as_good_as_none(tmp_path: Path) -> None:
    """It holds nothing that could be lost; and looking at either makes nothing."""
    assert inspect(tmp_path / "r") is None
    (tmp_path / "r").touch()
    assert inspect(tmp_path / "r") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    with opened(tmp_path / "r") as store:
        remember(store, ["text"])
    assert inspect(tmp_path / "r") == (tmp_path / "r").stat().st_size > 0


def test_a_place_for_no_file_is_named(tmp_path: Path) -> None:
    """A missing directory, a directory under its name."""
    for path in (tmp_path / "gone" / "r", tmp_path):
        for look in (lambda: Reuse(path, max_bytes=10**9), lambda: inspect(path)):  # noqa: B023 - called at once
            with pytest.raises(ReuseError, match=rf"{path.name}: .*run\.reuse"):
                look()


def test_a_file_that_cannot_be_written_is_named(filled: Path) -> None:
    """Who may only read it is told so before the first request."""
    filled.chmod(0o400)
    if os.access(filled, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(ReuseError, match=r"r: .*readonly.*run\.reuse"), opened(filled):
        pass


@pytest.mark.parametrize("size", [100, 4096, 50_000, 200_000])
def test_a_file_that_was_cut_is_refused(filled: Path, size: int) -> None:
    """Half a file is said to be damaged, and stays as it is."""
    os.truncate(filled, size)
    before = filled.read_bytes()
    with pytest.raises(ReuseError, match=r"r: is damaged.*delete it"), opened(filled):
        pass
    assert filled.read_bytes() == before


@given(st.floats(0, 1), st.binary(min_size=1, max_size=600))
def test_damage_anywhere_is_never_a_bug(tmp_path_factory: pytest.TempPathFactory, where: float, junk: bytes) -> None:
    """Bytes overwritten anywhere are not noticed, or refused with one of our errors."""
    path = tmp_path_factory.mktemp("damaged") / "r"
    with opened(path) as store:
        remember(store, TEXTS[:300])
    content = bytearray(path.read_bytes())
    start = int(where * (len(content) - 1))
    content[start : start + len(junk)] = junk[: len(content) - start]
    path.write_bytes(content)
    try:
        with opened(path) as store:
            found(store, TEXTS[:400])
            remember(store, TEXTS[300:400])
    except ClassifyError as error:
        assert str(path) in str(error)  # noqa: PT017 - most damage is to numbers, and is not seen


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM turned",
        "UPDATE turned SET older_pages = 'junk'",
        "UPDATE answers SET answer = 7 WHERE key % 2",
        "UPDATE answers SET answer = 'twenty characters it' WHERE key % 2",
        "UPDATE contexts SET identity = '[1]'",
        "UPDATE contexts SET identity = replace(identity, '\"model.canary\": [[', '\"model.canary\": [7, [')",
        "UPDATE contexts SET identity = 7",
        "UPDATE contexts SET classes = 10000000000000",
        "UPDATE contexts SET classes = 'junk'",
        "UPDATE contexts SET key = 7",
    ],
)
def test_damage_to_a_row_is_refused_or_does_no_harm(filled: Path, damage: str) -> None:
    """A context that is not what its key says is damage; what is no answer is none; the bound holds in any case."""
    with closing(sqlite3.connect(filled)) as db, db:
        db.execute(damage)
    if "contexts" in damage:
        with pytest.raises(ReuseError, match=r"r: is damaged.*delete it"), opened(filled):
            pass
        return
    with opened(filled, max_bytes=10**6) as store:
        assert all(one in (None, right) for one, right in zip(found(store, TEXTS), RIGHT, strict=True))
        remember(store, TEXTS)
        store.flush(now=True)
        assert all(one in (None, right) for one, right in zip(found(store, TEXTS), RIGHT, strict=True))
    assert filled.stat().st_size <= 10**6


# -- full disks

FULL = """
import resource, sys
from pathlib import Path
from reuse_files import opened, remember
from pipeline.errors import DiskTrouble
first = Path(sys.argv[1])
if len(sys.argv) == 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    with opened(first) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        for n in range(100):
            remember(store, [f"{n} {m}" for m in range(1000)])
            store.flush(now=True)
except DiskTrouble as error:
    print(error)
"""


@pytest.mark.parametrize("more", [(), ("later",)], ids=["from the start", "later"])
def test_a_full_disk_is_disk_trouble(tmp_path: Path, more: tuple[str, ...]) -> None:
    """It is said as such, and what was committed before is whole."""
    done = python(FULL, tmp_path / "r", *more)
    assert str(tmp_path / "r") in done.stdout, done.stderr
    with opened(tmp_path / "r") as store:
        known = found(store, [f"0 {m}" for m in range(1000)])
        assert (None not in known) if more else (known == [None] * 1000)


# -- several runs at once, and kills

WORKER = """
import random, sys
from pathlib import Path
from reuse_files import TEXTS, opened, remember
draw, path, bound, rounds = random.Random(int(sys.argv[2])), Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    with opened(path, max_bytes=bound) as store:
        for _ in range(10):
            numbers = draw.sample(range(len(TEXTS)), 500)
            remember(store, [TEXTS[number] for number in numbers], numbers)
            store.flush(now=True)
"""


def workers(path: Path, count: int, bound: int, rounds: int) -> list[subprocess.Popen[str]]:
    """Processes that remember answers in the file, all from the same moment on."""
    running = [started(WORKER, path, seed, bound, rounds) for seed in range(count)]
    for each in running:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    return running


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """An interpreter of its own that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=SUPPORT,
    )  # fmt: skip


MAKER = """
import sys
from pathlib import Path
from reuse_files import opened
for line in sys.stdin:
    with opened(Path(line.strip())):
        print("made", flush=True)
"""


@pytest.mark.slow
def test_several_runs_make_the_file(tmp_path: Path) -> None:
    """At the same moment, and none of them finds it in the hands of another, or half made."""
    running = [started(MAKER) for _ in range(4)]
    for number in range(200):
        for each in running:
            assert each.stdin
            each.stdin.write(f"{tmp_path / str(number)}\n")
            each.stdin.flush()
        for each in running:
            assert each.stdout
            assert each.stdout.readline() == "made\n", each.communicate()
    for each in running:
        assert each.communicate() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("bound", [10**9, 600_000], ids=["unbounded", "bounded"])
def test_several_runs_share_the_file(tmp_path: Path, bound: int) -> None:
    """They make it at the same moment, write the same texts, look while others write and give up what is old."""
    path = tmp_path / "r"
    running = workers(path, 4, bound, 2)
    looked = 0
    while any(each.poll() is None for each in running):
        if path.exists():
            with opened(path, max_bytes=bound) as store:
                for _ in range(5):
                    known = found(store, TEXTS)
                    assert all(one in (None, right) for one, right in zip(known, RIGHT, strict=True))
                    looked += 1
    for each in running:
        assert each.communicate()[1] == ""
        assert each.returncode == 0
    assert looked
    draws = [random.Random(seed) for seed in range(4)]
    drawn = {number for draw in draws for _ in range(20) for number in draw.sample(range(len(TEXTS)), 500)}
    with opened(path, max_bytes=bound) as store:
        known = found(store, TEXTS)
        assert all(one in (None, right) for one, right in zip(known, RIGHT, strict=True))
        if bound == 10**9:
            assert {number for number, one in enumerate(known) if one is not None} == drawn


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_holds(kills: int, tmp_path: Path) -> None:
    """After each kill -9 of two writers the file is whole, and all it says is right."""
    path, draw = tmp_path / "r", random.Random(7)
    before = 0
    for _ in range(kills):
        running = workers(path, 2, 700_000, 1000)
        time.sleep(draw.uniform(0.0, 0.6))
        for each in running:
            os.kill(each.pid, signal.SIGKILL)
            each.communicate()
        with opened(path, max_bytes=700_000) as store:
            known = found(store, TEXTS)
            assert all(one in (None, right) for one, right in zip(known, RIGHT, strict=True))
            assert store._reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        before += sum(one is not None for one in known)
    assert before


def test_a_file_that_another_keeps_costs_no_answer(tmp_path: Path) -> None:
    """A commit that finds it taken is made later; looking is possible all the time; the last commit says it failed."""
    now = 0.0
    with opened(tmp_path / "r") as other, closing(Reuse(tmp_path / "r", max_bytes=10**9, clock=lambda: now)) as store:
        store.bind(identity(), 2, keep_probs=False)
        store._writer.execute("PRAGMA busy_timeout = 0")
        other._writer.execute("BEGIN IMMEDIATE")
        remember(store, TEXTS[:1])
        now += 100
        store.flush()
        assert found(other, TEXTS[:1]) == found(store, TEXTS[:1]) == [None]
        other._writer.execute("ROLLBACK")
        now += 100
        store.flush()
        assert found(other, TEXTS[:1]) == RIGHT[:1]
        other._writer.execute("BEGIN IMMEDIATE")
        remember(store, TEXTS[1:2])
        with pytest.raises(DiskTrouble, match=r"r: .*locked"):
            store.flush(now=True)
