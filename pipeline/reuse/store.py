"""Answers that later runs take instead of asking: one SQLite file, shared by any number of runs.

It is a cache: what it loses is asked again. So commits are grouped for seconds, in a file that grows at random places
a larger group costs less, and a commit need not survive a power cut.

Bounded, and the answers used last are kept: what is new goes into the table `answers`, and what is found in the table
`older` goes there, too. When `answers` holds half of what is allowed, it becomes `older`, and what was `older` is
gone: no answer needs a time, and none is looked for to be deleted.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from pipeline.answers import Answers
from pipeline.checkpoint import Identity, differences
from pipeline.reuse.database import ANSWERS, PAGE_BYTES, READING_KIB, WRITING_KIB, is_busy, open_database, reuse_errors
from pipeline.reuse.records import KEY_BYTES, NO_ANSWER, Array, Found, halves_of, keys_of, record_type, records_of
from pipeline.texts import Texts

GROUP_BYTES, GROUP_S = 4 << 20, 5.0  # what waits is committed when it is so much, or waits so long; read at once
MOST_WAITING = 8 * GROUP_BYTES  # more than that is let go: another run has kept the file for long
SLICE_ROWS = 8192  # of one transaction: other runs wait for no more than that, and the log stays small
SLICES = 16  # into so many parts of the bound a slice must fit, or the bound would be overshot
SPARSE = 3  # pages hold at least a third
TABLES = ("answers", "older")
NOT_ANSWER_CHANGING = ("input", "loader.", "probabilities kept")  # whose rows they are, and what is kept of an answer


def context_of(identity: Identity) -> Identity:
    """What of a run's identity must be the same for an answer to be that of another run, too."""
    return {key: value for key, value in identity.items() if not key.startswith(NOT_ANSWER_CHANGING)}


