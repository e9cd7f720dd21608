"""Where a run keeps what is its own when it can't stand beside the output: the state directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import OutputError
from pipeline.places.location import Location

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
