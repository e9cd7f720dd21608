"""The state directory: where checkpoints go that can't be beside their output, and copies of standard input."""

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

LONGEST_NAME = 100  # characters of the output's name in a directory's name
LOOK_S = 0.1  # between two checks whether the run was cancelled
BLOCK_BYTES = 1 << 20
STDIN = 0
_PRIVATE = "pipe-"


def state_root(configured: str | None) -> Path:
    """Return the state directory: as configured, else `classify` in XDG_STATE_HOME. It need not exist."""
    if configured:
        return Path(configured)
    named = os.environ.get("XDG_STATE_HOME", "")
    try:  # XDG has relative paths ignored
        base = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise OutputError("no home directory to keep a checkpoint in; set run.state_dir") from None
    return base / "classify"


def state_of(root: Path, output: Location) -> Path:
    """Return the directory of an output below `root`: its name, for people, and a digest of its key."""
    name = re.sub(r"[^\w.-]", "_", output.name)[:LONGEST_NAME]
    digest = hashlib.blake2b(os.fsencode(output.key), digest_size=8).hexdigest()
    return root / f"{name}-{digest}"


@contextmanager
def private_directory(root: Path) -> Iterator[Path]:
    """Make a directory below `root` for this process, and delete it in the end; also those of killed processes."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(root)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=root))
        held = os.open(new / "held", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        path = new.rename(root / f"{_PRIVATE}{os.getpid()}-{new.name[4:]}")  # locked before another process finds it
    except OSError as error:
        message = f"{root}: can't be written to: {error.strerror}; set run.state_dir to another directory"
        raise OutputError(message) from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _sweep(root: Path) -> None:
    """Delete the directories of killed processes, whose locks are free."""
    for path in root.glob(f"{_PRIVATE}*"):
        with suppress(OSError):
            held = os.open(path / "held", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)


def spool(folder: Path) -> Location:
    """Copy standard input to a file in `folder`, because a run reads its input twice. It can be cancelled meanwhile.

    Raises:
        ConfigError: standard input is a terminal. DiskTrouble: the disk is full, or the pipe broke.
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
