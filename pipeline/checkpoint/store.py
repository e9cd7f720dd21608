"""The checkpoint of an output: its answers, one SQLite file, one record for each chunk.

Durability: WAL with `synchronous = FULL`, so a commit that returned survives a power cut; commits are grouped, so
that costs a few syncs a second. Identity is the row's position, never its text and never an id column.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.answers import NO_LABEL, Answers, Labels
from pipeline.checkpoint.sqlite import ANY_OTHER, connect, make_file, sqlite_errors
from pipeline.errors import CheckpointMismatch, DiskTrouble, OutputError, RowError
from pipeline.texts import Position

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
    -- truncated: a list of rows; or of a run that asks for long texts in parts, an object of rows and their parts
CREATE INDEX ranges ON chunks (first_row, rows);
INSERT INTO meta VALUES ('version', '{VERSION}');
COMMIT;
"""  # noqa: S608 - the version is ours
COLUMNS = "first_row, rows, at_row, at_offset, at_line, labels, scores, probs, errors, truncated"
INSERT = f"INSERT INTO chunks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - no value is in it
Row = tuple[Any, ...]  # a record, in the order of COLUMNS
BUSY_S = 30.0  # `classify status` reads while a run commits
_DISK = DiskTrouble, "{}; make room, then run the same command again"
_DAMAGED = CheckpointMismatch, "the checkpoint is damaged ({}); start over with --restart"
_MEANINGS = {
    sqlite3.SQLITE_FULL: _DISK,
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    ANY_OTHER: (OutputError, "the checkpoint can't be written or read: {}"),
}


class Range(NamedTuple):
    """Rows that have no record yet: from `start` up to `stop` (None: the end of the file)."""

    start: int
    stop: int | None


