"""Second pass: the input is read again, joined with the checkpoint, and the output appears."""

from __future__ import annotations

import asyncio
import threading

from pipeline.checkpoint import digest_file
from pipeline.config import public_settings
from pipeline.errors import InputError
from pipeline.record import RunRecord, encode_record, versions, when
from pipeline.runner.context import SHOW_EVERY_S, Context
from pipeline.text import storable
from pipeline.writer import Draft, Layout, Tally, join, write_whole


async def publish(run: Context) -> RunRecord:
    """Join, and let the output appear: at every moment a kill leaves the old state or the new one.

    The checkpoint knows the digest of the output before the output appears, so the next run knows it as ours;
    it goes last, when the record says what it said.
    """
    layout = Layout(run.config, run.identity.get("model.num_classes") or 0)
    rows = run.wanted or 0
    began = run.progress.elapsed_s
    with Draft(run.place.path) as draft:
        tally = await _join(run, layout, draft, rows)
        if digest_file(run.source.path) != run.identity["input"]:
            changed = "changed while it was read, so nothing was written; --restart classifies it as it is now"
            raise InputError(f"{run.source.path}: {changed}")
        record = _record(run, rows, tally, digest_file(draft.path), seconds_writing=run.progress.elapsed_s - began)
        run.checkpoint.put(published=record.output_digest, identity=run.identity, total_rows=run.total)
        draft.publish()
    write_whole(run.place.record_path, encode_record(record))
    if record.is_whole and not record.failed:
        run.checkpoint.remove()
    return record


async def _join(run: Context, layout: Layout, draft: Draft, rows: int) -> Tally:
    """In a thread, so that a signal is heard at once; the thread is seen off before anybody goes on."""
    stop = threading.Event()

    def tick(written: int) -> None:
        run.progress.rows_written = written
        if stop.is_set():
            raise asyncio.CancelledError

    work = asyncio.ensure_future(
        asyncio.to_thread(join, run.config, run.source, run.checkpoint, layout, draft, rows=rows, tick=tick)
    )
    try:
        while not work.done():
            await asyncio.wait([work], timeout=SHOW_EVERY_S)
            run.progress.show()
    finally:
        stop.set()
        await asyncio.wait([work])
    return work.result()


def _record(run: Context, rows: int, tally: Tally, digest: str, *, seconds_writing: float) -> RunRecord:
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
        output=storable(str(run.place.path)),
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
