"""The output of one file: where it goes, whether an existing one is ours, and what the same command does again.

Raises (from all that looks at a file of a store):
    StoreRefused, StoreGone: see `storage.store.Store`.
"""

from __future__ import annotations

import os
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any, cast

from pipeline.checkpoint import Checkpoint, Identity, Lock, differences, digest_file
from pipeline.checkpoint.identity import COMBINE, Difference, was_piped
from pipeline.checkpoint.store import remove
from pipeline.config import PIPE, Config, public_settings
from pipeline.errors import CheckpointMismatch, ClassifyError, ConfigError, OutputError
from pipeline.formats.registry import endings_in_words, format_by_ending, format_of, without_compression
from pipeline.monitoring.record import RunRecord, read_record
from pipeline.runs.waiting import Waiting, accepted
from pipeline.storage import Kind, Location, locate
from pipeline.storage.draft import move
from pipeline.storage.draft import remove as remove_file
from pipeline.storage.state import state_of, state_root

DIRECTORY_RECORD = ".classify.run.json"
THRESHOLDS = {"writer.min_score", "writer.unsure_label", "writer.multi_label", "writer.top_k"}
LONGEST_NAME = 230  # bytes: file systems take 255, and the longest of our names beside it adds 23


def default_output(config: Config, source: Location) -> Location:
    """Return where the output goes by default."""
    stem, dot, endings = source.name.partition(".")
    return source.beside(named_for(config, f"{stem}_labelled{dot}{endings}"))


def locate_output(config: Config, named: str, source: Location) -> Location:
    """Where the output goes: as named, into a directory under the input's name, or beside the input as NAME_labelled.

    Raises:
        OutputError: it is a file and should be a directory.
    """
    if not named:
        return default_output(config, source)
    location = locate(named)
    kind, _ = location.look()
    if location.is_folder and kind not in (Kind.DIRECTORY, Kind.NOTHING):
        raise OutputError(f"{location}: is a file, not a directory; choose another output")
    inside = location.is_folder or kind is Kind.DIRECTORY
    return location.within(named_for(config, source.name)) if inside else location


def output_at(
    config: Config, location: Location, source: Location, folder: Location | None = None, *, may_make_directory: bool
) -> Output:
    """Return the output of one input at a location that was chosen for it, perhaps in a directory of outputs.

    Raises:
        ConfigError: the ending names no format, or input and output are the same file.
        OutputError: its directory is missing, or its name too long.
    """
    file_format = format_of(location.path, config.writer.format, "writer.format", location.shown)
    if not file_format.writer:
        endings = endings_in_words(only_written=True)
        raise ConfigError(f"{location}: {file_format.name} files are only read; name an output that ends in {endings}")
    if location.store is not None and not location.store.is_written:
        raise ConfigError(f"{location}: web servers are only read; name an output with --output")
    if not file_format.is_text and without_compression(location.name) != location.name:
        title = file_format.name.capitalize()
        raise ConfigError(f"{location}: {title} is compressed inside (writer.compression); leave out the last ending")
    compression = config.writer.compression
    if file_format.codecs and compression not in (None, "none", *file_format.codecs):
        codecs = " or ".join(file_format.codecs)
        raise ConfigError(f"{location}: {file_format.name} takes {codecs}, not writer.compression = {compression!r}")
    if location.store is None:
        _check_on_disk(location, may_make_directory=may_make_directory)
    if _is_same_file(location, source):
        raise ConfigError(f"{location}: is the input; the output must be another file")
    return Output(location, config.run.state_dir, folder, holds=config.report.holds)


def _check_on_disk(location: Location, *, may_make_directory: bool) -> None:
    if len(os.fsencode(location.name)) > LONGEST_NAME:
        advice = f"choose one of {LONGEST_NAME} bytes"
        raise OutputError(f"{location}: the name is too long to keep files beside it; {advice}")
    if location.look()[0] is Kind.OTHER:
        raise OutputError(f"{location}: is no regular file; choose another output, or {PIPE} for standard output")
    if not may_make_directory and not (folder := Path(location.path).parent).is_dir():
        raise OutputError(f"{location}: its directory {folder} does not exist; make it, or choose another output")