class Checkpoint:
    """The answers of one output, in a file.

    `add` only keeps answers in memory; `flush` commits them, and may be called from another thread. With `in_memory`
    the first `flush` makes the file, a new one: a small output is most often complete before that would be of any use.

    Raises:
        CheckpointMismatch: the file is damaged, or of another version of this program.
        DiskTrouble: the disk is full or fails.
        OutputError: the file can't be made or written.
    """

    def __init__(self, path: Path, *, read_only: bool = False, in_memory: bool = False) -> None:
        self.path = path
        self.labels = Labels()
        self._lock = threading.Lock()  # held while the database is written
        self._adding = threading.Lock()  # held for a moment, while the lists change hands
        self._waiting: list[Row] = []
        self._waiting_meta: dict[str, Any] = {}
        self._stored_labels = 0
        self._db: sqlite3.Connection | None = None
        if not in_memory:
            with self._errors():
                self._db = self._open(read_only=read_only)

    @property
    def is_in_memory(self) -> bool:
        """Whether there is no file yet."""
        return self._db is None

    def _errors(self) -> AbstractContextManager[None]:
        return sqlite_errors(self.path, _MEANINGS)

    def _open(self, *, read_only: bool = False) -> sqlite3.Connection:
        if not read_only:
            if not self.path.exists() and not self.path.is_symlink():
                remove(self.path)
            make_file(self.path)
        db = connect(f"{self.path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}", timeout_s=BUSY_S)
        try:
            is_blank = self._is_blank(db)
            if read_only and is_blank:  # a run is about to make it
                db.close()
                db = connect(":memory:", timeout_s=BUSY_S)
            if not read_only:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
            if is_blank:
                db.executescript(_TABLES)
            names = _names_of_labels(db)
        except BaseException:
            db.close()
            raise
        if names:  # else a new file, perhaps for what is in memory already
            self.labels = Labels(names)
        self._stored_labels = len(names)
        return db

    def _is_blank(self, db: sqlite3.Connection) -> bool:
        """Return whether the file has no tables yet; refuse those of another version, or of another program."""
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() if "meta" in tables else None
        version = json.loads(found[0]) if found else None
        if tables and version != VERSION:
            raise CheckpointMismatch(
                f"{self.path}: the checkpoint was made by another version of this program (format {version}, here "
                f"{VERSION}), or by another program; finish it with that one, or start over with --restart"
            )
        return not tables

    def _rows(self, query: str, *parameters: Any) -> Iterable[Row]:
        """Return the rows of a query, none if there is no file yet."""
        return () if self._db is None else self._db.execute(query, parameters)

    def _first(self, query: str, *parameters: Any) -> Row | None:
        return next(iter(self._rows(query, *parameters)), None)

    def get(self, key: str) -> Any:
        """Return the value kept under `key`, None if there is none."""
        with self._errors():
            found = self._first("SELECT value FROM meta WHERE key = ?", key)
            return json.loads(found[0]) if found else None

    def put(self, **values: Any) -> None:
        """Keep values under their names, at once: all or none."""
        if self._db is None:
            self.put_later(**values)
            return
        with self._errors(), self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            _put(self._db, values)

    def put_later(self, **values: Any) -> None:
        """Keep values under their names with the next `flush`."""
        with self._adding:
            self._waiting_meta = self._waiting_meta | values

    def add(self, first_row: int, position: Position, answers: Answers, num_classes: int) -> None:
        """Add the answers of the rows from `first_row` on; `position` is at or before that row.

        With `num_classes` > 0 their probabilities are kept.
        """
        record = record_of(first_row, position, answers, self.labels, num_classes)
        with self._adding:  # a flush in another thread takes the list away
            self._waiting.append(record)

    def add_records(self, records: list[Row], names: Sequence[str]) -> None:
        """Add what `record_of` has made elsewhere, with label ids that stand for `names`."""
        ids = self.labels.ids_of(names)
        if not np.array_equal(ids, np.arange(len(ids))):
            ids = np.append(ids, np.int32(NO_LABEL))  # at -1
            records = [(*each[:5], ids[np.frombuffer(each[5], np.int32)].tobytes(), *each[6:]) for each in records]
        with self._adding:
            self._waiting += records

    def flush(self) -> None:
        """Commit all that was added: durable when this returns, as is the file."""
        with self._errors(), self._lock:
            with self._adding:
                records, self._waiting = self._waiting, []
                meta, self._waiting_meta = self._waiting_meta, {}
                names = list(self.labels.names)  # those of the records, and perhaps newer ones
            if self._db is not None and not records and not meta:
                return
            try:
                self._db = db = self._db or self._open()
                with db:  # commits, or rolls back
                    db.execute("BEGIN IMMEDIATE")
                    new = [*enumerate(names)][self._stored_labels :]
                    db.executemany("INSERT INTO labels VALUES (?, ?)", new)
                    db.executemany(INSERT, records)
                    _put(db, meta)
            except BaseException:
                with self._adding:
                    self._waiting, self._waiting_meta = records + self._waiting, meta | self._waiting_meta
                raise
            self._stored_labels = len(names)

    def open_ranges(self, rows: int | None) -> list[Range]:
        """Return the ranges of rows without a record, up to row `rows` (None: as many as the input has)."""
        query = """
            SELECT stop, next FROM (
                SELECT first_row + rows AS stop, lead(first_row) OVER (ORDER BY first_row) AS next FROM chunks)
            WHERE next IS NOT stop"""
        with self._errors():
            (first,) = self._first("SELECT min(first_row) FROM chunks") or (None,)
            ranges = [Range(0, first), *(Range(*gap) for gap in self._rows(query) if first is not None)]
        if rows is not None:
            ranges = [Range(start, rows if stop is None else min(rows, stop)) for start, stop in ranges]
        return [each for each in ranges if each.stop is None or each.start < each.stop]

    def position_before(self, row: int) -> Position | None:
        """Return the last stored position at or before `row`, None if that is the start of the input."""
        query = "SELECT at_row, at_offset, at_line FROM chunks WHERE first_row <= ? ORDER BY first_row DESC LIMIT 1"
        with self._errors():
            found = self._first(query, row)
        return Position(*found) if found else None

    def answers(self, num_classes: int) -> Iterator[Answers]:
        """Yield all answers in the order of the rows, record by record."""
        query = f"SELECT {COLUMNS} FROM chunks ORDER BY first_row"  # noqa: S608
        with self._errors():
            for record in sorted(self._waiting) if self._db is None else self._rows(query):
                yield _answers_of(record, self.labels, num_classes)

    def answers_at(self, row: int, num_classes: int) -> Answers | None:
        """Return the answers of the record that begins with `row`, None if there is none; also beside a `flush`."""
        query = f"SELECT {COLUMNS} FROM chunks WHERE first_row = ?"  # noqa: S608
        with self._errors(), self._lock:
            found = self._first(query, row)
            return _answers_of(found, self.labels, num_classes) if found else None

    def counts(self) -> tuple[int, dict[str, int]]:
        """Count the rows that have a record, and those of each error code."""
        codes = Counter[str]()
        with self._errors():
            (rows,) = self._first("SELECT coalesce(sum(rows), 0) FROM chunks") or (0,)
            for (errors,) in self._rows("SELECT errors FROM chunks WHERE errors IS NOT NULL"):
                codes.update(error.code for error in _errors_of(errors).values())
        return rows, dict(codes)

    def has_truncated(self) -> bool:
        """Return whether an answer to a truncated text is among the records."""
        with self._errors():
            return self._first("SELECT 1 FROM chunks WHERE truncated LIKE '[%'") is not None

    def reopen_failed(self) -> int:
        """Delete the answers of the rows that failed (`RowError.is_failure`); returns how many."""
        if self._db is None:
            return 0
        reopened = 0
        with self._errors(), self._lock, self._db as db:
            rows = db.execute(f"SELECT {COLUMNS} FROM chunks WHERE errors IS NOT NULL").fetchall()  # noqa: S608
            db.execute("BEGIN IMMEDIATE")
            for row in rows:
                first_row, count, *position, _, _, probs, errors, _ = row
                failed = sorted(index for index, error in _errors_of(errors).items() if error.is_failure)
                if not failed:
                    continue
                reopened += len(failed)
                classes = len(probs) // (8 * count) if probs else 0
                answers = _answers_of(row, self.labels, classes)
                db.execute("DELETE FROM chunks WHERE first_row = ?", (first_row,))
                for start, stop in zip([0, *(index + 1 for index in failed)], [*failed, count], strict=True):
                    if start < stop:  # the rows between two that failed
                        kept = answers[start:stop]
                        db.execute(
                            INSERT, record_of(first_row + start, Position(*position), kept, self.labels, classes)
                        )
        return reopened

    def close(self) -> None:
        """Close the file without a flush."""
        if self._db is not None:
            self._db.close()

    def remove(self) -> None:
        """Close and delete the file."""
        if self._db is not None:
            self._db.close()
            remove(self.path)


