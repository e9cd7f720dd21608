"""The second pass: has outputs written, and brings them to their places so that a kill leaves the old or the new one.

At every moment a kill leaves the old output or the new one, and the next run knows it as ours. So before an output
appears, its digest is durable: in the checkpoint, or, where the checkpoint is in memory and no output stood there, in
the run record.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from pipeline.cancellation import raise_if_cancelled
from pipeline.checkpoint import digest_file
from pipeline.errors import ClassifyError, InputError
from pipeline.formats.appended_columns import AppendedColumns, Tally
from pipeline.memory import release_free_memory
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord, encode_record, fields_of_run
from pipeline.runs.file import RunFile
from pipeline.runs.open_rows import OF_ONE_FILE
from pipeline.storage.draft import Draft, sync_directory, write_whole
from pipeline.streams import storable
from pipeline.thresholds import class_names, see_thresholds
from pipeline.writer import join

GIVE_BACK_S = 1.0  # between two returns of free memory to the system during a join


def publish(files: list[RunFile], progress: Progress) -> list[RunRecord | ClassifyError]:
    """Write the outputs of files that are answered; small ones together, since each waits for the disk several times.

    Runs in a thread. Returns for each file its record, or the error that concerns it alone. One that concerns all is
    raised. The answers of files that are not published are kept.
    """
    try:
        return _publish(files, progress)
    except OF_ONE_FILE:  # which of them it concerns is seen one by one
        return [each for file in files for each in _publish([file], progress)]
    except BaseException:
        for file in files:
            file.keep()
        raise


def can_be_published_together(file: RunFile) -> bool:
    """Return whether the output of a file can appear along with others: a small new one on a disk."""
    return file.checkpoint.is_in_memory and file.output.location.store is None and file.is_whole


def _publish(files: list[RunFile], progress: Progress) -> list[RunRecord | ClassifyError]:
    came: dict[RunFile, RunRecord | ClassifyError] = {}
    with ExitStack() as stack:
        publications = []
        for file in files:
            stack.enter_context(file.busy)
            try:
                if file.error is not None:
                    raise file.error
                publication = _Publication(file, stack, progress)
                came[file] = publication.record
                publications.append(publication)
            except OF_ONE_FILE as error:
                came[file] = error
        try:
            _let_appear(publications)
        except OF_ONE_FILE as error:
            if len(files) > 1:
                raise
            came[files[0]] = error
        for file, record in came.items():
            if isinstance(record, ClassifyError):
                with suppress(*OF_ONE_FILE):  # the file has failed already
                    file.keep()
    return [came[file] for file in files]


def _let_appear(publications: list[_Publication]) -> None:
    """Let the outputs appear. The disk is waited for once for all of them, since all begin to sync first."""
    drafts = [draft for each in publications for draft in each.drafts]
    for draft in drafts:
        draft.begin_sync()
    for draft in drafts:
        draft.sync()
    for each in publications:
        each.announce()
    for each in publications:
        each.appear()
    for folder in {Path(each.draft.output.path).parent for each in publications if each.is_in_memory}:
        sync_directory(folder)
    for each in publications:
        each.finish()


class _Publication:
    """An output that is written, and not yet in its place."""

    def __init__(self, file: RunFile, stack: ExitStack, progress: Progress) -> None:
        self.file, output = file, file.output
        self.is_in_memory = can_be_published_together(file)
        if not self.is_in_memory:
            release_free_memory()  # what the first pass has left free
            file.checkpoint.flush()
        self.draft = stack.enter_context(Draft(output.target, output.draft_path))
        self.record = _write(file, self.draft, progress)
        self.drafts = [self.draft]
        if self.is_in_memory:
            self._record_draft = stack.enter_context(Draft(output.target_record))
            self._record_draft.file.write(encode_record(self.record))
            self.drafts.append(self._record_draft)
        if not file.config.run.overwrite:
            output.see_untouched(self.record.output_digest)

    def announce(self) -> None:
        """Make durable that the output which is about to appear is ours."""
        if self.is_in_memory:
            self._record_draft.rename()
        else:
            file = self.file
            file.checkpoint.put(published=self.record.output_digest, identity=file.identity, total_rows=file.total)

    def appear(self) -> None:
        """Bring the output to its place."""
        if self.is_in_memory:
            self.draft.rename()
        else:
            self.draft.publish()

    def finish(self) -> None:
        """Write the record where that is still to be done, and remove a checkpoint that is of no more use."""
        if not self.is_in_memory:
            output = self.file.output
            if output.holds:
                output.waiting.write_next(self.record)
            else:
                write_whole(output.record_location, encode_record(self.record))
        if self.record.is_whole and not self.record.failed:
            self.file.forget()


def _write(file: RunFile, draft: Draft, progress: Progress) -> RunRecord:
    rows = file.wanted or 0
    began = given_back = progress.elapsed_s

    def on_rows(written: int) -> None:
        nonlocal given_back
        if progress.elapsed_s - given_back > GIVE_BACK_S:
            release_free_memory()
            given_back = progress.elapsed_s
        if progress.rows_written is not None:  # nothing is sent any more
            progress.rows_written = written

    raise_if_cancelled()
    tally = join(file.config, file.source, file.checkpoint, layout_of(file), draft, rows=rows, on_rows=on_rows)
    see_no_change(file, "so nothing was written; --restart classifies it as it is now")
    seconds_writing = progress.elapsed_s - began
    return record_of(file, rows, tally, digest_file(draft.path), progress, seconds_writing=seconds_writing)


def layout_of(file: RunFile) -> AppendedColumns:
    """Return the columns that are appended, as far as the model is known.

    Raises:
        ConfigError: thresholds that have changed since are none for this model.
    """
    identity = file.identity
    see_thresholds(file.config, identity)
    names = class_names(file.config.writer, identity)
    sees_cuts = identity.get("model.cuts") != "unseen"
    return AppendedColumns(file.config, identity.get("model.num_classes") or 0, names, sees_cuts=sees_cuts)


def see_no_change(file: RunFile, consequence: str) -> None:
    """See that the input still is what it was; the InputError that says no names the `consequence`, too."""
    location = file.source.location
    now = replace(location, content=None)
    if location.content is not None:
        same = now.read() == location.content
    else:
        same = digest_file(now) == file.identity["input"]
        if same and now.mark() != file.mark:
            # Between two samples, perhaps, where the next run would not see it: no answer is to be used again.
            file.identity["input"] = f"{file.identity['input']}, changed while it was read"
            file.checkpoint.put(identity=file.identity)
            same = False
    if not same:
        raise InputError(f"{file.source.path}: changed while it was read, {consequence}")


def record_of(
    file: RunFile, rows: int, tally: Tally, digest: str, progress: Progress, *, seconds_writing: float
) -> RunRecord:
    """Return the record of an output of so many rows; `digest` is that of the output."""
    config, seconds = file.config, progress.elapsed_s - file.began_s
    spent = file.run_counts or file.counts
    failed = {code: count for code, count in sorted(tally.codes.items()) if code != "empty"}
    allowed = config.run.failed_rows_allowed(rows)
    too_many = sum(failed.values()) > allowed
    return RunRecord(
        exit_code=3 if too_many else 0,
        error=f"{sum(failed.values()):,} rows failed, {allowed:,} may" if too_many else None,
        input=storable(file.source.path),
        input_digest=file.identity["input"],
        output=storable(str(file.output.location)),
        output_digest=digest,
        rows=rows,
        rows_total=rows,
        is_whole=rows == file.total,
        labelled=sum(tally.labels.values()),
        labels=tally.labels,
        scores=tally.scores,
        failed=failed,
        empty=tally.codes["empty"],
        truncated=tally.truncated,
        in_parts=tally.in_parts,
        unsure=tally.unsure,
        skipped_lines=file.source.skipped,
        resumed_rows=file.counts.rows_resumed,
        shared_rows=file.counts.rows_shared,
        reused_rows=file.counts.rows_reused,
        seconds_writing=round(seconds_writing, 3),
        model={key.removeprefix("model."): value for key, value in file.identity.items() if key.startswith("model.")},
        identity=file.identity,
        **spent.fields_of_requests(),
        **fields_of_run(config, file.started, seconds, file.counts.rows_answered),
    )
