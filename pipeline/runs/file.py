"""One file of a run: opened before anything is sent, its output locked; and what both passes know of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import Feed
from pipeline.checkpoint import Checkpoint, Identity, digest_file, identity_of
from pipeline.checkpoint.store import Row
from pipeline.config import PIPE, Config
from pipeline.errors import ConfigError, InputError, OutputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.registry import compression_of, format_by_ending
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import dialect_of, estimate_rows, open_source
from pipeline.monitoring.progress import Counts, Progress
from pipeline.monitoring.record import RunRecord, nothing_to_do
from pipeline.runs.open_rows import OpenRows
from pipeline.runs.output import Next, Output, locate_output, make_directory, output_at
from pipeline.runs.plan import Pair, Plan
from pipeline.storage import Location
from pipeline.storage.store import MOST_PARTS
from pipeline.writer import check_types

SMALL = 1 << 18  # bytes of an input that is read once, into memory, and whose answers are kept there at first
PERSIST_AFTER_S = 0.4  # with one more tick of the run, far less than a second of answers is only in memory


@dataclass(eq=False)
class RunFile(OpenRows):
    """An input with its output, its checkpoint, and what was learned while its rows were answered.

    `busy` is held while its checkpoint is committed, or read for the output.
    """

    output: Output
    checkpoint: Checkpoint
    started: datetime
    began_s: float  # in the time of the run
    counts: Counts = field(default_factory=Counts)  # of this file
    run_counts: Counts | None = None  # of the run, if this is its only file: canaries are on its account, too
    is_expected_exactly: bool = False
    expected: int = field(init=False)  # rows, as far as that can be told before they are read
    known_total: int | None = field(init=False)  # rows in the input, as far as that was known before they are read
    answered_s: float | None = None  # when the first answer came, in the time of the run
    all_answered: threading.Event = field(default_factory=threading.Event)  # or they never will be
    busy: threading.RLock = field(default_factory=threading.RLock)
    is_closed: bool = False  # its checkpoint is
    mark: tuple[int, ...] | None = field(init=False)  # of the input, before its rows are read

    def __post_init__(self) -> None:
        self.mark = self.source.location.mark()
        # What was learned of the model stays valid; the rest was compared by `Output.decide`.
        self.identity = (self.checkpoint.get("identity") or {}) | self.identity
        known = self.source.total_rows
        self.known_total = self.checkpoint.get("total_rows") if known is None else known
        limits = [rows for rows in (self.known_total, self.config.run.limit_rows) if rows is not None]
        ranges = self.checkpoint.open_ranges(min(limits, default=None))
        self.feed = Feed(self.source, self.spec, ranges, self.checkpoint.position_before)
        self.counts.resume(*self.checkpoint.counts())
        self.expected = self.wanted or 0

    @property
    def shown(self) -> str:
        """See `OpenRows.shown`."""
        return str(self.output.location)

    @property
    def total(self) -> int | None:
        """The rows in the input, once that is known."""
        return self.feed.total if self.known_total is None else self.known_total

    @property
    def wanted(self) -> int | None:
        """See `OpenRows.wanted`."""
        known = [count for count in (self.total, self.config.run.limit_rows) if count is not None]
        return min(known, default=None)

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the input are wanted, and none failed."""
        return self.total is not None and self.wanted == self.total and not self.counts.rows_failed

    def store(self, chunk: Chunk, answers: Answers, spent: Counts, num_classes: int, now_s: float) -> None:
        """See `OpenRows.store`."""
        self.checkpoint.add(chunk.first_row, chunk.position, answers, num_classes)
        self.counts.add(spent)
        self.answered_s = self.answered_s or now_s
        self.unanswered -= len(answers)

    def keep_identity(self) -> None:
        """See `OpenRows.keep_identity`: what stands at the output's place is no longer what the checkpoint is for."""
        self.checkpoint.put(identity=self.identity, published=None)

    def keep_facts(self) -> None:
        """See `OpenRows.keep_facts`."""
        self.checkpoint.put_later(identity=self.identity, total_rows=self.total)

    def take(self, records: list[Row], labels: Sequence[str], spent: Counts, now_s: float) -> None:
        """Keep answers as a worker sends them, see `Checkpoint.add_records`."""
        self.checkpoint.add_records(records, labels)
        self.counts.add(spent)
        self.answered_s = self.answered_s or now_s

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