def named_for(config: Config, name: str) -> str:
    """Return the name of the output in a directory: that of the input, with the ending of the output's format."""
    found = format_by_ending(name)
    wanted = config.writer.format or (found.written_as if found else None)
    if not wanted or format_of(name, wanted, "writer.format") == found:
        return name
    folder, slash, last = without_compression(name).rpartition("/")
    return f"{folder}{slash}{Path(last).stem}.{wanted}"


def lock_of_directory(folder: Location, state_dir: str | None) -> Lock:
    """Return the lock of a directory of outputs: a second run learns at once, not file by file, that it is in use."""
    if folder.store is None and not state_dir:
        return Lock(Path(folder.path) / ".classify.lock")
    state = state_of(state_root(state_dir), folder)
    return Lock(state.with_name(f"{state.name}.lock"), state)


def record_of_directory(folder: Location) -> Location:
    """Return where it is written down how the last run of a directory of outputs ended, or that it has begun."""
    return folder.within(DIRECTORY_RECORD)


def _is_same_file(one: Location, other: Location) -> bool:
    if one.store is not None or other.store is not None:
        return one.key == other.key
    try:
        return os.path.samefile(one.path, other.path)  # noqa: PTH121 - a Path costs more, for each of many files
    except OSError:  # one of them is not there
        return False


class Next(Enum):
    """What is to be done with an output."""

    DONE = "it is complete: nothing"
    FRESH = "start from the first row"
    RESUME = "go on from the checkpoint"


