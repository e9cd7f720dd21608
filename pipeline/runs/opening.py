"""One file before anything is asked: opened and checked, its output locked, and what is left to do."""

from __future__ import annotations

from contextlib import ExitStack, closing
from datetime import UTC, datetime

import msgspec

from pipeline.checkpoint import Checkpoint, MemoryCheckpoint, digest_file, identity_of
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import open_source
from pipeline.monitoring.progress import Counts, Progress
from pipeline.monitoring.record import RunRecord, nothing_to_do
from pipeline.runs.file import Context
from pipeline.runs.output import Next, Output, place_at, place_output
from pipeline.runs.plan import Pair
from pipeline.storage import Location
from pipeline.writer import check_types

SMALL = 1 << 18  # bytes of a file that is read once, as a whole


def open_checked(config: Config, location: Location) -> tuple[Source, TextSpec]:
    """An input and what its text is made of, checked as far as that goes without a server.

    Raises:
        ConfigError, InputError: see `loader.open_source` and `Source.check`. StoreRefused, StoreGone: its store.
    """
    source = open_source(config.loader, location)
    if source.is_empty and not config.run.allow_empty:
        raise InputError(f"{source.path}: is empty, not even a header; set run.allow_empty if that is all right")
    spec = TextSpec(config.loader)
    if not source.is_empty:
        source.check(spec, AppendedColumns(config, 0).names)
    return source, spec


def place_of(config: Config, pair: Pair, source: Source) -> tuple[Config, Output]:
    """Where the output of a pair goes, and the config with that as its output.

    Raises:
        ConfigError, OutputError, StoreRefused, StoreGone: see `place_output`.
    """
    if pair.output is None:
        place = place_output(config, source.location)
    else:
        place = place_at(config, pair.output, source.location, may_make_directory=True)
    writer = msgspec.structs.replace(config.writer, output=str(place.location))
    return msgspec.structs.replace(config, writer=writer), place


class Opener:
    """Opens the files of one command: one, or one of many."""

    def __init__(self, config: Config, progress: Progress, *, is_one_of_many: bool) -> None:
        self._config, self._progress = config, progress
        self._is_one_of_many = is_one_of_many
        self._made: set[str] = set()  # directories of outputs
        self._proved: set[str] = set()  # those of stores that take what we bring

    def open(self, pair: Pair) -> Context | RunRecord:
        """The file, its output locked until it is closed; or its record if there is nothing to do.

        Raises:
            ClassifyError: it can't be classified, or not now; then nothing is locked.
        """
        if pair.trouble is not None:
            raise pair.trouble
        return self.open_source(pair, *open_checked(self._config, pair.source.loaded(SMALL)))

    def open_source(self, pair: Pair, source: Source, spec: TextSpec) -> Context | RunRecord:
        """`open` for an input that is open already."""
        began_s, started = self._progress.elapsed_s, datetime.now(UTC)
        config, place = place_of(self._config, pair, source)
        check_types(config, source)
        self._make_directory(place)
        identity = identity_of(config, digest_file(source.location))
        with ExitStack() as held:
            held.enter_context(place.lock)
            decision = place.decide(config, identity)
            record = place.record if decision is Next.DONE else None
            if record is not None:
                return nothing_to_do(record, started, self._progress.elapsed_s - began_s)
            self._prove_writable(place)
            checkpoint = held.enter_context(closing(self._checkpoint(place, decision)))
            counts = Counts() if self._is_one_of_many else self._progress
            context = Context(
                config, source, spec, place, checkpoint, identity, self._progress, counts, started, began_s
            )
            if isinstance(checkpoint, MemoryCheckpoint):
                context.feed.read_ahead()
            held.pop_all()
        return context

    def _checkpoint(self, place: Output, decision: Next) -> Checkpoint | MemoryCheckpoint:
        """One of many new files is done, most often, before a checkpoint on the disk would be of any use."""
        if self._is_one_of_many and decision is Next.FRESH and not place.location.exists():
            return MemoryCheckpoint(place.checkpoint_path)
        checkpoint = place.checkpoint()
        if self._config.run.retry_failed and (reopened := checkpoint.reopen_failed()):
            self._progress.notice(f"{place.location}: {reopened:,} failed rows are classified again")
        return checkpoint

    def _make_directory(self, place: Output) -> None:
        if place.location.folder not in self._made:
            place.make_directory()
        self._made.add(place.location.folder)

    def _prove_writable(self, place: Output) -> None:
        if place.location.folder not in self._proved:
            place.prove_writable()
        self._proved.add(place.location.folder)