def _names_of_labels(db: sqlite3.Connection) -> list[str]:
    stored = db.execute("SELECT id, name FROM labels ORDER BY id").fetchall()
    if [index for index, _ in stored] != list(range(len(stored))):
        raise ValueError("a label is missing")
    return [name for _, name in stored]


def _put(db: sqlite3.Connection, values: dict[str, Any]) -> None:
    pairs = [(key, json.dumps(value)) for key, value in values.items()]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", pairs)


def record_of(first_row: int, position: Position, answers: Answers, labels: Labels, num_classes: int) -> Row:
    """Encode answers with the label ids of `labels`; with `num_classes` > 0 the probabilities are kept."""
    return (
        *(first_row, len(answers), *position),
        *(answers.ids_in(labels).tobytes(), answers.scores.tobytes()),
        answers.probs_or_nan(num_classes).tobytes() if num_classes else None,
        json.dumps({row: str(error) for row, error in answers.errors.items()}) if answers.errors else None,
        json.dumps(answers.parts or sorted(answers.truncated)) if answers.parts or answers.truncated else None,
    )


def _answers_of(record: Row, labels: Labels, num_classes: int) -> Answers:
    """Decode the answers of a record; `labels` are those of the checkpoint."""
    ids, scores, probs, errors, truncated = record[5:]
    if not (isinstance(ids, bytes) and isinstance(scores, bytes) and isinstance(probs, bytes | None)):
        raise ValueError("a record holds no arrays")  # noqa: TRY004 - damage, as what is no JSON
    not_whole = json.loads(truncated or "[]")
    return Answers(
        labels,
        np.frombuffer(ids, np.int32),
        np.frombuffer(scores, np.float64),
        None if probs is None else np.frombuffer(probs, np.float64).reshape(-1, num_classes),
        errors=_errors_of(errors),
        truncated=frozenset(not_whole if isinstance(not_whole, list) else ()),
        parts={int(row): parts for row, parts in not_whole.items()} if isinstance(not_whole, dict) else {},
    )


def _errors_of(column: str | None) -> dict[int, RowError]:
    """Decode the errors of a record: row of the record -> error."""
    return {int(row): RowError.parse(error) for row, error in json.loads(column or "{}").items()}


def remove(path: Path) -> None:
    """Delete a checkpoint, SQLite's side files first: left alone, they would be taken for those of the next one."""
    for name in (f"{path.name}-wal", f"{path.name}-shm", path.name):
        path.with_name(name).unlink(missing_ok=True)