def make_directory(path: Path) -> None:
    """Make a directory and those above it; an OutputError says why that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: can't be made: {error.strerror}; choose another output") from None


class Output:
    """An output and the files the run keeps for it.

    They stand beside it, under dot names, so that readers of directories skip them. Where a store or `run.state_dir` is
    concerned, checkpoint and lock stand in the state directory; the record is beside the output always, so that
    the one is always found with the other. One that `holds` is written to the place where it waits to be judged.
    """

    def __init__(
        self, location: Location, state_dir: str | None = None, folder: Location | None = None, *, holds: bool = False
    ) -> None:
        if not location.name:
            raise OutputError(f"{location}: is no file; name the output of a run")
        self.location = location
        self.record_location = location.beside(f".{location.name}.run.json")
        if location.store is None and not state_dir:
            self.checkpoint_path = Path(location.beside(f".{location.name}.checkpoint").path)
            self.lock = Lock(Path(location.beside(f".{location.name}.lock").path))
        else:
            state = state_of(state_root(state_dir), location)
            self.checkpoint_path = state / "checkpoint"
            self.lock = Lock(state.with_name(f"{state.name}.lock"), state)
        self.waiting = Waiting(location, self.record_location, folder)
        self.holds = holds
        self.target = self.waiting.hidden if holds else location  # what is written
        self.target_record = self.waiting.record_location if holds else self.record_location
        self.kept: RunRecord | None = None  # of the output that `decide` found complete, in its place or waiting
        self.has_waiting = False  # whether that one waits
        self.is_rewritten = False  # with other thresholds, though its answers are gone
        self._there: str | None = None  # the digest of what stood there when it was decided what to do
        # A draft is renamed into its place on a disk, so it stands beside it.
        self.draft_path = None if location.store is None else self.checkpoint_path.with_name("draft")

    @property
    def record(self) -> RunRecord | None:
        """The record of the run that made the output."""
        return read_record(self.record_location, RunRecord)

    def see_writable(self) -> None:
        """See that a store takes what this run will bring, before anything is paid for: by a record of nothing yet.

        Where an output may be held, also that it can be moved and removed there.
        """
        if self.location.store is None:
            return
        if self.holds and not self.waiting.record_location.exists():
            self.waiting.record_location.put(iter([b""]))
            if self.record_location.exists():
                remove_file(self.waiting.record_location)
            else:
                move(self.waiting.record_location, self.record_location)
        elif not self.record_location.exists():
            self.record_location.put(iter([b""]))

    def decide(self, config: Config, identity: Identity, *, only_look: bool = False) -> Next:
        """Decide what the command does, by the table in docs/resume-and-reuse.md.

        A checkpoint of no more use is removed, unless we `only_look`.

        Raises:
            OutputError: there is a file that is not ours. CheckpointMismatch: what was begun is of another run.
        """
        was_begun = self.checkpoint_path.exists()
        checkpoint = None
        if was_begun and not config.run.restart:
            checkpoint = Checkpoint(self.checkpoint_path, read_only=only_look)
        try:
            published = checkpoint.get("published") if checkpoint else self.published()
            there = self._there = digest_file(self.location) if self.location.exists() else None
            record = None if there is None else self.record
            record, waits = self._look_at_waiting(config, there, record, published, only_look=only_look)
            made = record.output_digest if record else None
            if there not in (None, made, published) and not config.run.overwrite:
                raise OutputError(
                    f"{self.location}: exists, and was not made by this program (or changed since); "
                    f"choose another output, or replace it with --overwrite"
                )
            decision = Next.FRESH
            complete = self._complete(record, there, waits, checkpoint, published)
            if complete and not config.run.restart:
                decision = self._after_complete(config, identity, complete)
                self.has_waiting = self.kept is not None and self.kept is waits
                same = [each for each, _ in complete if each.identity["input"] == identity["input"]]
                self.is_rewritten = decision is Next.FRESH and bool(same)
            elif checkpoint is not None:
                decision = _after_interrupted(config, identity, checkpoint)
        finally:
            if checkpoint:
                checkpoint.close()
        if was_begun and not only_look and (decision is Next.FRESH or self._is_finished(decision, waits, published)):
            remove(self.checkpoint_path)  # killed before the clean-up, the second time
        return decision

    def _is_finished(self, decision: Next, waits: RunRecord | None, published: str | None) -> bool:
        """Return whether a checkpoint is of no more use: all is complete, and it is not that of another output."""
        kept = self.kept
        is_of_another = waits is not None and kept is not waits and published == waits.output_digest
        return decision is Next.DONE and kept is not None and kept.is_whole and not kept.failed and not is_of_another

    def _look_at_waiting(
        self, config: Config, there: str | None, record: RunRecord | None, published: str | None, *, only_look: bool
    ) -> tuple[RunRecord | None, RunRecord | None]:
        """Return the records of the output and of the one that waits, if one does; a move that was begun is settled."""
        made = record.output_digest if record else None
        is_cheap = self.location.store is None or config.report.is_wanted
        waits = self.waiting.record if is_cheap or there != made else None
        if waits is not None and not config.run.overwrite:
            self.waiting.see_unchanged(waits, published, instead="replace it with --overwrite")
        if self.holds and not config.run.overwrite:
            self.waiting.see_free(waits)
        if waits is None:
            return record, None
        if there == waits.output_digest != made:
            return (accepted(waits) if only_look else self.waiting.settle(waits)), None
        return record, waits if self.waiting.find(waits) is not None else None

    @staticmethod
    def _complete(
        record: RunRecord | None,
        there: str | None,
        waits: RunRecord | None,
        checkpoint: Checkpoint | None,
        published: str | None,
    ) -> list[tuple[RunRecord, Checkpoint | None]]:
        """Return the records of the complete outputs, the latest first, each with the checkpoint if that is its own."""
        found: list[tuple[RunRecord, Checkpoint | None]] = []
        is_of_waiting = waits is not None and (checkpoint is None or published == waits.output_digest)
        if waits is not None and is_of_waiting:
            found.append((waits, checkpoint))
        if record is not None and there == record.output_digest:
            if checkpoint is None or there == published:
                found.append((record, checkpoint))
            elif is_of_waiting:
                found.append((record, None))
        return found

    def _after_complete(
        self, config: Config, identity: Identity, complete: list[tuple[RunRecord, Checkpoint | None]]
    ) -> Next:
        """Decide what is done with outputs that are complete: the first that has this input counts."""
        for record, checkpoint in complete:
            if (decision := _after_complete(config, identity, record, checkpoint)) is not Next.FRESH:
                self.kept = record
                return decision
        return Next.FRESH

    def see_untouched(self, made: str) -> None:
        """See that no other program has put a file where the output goes, on a disk, since `decide`; `made` is ours."""
        if self.location.store is not None or not self.location.exists():
            return
        if digest_file(self.location) not in (self._there, made):
            raise OutputError(
                f"{self.location}: was put there by somebody else while this ran; what was answered is kept: "
                f"move it away, or replace it with --overwrite"
            )

    def published(self) -> str | None:
        """Return the digest that the checkpoint knows of the output, if there is one that can be read at all."""
        if not self.checkpoint_path.exists():
            return None
        try:
            with closing(Checkpoint(self.checkpoint_path, read_only=True)) as checkpoint:
                return cast("str | None", checkpoint.get("published"))
        except ClassifyError:
            return None


def _after_complete(config: Config, identity: Identity, record: RunRecord, checkpoint: Checkpoint | None) -> Next:
    other = _differences(record.identity, identity)
    if any(each.key == "input" for each in other):
        return Next.FRESH  # last night's file was replaced by tonight's
    if other:
        raise CheckpointMismatch(_refusal(config.writer.output, "was made", other))
    wanted = config.run.limit_rows
    other = _other_shape(config, record)
    if config.run.retry_failed and record.failed:
        _see_retried(config, record, checkpoint)
        return Next.RESUME
    if not other and (record.is_whole or (wanted is not None and wanted <= record.rows)):
        return Next.DONE
    if checkpoint is not None:
        return Next.RESUME
    if other and {each.key for each in other} <= THRESHOLDS:
        return Next.FRESH  # its answers are gone
    raise CheckpointMismatch(_refusal(config.writer.output, "was written", other))


def _differences(was: Identity, now: Identity) -> list[Difference]:
    """Compare identities, but let a run that had no texts in parts go on with them: whole texts are answered the same.

    With `request.max_text_chars` they would not be.
    """
    return [each for each in differences(was, now) if not (each.key == COMBINE and each.was is None)]


def _see_retried(config: Config, record: RunRecord, checkpoint: Checkpoint | None) -> None:
    """See that the rows that failed can be classified again."""
    wanted = config.run.limit_rows
    if checkpoint is None:
        raise CheckpointMismatch(f"{config.writer.output}: its checkpoint is gone; --restart classifies all rows again")
    if wanted is not None and wanted < record.rows:
        raise ConfigError(f"{config.writer.output}: has {record.rows:,} rows; --limit-rows {wanted} would drop some")


def _other_shape(config: Config, record: RunRecord) -> list[Difference]:
    """Compare what shapes the output; what becomes of long texts is nothing to an output without one."""
    other = differences(shape_of(record.settings), shape_of(public_settings(config)))
    had_long = record.failed or record.truncated or record.in_parts
    return [each for each in other if had_long or each.key != "request.too_long"]


def shape_of(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the settings that shape the output without changing an answer."""
    keys = ("writer.prefix", "writer.probs", "writer.labels", "writer.format", "request.too_long", *THRESHOLDS)
    return {key: settings.get(key.partition(".")[0], {}).get(key.partition(".")[2]) for key in keys}


