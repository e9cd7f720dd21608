"""Standard input and output as files: the one is spooled first, rows go to the other as soon as it is their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.cancellation import raise_if_cancelled, run_cancellable
from pipeline.config import Config
from pipeline.formats.appended_columns import Tally
from pipeline.loader import open_source
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.file import RunFile
from pipeline.runs.plan import Plan
from pipeline.runs.publish import layout_of, record_of, see_no_change
from pipeline.storage.state import private_directory, spool, state_root
from pipeline.writer import follow, records_as_answered

LOOK_S = 0.05  # between two looks whether the model is known


@asynccontextmanager
async def spooled(config: Config, plan: Plan) -> AsyncIterator[tuple[Plan, Path | None]]:
    """Have standard input in a file meanwhile; yield the plan with it, and a private directory if an end is a pipe."""
    if not config.is_piped:
        yield plan, None
        return
    with private_directory(state_root(config.run.state_dir)) as folder:
        pairs = [
            replace(pair, source=await run_cancellable(partial(spool, folder))) if pair.source.is_piped else pair
            for pair in plan.pairs
        ]
        yield replace(plan, pairs=pairs), folder


async def stream(file: RunFile, progress: Progress) -> RunRecord:
    """Write the rows of a file to standard output, each when it and all before it are answered; return the record."""
    tally, rows = await run_cancellable(partial(_follow, file))
    await asyncio.to_thread(see_no_change, file, "so rows and labels may not belong together")
    return record_of(file, rows, tally, "", progress, seconds_writing=0.0)  # it is written while it is answered


def _follow(file: RunFile) -> tuple[Tally, int]:
    while "model.num_classes" not in file.identity and not file.all_answered.is_set():
        raise_if_cancelled()
        time.sleep(LOOK_S)
    layout = layout_of(file)
    source = open_source(file.config.loader, file.source.location)  # the first pass reads its own
    source.check(file.spec, layout.names)
    records = records_as_answered(file.checkpoint, layout.num_classes, file.all_answered.is_set)
    return follow(source, records, file.checkpoint.labels, layout, file.config.writer.format)
