"""The file of `run.reuse`: answers that later runs take instead of sending the same texts. Any number of runs share it.

It is a cache: a lost answer is asked for again. So commits are grouped for seconds, because keys are random and a
larger group writes fewer pages for each answer, and a commit need not survive a power cut.

A key is made of the text: 128 bits of BLAKE2 over the escaped text, personalised with the context, so that the answer
of another model, or under other settings, has another key. Its first half is SQLite's row id, the fastest lookup; the
second half stands in the record, which has a fixed width and is the same on every machine, and is compared.

The size is bounded, and the answers used last are kept: new answers go into the table `answers`, and those found in the
table `older` are copied there. When `answers` holds half of what is allowed, it becomes `older`, and the previous
`older` is dropped: no answer needs a time, and none has to be searched for to be deleted.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipeline.answers import NO_LABEL, Answers, Labels
from pipeline.checkpoint import Identity, differences
from pipeline.checkpoint.identity import COMBINE
from pipeline.checkpoint.sqlite import ANY_OTHER, connect, make_file, primary_code, sqlite_errors
from pipeline.errors import DiskTrouble, ReuseError
from pipeline.storage.draft import see_no_link
from pipeline.texts import Texts

APPLICATION = 0x636C6673  # "clfs", in the header of our files
VERSION = 1  # of the tables, the keys and the records
PAGE_BYTES = 4096
# Page cache of each connection, however large the file is: lookups are random, writes are sorted by key.
WRITING_KIB, READING_KIB = 8 << 10, 64 << 10
LOG_BYTES = 32 << 20  # the write-ahead log is cut to this after a checkpoint
BUSY_S = 5.0  # another run commits in a fraction of that
PAUSES_S = (0.01, 0.03, 0.1, 0.3, 1.0)  # SQLite itself does not wait for a file that another run is making
_ADVICE = "name a file in run.reuse that can be written, in a directory that is there"
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
_DAMAGED = ReuseError, "is damaged, or no file of stored answers ({}); delete it, or name another in run.reuse"
_MEANINGS = {
    sqlite3.SQLITE_FULL: (DiskTrouble, "{}"),
    sqlite3.SQLITE_IOERR: (DiskTrouble, "{}"),
    sqlite3.SQLITE_BUSY: (DiskTrouble, "{}"),
    sqlite3.SQLITE_NOTADB: (ReuseError, "is no file of stored answers, or damaged ({}); name another in run.reuse"),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    ANY_OTHER: (ReuseError, f"{{}}; {_ADVICE}"),
}
KEY_BYTES = 16
NO_ANSWER = -1
PARTS = "parts"  # the field of a record, where texts that are too long are answered in parts
Array = np.ndarray[Any, np.dtype[Any]]
GROUP_BYTES, GROUP_S = 4 << 20, 5.0  # answers are committed when there are so many, or after so long; also read at once
MOST_WAITING = 8 * GROUP_BYTES  # more are dropped: another run has held the lock for long
SLICE_ROWS = 8192  # of one transaction: other runs wait for no more than that, and the log stays small
SLICES = 16  # a slice takes at most this fraction of the bound, so that the bound is not exceeded
SPARSE = 3  # pages are filled to at least a third
TABLES = ("answers", "older")
# Keys of the identity that change no answer: the rows, and what is kept of an answer.
NOT_ANSWER_CHANGING = ("input", "loader.", "probabilities kept")


class Found(NamedTuple):
    """The stored answers of some texts, column by column."""

    keys: list[bytes]
    classes: Array  # int, NO_ANSWER where none is stored
    scores: Array
    probs: Array | None  # (texts, num_classes)
    parts: Array | None = None  # of the text; None where texts are answered whole

    def examples(self) -> dict[int, int]:
        """Return the index of one answer of each class that is among them."""
        classes, positions = np.unique(self.classes, return_index=True)
        found = dict(zip(classes.tolist(), positions.tolist(), strict=True))
        found.pop(NO_ANSWER, None)
        return found

    def answers(self, names: Mapping[int, str], labels: Labels) -> Answers:
        """Return the answers, without a label where none is stored.

        The index of the class is stored, not its name: labels are the `names` that the model gives its classes now.
        """
        id_of = {index: labels.id_of(name) for index, name in names.items()}
        ids = np.array([id_of.get(index, NO_LABEL) for index in self.classes.tolist()], np.int32)
        counts = enumerate(self.parts.tolist()) if self.parts is not None else ()
        parts = {row: count for row, count in counts if count > 1}
        return Answers(labels, ids, self.scores, self.probs, parts=parts)


class Reuse:
    """The stored answers. `bind` comes first; `find` is for one thread, and `flush` may be called from another.

    Raises:
        ReuseError: the file is damaged, of another version or another program, or can't be written.
        DiskTrouble: the disk is full or fails, or another run holds the lock for long.
    """

    def __init__(self, path: Path, *, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._pages = max_bytes // PAGE_BYTES
        self._lock = threading.Lock()  # held while the database is written
        self._reading = threading.Lock()  # held while it is read
        self._adding = threading.Lock()  # held for a moment, while the list changes hands
        self._waiting: list[tuple[bytes, Array]] = []  # keys one after the other, and their records
        self._waiting_bytes = 0
        self._committed = clock()
        self._writer, self._reader = _open_database(path, WRITING_KIB), _open_database(path, READING_KIB)

    def bind(self, identity: Identity, num_classes: int, *, keep_probs: bool) -> None:
        """Choose the context: the first one without a difference from `identity`, or a new one.

        A run that needs no probabilities may share a context that keeps them.
        """
        changing = {key: value for key, value in identity.items() if not key.startswith(NOT_ANSWER_CHANGING)}
        text = json.dumps(changing, sort_keys=True)
        now = json.loads(text)
        new = text, num_classes if keep_probs else 0
        with _errors(self.path), self._lock, self._writer:  # commits, or rolls back
            self._writer.execute("BEGIN IMMEDIATE")  # or a run that starts at the same time might add it, too
            suited = [
                (kept, classes)
                for kept, classes in self._contexts()
                if (classes or not keep_probs) and not differences(json.loads(kept), now)
            ]
            self._identity, self._classes = (suited or [new])[0]
            self._context = _key_of(self._identity, self._classes)
            self._touch_context()
        self._num_classes, self._gives_probs = num_classes, keep_probs
        self._type = _record_type(self._classes, has_parts=COMBINE in json.loads(self._identity))

    def _contexts(self) -> list[tuple[str, int]]:
        """Return all contexts, the oldest first; each is compared with its key, because damage could change one."""
        rows = self._writer.execute("SELECT key, identity, classes FROM contexts ORDER BY rowid").fetchall()
        if any(key != _key_of(identity, classes) for key, identity, classes in rows):
            raise ValueError("a context is not what it was")
        return [(identity, classes) for _, identity, classes in rows]

    def find(self, texts: Texts) -> Found:
        """Return the stored answers of texts."""
        keys = _keys_of(texts, self._context)
        halves = _halves_of(b"".join(keys))
        records = np.zeros(len(keys), self._type)
        records["class"] = NO_ANSWER
        missing = np.argsort(halves[:, 0])  # neighbours in the file one after the other
        step = max(1, GROUP_BYTES // self._type.itemsize)
        for table in TABLES:
            if not len(missing) or self._is_empty(table):
                continue
            parts = [missing[start : start + step] for start in range(0, len(missing), step)]
            missing = np.concatenate([part[~self._take(table, part, halves, records)] for part in parts])
        probs = records["probs"] if self._gives_probs else None
        counts = records[PARTS] if PARTS in (self._type.names or ()) else None
        return Found(keys, records["class"], records["score"], probs, counts)

    def _take(self, table: str, positions: Array, halves: Array, records: Array) -> Array:
        """Copy the records at some positions from a table; returns a mask of the positions that it has."""
        read = self._read(table, halves[positions, 0])
        hits = (read["check"] == halves[positions, 1]) & (read["class"] >= 0) & (read["class"] < self._num_classes)
        records[positions[hits]] = read[hits]
        if table == "older" and hits.any():  # used again: keep it
            self._wait(halves[positions[hits]].tobytes(), read[hits])
        return np.asarray(hits)

    def _is_empty(self, table: str) -> bool:
        with _errors(self.path), self._reading:
            found = self._reader.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - of TABLES
        return found is None

    def _read(self, table: str, ids: Array) -> Array:
        """Return the records with these row ids, one without an answer for an id that the table lacks."""
        nothing = np.zeros((), self._type)
        nothing["class"] = NO_ANSWER
        blank, size = nothing.tobytes(), self._type.itemsize
        query = f"SELECT answer FROM json_each(?) LEFT JOIN {table} AS kept ON kept.key = value"  # noqa: S608 - of TABLES
        with _errors(self.path), self._reading:
            rows = self._reader.execute(query, (msgspec.json.encode(ids.tolist()).decode(),)).fetchall()
        # The row id may be that of another context, whose records have another width; damage may leave no bytes.
        answers = [answer if isinstance(answer, bytes) and len(answer) == size else blank for (answer,) in rows]
        return np.frombuffer(b"".join(answers), self._type)

    def remember(self, keys: Sequence[bytes], answers: Answers, names: Mapping[int, str]) -> None:
        """Store answers with the next commit, see `_records_of`; `names` are those of the model's classes."""
        self._wait(*_records_of(keys, answers, names, self._type))

    def _wait(self, keys: bytes, records: Array) -> None:
        with self._adding:  # a flush in another thread takes the list away
            if self._waiting_bytes < MOST_WAITING:
                self._waiting.append((keys, records))
                self._waiting_bytes += len(keys) + records.nbytes

    def flush(self, *, now: bool = False) -> None:
        """Commit waiting answers if they are many or old; if another run holds the lock, with a later call.

        With `now` all are committed, or an error is raised.
        """
        with _errors(self.path), self._lock:
            with self._adding:
                is_due = self._waiting_bytes >= GROUP_BYTES or self._clock() - self._committed >= GROUP_S
                if not self._waiting or not (now or is_due):
                    return
                keys, records = zip(*self._waiting, strict=True)
                self._waiting, self._waiting_bytes = [], 0
            halves, whole = _halves_of(b"".join(keys)), np.concatenate(records)
            order = np.argsort(halves[:, 0], kind="stable")  # neighbours in the file one after the other
            try:
                self._commit(halves[order], whole[order])
            except sqlite3.OperationalError as error:
                if now or not _is_busy(error):
                    raise
                self._wait(halves.tobytes(), whole)
            self._committed = self._clock()

    def _commit(self, halves: Array, records: Array) -> None:
        size = self._type.itemsize
        fitting = self._pages * PAGE_BYTES // (SLICES * SPARSE * (size + KEY_BYTES))
        rows = max(1, min(SLICE_ROWS, GROUP_BYTES // size, fitting))
        query = f"INSERT OR REPLACE INTO answers SELECT value, substr(?2, 1 + {size} * key, {size}) FROM json_each(?1)"  # noqa: S608
        for start in range(0, len(halves), rows):
            part = slice(start, start + rows)
            ids = msgspec.json.encode(halves[part, 0].tolist()).decode()
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                for _ in TABLES:  # under a bound that was lowered, both may have to go
                    if self._is_full():
                        self._turn()
                self._writer.execute(query, (ids, records[part].tobytes()))
                self._touch_context()

    def _is_full(self) -> bool:
        """Return whether the newer answers take half of the pages allowed, less what the next slice may take."""
        used, older = self._used_pages(), self._writer.execute("SELECT total(older_pages) FROM turned").fetchone()[0]
        return bool(used - older >= self._pages // 2 - self._pages // SLICES or used >= self._pages)

    def _turn(self) -> None:
        """Make `answers` the older table and drop the previous one, and the contexts not used since the last turn."""
        self._writer.execute("DROP TABLE older")
        self._writer.execute("ALTER TABLE answers RENAME TO older")
        self._writer.execute(f"CREATE TABLE answers {ANSWERS}")
        self._writer.execute("DELETE FROM contexts WHERE NOT is_recent")
        self._writer.execute("UPDATE contexts SET is_recent = 0")
        self._writer.execute("DELETE FROM turned")
        self._writer.execute("INSERT INTO turned VALUES (?)", (self._used_pages(),))

    def _used_pages(self) -> int:
        pages, free = (self._writer.execute(f"PRAGMA {name}_count").fetchone()[0] for name in ("page", "freelist"))
        return int(pages - free)

    def _touch_context(self) -> None:
        self._writer.execute(
            "INSERT INTO contexts VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET is_recent = 1 WHERE NOT is_recent",
            (self._context, self._identity, self._classes),
        )

    def close(self, *, keep: bool = True) -> None:
        """Close the file; with `keep` waiting answers are committed before."""
        try:
            if keep:
                self.flush(now=True)
        finally:
            with self._lock, self._reading, suppress(sqlite3.Error):
                self._reader.close()
                self._writer.close()


def _key_of(identity: str, classes: int) -> bytes:
    return blake2b(f"{classes} {identity}".encode(), digest_size=KEY_BYTES).digest()


def _record_type(num_classes: int, *, has_parts: bool) -> np.dtype[Any]:
    fields: list[Any] = [("check", "<i8"), ("class", "<i4"), ("score", "<f8"), ("probs", "<f8", (num_classes,))]
    return np.dtype([*fields, (PARTS, "<i4")] if has_parts else fields)


def _keys_of(texts: Texts, context: bytes) -> list[bytes]:
    begun, keys = blake2b(digest_size=KEY_BYTES, person=context), []
    for text in texts.views():
        hashed = begun.copy()
        hashed.update(text)
        keys.append(hashed.digest())
    return keys


def _halves_of(keys: bytes) -> Array:
    """Return the halves of joined keys as integers, shape (keys, 2)."""
    return np.frombuffer(keys, "<i8").reshape(-1, 2)


def _records_of(
    keys: Sequence[bytes], answers: Answers, names: Mapping[int, str], kind: np.dtype[Any]
) -> tuple[bytes, Array]:
    """Return answers as joined keys and records, without rows that have an error, a truncated text or an open tie."""
    classes = _classes_of(answers, names)
    classes[list(answers.truncated)] = NO_ANSWER
    kept = np.flatnonzero(classes != NO_ANSWER)
    of_kept = b"".join([keys[row] for row in kept.tolist()])
    records = np.zeros(len(kept), kind)
    records["check"] = _halves_of(of_kept)[:, 1]
    records["class"] = classes[kept]
    records["score"] = answers.scores[kept]
    if kind["probs"].shape[0] and answers.probs is not None:
        records["probs"] = answers.probs[kept]
    if PARTS in (kind.names or ()):
        records[PARTS] = [answers.parts.get(row, 1) for row in kept.tolist()]
    return of_kept, records


def _classes_of(answers: Answers, names: Mapping[int, str]) -> Array:
    """Return the class of each label, `NO_ANSWER` where it can't be told or there is no label."""
    index_of = {name: index for index, name in names.items()}
    by_id = np.array([*(index_of.get(name, NO_ANSWER) for name in answers.labels.names), NO_ANSWER], np.int32)
    classes = np.asarray(by_id[answers.ids])  # NO_LABEL takes the last
    if answers.probs is not None:
        # The server names no classes, or two values are equal: the label does not tell the class.
        for row in np.flatnonzero((classes == NO_ANSWER) & answers.has_label).tolist():
            largest = int(answers.probs[row].argmax())
            if answers.labels.names[answers.ids[row]] == f"LABEL_{largest}":
                classes[row] = largest
    return classes


def path_of(setting: str) -> Path:
    """Return the path that `run.reuse` means; from the command line it may still hold a `~`."""
    return Path(setting).expanduser()


def _open_database(path: Path, cache_kib: int) -> sqlite3.Connection:
    """Open a connection for use by one thread at a time; makes the file if there is none, leaves another's as it is."""
    with _errors(path):
        for pause in PAUSES_S:
            try:
                return _opened(path, cache_kib)
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                time.sleep(pause)
        return _opened(path, cache_kib)


def _opened(path: Path, cache_kib: int) -> sqlite3.Connection:
    make_file(path)
    db = _connect(path, "rwc")
    try:
        if _is_blank(db, path):
            _make(db, path)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last commits, never break the file
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        # Where SQLite was built to overwrite deleted content, dropping a table would write all of it once more.
        db.execute("PRAGMA secure_delete = OFF")
    except BaseException:
        db.close()
        raise
    return db


def inspect(path: Path) -> int | None:
    """Check the file at `path` as `Reuse` does, but write nothing; returns its size in bytes, None if there is none."""
    try:
        size = path.stat().st_size
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.parent.is_dir():
            return None
        raise ReuseError(f"{path}: {error.strerror}; {_ADVICE}") from None
    if not path.is_file():
        raise ReuseError(f"{path}: is no file; {_ADVICE}")
    see_no_link(path)
    with _errors(path), closing(_connect(path, "ro")) as db:
        _is_blank(db, path)
    return size


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return connect(f"{path.absolute().as_uri()}?mode={mode}", timeout_s=BUSY_S)


def _is_blank(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file has no tables yet; refuse those of another version, or of another program."""
    # In one statement, because another run may be making the file.
    query = """
        SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
            (SELECT count(*) FROM sqlite_master)"""
    application, version, tables = db.execute(query).fetchone()
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


def _errors(path: Path) -> AbstractContextManager[None]:
    return sqlite_errors(path, _MEANINGS)


def _is_busy(error: sqlite3.Error) -> bool:
    return primary_code(error) == sqlite3.SQLITE_BUSY
