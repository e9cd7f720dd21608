"""The second pass of many files: the small ones together, since each would wait for the disk several times."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from pipeline.checkpoint import digest_file
from pipeline.config import public_settings
from pipeline.errors import ClassifyError, InputError
from pipeline.formats.appended_columns import AppendedColumns, Tally
from pipeline.memory import give_back
from pipeline.monitoring.record import RunRecord, encode_record, versions, when
from pipeline.runs.file import Context
from pipeline.runs.first_pass import OF_ONE_FILE
from pipeline.storage import Draft, SmallDraft, sync_file, write_whole
from pipeline.streams import storable
from pipeline.writer import join

# -- Second pass: the input is read again, joined with the checkpoint, and the output appears


Drafts = tuple[Draft, Draft]  # of an output and of its record
GIVE_BACK_S = 1.0
FEW_ROWS = 4096  # in an output that is made in memory


def publish(run: Context, tick: Callable[[], None]) -> RunRecord:
    """Join, and let the output appear: at every moment a kill leaves the old state or the new one.

    Done in a thread; what `tick`, called often until the output appears, raises ends it.

    The checkpoint knows the digest of the output before the output appears, so the next run knows it as ours;
    it goes last, when the record says what it said.
    """
    give_back()  # what the first pass has left
    place, checkpoint = run.place, run.settle()
    checkpoint.flush()
    with Draft(place.location, place.draft_path) as draft:
        record = _write(run, draft, tick)
        draft.sync()
        _see_untouched(run, record)
        checkpoint.put(published=record.output_digest, identity=run.identity, total_rows=run.total)
        draft.publish(tick)
    location, content = place.record_location, encode_record(record)
    if location.store is None:
        write_whole(Path(location.path), content)
    else:
        location.put(iter([content]))
    if record.is_whole and not record.failed:
        run.forget()
    return record


def publish_briefly(run: Context, drafts: ExitStack, tick: Callable[[], None]) -> tuple[RunRecord, Drafts]:
    """The same for a file that was done before it had a checkpoint on the disk, where nothing stands at its place.

    `drafts` holds what is to be brought to its place by `appear`, many at once.
    """
    place = run.place
    is_small = run.source.location.content is not None and (run.wanted or 0) <= FEW_ROWS
    output = drafts.enter_context((SmallDraft if is_small else Draft)(place.location))
    record = _write(run, output, tick)
    note = drafts.enter_context(SmallDraft(place.record_location))
    note.write_bytes().write(encode_record(record))
    _see_untouched(run, record)
    return record, (output, note)


def _see_untouched(run: Context, record: RunRecord) -> None:
    if not run.config.run.overwrite:
        run.place.see_untouched(record.output_digest)


def appear(drafts: list[Drafts]) -> None:
    """Let outputs appear, each after its record: so the next run knows it as ours. The disk is waited for once."""
    every = [draft for pair in drafts for draft in pair]
    for draft in every:
        draft.begin_sync()
    for draft in every:
        draft.sync()
    for output, note in drafts:
        note.rename()
        output.rename()
    for folder in {output.path.parent for output, _ in drafts}:
        sync_file(folder)


def _write(run: Context, draft: Draft, tick: Callable[[], None]) -> RunRecord:
    rows, progress = run.wanted or 0, run.progress
    began = given_back = progress.elapsed_s

    def count(written: int) -> None:
        nonlocal given_back
        if progress.elapsed_s - given_back > GIVE_BACK_S:
            give_back()
            given_back = progress.elapsed_s
        if progress.rows_written is not None:  # nothing is asked any more
            progress.rows_written = written
        tick()

    tally = join(run.config, run.source, run.checkpoint, layout_of(run), draft, rows=rows, tick=count)
    see_no_change(run, "so nothing was written; --restart classifies it as it is now")
    return record_of(run, rows, tally, digest_file(draft.written), seconds_writing=progress.elapsed_s - began)


def layout_of(run: Context) -> AppendedColumns:
    """Which columns are added, as far as the model is known."""
    return AppendedColumns(run.config, run.identity.get("model.num_classes") or 0)


def see_no_change(run: Context, consequence: str) -> None:
    """See that the input still is what it was at the start.

    Raises:
        InputError: it is not; `consequence` says what of it.
    """
    location = run.source.location
    now = location.as_it_is_now()
    if location.content is not None:
        same = now.read() == location.content
    else:
        same = digest_file(now) == run.identity["input"]
        if same and now.mark() != run.mark:
            # Between two samples, perhaps, where the next run would not see it: no answer is to be used again.
            run.identity["input"] = f"{run.identity['input']}, changed while it was read"
            run.checkpoint.put(identity=run.identity)
            same = False
    if not same:
        raise InputError(f"{run.source.path}: changed while it was read, {consequence}")


def record_of(run: Context, rows: int, tally: Tally, digest: str, *, seconds_writing: float) -> RunRecord:
    """The record of a run that wrote so many rows; `digest` is that of the output."""
    counts, config = run.counts, run.config
    seconds = run.progress.elapsed_s - run.began_s
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
        resumed_rows=counts.rows_resumed,
        shared_rows=counts.rows_shared,
        reused_rows=counts.rows_reused,
        requests=counts.requests,
        texts_sent=counts.texts_sent,
        retries=counts.retries,
        **when(run.started, seconds),
        seconds_writing=round(seconds_writing, 3),
        rows_per_s=round((counts.rows_done - counts.rows_resumed) / max(seconds, 1e-9), 1),
        model={key.removeprefix("model."): value for key, value in run.identity.items() if key.startswith("model.")},
        identity=run.identity,
        settings=public_settings(config),
        versions=versions(),
    )


# -- The second pass of many files: the small ones together, since each would wait for the disk several times


def published(files: list[Context], tick: Callable[[], None]) -> list[RunRecord | ClassifyError]:
    """The records of files that are answered, or what is wrong with them; in a thread, see `publish`.

    Raises:
        ClassifyError: what is not wrong with one file alone. What was answered of those not published is kept.
    """
    try:
        if len(files) == 1 and not files[0].is_brief:
            return [_kept(files[0], partial(publish, files[0], tick))]
        try:
            return _together(files, tick)
        except OF_ONE_FILE:  # which of them it is about is seen one by one
            return [_kept(file, partial(publish, file, tick)) for file in files]
    except BaseException:
        for file in files:
            file.keep()
        raise


def _together(files: list[Context], tick: Callable[[], None]) -> list[RunRecord | ClassifyError]:
    drafts: list[Drafts] = []
    with ExitStack() as stack:

        def write(file: Context) -> RunRecord:
            record, pair = publish_briefly(file, stack, tick)
            drafts.append(pair)
            return record

        came = [_kept(file, partial(write, file)) for file in files]
        appear(drafts)
    for file, record in zip(files, came, strict=True):
        if isinstance(record, RunRecord):
            file.forget()
    return came


def _kept(file: Context, work: Callable[[], RunRecord]) -> RunRecord | ClassifyError:
    """What `work` says of a file, or why that can't be; then its answers are kept for another time."""
    with file.busy:
        try:
            if file.error is not None:
                raise file.error
            return work()
        except OF_ONE_FILE as error:
            file.keep()
            return error