class Reuse:
    """The stored answers. `bind` comes first; `find` is for one thread, and `flush` may be called from another.

    Raises:
        ReuseError: the file is damaged, of another version or another program, or can't be written.
        DiskTrouble: the disk is full or fails, or another run keeps the file for long.
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
        self._writer, self._reader = open_database(path, WRITING_KIB), open_database(path, READING_KIB)

    def bind(self, identity: Identity, num_classes: int, *, keep_probs: bool) -> None:
        """Choose the context: the first one that differs in nothing from `identity`, or a new one.

        A run that needs no probabilities may share a context that keeps them.
        """
        text = json.dumps(context_of(identity), sort_keys=True)
        now = json.loads(text)
        new = text, num_classes if keep_probs else 0
        with reuse_errors(self.path), self._lock, self._writer:  # commits, or rolls back
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
        self._type = record_type(self._classes)

    def _contexts(self) -> list[tuple[str, int]]:
        """All contexts, the oldest first. Damage to one could make it another's, so each is compared with its key."""
        rows = self._writer.execute("SELECT key, identity, classes FROM contexts ORDER BY rowid").fetchall()
        if any(key != _key_of(identity, classes) for key, identity, classes in rows):
            raise ValueError("a context is not what it was")
        return [(identity, classes) for _, identity, classes in rows]

    # -- answers out

    def find(self, texts: Texts) -> Found:
        """What is known of texts."""
        keys = keys_of(texts, self._context)
        halves = halves_of(b"".join(keys))
        records = np.zeros(len(keys), self._type)
        records["class"] = NO_ANSWER
        unknown = np.argsort(halves[:, 0])  # neighbours in the file one after the other
        step = max(1, GROUP_BYTES // self._type.itemsize)
        for table in TABLES:
            if not len(unknown) or self._is_empty(table):
                continue
            parts = [unknown[start : start + step] for start in range(0, len(unknown), step)]
            unknown = np.concatenate([part[~self._take(table, part, halves, records)] for part in parts])
        return Found(keys, records["class"], records["score"], records["probs"] if self._gives_probs else None)

    def _take(self, table: str, positions: Array, halves: Array, records: Array) -> Array:
        """Set the records at some positions to those of the table; returns where there was one."""
        read = self._read(table, halves[positions, 0])
        known = (read["check"] == halves[positions, 1]) & (read["class"] >= 0) & (read["class"] < self._num_classes)
        records[positions[known]] = read[known]
        if table == "older" and known.any():  # used again: it is to stay
            self._wait(halves[positions[known]].tobytes(), read[known])
        return np.asarray(known)

    def _is_empty(self, table: str) -> bool:
        with reuse_errors(self.path), self._reading:
            found = self._reader.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - of TABLES
        return found is None

    def _read(self, table: str, ids: Array) -> Array:
        """The records with these ids; where there is none, one without an answer."""
        nothing = np.zeros((), self._type)
        nothing["class"] = NO_ANSWER
        blank, size = nothing.tobytes(), self._type.itemsize
        query = f"SELECT answer FROM json_each(?) LEFT JOIN {table} AS kept ON kept.key = value"  # noqa: S608 - of TABLES
        with reuse_errors(self.path), self._reading:
            rows = self._reader.execute(query, (msgspec.json.encode(ids.tolist()).decode(),)).fetchall()
        # Half a key may be that of an answer under another context, of another width; damage may leave no bytes.
        answers = [answer if isinstance(answer, bytes) and len(answer) == size else blank for (answer,) in rows]
        return np.frombuffer(b"".join(answers), self._type)

    # -- answers in

    def remember(self, keys: Sequence[bytes], answers: Answers, names: Mapping[int, str]) -> None:
        """Keep the sound ones of these answers with the next commit; `names` are those of the model's classes."""
        self._wait(*records_of(keys, answers, names, self._classes))

    def _wait(self, keys: bytes, records: Array) -> None:
        with self._adding:  # a flush in another thread takes the list away
            if self._waiting_bytes < MOST_WAITING:
                self._waiting.append((keys, records))
                self._waiting_bytes += len(keys) + records.nbytes

    def flush(self, *, now: bool = False) -> None:
        """Commit what waits if it is much or old; if other runs keep the file, later. With `now` all of it, at once."""
        with reuse_errors(self.path), self._lock:
            with self._adding:
                is_due = self._waiting_bytes >= GROUP_BYTES or self._clock() - self._committed >= GROUP_S
                if not self._waiting or not (now or is_due):
                    return
                keys, records = zip(*self._waiting, strict=True)
                self._waiting, self._waiting_bytes = [], 0
            halves, whole = halves_of(b"".join(keys)), np.concatenate(records)
            order = np.argsort(halves[:, 0], kind="stable")  # neighbours in the file one after the other
            try:
                self._commit(halves[order], whole[order])
            except sqlite3.OperationalError as error:
                if now or not is_busy(error):
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
        """Whether the newer answers take half of what is allowed, less what the next slice may take."""
        used, older = self._used_pages(), self._writer.execute("SELECT total(older_pages) FROM turned").fetchone()[0]
        return bool(used - older >= self._pages // 2 - self._pages // SLICES or used >= self._pages)

    def _turn(self) -> None:
        """The answers become the older ones, and what was older is gone; so are contexts that nobody used since."""
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
        """The context of this run is in use."""
        self._writer.execute(
            "INSERT INTO contexts VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET is_recent = 1 WHERE NOT is_recent",
            (self._context, self._identity, self._classes),
        )

    def close(self, *, keep: bool = True) -> None:
        """Commit what waits, if it is to be kept and as far as that goes, and close the file."""
        try:
            if keep:
                self.flush(now=True)
        finally:
            with self._lock, self._reading, suppress(sqlite3.Error):
                self._reader.close()
                self._writer.close()


def _key_of(identity: str, classes: int) -> bytes:
    """What the keys of a context's answers are made with."""
    return hashlib.blake2b(f"{classes} {identity}".encode(), digest_size=KEY_BYTES).digest()
