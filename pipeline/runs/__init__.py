"""A run: loader -> batcher -> checkpoint, then checkpoint + loader -> writer, for a list of files.

plan | open: lock, decide | first pass: answer the open rows | publish: join, rename | report

What can't be done is a ClassifyError in each of its modules; docstrings name those whose class is not obvious.
"""

from __future__ import annotations

import asyncio
import os

from pipeline.config import Config
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.pipes import spooled
from pipeline.runs.plan import Plan, plan_of
from pipeline.runs.reported import see_reportable, with_report
from pipeline.runs.walk import Walk

__all__ = ["planned", "run"]


async def run(config: Config, progress: Progress | None = None, environment: dict[str, str] | None = None) -> RunRecord:
    """Classify `config.loader.input` into `config.writer.output`, resuming what was interrupted.

    Returns the record of the run; if the output is complete already, what it holds, with nothing spent. Of several
    files it is the sum of theirs, and its `exit_code` says whether all are complete.

    Raises:
        ClassifyError: by its class, a person must change something (UserError), or the same call works later (NotNow).
    """
    progress = progress or Progress()
    environment = dict(os.environ) if environment is None else environment
    async with spooled(config, await planned(config, progress)) as (plan, private):
        await asyncio.to_thread(see_reportable, config, plan)
        record = await Walk(config, plan, progress, environment, private).run()
        return await with_report(config, plan, record, progress)


async def planned(config: Config, progress: Progress) -> Plan:
    """Return the files that the run is about; `{date}` is the day of its start."""
    return await asyncio.to_thread(plan_of, config, progress.started.astimezone().date())