OTHER_THRESHOLDS = "is made again with other thresholds; only run.reuse keeps the answers of a complete output"
MOST_DOUBTFUL = 5  # files of a run of which it is said that another dialect would fit


def open_checked(config: Config, location: Location) -> tuple[Source, TextSpec]:
    """Return an input and what its texts are made of, checked as far as that goes without a server."""
    source = open_source(config.loader, location)
    if source.is_empty and not config.run.allow_empty:
        raise InputError(f"{source.path}: is empty; if that is all right, --set run.allow_empty=true")
    spec = TextSpec(config.loader)
    if not source.is_empty:
        source.check(spec, AppendedColumns(config, 0).names)
    return source, spec


def output_of(config: Config, pair: Pair, source: Source) -> tuple[Config, Output]:
    """Return where the output of a pair goes, and the config with that as its output."""
    named, location = config.writer.output, pair.output
    if location is None:
        if not named and source.location.is_piped:
            raise ConfigError(f"no output; name one with --output, {PIPE} for standard output")
        location = locate_output(config, named, source.location)
    may_make_directory = pair.output is not None or named.endswith("/")
    output = output_at(config, location, source.location, pair.folder, may_make_directory=may_make_directory)
    _see_fitting(config, source, output.location)
    writer = msgspec.structs.replace(config.writer, output=str(output.location))
    return msgspec.structs.replace(config, writer=writer), output


def _see_fitting(config: Config, source: Source, output: Location) -> None:
    """See that a store takes an output as large as its input, where it will not be smaller.

    Raises:
        OutputError: it does not.
    """
    largest = output.store.largest if output.store is not None else None
    if largest is None or config.run.limit_rows is not None:
        return
    mine, its = ((format_by_ending(name), compression_of(name)) for name in (output.name, source.location.name))
    if mine != its:
        return
    size = source.location.look()[1]
    if size > largest:
        raise OutputError(
            f"{output}: the input has {size / 1e9:,.0f} GB, and an object can be written there up to "
            f"{largest / 1e9:,.0f} GB ({MOST_PARTS:,} parts); write it to a disk and copy it, or cut the input"
        )


@dataclass(frozen=True)
class Look:
    """What `Opener.open` would meet in a file, and do with its output."""

    source: Source
    spec: TextSpec
    output: Output
    next: Next
    record: RunRecord | None  # of an output that is complete
    begun: Identity  # of the answers that are there
    answered: int  # rows that will not be sent

    @property
    def way(self) -> str:
        """What becomes of the output, in words."""
        if self.output.is_rewritten:
            return OTHER_THRESHOLDS
        if self.next is Next.FRESH:
            return "exists, will be replaced" if self.output.location.exists() else "will be made"
        if self.next is Next.RESUME:
            return "goes on from there"
        held = self.record.held if self.record is not None else None
        return f"held as {held.output}" if held else "complete already, nothing to do"


def look(config: Config, pair: Pair) -> Look:
    """Look at a file as `Opener.open` does, and change nothing.

    Raises:
        ClassifyError: it can't be classified, or not now.
    """
    if pair.trouble is not None:
        raise pair.trouble
    source, spec = open_checked(config, pair.source)
    if config.writer.output == PIPE:
        check_types(config, source)
        return Look(source, spec, Output(Location("stdout", "stdout")), Next.FRESH, None, {}, 0)
    config, output = output_of(config, pair, source)
    check_types(config, source)
    output.lock.see_free()
    decision = output.decide(config, identity_of(config, digest_file(source.location)), only_look=True)
    if decision is Next.DONE and (record := output.kept) is not None:
        return Look(source, spec, output, decision, nothing_to_do(record, datetime.now(UTC), 0.0), {}, record.rows)
    if decision is Next.FRESH:
        return Look(source, spec, output, decision, None, {}, 0)
    with closing(Checkpoint(output.checkpoint_path, read_only=True)) as checkpoint:
        rows, codes = checkpoint.counts()
        again = sum(count for code, count in codes.items() if code != "empty") if config.run.retry_failed else 0
        return Look(source, spec, output, decision, None, checkpoint.get("identity") or {}, rows - again)


