"""A whole command: the run, and then whoever is to be told is told how it ended."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from pipeline.config import Config
from pipeline.errors import ClassifyError
from pipeline.outcome import outcome_of, report_outcome
from pipeline.progress import Progress
from pipeline.record import RunRecord
from pipeline.runner import run


async def run_and_report(
    config: Config, progress: Progress | None = None, environment: dict[str, str] | None = None
) -> RunRecord:
    """`run`, and `run.metrics_file` and `run.notify_url` learn of it, also when it fails, is cancelled, or meets a bug.

    The one cancelled says with what it was cancelled: `task.cancel(Stopped(...))`. One that comes when the run is over
    only cuts short the telling.

    Raises:
        ClassifyError: as `run`, with what is known of the run as its `outcome`.
    """
    progress = progress or Progress()
    environment = dict(os.environ) if environment is None else environment
    try:
        config.run.url_to_notify(environment)  # nothing is begun whose end can't be told
        record = await run(config, progress, environment)
    except (Exception, asyncio.CancelledError) as error:
        outcome = outcome_of(error, config, progress)
        for each in (error, *error.args):
            if isinstance(each, ClassifyError):
                each.outcome = outcome
        with suppress(asyncio.CancelledError):
            await report_outcome(config, environment, outcome, progress)
        raise
    with suppress(asyncio.CancelledError):
        await report_outcome(config, environment, record, progress)
    return record
