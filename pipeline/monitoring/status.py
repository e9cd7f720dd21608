"""The status of a run, from the files that it keeps beside its output; also while it is running. Nothing is written."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import closing
from typing import Any

import msgspec

from pipeline.checkpoint import Checkpoint, Lock, is_held, read_holder
from pipeline.errors import OutputError, UserError
from pipeline.monitoring.record import FailedFile, Held, Outcome, RunRecord, read_record
from pipeline.runs.accept import outputs_in
from pipeline.runs.output import DIRECTORY_RECORD, Output, lock_of_directory, record_of_directory
from pipeline.runs.waiting import FOLDER, held_name
from pipeline.storage import Kind, Location, list_files

FAILED_ROWS = 3  # the exit code of a file that is classified all the same
CHANGED = "held, but changed since"
MOST_FAILED = 20  # files that failed, of those that are named


class Status(msgspec.Struct, kw_only=True):
    """The status of a run. `state` is running, interrupted, complete or held, or of a directory incomplete.

    A held one that somebody has changed is "held, but changed since". Of an output that is held all else is about that;
    of a directory incomplete means that files failed.
    """

    output: str
    state: str
    rows: int = 0
    rows_total: int | None = None
    rows_total_is_exact: bool = True
    failed: dict[str, int] = {}
    empty: int = 0
    rows_per_s: float | None = None
    eta_s: float | None = None
    since: str | None = None
    updated: str | None = None
    servers: list[str] = []
    model: str | None = None
    held_by: str | None = None
    held: Held | None = None  # see `report.on_fail`
    why: str | None = None  # it is held
    is_whole: bool = True  # of a complete output: whether it has all rows of the input
    files: dict[str, int] = {}  # of a directory: how many are in which state
    failed_files: list[FailedFile] = []  # of a directory: what its last run could not classify


def status_of(output: Location, state_dir: str | None = None) -> Status:
    """Return the status of the run of `output`, a file or a directory; `state_dir` is its `run.state_dir`.

    Raises:
        OutputError: there is neither checkpoint nor record. StoreRefused, StoreGone: the output's store.
    """
    if output.look()[0] is Kind.DIRECTORY:
        return _of_directory(output, state_dir)
    kept = Output(output, state_dir)
    holder, record = _holder(kept.lock), kept.record
    if os.path.exists(kept.checkpoint_path):  # noqa: PTH110 - a Path raises in a directory that can't be entered
        with closing(Checkpoint(kept.checkpoint_path, read_only=True)) as checkpoint:
            if holder or record is None or checkpoint.get("published") != record.output_digest:
                return _of_checkpoint(output, checkpoint, holder)
    if holder is None and (held := _held(kept)) is not None:
        return held
    if record is None and holder is None:
        raise OutputError(f"{output}: no run has begun here (no checkpoint, no run record); name the output of a run")
    if record is None:
        return Status(output=str(output), state="running", held_by=holder)
    return _of_record(output, record, "complete" if output.exists() else "complete, but the output is gone")


def _held(kept: Output) -> Status | None:
    """Return the status of an output whose new version is held; None if none is."""
    waits = kept.waiting.record
    if waits is None or waits.held is None:
        return None
    is_changed = kept.waiting.is_changed(waits)
    if not is_changed and kept.waiting.find(waits) is None:
        return None
    return _of_record(kept.location, waits, CHANGED if is_changed else "held")


def _of_record(output: Location, record: RunRecord, state: str) -> Status:
    return Status(
        output=str(output),
        state=state,
        rows=record.rows,
        rows_total=record.rows if record.is_whole else None,
        failed=record.failed,
        empty=record.empty,
        is_whole=record.is_whole,
        rows_per_s=record.rows_per_s,
        since=record.started,
        servers=record.settings["server"]["url"],
        model=record.model.get("id"),
        held=record.held,
        why=record.error if record.held else None,
    )


def _holder(lock: Lock) -> str | None:
    return read_holder(lock.path) if is_held(lock.path) else None


def _of_directory(folder: Location, state_dir: str | None) -> Status:
    """Sum the status of all outputs in a directory that have a checkpoint or a record; files not begun have none."""
    holder = _holder(lock_of_directory(folder, state_dir))
    each, files, failed = list[Status](), Counter[str](), Counter[str]()
    for path in _traces(folder):
        try:
            status = status_of(folder.within(path), state_dir)
        except UserError:  # its checkpoint is damaged, for instance
            files["unreadable"] += 1
        else:
            each.append(status)
            files[status.state] += 1
            failed.update(status.failed)
    if not each and holder is None:
        raise OutputError(f"{folder}: no run has begun here (no checkpoint, no run record); name the output of a run")
    last = read_record(record_of_directory(folder), Outcome)
    failed_files = [each for each in last.failed_files if each.exit_code != FAILED_ROWS] if last else []
    if failed_files:
        files["not classified"] = len(failed_files)
    waiting = outputs_in(folder, state_dir) if last and last.held and holder is None else []
    held = last.held if last and waiting else None
    changed = [each for each in waiting if (record := each.waiting.record) and each.waiting.is_changed(record)]
    has_ended = last is None or bool(last.finished)
    unfinished = files["interrupted"] or files["running"] or not has_ended
    return Status(
        output=str(folder),
        state="running" if holder else "interrupted" if unfinished else _ended(failed_files, held, changed),
        held=held,
        why=last.error if last and held else None,
        failed_files=failed_files,
        rows=sum(status.rows for status in each),
        failed=dict(sorted(failed.items())),
        empty=sum(status.empty for status in each),
        since=min((status.since for status in each if status.since), default=None),
        servers=each[0].servers if each else [],
        model=each[0].model if each else None,
        held_by=holder,
        files=dict(sorted(files.items())),
    )


def _ended(failed_files: list[FailedFile], held: Held | None, changed: list[Output]) -> str:
    if held is not None:
        return CHANGED if changed else "held"
    return "incomplete" if failed_files else "complete"


def _traces(folder: Location) -> list[str]:
    """Return the outputs in a directory that have a checkpoint or a record, as paths relative to it."""
    paths = list_files(folder)
    found = set()
    for path in paths:
        parent, slash, name = path.rpartition("/")
        if name == DIRECTORY_RECORD or path.startswith(f"{FOLDER}/"):
            continue
        if trace := re.fullmatch(r"\.(.+)\.(?:run\.json|checkpoint)", name):
            found.add(f"{parent}{slash}{trace[1]}")
    return sorted(found - set(map(_held_beside, found)))


def _held_beside(path: str) -> str:
    """Return the path at which the new version of an output waits."""
    parent, slash, name = path.rpartition("/")
    return f"{parent}{slash}{held_name(name)}"


def _of_checkpoint(output: Location, checkpoint: Checkpoint, holder: str | None) -> Status:
    rows, codes = checkpoint.counts()
    empty = codes.pop("empty", 0)
    last: dict[str, Any] = checkpoint.get("progress") or {}
    identity: dict[str, Any] = checkpoint.get("identity") or {}
    return Status(
        output=str(output),
        state="running" if holder else "interrupted",
        rows=rows,
        rows_total=last.get("rows_total"),
        rows_total_is_exact=last.get("rows_total_is_exact", True),
        failed=dict(sorted(codes.items())),
        empty=empty,
        rows_per_s=last.get("rows_per_s"),
        eta_s=last.get("eta_s") if holder else None,
        since=last.get("started"),
        updated=last.get("updated"),
        servers=last.get("servers", []),
        model=identity.get("model.id"),
        held_by=holder,
    )


def as_lines(status: Status) -> list[str]:
    """Format a status as lines of text."""
    about = "" if status.rows_total_is_exact else "about "
    total = f" of {about}{status.rows_total:,}" if status.rows_total else ""
    share = f" ({100 * status.rows / status.rows_total:.0f} %)" if status.rows_total else ""
    speed = f", {status.rows_per_s:,.0f} rows/s" if status.rows_per_s else ""
    eta = f", ETA {status.eta_s:,.0f} s" if status.eta_s is not None else ""
    lines = [f"{status.output}: {status.state}, {status.rows:,}{total} rows{share}{speed}{eta}"]
    if status.files:
        lines.append(f"files: {', '.join(f'{count:,} {state}' for state, count in status.files.items())}")
    lines += [f"not classified: {each.told}" for each in status.failed_files[:MOST_FAILED]]
    if status.failed:
        lines.append(f"failed: {', '.join(f'{code} {rows:,}' for code, rows in status.failed.items())}")
    if status.empty:
        lines.append(f"empty: {status.empty:,}")
    if status.since:
        lines.append(f"since: {status.since}" + (f", last news {status.updated}" if status.updated else ""))
    if status.servers:
        lines.append(f"server: {', '.join(status.servers)}, model {status.model or '(unnamed)'}")
    if status.held:
        lines.append(f"held: {status.held.output}: {status.why}")
        lines += [f"report: {report}" for report in status.held.files][:1]
    if status.held_by:
        lines.append(f"held by: {status.held_by}")
    return lines + _next_command(status)


def _next_command(status: Status) -> list[str]:
    if status.held:
        command = status.held.command
        if status.state == CHANGED:
            return [f"move away what was changed, or `{command} --discard` throws it away"]
        return [f"{status.held.advice}; then `{command}` puts it in place, `{command} --discard` throws it away"]
    if not status.is_whole:
        return ["these are the first rows of the input; `classify run` without --limit-rows goes on from here"]
    if status.state == "incomplete":
        return ["mend what is said of them, then the same `classify run` classifies these files, and no other"]
    return ["the same `classify run` goes on from here"] if status.state == "interrupted" else []
