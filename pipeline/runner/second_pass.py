"""Second pass: the input is read again, joined with the checkpoint, and the output appears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from pipeline.checkpoint import digest_file
from pipeline.config import public_settings
from pipeline.errors import InputError
from pipeline.record import RunRecord, encode_record, versions, when
from pipeline.runner.aside import aside
from pipeline.runner.context import Context
from pipeline.text import storable
from pipeline.writer import Draft, Layout, Tally, join, write_whole


async def publish(run: Context) -> RunRecord:
    """Join, and let the output appear: at every moment a kill leaves the old state or the new one.

    The checkpoint knows the digest of the output before the output appears, so the next run knows it as ours;
    it goes last, when the record says what it said.
    """
    rows, place, progress = run.wanted or 0, run.place, run.progress
    began, is_local = progress.elapsed_s, place.location.store is None

    def joined(tick: Callable[[], None]) -> Tally:
        def count(written: int) -> None:
            progress.rows_written = written
            tick()

        return join(run.config, run.source, run.checkpoint, layout_of(run), draft, rows=rows, tick=count)

    with Draft(place.location, place.draft_path) as draft:
        tally = await aside(joined, progress.show)
        await see_no_change(run, "so nothing was written; --restart classifies it as it is now")
        record = record_of(run, rows, tally, digest_file(draft.path), seconds_writing=progress.elapsed_s - began)
        run.checkpoint.put(published=record.output_digest, identity=run.identity, total_rows=run.total)
        if is_local:  # no signal comes between a rename and the record of it
            draft.publish()
        else:
            await aside(draft.publish, progress.show)
    if is_local:
        write_whole(Path(place.record_location.path), encode_record(record))
    else:
        await asyncio.to_thread(place.record_location.put, iter([encode_record(record)]))
    if record.is_whole and not record.failed:
        run.checkpoint.remove()
    return record


def layout_of(run: Context) -> Layout:
    """Which columns are added, as far as the model is known."""
    return Layout(run.config, run.identity.get("model.num_classes") or 0)


async def see_no_change(run: Context, consequence: str) -> None:
    """See that the input still is what it was at the start.

    Raises:
        InputError: it is not; `consequence` says what of it.
    """
    if await asyncio.to_thread(digest_file, run.source.location) != run.identity["input"]:
        raise InputError(f"{run.source.path}: changed while it was read, {consequence}")


def record_of(run: Context, rows: int, tally: Tally, digest: str, *, seconds_writing: float) -> RunRecord:
    """The record of a run that wrote so many rows; `digest` is that of the output."""
    progress, config = run.progress, run.config
    labels = tally.labels
    failed = {code: count for code, count in sorted(tally.codes.items()) if code != "empty"}
    allowed = config.run.failed_rows_allowed(rows)
    too_many = sum(failed.values()) > allowed
    return RunRecord(
        exit_code=3 if too_many else 0,
        error=f"{sum(failed.values()):,} rows failed, {allowed:,} may" if too_many else None,
        input=storable(run.source.path),
        input_digest=run.identity["input"],
        output=storable(str(run.place.location)),
        output_digest=digest,
        rows=rows,
        rows_total=rows,
        is_whole=rows == run.total,
        labelled=sum(labels.values()),
        labels=labels,
        failed=failed,
        empty=tally.codes["empty"],
        truncated=tally.truncated,
        skipped_lines=run.source.skipped,
        resumed_rows=progress.rows_resumed,
        shared_rows=progress.rows_shared,
        reused_rows=progress.rows_reused,
        requests=progress.requests,
        texts_sent=progress.texts_sent,
        retries=progress.retries,
        **when(progress.started, progress.elapsed_s),
        seconds_writing=round(seconds_writing, 3),
        rows_per_s=round(progress.rate, 1),
        model={key.removeprefix("model."): value for key, value in run.identity.items() if "model." in key[:6]},
        identity=run.identity,
        settings=public_settings(config),
        versions=versions(),
    )
