"""What is answered: one SQLite file beside the output, one record a chunk.

Durability: WAL with `synchronous = FULL`, so a commit that returned survives a power cut; commits are grouped, so
that costs a few syncs a second. Identity is the row's position, never its text and never an id column.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.answers import Answers, Labels
from pipeline.checkpoint.records import COLUMNS, INSERT, Row, answers_of, errors_of, record_of, without_failed
from pipeline.errors import CheckpointMismatch, DiskTrouble, OutputError
from pipeline.texts import Position

# -- The SQLite file itself: opened, deleted, and its errors as ours


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


# -- What is answered: one SQLite file beside the output, one record a chunk


VERSION = 1
# In one transaction: a kill leaves all of it or nothing.
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE labels (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE chunks (
    first_row INTEGER PRIMARY KEY, rows INTEGER NOT NULL,
    at_row INTEGER NOT NULL, at_offset INTEGER NOT NULL, at_line INTEGER NOT NULL,
    labels BLOB NOT NULL, scores BLOB NOT NULL, probs BLOB, errors TEXT, truncated TEXT);
CREATE INDEX ranges ON chunks (first_row, rows);
INSERT INTO meta VALUES ('version', '{VERSION}');
COMMIT;
"""  # noqa: S608 - the version is ours


class Range(NamedTuple):
    """Rows that have no record yet: from `start` up to `stop` (None: the end of the file)."""

    start: int
    stop: int | None


