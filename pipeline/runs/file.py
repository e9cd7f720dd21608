"""One file of a run: what both passes know of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import Feed
from pipeline.checkpoint import Checkpoint, Identity
from pipeline.config import Config
from pipeline.errors import ClassifyError, OutputHeld, UserError
from pipeline.formats.source import Source, TextSpec
from pipeline.monitoring.progress import Counts
from pipeline.runs.output import Output

OF_ONE_FILE = (UserError, OutputHeld)  # errors that concern one file, and not the others of a run
PERSIST_AFTER_S = 0.4  # with one more tick of the run, far less than a second of answers is only in memory


@dataclass(eq=False)
class RunFile:
    """An input with its output, its checkpoint, and what was learned while its rows were answered.

    `busy` is held while its checkpoint is committed, or read for the output.
    """

    config: Config
    source: Source
    spec: TextSpec
    output: Output
    checkpoint: Checkpoint
    identity: Identity
    started: datetime
    began_s: float  # in the time of the run
    counts: Counts = field(default_factory=Counts)  # of this file
    run_counts: Counts | None = None  # of the run, if this is its only file: canaries are on its account, too
    is_expected_exactly: bool = False
    expected: int = field(init=False)  # rows, as far as that can be told before they are read
    total: int | None = field(init=False)  # rows in the input, once that is known
    feed: Feed = field(init=False)  # the rows that are open
    unanswered: int = 0  # chunks that were sent and not answered yet
    answered_s: float | None = None  # when the first answer came, in the time of the run
    is_adopted: bool = False  # its model is known to be the one that answers
    is_read: bool = False  # no more chunks will come
    all_answered: threading.Event = field(default_factory=threading.Event)  # or they never will be
    busy: threading.RLock = field(default_factory=threading.RLock)
    is_closed: bool = False  # its checkpoint is
    error: ClassifyError | None = None  # why no more chunks came
    mark: tuple[int, ...] | None = field(init=False)  # of the input, before its rows are read

    def __post_init__(self) -> None:
        self.mark = self.source.location.mark()
        # What was learned of the model stays valid; the rest was compared by `Output.decide`.
        self.identity = (self.checkpoint.get("identity") or {}) | self.identity
        known = self.source.total_rows
        self.total = self.checkpoint.get("total_rows") if known is None else known
        ranges = self.checkpoint.open_ranges(self.wanted)
        self.feed = Feed(self.source, self.spec, ranges, self.checkpoint.position_before)
        self.counts.resume(*self.checkpoint.counts())
        self.expected = self.wanted or 0

    @property
    def wanted(self) -> int | None:
        """The rows that the output will have, as far as that is known."""
        known = [count for count in (self.total, self.config.run.limit_rows) if count is not None]
        return min(known, default=None)

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the input are wanted, and none failed."""
        return self.total is not None and self.wanted == self.total and not self.counts.rows_failed

    def store(self, chunk: Chunk, answers: Answers, spent: Counts, num_classes: int, now_s: float) -> None:
        """Keep the answers of a chunk's rows; `num_classes` > 0: with their probabilities."""
        self.checkpoint.add(chunk.first_row, chunk.position, answers, num_classes)
        self.counts.add(spent)
        self.answered_s = self.answered_s or now_s
        self.unanswered -= 1

    def is_due(self, now_s: float) -> bool:
        """Return whether a kill should cost no answer any more: of a small file in its first moments it may."""
        if self.checkpoint.is_in_memory:
            return self.answered_s is not None and now_s - self.answered_s >= PERSIST_AFTER_S
        return True

    def commit_if_free(self) -> None:
        """Commit what was stored, unless its output is being written."""
        if self.busy.acquire(blocking=False):
            try:
                if not self.is_closed:
                    self.checkpoint.flush()
            finally:
                self.busy.release()

    def keep(self) -> None:
        """Commit all that was stored, durably; nothing is made for a file that has no answer yet."""
        with self.busy:
            if not self.checkpoint.is_in_memory or self.counts.rows_done:
                self.checkpoint.flush()

    def forget(self) -> None:
        """Remove the checkpoint: the output is there and whole."""
        with self.busy:
            self.is_closed = True
            self.checkpoint.remove()

    def close(self) -> None:
        """Release checkpoint and output; what was not kept is gone."""
        with self.busy:
            self.is_closed = True
            self.checkpoint.close()
        self.output.lock.release()
