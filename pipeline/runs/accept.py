"""`classify accept`: a held output is put in its place, or thrown away."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pipeline.checkpoint import digest_file
from pipeline.checkpoint.store import remove as remove_checkpoint
from pipeline.config import Config
from pipeline.errors import OutputError
from pipeline.monitoring.record import Outcome, RunRecord, encode_record, read_record
from pipeline.runs.output import Output, lock_of_directory, record_of_directory
from pipeline.runs.waiting import FOLDER, accept_report, accepted, discard_report, remove_folder, waiting_paths
from pipeline.storage import Kind, Location, list_files
from pipeline.storage.draft import move, remove, write_whole


def accept(location: Location, state_dir: str | None, *, discard: bool) -> str:
    """Put what is held for an output, a file or a directory, in its place; or `discard` it. Return what was done.

    An acceptance that was begun and killed is completed, also if it is to be discarded now: readers may have seen it.
    So is a discard of a directory, also if it is to be accepted now: a part of it is gone.

    Raises:
        OutputError: nothing is held (any more), or not judged yet, or the output is no more what it was.
        OutputHeld: a run holds the output. StoreRefused, StoreGone: the output's store.
    """
    if location.look()[0] is Kind.DIRECTORY or location.is_folder:
        with lock_of_directory(location, state_dir):
            return _settled(location, outputs_in(location, state_dir), location, discard=discard)
    output = Output(location, state_dir)
    if output.record is None and output.waiting.record is None:  # then no lock is made either
        raise OutputError(_nothing(location))
    with output.lock:
        return _settled(location, [output], None, discard=discard)


def take_up(folder: Location, config: Config) -> None:
    """Complete, before a run opens the files of a directory, what was begun with those that are held there, once.

    A part of an accepted directory has been seen by readers, so the rest of it is accepted, too.

    Raises:
        OutputError: somebody has changed a file that is held, or one that would be replaced. StoreRefused, StoreGone.
    """
    if folder.store is not None and not config.report.is_wanted:
        return
    held = _held(outputs_in(folder, config.run.state_dir))
    if _is_being_discarded(held):
        _discarded(folder, held, folder)
        return
    if not config.run.overwrite:
        _see_unchanged(held, "replace it with --overwrite")
    if any(record.held is not None and _is_moved(output, record) for output, record in held):
        rest = [each for each in held if not _is_settled(*each)]
        _accepted(folder, rest, folder, overwrite=config.run.overwrite)
    _clear_settled(held, folder)


def outputs_in(folder: Location, state_dir: str | None) -> list[Output]:
    """Return the outputs of a directory for which there is, or was, something held."""
    try:
        paths = list_files(folder.within(FOLDER))
    except FileNotFoundError:
        return []
    return [
        Output(folder.within(path), state_dir, folder) for path in waiting_paths([f"{FOLDER}/{each}" for each in paths])
    ]


def _settled(location: Location, outputs: list[Output], folder: Location | None, *, discard: bool) -> str:
    held = _held(outputs)
    if _is_being_discarded(held):
        return _discarded_whole(location, held, folder, discard=discard)
    if not discard:
        _see_unchanged(held, "throw it away with --discard")
    waiting = [(output, record) for output, record in held if output.waiting.find(record) is not None]
    if any(record.held is None for _, record in waiting):
        raise OutputError(f"{location}: is not judged yet; the same `classify run` makes its report first")
    moved = [(output, record) for output, record in held if _is_moved(output, record)]
    if moved or (waiting and not discard):
        return _accepted(location, [*waiting, *moved], folder)
    if discard and (rest := [each for each in held if not _is_settled(*each)]):
        return _discarded(location, rest, folder)
    for output, _ in held:  # a command was killed before the last step
        output.waiting.clear()
    last = read_record(record_of_directory(location) if folder else outputs[0].record_location, Outcome)
    if last is not None and last.accepted and not discard:
        return f"{location}: accepted already"
    raise OutputError(_nothing(location))


def _held(outputs: list[Output]) -> list[tuple[Output, RunRecord]]:
    return [(output, record) for output in outputs if (record := output.waiting.record) is not None]


def _clear_settled(held: list[tuple[Output, RunRecord]], folder: Location | None) -> None:
    """Remove what is left of outputs that are in their places: a command was killed before its last step."""
    for output, record in held:
        if _is_settled(output, record):
            output.waiting.clear()
    remove_folder(folder)


def _see_unchanged(held: list[tuple[Output, RunRecord]], instead: str) -> None:
    for output, record in held:
        output.waiting.see_unchanged(record, output.published(), instead=instead)


def _accepted(
    location: Location, held: list[tuple[Output, RunRecord]], folder: Location | None, *, overwrite: bool = False
) -> str:
    for output, record in held:
        if not overwrite:
            _see_replaceable(output, record)
    for output, record in held:  # first all that readers see
        if not _is_moved(output, record) and (data := output.waiting.find(record)) is not None:
            move(data, output.location)
    output, record = held[0]
    if record.held is not None:
        accept_report(folder or output.location, record.held)
    _change_record(folder, accepted)
    for output, record in held:
        output.waiting.settle(record, is_reported=True)
    remove_folder(folder)
    rows = sum(record.rows for _, record in held)
    return f"{location}: accepted: {rows:,} rows of the run that started {record.started}"


def _is_being_discarded(held: list[tuple[Output, RunRecord]]) -> bool:
    return any(_has_mark(record) for _, record in held)


def _has_mark(record: RunRecord) -> bool:
    return record.held is not None and record.held.is_discarded


def _change_record(folder: Location | None, change: Callable[[Outcome], Outcome]) -> None:
    """Change the record of a directory, if it is one and has a record."""
    if folder is not None and (last := read_record(record_of_directory(folder), Outcome)) is not None:
        write_whole(record_of_directory(folder), encode_record(change(last)))


def _discarded_whole(
    location: Location, held: list[tuple[Output, RunRecord]], folder: Location | None, *, discard: bool
) -> str:
    """Complete a discard that was begun; an OutputError says it to those who wanted to accept."""
    told = _discarded(location, held, folder)
    if not discard:
        raise OutputError(f"{location}: nothing is held here any more: what was held was being discarded; that is done")
    return told


def _discarded(location: Location, held: list[tuple[Output, RunRecord]], folder: Location | None) -> str:
    """Throw away what is held; of a directory the mark that this has begun is written first, and removed last."""
    held = sorted(held, key=lambda each: _has_mark(each[1]))
    last_output, record = held[-1]
    if folder is not None and record.held is not None and not _has_mark(record):
        mark = msgspec.structs.replace(record.held, is_discarded=True)
        last_output.waiting.write(msgspec.structs.replace(record, held=mark))
    for output, record in held:
        if (data := output.waiting.find(record)) is not None:
            remove(data)
    output, record = held[0]
    if record.held is not None:
        discard_report(folder or output.location, record.held)
    _change_record(folder, lambda last: msgspec.structs.replace(last, held=None))
    for output, record in held:
        _forget(output, record)
        output.waiting.clear()
    remove_folder(folder)
    return f"{location}: discarded; the same `classify run` classifies its input again"


def _forget(output: Output, record: RunRecord) -> None:
    """Remove the answers that made a held output, so that the same input is classified again."""
    if output.published() == record.output_digest:
        remove_checkpoint(output.checkpoint_path)


def _is_moved(output: Output, record: RunRecord) -> bool:
    there = digest_file(output.location) if output.location.exists() else None
    made = output.record
    return there == record.output_digest != (made.output_digest if made else None)


def _is_settled(output: Output, record: RunRecord) -> bool:
    made = output.record
    return made is not None and made.output_digest == record.output_digest and made.started == record.started


def _see_replaceable(output: Output, record: RunRecord) -> None:
    """See that what is replaced is the output that the held one was to follow."""
    last = output.record
    if last is not None and last.started > record.started:
        raise OutputError(f"{output.location}: is newer than the one that is held; throw that away with --discard")
    if not output.location.exists() or record.settings.get("run", {}).get("overwrite"):
        return
    if digest_file(output.location) not in (record.output_digest, last.output_digest if last else None):
        raise OutputError(
            f"{output.location}: was not made by this program, or changed since; move it away, then accept again"
        )


def _nothing(location: Location) -> str:
    return f"{location}: nothing is held here; `classify status` says how its run stands"
