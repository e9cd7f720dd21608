"""What was flushed is there after any end of the process; what is broken is said, with the way out."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from answers import add, failed
from commands import python
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.checkpoint import Checkpoint, Range
from pipeline.errors import CheckpointMismatch, ClassifyError, OutputError
from pipeline.texts import Position

# -- durability

KILLED = """
import os, signal, sys
from pathlib import Path
from answers import add
from pipeline.checkpoint import Checkpoint
checkpoint = Checkpoint(Path(sys.argv[1]))
for n in range(50):
    add(checkpoint, 3 * n, 3, classes=2)
    checkpoint.flush()
checkpoint.put(identity={"a": 1})
add(checkpoint, 150, 3, classes=2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_flushed_survives_kill_9(tmp_path: Path) -> None:
    """The process is killed without any chance to close: all that was flushed is there, the rest is open."""
    assert python(KILLED, tmp_path / "c").returncode == -signal.SIGKILL
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert checkpoint.counts() == (150, {})
        assert checkpoint.open_ranges(153) == [Range(150, 153)]
        assert checkpoint.get("identity") == {"a": 1}
        scores = [score for record in checkpoint.answers(2) for score in record.scores]
        assert scores == [row / 7 for row in range(150)]


FULL = """
import resource, sys
from pathlib import Path
from answers import add
from pipeline.checkpoint import Checkpoint
from pipeline.errors import DiskTrouble
checkpoint = Checkpoint(Path(sys.argv[1]))
add(checkpoint, 0, 3)
checkpoint.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
n = 1
try:
    while n < 10_000:
        add(checkpoint, 1000 * n, 1000)
        checkpoint.flush()
        n += 1
except DiskTrouble as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    checkpoint.flush()
    print(n, error)
"""


def test_a_full_disk_is_disk_trouble_and_loses_nothing(tmp_path: Path) -> None:
    """A file that can't grow is DiskTrouble; what waits is kept in memory, and stored once there is room."""
    done = python(FULL, tmp_path / "c")
    assert done.returncode == 0, done.stderr
    chunks, message = done.stdout.split(" ", 1)
    assert str(tmp_path / "c") in message
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        assert checkpoint.counts() == (3 + 1000 * int(chunks), {})


NO_ROOM = """
import resource, sys
from pathlib import Path
from pipeline.checkpoint import Checkpoint
from pipeline.errors import DiskTrouble
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    Checkpoint(Path(sys.argv[1]))
except DiskTrouble as error:
    print(error)
"""


def test_a_disk_that_is_full_from_the_start_is_disk_trouble(tmp_path: Path) -> None:
    """Not even the first byte can be written: said as such."""
    done = python(NO_ROOM, tmp_path / "c")
    assert str(tmp_path / "c") in done.stdout, done.stderr


def test_a_directory_that_takes_no_file_is_an_output_error(tmp_path: Path) -> None:
    """A missing or read-only directory is for a person."""
    with pytest.raises(OutputError, match="gone"):
        Checkpoint(tmp_path / "gone" / "c")
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(OutputError):
            Checkpoint(tmp_path / "c")
    finally:
        tmp_path.chmod(0o700)


# -- files that are not ours any more


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A closed checkpoint of some hundred kilobytes."""
    with closing(Checkpoint(tmp_path / "c")) as checkpoint:
        checkpoint.put(identity={"input": "1-ab"}, total_rows=10)
        for n in range(100):
            add(checkpoint, 300 * n, 300, classes=2)
        checkpoint.add(30_000, Position(0, 0, 0), failed("timeout: ü"), 2)
        checkpoint.flush()
    return tmp_path / "c"


def read_all(path: Path) -> None:
    """Whatever a run would read."""
    with closing(Checkpoint(path)) as checkpoint:
        checkpoint.get("identity")
        checkpoint.counts()
        checkpoint.open_ranges(None)
        checkpoint.position_before(10_000)
        checkpoint.has_truncated()
        list(checkpoint.answers(2))


@pytest.mark.parametrize("size", [100, 4096, 50_000, 200_000])
def test_a_cut_checkpoint_is_refused(whole: Path, size: int) -> None:
    """Half a file is said to be damaged, with the way out."""
    os.truncate(whole, size)
    with pytest.raises(CheckpointMismatch, match=r"c: .*damaged.*--restart"):
        read_all(whole)


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no checkpoint is said to be damaged."""
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=r"c: .*--restart"):
        read_all(tmp_path / "c")


@given(st.floats(0, 1), st.binary(min_size=1, max_size=600))
@example(0.9372254270056479, b"\x80")  # the type of a column becomes NULL
def test_damage_anywhere_is_never_a_bug(tmp_path_factory: pytest.TempPathFactory, where: float, junk: bytes) -> None:
    """Bytes overwritten anywhere in the file are read as what they are, or refused with one of our errors."""
    path = tmp_path_factory.mktemp("damaged") / "c"
    with closing(Checkpoint(path)) as checkpoint:
        for n in range(10):
            add(checkpoint, 30 * n, 30, classes=2)
            checkpoint.add(1000 + n, Position(0, 0, 0), failed("timeout: ü"), 2)
        checkpoint.put(identity={"input": "1-ab"})
        checkpoint.flush()
    content = bytearray(path.read_bytes())
    start = int(where * (len(content) - 1))
    content[start : start + len(junk)] = junk[: len(content) - start]
    path.write_bytes(content)
    try:
        read_all(path)
    except ClassifyError as error:
        assert str(path) in str(error)  # noqa: PT017 - most damage is to numbers, and is not seen


@pytest.mark.parametrize("version", ["2", "0", '"1"', "no json"])
def test_another_version_is_refused(whole: Path, version: str) -> None:
    """A checkpoint of another format names both versions and the two ways on."""
    with closing(sqlite3.connect(whole)) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'version'", (version,))
    with pytest.raises(CheckpointMismatch, match=r"c: .*--restart"):
        Checkpoint(whole)


def test_a_version_with_other_tables_is_refused_as_such(tmp_path: Path) -> None:
    """The next format may have other columns: its version is read before anything else is touched."""
    with closing(sqlite3.connect(tmp_path / "c")) as db, db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('version', '99')")
        db.execute("CREATE TABLE chunks (start INTEGER, data BLOB)")
    with pytest.raises(CheckpointMismatch, match=r"99.*--restart"):
        Checkpoint(tmp_path / "c")


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Another program's SQLite file is not filled with our tables."""
    with closing(sqlite3.connect(tmp_path / "c")) as db, db:
        db.execute("CREATE TABLE chunks (id INTEGER)")
        db.execute("INSERT INTO chunks VALUES (1)")
    with pytest.raises(CheckpointMismatch, match=r"c: "):
        Checkpoint(tmp_path / "c")


def test_looking_at_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    """Read-only, a missing checkpoint is an error and no file."""
    with pytest.raises(ClassifyError):
        Checkpoint(tmp_path / "c", read_only=True)
    assert list(tmp_path.iterdir()) == []
