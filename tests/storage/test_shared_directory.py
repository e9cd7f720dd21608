"""Outputs in a directory that others may write to, and on file systems that lack something."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from fake import FakeServer, label_of, refuse
from files import rows_of, write

from pipeline.storage.draft import sync_directory

RUN = ("run", "-i", "in.csv", "-o", "out.csv")


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def group_umask() -> Iterator[None]:
    """The umask of people who share a directory."""
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", [".out.csv.lock", ".out.csv.tmp", ".out.csv.checkpoint", "reuse.db"])
@pytest.mark.parametrize("content", [b"precious", b"", None])
def test_a_link_in_the_place_of_what_a_run_keeps_is_refused(
    name: str, content: bytes | None, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Exit 2 and the link's name; what it leads to is not emptied, not overwritten, and not made."""
    write(tmp_path / "in.csv", ["a", "b"])
    target = tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    if content is not None:
        target.write_bytes(content)
    (tmp_path / name).symlink_to(target)
    done = classify(*RUN, "--url", fake.url, "--set", "run.reuse=reuse.db", expect=2)
    assert f"{name}: is a link" in done.stderr
    assert (target.read_bytes() if target.exists() else None) == content
    assert not (tmp_path / "out.csv").exists()


def test_a_link_in_the_state_directory_is_refused(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The directory of an output is made by us, or it is none."""
    write(tmp_path / "in.csv", ["a", "b"])
    run = (*RUN, "--url", fake.url, "--set", "run.state_dir=kept", "--set", "run.max_failed_rows=0")
    fake.down()
    classify(*run, "--set", "server.start_wait_s=0", expect=75)
    (lock,) = (tmp_path / "kept").glob("*.lock")
    ours = lock.with_suffix("")
    for path in ours.iterdir() if ours.exists() else ():
        path.unlink()
    if ours.exists():
        ours.rmdir()
    (tmp_path / "victim").mkdir()
    ours.symlink_to(tmp_path / "victim")
    fake.up()
    assert f"{ours.name}: is a link" in classify(*run, expect=2).stderr
    assert not list((tmp_path / "victim").iterdir())


def test_a_hard_link_keeps_its_content(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A second name of somebody's file is neither emptied nor written to, and does not hold up the run."""
    write(tmp_path / "in.csv", ["a", "b"])
    (tmp_path / "precious").write_text("precious")
    for name in (".out.csv.lock", ".out.csv.tmp"):
        (tmp_path / name).hardlink_to(tmp_path / "precious")
    classify(*RUN, "--url", fake.url)
    assert (tmp_path / "precious").read_text() == "precious"
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.csv")] == [label_of("a"), label_of("b")]


def test_a_metrics_file_is_not_written_through_a_link(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The link is replaced by the file, as any file is that appears by a rename."""
    write(tmp_path / "in.csv", ["a", "b"])
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "m.prom").symlink_to("target")
    classify(*RUN, "--url", fake.url, "--set", "run.metrics_file=m.prom")
    assert (tmp_path / "target").read_bytes() == b""
    assert not (tmp_path / "m.prom").is_symlink()
    assert b"classify_rows" in (tmp_path / "m.prom").read_bytes()


@pytest.mark.usefixtures("group_umask")
def test_what_a_run_makes_has_the_mode_that_the_umask_leaves(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """With the umask 002 the next user of the group can go on: lock, checkpoint, stored answers, record and output."""
    write(tmp_path / "in.csv", ["a", "bad"])
    fake.each = lambda texts: refuse(400, "no") if "bad" in texts else None
    fresh = {"PYTHONUNBUFFERED": "1"}  # a process of its own, with this umask
    classify(*RUN, "--url", fake.url, "--set", "run.reuse=reuse.db", expect=3, env=fresh)
    names = ("out.csv", ".out.csv.lock", ".out.csv.checkpoint", ".out.csv.run.json", "reuse.db")
    assert {name: oct(mode_of(tmp_path / name)) for name in names} == dict.fromkeys(names, "0o664")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_replaced_output_keeps_its_mode(mode: int, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Who could read the old one can read the new one, and nobody else; a new one has what the umask leaves."""
    write(tmp_path / "in.csv", ["a", "b"])
    classify(*RUN, "--url", fake.url)
    (tmp_path / "out.csv").chmod(mode)
    classify(*RUN, "--url", fake.url, "--restart")
    assert mode_of(tmp_path / "out.csv") == mode


def test_an_output_that_is_a_link_is_replaced(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """As docs/output.md says: the link becomes a file, and what it led to stays as it was."""
    write(tmp_path / "in.csv", ["a", "b"])
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "out.csv").symlink_to("old.csv")
    classify(*RUN, "--url", fake.url, "--overwrite")
    assert not (tmp_path / "out.csv").is_symlink()
    assert (tmp_path / "old.csv").read_text() == "old"


SYNC_FAILS = """
import errno, os, stat, sys
def fails(descriptor, sync=os.fsync):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError({code}, os.strerror({code}))
    sync(descriptor)
os.fsync = fails
"""


@pytest.mark.parametrize("given", ["in/0.csv", "in"])
@pytest.mark.parametrize("failure", [(errno.EINVAL, 0), (errno.ENOTSUP, 0), (errno.ENOSPC, 75), (errno.EPERM, 2)])
def test_a_directory_that_cannot_be_synced(
    failure: tuple[int, int], given: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Where there is no such thing nothing is lost; any other error is a message, for one file and for many."""
    code, expected = failure
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SYNC_FAILS.format(code=code))
    for number in range(3):
        write(tmp_path / f"in/{number}.csv", ["a", "b"])
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    run = ("run", "-i", given, "-o", "out/", "--url", fake.url)
    done = classify(*run, env={"PYTHONPATH": path}, expect=expected)
    assert (os.strerror(code) in done.stderr) == (expected != 0)


def test_a_directory_that_may_not_be_listed_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be made in it and renamed, and that is enough."""

    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "open", refused)
    sync_directory(tmp_path)
