"""The second pass of many files: the small ones together, since each would wait for the disk several times."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from pipeline.errors import ClassifyError
from pipeline.record import RunRecord
from pipeline.runner.context import Context
from pipeline.runner.first_pass import OF_ONE_FILE
from pipeline.runner.second_pass import Drafts, appear, publish, publish_briefly


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
