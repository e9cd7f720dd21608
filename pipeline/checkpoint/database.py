"""The SQLite file itself: opened, deleted, and its errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import CheckpointMismatch, DiskTrouble, OutputError


def connect(uri: str) -> sqlite3.Connection:
    """A connection without transactions of its own, for use by one thread at a time."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)


def remove(path: Path) -> None:
    """Delete a checkpoint, SQLite's side files first: left alone, they would be taken for those of the next one."""
    for name in (f"{path.name}-wal", f"{path.name}-shm", path.name):
        path.with_name(name).unlink(missing_ok=True)


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours.

    Raises:
        DiskTrouble: full, or failing. CheckpointMismatch: damaged. OutputError: it can't be read or written.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(path, error) from None
    except ValueError as error:  # what stands in it is no JSON, no UTF-8, no array
        raise CheckpointMismatch(f"{path}: the checkpoint is damaged ({error}); start over with --restart") from None


def _as_ours(path: Path, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", None) or 0
    primary = code & 0xFF
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DiskTrouble(f"{path}: {error}; make room, then run the same command again")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CheckpointMismatch(f"{path}: the checkpoint is damaged ({error}); start over with --restart")
    return OutputError(f"{path}: the checkpoint can't be written or read: {error}")