class Checkpoint:
    """The answers of one output.

    `add` only remembers; `flush` commits what was added since, and may be called from another thread.

    Raises:
        CheckpointMismatch: the file is damaged, or of another version of this program.
        DiskTrouble: the disk is full or fails.
        OutputError: the file can't be made or written.
    """

    def __init__(self, path: Path, *, read_only: bool = False, labels: Labels | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()  # held while the database is written
        self._adding = threading.Lock()  # held for a moment, while the lists change hands
        self._waiting: list[tuple[Any, ...]] = []
        self._waiting_meta: dict[str, Any] = {}
        self._stored_labels = 0
        if not read_only and not path.exists():
            remove(path)
        with database_errors(self.path):
            self._db = connect(f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}")
            try:
                self._prepare(labels, read_only=read_only)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self, labels: Labels | None, *, read_only: bool) -> None:
        is_blank = self._is_blank()
        if read_only and is_blank:  # a run is about to make it
            self._db.close()
            self._db = connect(":memory:")
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        if is_blank:
            self._db.executescript(_TABLES)
        stored = self._db.execute("SELECT id, name FROM labels ORDER BY id").fetchall()
        if [index for index, _ in stored] != list(range(len(stored))):
            raise ValueError("a label is missing")
        self.labels = labels if labels is not None else Labels([name for _, name in stored])
        self._stored_labels = len(stored)

    def _is_blank(self) -> bool:
        """See that it is ours, and of this format, before anything is written into it; or that it is nobody's yet."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        version = self.get("version") if "meta" in tables else None
        if tables and version != VERSION:
            raise CheckpointMismatch(
                f"{self.path}: the checkpoint was made by another version of this program (format {version}, here "
                f"{VERSION}), or by another program; finish it with that one, or start over with --restart"
            )
        return not tables

    # -- what is known of the run as a whole

    def get(self, key: str) -> Any:
        """The value kept under `key`, None if there is none."""
        with database_errors(self.path):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return json.loads(row[0]) if row else None

    def put(self, **values: Any) -> None:
        """Keep values under their names, at once: all or none."""
        with database_errors(self.path), self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._put(values)

    def put_later(self, **values: Any) -> None:
        """Keep values under their names with the next `flush`."""
        with self._adding:
            self._waiting_meta = self._waiting_meta | values

    # -- answers in

    def add(self, first_row: int, position: Position, answers: Answers, num_classes: int) -> None:
        """Remember the answers of the rows from `first_row` on; `position` is at or before that row.

        `num_classes` > 0: their probabilities are kept.
        """
        record = record_of(first_row, position, answers, self.labels, num_classes)
        with self._adding:  # a flush in another thread takes the list away
            self._waiting.append(record)

    def take(self, records: list[Row], labels: Labels, values: dict[str, Any]) -> None:
        """Begin with what was gathered elsewhere, and commit it."""
        self.labels, self._waiting, self._waiting_meta = labels, list(records), dict(values)
        self.flush()

    def flush(self) -> None:
        """Commit all that was added: durable when this returns."""
        with database_errors(self.path), self._lock:
            with self._adding:
                records, self._waiting = self._waiting, []
                meta, self._waiting_meta = self._waiting_meta, {}
                names = list(self.labels.names)  # those of the records, and perhaps newer ones
            if not records and not meta:
                return
            try:
                with self._db:  # commits, or rolls back
                    self._db.execute("BEGIN IMMEDIATE")
                    new = [*enumerate(names)][self._stored_labels :]
                    self._db.executemany("INSERT INTO labels VALUES (?, ?)", new)
                    self._db.executemany(INSERT, records)
                    self._put(meta)
            except BaseException:
                with self._adding:
                    self._waiting, self._waiting_meta = records + self._waiting, meta | self._waiting_meta
                raise
            self._stored_labels = len(names)

    # -- answers out

    def open_ranges(self, rows: int | None) -> list[Range]:
        """The rows without a record, up to row `rows` (None: as many as the file has)."""
        query = """
            SELECT stop, next FROM (
                SELECT first_row + rows AS stop, lead(first_row) OVER (ORDER BY first_row) AS next FROM chunks)
            WHERE next IS NOT stop"""
        with database_errors(self.path):
            first = self._db.execute("SELECT min(first_row) FROM chunks").fetchone()[0]
            ranges = [Range(0, first), *(Range(*gap) for gap in self._db.execute(query) if first is not None)]
        if rows is not None:
            ranges = [Range(start, rows if stop is None else min(rows, stop)) for start, stop in ranges]
        return [each for each in ranges if each.stop is None or each.start < each.stop]

    def position_before(self, row: int) -> Position | None:
        """The last known place at or before `row`, None if that is the start of the file."""
        query = "SELECT at_row, at_offset, at_line FROM chunks WHERE first_row <= ? ORDER BY first_row DESC LIMIT 1"
        with database_errors(self.path):
            found = self._db.execute(query, (row,)).fetchone()
        return Position(*found) if found else None

    def answers(self, num_classes: int) -> Iterator[Answers]:
        """Yield all answers in the order of the rows, record by record."""
        with database_errors(self.path):
            for row in self._db.execute(f"SELECT {COLUMNS} FROM chunks ORDER BY first_row"):  # noqa: S608
                yield answers_of(row, self.labels, num_classes)

    def answers_at(self, row: int, num_classes: int) -> Answers | None:
        """Return the answers of the record that begins with `row`, None if there is none."""
        with database_errors(self.path):
            found = self._db.execute(f"SELECT {COLUMNS} FROM chunks WHERE first_row = ?", (row,)).fetchone()  # noqa: S608
            return answers_of(found, self.labels, num_classes) if found else None

    def counts(self) -> tuple[int, dict[str, int]]:
        """Rows that have a record, and how many of them carry which error code."""
        codes: dict[str, int] = {}
        with database_errors(self.path):
            rows = self._db.execute("SELECT coalesce(sum(rows), 0) FROM chunks").fetchone()[0]
            for (errors,) in self._db.execute("SELECT errors FROM chunks WHERE errors IS NOT NULL"):
                for error in errors_of(errors).values():
                    codes[error.code] = codes.get(error.code, 0) + 1
        return rows, codes

    def has_truncated(self) -> bool:
        """Whether an answer to a cut text is among the records."""
        with database_errors(self.path):
            return self._db.execute("SELECT 1 FROM chunks WHERE truncated IS NOT NULL").fetchone() is not None

    def reopen_failed(self) -> int:
        """Forget the rows that carry an error, other than those without a text; returns how many."""
        reopened = 0
        with database_errors(self.path), self._lock, self._db:
            rows = self._db.execute(f"SELECT {COLUMNS} FROM chunks WHERE errors IS NOT NULL").fetchall()  # noqa: S608
            self._db.execute("BEGIN IMMEDIATE")
            for row in rows:
                kept, failed = without_failed(row, self.labels)
                if failed:
                    reopened += failed
                    self._db.execute("DELETE FROM chunks WHERE first_row = ?", (row[0],))
                    self._db.executemany(INSERT, kept)
        return reopened

    # -- the file

    def close(self) -> None:
        """Close the file; what was not flushed is gone."""
        self._db.close()

    def remove(self) -> None:
        """Close and delete it. SQLite takes its own side files away when it closes."""
        self.close()
        remove(self.path)

    def _put(self, values: dict[str, Any]) -> None:
        pairs = [(key, json.dumps(value)) for key, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", pairs)
