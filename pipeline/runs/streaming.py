"""Both passes at once, for a reader that waits: each row goes out as soon as it and all before it are answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

from pipeline.cancellation import aside
from pipeline.checkpoint import Checkpoint
from pipeline.formats.appended_columns import Tally
from pipeline.loader import open_source
from pipeline.monitoring.record import RunRecord
from pipeline.runs.file import Context
from pipeline.runs.publish import layout_of, record_of, see_no_change
from pipeline.storage import Pipe
from pipeline.writer import follow, records_as_answered

LOOK_S = 0.05


async def stream(run: Context, first_pass: Coroutine[Any, Any, None]) -> RunRecord:
    """Answers for all rows, which `first_pass` gets, and the rows with them on standard output.

    Raises:
        ClassifyError: what ends the run; the rows whose turn had come by then are written.
    """
    done = threading.Event()
    asked = asyncio.ensure_future(first_pass)
    asked.add_done_callback(lambda _: done.set())
    written = asyncio.ensure_future(aside(lambda tick: _follow(run, done, tick)))
    try:
        await asyncio.wait([asked, written], return_when=asyncio.FIRST_EXCEPTION)
        if asked.done():
            await asyncio.wait([written])
    finally:
        asked.cancel()
        written.cancel()
        await asyncio.gather(asked, written, return_exceptions=True)
    if not asked.cancelled():
        asked.result()
    tally, rows = written.result()
    await asyncio.to_thread(see_no_change, run, "so rows and labels may not belong together")
    return record_of(run, rows, tally, "", seconds_writing=0.0)  # it is written while it is answered


def _follow(run: Context, done: threading.Event, tick: Callable[[], None]) -> tuple[Tally, int]:
    while "model.num_classes" not in run.identity and not done.is_set():
        tick()
        time.sleep(LOOK_S)
    layout = layout_of(run)
    source = open_source(run.config.loader, run.source.location)  # the first pass reads its own
    source.check(run.spec, layout.names)
    labels = run.checkpoint.labels
    with closing(Checkpoint(run.checkpoint.path, read_only=True, labels=labels)) as checkpoint:
        records = records_as_answered(checkpoint, layout.num_classes, done.is_set, tick)
        return follow(source, records, labels.names, layout, Pipe(tick))
