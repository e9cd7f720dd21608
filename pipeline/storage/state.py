"""Standard input as a file: a run reads its input twice, and what comes through a pipe comes once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import select
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.cancellation import raise_if_cancelled
from pipeline.errors import ConfigError, DiskTrouble, OutputError
from pipeline.storage.location import Location

# -- Where a run keeps what is its own when it can't stand beside the output: the state directory


LONGEST_NAME = 100  # of the readable part of a directory's name
_PRIVATE = "pipe-"


def state_root(configured: str | None) -> Path:
    """The state directory: as configured, else `classify` in the place that XDG names. It need not exist.

    Raises:
        OutputError: nothing says where it is.
    """
    if configured:
        return Path(configured)
    named = os.environ.get("XDG_STATE_HOME", "")
    try:  # a relative path is no answer, says XDG
        base = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise OutputError("no home directory to keep a checkpoint in; set run.state_dir") from None
    return base / "classify"


def state_of(root: Path, output: Location) -> Path:
    """The directory below `root` of one output: its name, for people, and a digest that tells it from all others."""
    name = re.sub(r"[^\w.-]", "_", output.name)[:LONGEST_NAME]
    digest = hashlib.blake2b(os.fsencode(output.key), digest_size=8).hexdigest()
    return root / f"{name}-{digest}"


@contextmanager
def private_directory(root: Path) -> Iterator[Path]:
    """A directory below `root` for this process alone, removed in the end; and so are those of killed processes.

    Raises:
        OutputError: it can't be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(root)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=root))
        held = os.open(new / "held", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        path = new.rename(root / f"{_PRIVATE}{os.getpid()}-{new.name[4:]}")  # held before anybody can find it
    except OSError as error:
        raise OutputError(
            f"{root}: can't be written to: {error.strerror}; set run.state_dir to another place"
        ) from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _sweep(root: Path) -> None:
    """Remove what killed processes have left."""
    for path in root.glob(f"{_PRIVATE}*"):
        with suppress(OSError):
            held = os.open(path / "held", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)


# -- Standard input as a file: a run reads its input twice, and what comes through a pipe comes once


LOOK_S = 0.1
BLOCK_BYTES = 1 << 20
STDIN = 0


def spool(folder: Path) -> Location:
    """Copy standard input, all of it, to a file in `folder`; the run may be cancelled meanwhile.

    Raises:
        ConfigError: nobody is sending anything. DiskTrouble: the disk is full, or the pipe broke.
    """
    if os.isatty(STDIN):
        raise ConfigError("standard input is a terminal; pipe JSON Lines into it, or name a file with --input")
    path = folder / "stdin.jsonl"
    try:
        with path.open("wb") as file:
            while block := _next_block():
                file.write(block)
    except OSError as error:
        raise DiskTrouble(f"{path}: standard input can't be kept: {error.strerror}; set run.state_dir") from None
    return Location("stdin", str(path), is_piped=True)


def _next_block() -> bytes:
    raise_if_cancelled()
    while not select.select([STDIN], [], [], LOOK_S)[0]:
        raise_if_cancelled()
    return os.read(STDIN, BLOCK_BYTES)
