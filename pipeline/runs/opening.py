"""Opens a file of a run before anything is sent: checked, its output locked, and what is left to do."""

from __future__ import annotations

from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline.checkpoint import Checkpoint, digest_file, identity_of
from pipeline.config import PIPE, Config
from pipeline.errors import ConfigError, InputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import estimate_rows, open_source
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord, nothing_to_do
from pipeline.runs.file import RunFile
from pipeline.runs.output import Next, Output, locate_output, make_directory, output_at
from pipeline.runs.plan import Pair, Plan
from pipeline.storage import Location
from pipeline.writer import check_types

SMALL = 1 << 18  # bytes of an input that is read once, into memory, and whose answers are kept there at first


def open_checked(config: Config, location: Location) -> tuple[Source, TextSpec]:
    """Return an input and what its texts are made of, checked as far as that goes without a server."""
    source = open_source(config.loader, location)
    if source.is_empty and not config.run.allow_empty:
        raise InputError(f"{source.path}: is empty, not even a header; set run.allow_empty if that is all right")
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
    output = output_at(config, location, source.location, may_make_directory=may_make_directory)
    writer = msgspec.structs.replace(config.writer, output=str(output.location))
    return msgspec.structs.replace(config, writer=writer), output


class Opener:
    """Opens the files of one run. `private` is a directory of its own, for what is written to standard output."""

    def __init__(self, config: Config, plan: Plan, progress: Progress, private: Path | None) -> None:
        self._config, self._plan, self._progress, self._private = config, plan, progress, private
        self._writable: set[str] = set()  # directories in stores that are known to take outputs

    def open(self, pair: Pair) -> RunFile | RunRecord:
        """Return the file, its output locked until it is closed; or its record if there is nothing to do."""
        if pair.trouble is not None:
            raise pair.trouble
        source, spec = open_checked(self._config, pair.source.loaded(SMALL))
        began_s, started = self._progress.elapsed_s, datetime.now(UTC)
        if self._private is not None and self._config.writer.output == PIPE:
            config, output = self._config, Output(Location("stdout", str(self._private / "stdout")))
        else:
            config, output = output_of(self._config, pair, source)
        check_types(config, source)
        if output.location.store is None:
            make_directory(Path(output.location.path).parent)
        identity = identity_of(config, digest_file(source.location))
        with ExitStack() as held:
            held.enter_context(output.lock)
            decision = output.decide(config, identity)
            record = output.record if decision is Next.DONE else None
            if record is not None:
                return nothing_to_do(record, started, self._progress.elapsed_s - began_s)
            if output.location.folder not in self._writable:
                output.see_writable()
                self._writable.add(output.location.folder)
            checkpoint = held.enter_context(closing(self._checkpoint(output, source, decision)))
            file = RunFile(config, source, spec, output, checkpoint, identity, started, began_s)
            file.run_counts = self._progress if self._plan.is_single else None
            self._look_at_rows(file)
            held.pop_all()
        return file

    def _checkpoint(self, output: Output, source: Source, decision: Next) -> Checkpoint:
        """Return a checkpoint in memory for a small new file among many: one on the disk costs more than its answers.

        A run of a single file has one on the disk from the start, where `status` and other runs see it.
        """
        is_small = source.location.content is not None and not self._plan.is_single
        if is_small and decision is Next.FRESH and not output.location.exists():
            return Checkpoint(output.checkpoint_path, in_memory=True)
        checkpoint = Checkpoint(output.checkpoint_path)
        if self._config.run.retry_failed and (reopened := checkpoint.reopen_failed()):
            self._progress.notice(f"{output.location}: {reopened:,} failed rows are classified again")
        return checkpoint

    def _look_at_rows(self, file: RunFile) -> None:
        """Read the rows of a small file, which spares changes of threads; estimate how many a large one has."""
        if file.checkpoint.is_in_memory:
            file.feed.read_ahead()
            return
        rows, is_exact = estimate_rows(file.source, file.spec)
        limit = file.config.run.limit_rows
        file.expected = min(rows, file.wanted or rows, rows if limit is None else limit)
        file.is_expected_exactly = is_exact or file.total is not None
