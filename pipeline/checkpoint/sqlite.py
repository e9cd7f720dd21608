"""SQLite files of a run: how they are opened, and which of our errors stands for one of SQLite's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import ClassifyError, OutputError
from pipeline.storage.draft import see_no_link

ANY_OTHER = -1
# A network file system without them: more room, or a later time, would not help.
NO_LOCKS = (
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
)
Meanings = Mapping[int, tuple[type[ClassifyError], str]]  # primary result code -> class, message with {} for SQLite's


def connect(uri: str, *, timeout_s: float) -> sqlite3.Connection:
    """Open a connection without implicit transactions, for use by one thread at a time.

    A statement waits up to `timeout_s` seconds for a lock that another connection holds.
    """
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout_s)


def make_file(path: Path) -> None:
    """Make an empty file for a database unless there is one, with the mode that the umask leaves (SQLite's has 0644).

    A file that another run makes at the same moment stays: it may be open as a database.

    Raises:
        OutputError: a link is there, which SQLite would follow.
    """
    if path.is_symlink():
        see_no_link(path)
    if not path.exists():
        with suppress(OSError):  # SQLite says it
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))


@contextmanager
def sqlite_errors(path: Path, meanings: Meanings) -> Iterator[None]:
    """Raise the errors of SQLite as `meanings` has them, those without an entry as `ANY_OTHER`.

    A ValueError counts as damage: what was read is no JSON, no UTF-8, or no array.
    """
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        if getattr(error, "sqlite_errorcode", 0) in NO_LOCKS:
            raise OutputError(
                f"{path}: this file system has no locks or no shared memory ({error}); "
                f"name a local directory in run.state_dir"
            ) from None
        kind, message = meanings.get(primary_code(error), meanings[ANY_OTHER])
        raise kind(f"{path}: {message.format(error)}") from None


def primary_code(error: Exception) -> int:
    """Return the primary result code of an error, SQLITE_CORRUPT for one that is not SQLite's."""
    if not isinstance(error, sqlite3.Error):
        return sqlite3.SQLITE_CORRUPT
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
