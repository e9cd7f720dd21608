"""A whole command: loader -> batcher -> checkpoint, then checkpoint + loader -> writer; one file, or many.

plan_of | open: lock, decide | first pass: classify the open rows | second pass: join, publish
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime

from pipeline.cancellation import aside
from pipeline.checkpoint import digest_file, identity_of
from pipeline.config import PIPE, Config
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import estimate_rows
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.file import Context
from pipeline.runs.first_pass import FirstPass, urls_of
from pipeline.runs.many import Many
from pipeline.runs.opening import Opener, open_checked
from pipeline.runs.output import Output
from pipeline.runs.plan import Pair, Plan, plan_of
from pipeline.runs.publish import publish
from pipeline.runs.streaming import stream
from pipeline.storage import Location, private_directory, spool, state_root
from pipeline.writer import check_types

__all__ = ["open_input", "planned", "run", "urls_of"]


async def run(config: Config, progress: Progress | None = None, environment: dict[str, str] | None = None) -> RunRecord:
    """Classify `config.loader.input` into `config.writer.output`, resuming what was interrupted.

    Returns:
        The record of the run; if the output is complete already, what it holds, with nothing spent. Of several files
        it is the sum of theirs, and its `exit_code` says whether all are complete.

    Raises:
        ClassifyError: by its class, a person must change something (UserError), or the same call works later (NotNow).
    """
    progress = progress or Progress()
    environment = dict(os.environ) if environment is None else environment
    plan = await planned(config, progress)
    if not plan.is_single:
        return await Many(config, plan, progress, environment).run()
    async with open_input(config, plan) as (pair, source, spec):
        one = _One(config, progress, environment)
        if config.writer.output == PIPE:
            return await one.to_stdout(source, spec)
        return await one.to_file(pair, source, spec)


async def planned(config: Config, progress: Progress) -> Plan:
    """Which files the command is about; the day is that of its start.

    Raises:
        ClassifyError: see `plan_of`.
    """
    return await asyncio.to_thread(plan_of, config, progress.started.astimezone().date())


@asynccontextmanager
async def open_input(config: Config, plan: Plan) -> AsyncIterator[tuple[Pair, Source, TextSpec]]:
    """The one input of a plan. What comes through a pipe stands in a file for so long.

    Raises:
        ClassifyError: see `open_checked`.
    """
    (pair,) = plan.pairs
    if pair.trouble is not None:
        raise pair.trouble
    if not pair.source.is_piped:
        yield pair, *await asyncio.to_thread(open_checked, config, pair.source)
        return
    with private_directory(state_root(config.run.state_dir)) as folder:
        location = await aside(lambda tick: spool(folder, tick))
        yield Pair(location, pair.output), *await asyncio.to_thread(open_checked, config, location)


class _One:
    """A command about one file."""

    def __init__(self, config: Config, progress: Progress, environment: dict[str, str]) -> None:
        self._config, self._progress = config, progress
        self._first_pass = FirstPass(config, progress, environment, when_done=lambda _: None)

    async def to_file(self, pair: Pair, source: Source, spec: TextSpec) -> RunRecord:
        opener = Opener(self._config, self._progress, is_one_of_many=False)
        opened = await asyncio.to_thread(opener.open_source, pair, source, spec)
        if isinstance(opened, RunRecord):
            return opened
        try:
            await self._begin(opened)
            await self._answer(opened)
            return await aside(lambda tick: publish(opened, tick), self._progress.show)
        except BaseException:
            if source.location.is_piped and not opened.checkpoint.get("published"):
                opened.settle().remove()  # it does not come again; whose an output that is there is stays known
            raise
        finally:
            self._progress.end()
            opened.close()

    async def to_stdout(self, source: Source, spec: TextSpec) -> RunRecord:
        check_types(self._config, source)
        identity = identity_of(self._config, await asyncio.to_thread(digest_file, source.location))
        with private_directory(state_root(self._config.run.state_dir)) as folder:
            place = Output(Location("stdout", str(folder / "stdout")))
            with closing(place.checkpoint()) as checkpoint:
                progress = self._progress
                context = Context(
                    *(self._config, source, spec, place, checkpoint, identity),
                    *(progress, progress, datetime.now(UTC), 0.0),
                )
                try:
                    await self._begin(context)
                    return await stream(context, self._answer(context))
                finally:
                    progress.end()

    async def _begin(self, context: Context) -> None:
        progress = self._progress
        if self._config.is_piped:
            progress.notice(
                "no resume: a pipe can't be taken up again where it broke off; an interrupted run starts over"
            )
        progress.resume(*context.checkpoint.counts())
        rows, is_exact = await asyncio.to_thread(estimate_rows, context.source, context.spec)
        progress.expect(min(rows, context.wanted or rows), is_exact=is_exact or context.total is not None)
        progress.begin()

    async def _answer(self, context: Context) -> None:
        """Answers for all open rows, into the checkpoint. Then all rows are counted.

        Raises:
            ClassifyError: see `FirstPass.run`.
        """

        async def only() -> AsyncIterator[Context]:
            yield context

        await self._first_pass.run(only())
        await asyncio.to_thread(context.keep)
        if context.error is not None:
            raise context.error
        self._progress.expect(self._progress.rows_done, is_exact=True)
        self._progress.rows_written = 0
