"""What the two passes share of one file."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import Feed
from pipeline.checkpoint import Checkpoint, Identity, MemoryCheckpoint
from pipeline.config import Config
from pipeline.errors import ClassifyError
from pipeline.formats.source import Source, TextSpec
from pipeline.monitoring.progress import Counts, Progress
from pipeline.runs.output import Output

LATE_S = 0.4  # with one tick more, still so


@dataclass(eq=False)
class Context:
    """One file of a run: from what, to where, what is known of it."""

    config: Config
    source: Source
    spec: TextSpec
    place: Output
    checkpoint: Checkpoint | MemoryCheckpoint
    identity: Identity
    progress: Progress  # of the whole command
    counts: Counts  # of this file; the same object if the command is about one file
    started: datetime
    began_s: float  # in the command's time
    total: int | None = field(init=False)  # rows in the input, once that is known
    feed: Feed = field(init=False)  # its open rows
    under_way: int = 0  # chunks that have no predictions yet
    answered_s: float | None = None  # when the first answer came, in the command's time
    is_adopted: bool = False  # the model that answers is that of this file
    is_read: bool = False  # there are no more chunks
    busy: threading.RLock = field(default_factory=threading.RLock)  # held by whoever commits or publishes
    is_closed: bool = False  # so is the checkpoint
    error: ClassifyError | None = None  # why there are no more
    mark: tuple[int, ...] | None = field(init=False)  # of the input, before its rows are read

    def __post_init__(self) -> None:
        self.mark = self.source.location.mark()
        # What was learned of the model goes on counting; the rest was compared by `Output.decide`.
        self.identity = (self.checkpoint.get("identity") or {}) | self.identity
        known = self.source.total_rows
        self.total = self.checkpoint.get("total_rows") if known is None else known
        self.feed = Feed(
            self.source,
            self.spec,
            ranges=self.checkpoint.open_ranges(self.wanted),
            position_before=self.checkpoint.position_before,
        )

    @property
    def wanted(self) -> int | None:
        """How many rows the output will have, as far as that is known."""
        known = [count for count in (self.total, self.config.run.limit_rows) if count is not None]
        return min(known, default=None)

    def store(self, chunk: Chunk, answers: Answers, spent: Counts, num_classes: int) -> None:
        """Keep the answers of a chunk's rows; `num_classes` > 0: with their probabilities."""
        self.checkpoint.add(chunk.first_row, chunk.position, answers, num_classes)
        if self.counts is not self.progress:
            self.counts.add(spent)
        self.answered_s = self.answered_s or self.progress.elapsed_s
        self.under_way -= 1

    @property
    def is_brief(self) -> bool:
        """Whether it is done, and nothing of it needs to outlast the command but an output on a disk."""
        is_whole = self.total is not None and self.wanted == self.total
        is_clean = is_whole and not self.counts.rows_failed and self.place.location.store is None
        return isinstance(self.checkpoint, MemoryCheckpoint) and is_clean

    def settle(self) -> Checkpoint:
        """Have the checkpoint on the disk from now on; while no predictions come."""
        if isinstance(self.checkpoint, MemoryCheckpoint):
            self.checkpoint = self.checkpoint.settle()
        return self.checkpoint

    def is_late(self, now_s: float) -> bool:
        """Whether its answers have been in memory for so long that a kill should not cost them any more."""
        return (
            isinstance(self.checkpoint, MemoryCheckpoint)
            and self.answered_s is not None
            and now_s - self.answered_s >= LATE_S
        )

    def settle_meanwhile(self) -> None:
        """The same while others may be about to publish it; nothing if it is being written."""
        if self.busy.acquire(blocking=False):
            try:
                self.settle()
            finally:
                self.busy.release()

    def keep(self) -> None:
        """Commit all that was added, durably; nothing is made for a file that has no answer yet."""
        with self.busy:
            if not isinstance(self.checkpoint, MemoryCheckpoint) or self.counts.rows_done:
                self.settle().flush()

    def forget(self) -> None:
        """The output is there and whole: its checkpoint goes, if it has one on the disk."""
        with self.busy:
            self.is_closed = True
            if isinstance(self.checkpoint, Checkpoint):
                self.checkpoint.remove()

    def flush_meanwhile(self) -> None:
        """Commit what was added, in a thread beside the others; nothing where the output is being made already."""
        if self.busy.acquire(blocking=False):
            try:
                if isinstance(self.checkpoint, Checkpoint) and not self.is_closed:
                    self.checkpoint.flush()
            finally:
                self.busy.release()

    def close(self) -> None:
        """Let go of checkpoint and output; what was not kept is gone."""
        with self.busy:
            self.is_closed = True
            self.checkpoint.close()
        self.place.lock.release()
