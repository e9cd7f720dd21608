"""The file of `run.reuse`: opened, made if there is none, refused if it is not ours; SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.errors import DiskTrouble, ReuseError

APPLICATION = 0x636C6673  # stands in the header of our files: "clfs"
VERSION = 1  # of what is below, and of what `records` makes
PAGE_BYTES = 4096
# Pages in memory, however large the file is: a text is looked for at a place of its own, but written with neighbours.
WRITING_KIB, READING_KIB = 8 << 10, 64 << 10
LOG_BYTES = 32 << 20  # what is left of the write-ahead log between two commits
BUSY_S = 5  # another run commits in a fraction of that
PAUSES_S = (0.01, 0.03, 0.1, 0.3, 1.0)  # SQLite itself does not wait for a file that another run is making
_ADVICE = "name a file in run.reuse that can be written, in a directory that is there"
# `store` says why there are two tables of answers.
ANSWERS = "(key INTEGER PRIMARY KEY, answer BLOB NOT NULL)"
_TABLES = f"""
CREATE TABLE contexts (key BLOB PRIMARY KEY, identity TEXT NOT NULL, classes INTEGER NOT NULL, is_recent INTEGER);
CREATE TABLE turned (older_pages INTEGER NOT NULL);
INSERT INTO turned VALUES (0);
CREATE TABLE answers {ANSWERS};
CREATE TABLE older {ANSWERS};
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - all of it is ours


def path_of(setting: str) -> Path:
    """The file that `run.reuse` means; the command line, unlike a config file, may still hold a `~`."""
    return Path(setting).expanduser()


def open_database(path: Path, cache_kib: int) -> sqlite3.Connection:
    """A connection without transactions of its own, for use by one thread at a time; the file is made if need be.

    Raises:
        ReuseError: the file is damaged, of another version or another program, or can't be made. It is left as it is.
        DiskTrouble: the disk is full or fails, or another run keeps the file for long.
    """
    with reuse_errors(path):
        for pause in PAUSES_S:
            try:
                return _opened(path, cache_kib)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                time.sleep(pause)
        return _opened(path, cache_kib)


def _opened(path: Path, cache_kib: int) -> sqlite3.Connection:
    db = _connect(path, "rwc")
    try:
        if _looks_blank(db, path):
            _make(db, path)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last commits, never break the file
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        # Where SQLite was built to overwrite what is deleted, giving up a table would write all of it once more.
        db.execute("PRAGMA secure_delete = OFF")
    except BaseException:
        db.close()
        raise
    return db


def inspect(path: Path) -> int | None:
    """See that the file at `path` is ours, without writing: its size in bytes, None if there is none yet.

    Raises:
        ReuseError, DiskTrouble: as `open_database`.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.parent.is_dir():
            return None
        raise ReuseError(f"{path}: {error.strerror}; {_ADVICE}") from None
    if not path.is_file():
        raise ReuseError(f"{path}: is no file; {_ADVICE}")
    with reuse_errors(path), closing(_connect(path, "ro")) as db:
        _looks_blank(db, path)
    return size


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)


def _looks_blank(db: sqlite3.Connection, path: Path) -> bool:
    """`_is_blank` at one moment: another run may be making the file."""
    db.execute("BEGIN")
    is_blank = _is_blank(db, path)
    db.execute("COMMIT")
    return is_blank


def _is_blank(db: sqlite3.Connection, path: Path) -> bool:
    """Whether nothing is in the file yet; what is there must be ours and of this version."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == APPLICATION and version != VERSION:
        raise ReuseError(
            f"{path}: these stored answers are of another version of this program (format {version}, here {VERSION}); "
            f"delete the file, or name another in run.reuse"
        )
    if application != APPLICATION and (application or tables):
        raise ReuseError(f"{path}: is another program's database; name another file in run.reuse")
    return not tables


def _make(db: sqlite3.Connection, path: Path) -> None:
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    db.execute("PRAGMA journal_mode = WAL")  # readers and the one writer do not wait for each other
    db.execute("BEGIN IMMEDIATE")
    if _is_blank(db, path):  # no other run was faster
        for statement in _TABLES.split(";\n"):
            db.execute(statement)
    db.execute("COMMIT")


@contextmanager
def reuse_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours.

    Raises:
        DiskTrouble: full, failing, or kept by another run. ReuseError: damaged, no database, not to be written.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(path, error) from None
    except ValueError as error:  # what stands in it is no JSON, no UTF-8
        raise ReuseError(_damaged(path, error)) from None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another run was writing all the time."""
    return _primary(error) == sqlite3.SQLITE_BUSY


def _primary(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _as_ours(path: Path, error: sqlite3.Error) -> Exception:
    code = _primary(error)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY):
        return DiskTrouble(f"{path}: {error}")
    if code == sqlite3.SQLITE_NOTADB:
        return ReuseError(f"{path}: is no file of stored answers, or damaged ({error}); name another in run.reuse")
    if code == sqlite3.SQLITE_CORRUPT:
        return ReuseError(_damaged(path, error))
    return ReuseError(f"{path}: {error}; {_ADVICE}")


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: is damaged, or no file of stored answers ({error}); delete it, or name another in run.reuse"
