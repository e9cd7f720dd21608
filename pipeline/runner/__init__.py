"""A whole run: loader -> batcher -> checkpoint, then checkpoint + loader -> writer.

place_output | lock | decide | first pass: classify the open rows | second pass: join, publish
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import msgspec

from pipeline.checkpoint import Checkpoint, digest_file, identity_of
from pipeline.chunks import Feed
from pipeline.config import PIPE, Config
from pipeline.errors import InputError
from pipeline.loader import Source, TextSpec, estimate_rows, open_source
from pipeline.output import Next, OutputPlace, place_output
from pipeline.places import Location, private_directory, spool, state_root
from pipeline.progress import Progress
from pipeline.record import RunRecord, nothing_to_do
from pipeline.runner.aside import aside
from pipeline.runner.context import Context
from pipeline.runner.first_pass import answer, urls_of
from pipeline.runner.second_pass import publish
from pipeline.runner.streaming import stream
from pipeline.writer import Layout, check_types

__all__ = ["open_input", "run", "urls_of"]


async def run(config: Config, progress: Progress | None = None, environment: dict[str, str] | None = None) -> RunRecord:
    """Classify `config.loader.input` into `config.writer.output`, resuming what was interrupted.

    Returns:
        The record of the run; if the output is complete already, what it holds, with nothing spent.

    Raises:
        ClassifyError: by its class, a person must change something (UserError), or the same call works later (NotNow).
    """
    progress = progress or Progress()
    environment = dict(os.environ) if environment is None else environment
    async with open_input(config) as (source, spec):
        if config.writer.output != PIPE:
            return await _to_file(config, source, spec, progress, environment)
        check_types(config, source)
        identity = identity_of(config, await asyncio.to_thread(digest_file, source.location))
        with private_directory(state_root(config.run.state_dir)) as folder:
            place = OutputPlace(Location("stdout", str(folder / "stdout")))
            with closing(place.checkpoint()) as checkpoint:
                context = Context(config, source, spec, place, checkpoint, identity, progress, environment)
                return await _both_passes(context)


async def _to_file(
    config: Config, source: Source, spec: TextSpec, progress: Progress, environment: dict[str, str]
) -> RunRecord:
    place = await asyncio.to_thread(place_output, config, source.location)
    output = str(place.location)
    config = msgspec.structs.replace(config, writer=msgspec.structs.replace(config.writer, output=output))
    check_types(config, source)
    place.make_directory()
    identity = identity_of(config, await asyncio.to_thread(digest_file, source.location))
    with place.lock:
        decision = await asyncio.to_thread(place.decide, config, identity)
        record = await asyncio.to_thread(lambda: place.record)
        if decision is Next.DONE and record is not None:
            return nothing_to_do(record, progress.started, progress.elapsed_s)
        await asyncio.to_thread(place.prove_writable)
        with closing(place.checkpoint()) as checkpoint:
            if config.run.retry_failed:
                reopened = checkpoint.reopen_failed()
                progress.notice(f"{output}: {reopened:,} failed rows are classified again" if reopened else "")
            context = Context(config, source, spec, place, checkpoint, identity, progress, environment)
            try:
                return await _both_passes(context)
            except BaseException:
                _forget_piped(source, checkpoint)
                raise


def _forget_piped(source: Source, checkpoint: Checkpoint) -> None:
    """What came through a pipe does not come again; but whose the output is, if it is there, must be known."""
    if source.location.is_piped and not checkpoint.get("published"):
        checkpoint.remove()


async def _both_passes(context: Context) -> RunRecord:
    progress = context.progress
    if context.config.is_piped:
        progress.notice("no resume: a pipe can't be taken up again where it broke off; an interrupted run starts over")
    progress.resume(*context.checkpoint.counts())
    rows, is_exact = await asyncio.to_thread(estimate_rows, context.source, context.spec)
    progress.expect(min(rows, context.wanted or rows), is_exact=is_exact or context.total is not None)
    ranges = context.checkpoint.open_ranges(context.wanted)
    feed = Feed(
        context.source,
        context.spec,
        request=context.config.request,
        sizes=context.sizes,
        ranges=ranges,
        place_before=context.checkpoint.place_before,
    )
    progress.begin()
    try:
        if context.config.writer.output == PIPE:
            return await stream(context, feed)
        await answer(context, feed)
        return await publish(context)
    finally:
        progress.end()


@asynccontextmanager
async def open_input(config: Config) -> AsyncIterator[tuple[Source, TextSpec]]:
    """The input and what its text is made of, checked as far as that goes without a server.

    What comes through a pipe stands in a file for so long.

    Raises:
        ConfigError, InputError: see `loader.open_source` and `Source.check`. StoreRefused, StoreGone: its store.
    """
    if config.loader.input != PIPE:
        yield await asyncio.to_thread(_open, config, None)
        return
    with private_directory(state_root(config.run.state_dir)) as folder:
        location = await aside(lambda tick: spool(folder, tick))
        yield await asyncio.to_thread(_open, config, location)


def _open(config: Config, location: Location | None) -> tuple[Source, TextSpec]:
    source = open_source(config.loader, location)
    if source.is_empty and not config.run.allow_empty:
        raise InputError(f"{source.path}: is empty, not even a header; set run.allow_empty if that is all right")
    spec = TextSpec(config.loader)
    if not source.is_empty:
        source.check(spec, Layout(config, 0).names)
    return source, spec