def _after_interrupted(config: Config, identity: Identity, checkpoint: Checkpoint) -> Next:
    begun: dict[str, Any] | None = checkpoint.get("identity")
    if begun is None or was_piped(begun):  # killed before anything was kept; or there is nothing to go on with
        return Next.FRESH
    other = _differences(begun, identity)
    if any(each.key == "input" for each in other) and config.run.on_changed_input == "restart":
        return Next.FRESH
    now = config.request.too_long
    cut = now != "truncate" and checkpoint.has_truncated()
    more = [f"request.too_long: was truncate, and there are answers to cut texts, now {now}"] if cut else []
    if other or more:
        raise CheckpointMismatch(_refusal(config.writer.output, "was begun", other, *more))
    return Next.RESUME


def see_same_model(output: str, begun: Identity, found: Identity) -> None:
    """See that the model which answers is the one whose answers an output has already.

    Raises:
        CheckpointMismatch: it is another one.
    """
    if other := differences({key: begun.get(key) for key in found}, found):
        raise CheckpointMismatch(
            f"{output}: was begun with another model ({'; '.join(map(str, other))}); "
            f"start over with --restart, or choose another output"
        )


def _refusal(output: str, what: str, other: list[Difference], *more: str) -> str:
    advice = "start over with --restart, or choose another output"
    if not more and all(each.key == "input" for each in other):
        advice = f'{advice}; run.on_changed_input="restart" starts over what has changed, and nothing else'
    return f"{output}: {what} differently ({'; '.join([*map(str, other), *more])}); {advice}"