class Opener:
    """Opens the files of one run. `private` is a directory of its own, for what is written to standard output."""

    def __init__(
        self, config: Config, plan: Plan, progress: Progress, private: Path | None, *, reads_ahead: bool = True
    ) -> None:
        self._config, self._plan, self._progress, self._private = config, plan, progress, private
        self._reads_ahead = reads_ahead  # small files, whose rows are answered in this process
        self._doubtful = 0  # files whose first rows look as if they were written in another way
        self._is_told = False  # that an output is made again, of the first one
        self._writable: set[str] = set()  # directories in stores that are known to take outputs

    def open(self, pair: Pair) -> RunFile | RunRecord:
        """Return the file, its output locked until it is closed; or its record if there is nothing to do."""
        if pair.trouble is not None:
            raise pair.trouble
        source, spec = open_checked(self._config, pair.source.loaded(SMALL))
        self._tell_doubts(source)
        began_s, started = self._progress.elapsed_s, datetime.now(UTC)
        if self._private is not None and self._config.writer.output == PIPE:
            config, output = self._config, Output(Location("stdout", str(self._private / "stdout")))
        else:
            config, output = output_of(self._config, pair, source)
        check_types(config, source)
        if output.location.store is None:
            for location in {output.location, output.target}:
                make_directory(Path(location.path).parent)
        identity = identity_of(config, digest_file(source.location))
        with ExitStack() as held:
            held.enter_context(output.lock)
            decision = output.decide(config, identity)
            record = output.kept if decision is Next.DONE else None
            if record is not None:
                self._plan.note_complete(output, record)
                return nothing_to_do(record, started, self._progress.elapsed_s - began_s)
            if output.location.folder not in self._writable:
                output.see_writable()
                self._writable.add(output.location.folder)
            if output.is_rewritten and not self._is_told:
                self._is_told = True
                self._progress.notice(f"{output.location}: {OTHER_THRESHOLDS}")
            checkpoint = held.enter_context(closing(self._checkpoint(output, source, decision)))
            file = RunFile(config, source, spec, identity, output, checkpoint, started, began_s)
            file.run_counts = self._progress if self._plan.is_single else None
            self._look_at_rows(file)
            held.pop_all()
        return file

    def _tell_doubts(self, source: Source) -> None:
        """Say what would fit the first rows of a text file better, of a few files: the others are like them."""
        if self._doubtful < MOST_DOUBTFUL:
            _, doubts = dialect_of(source)
            self._doubtful += len(doubts)
            for each in doubts:
                self._progress.notice(each)

    def _checkpoint(self, output: Output, source: Source, decision: Next) -> Checkpoint:
        """Return a checkpoint in memory for a small new file among many: one on the disk costs more than its answers.

        A run of a single file has one on the disk from the start, where `status` and other runs see it.
        """
        is_small = source.location.content is not None and not self._plan.is_single
        is_new = not output.location.exists() and not (output.holds and output.waiting.record_location.exists())
        if is_small and decision is Next.FRESH and is_new:
            return Checkpoint(output.checkpoint_path, in_memory=True)
        checkpoint = Checkpoint(output.checkpoint_path)
        if self._config.run.retry_failed and (reopened := checkpoint.reopen_failed()):
            self._progress.notice(f"{output.location}: {reopened:,} failed rows are classified again")
        return checkpoint

    def _look_at_rows(self, file: RunFile) -> None:
        """Read the rows of a small file, which spares changes of threads; estimate how many a large one has."""
        if file.checkpoint.is_in_memory and self._reads_ahead:
            rows, is_exact = file.feed.read_ahead(), False
        else:
            rows, is_exact = estimate_rows(file.source, file.spec)
        file.expected = rows if file.wanted is None else min(rows, file.wanted)
        file.is_expected_exactly = is_exact or file.total is not None
