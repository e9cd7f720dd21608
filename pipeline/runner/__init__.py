"""A whole run: loader -> batcher -> checkpoint, then checkpoint + loader -> writer.

place_output | lock | decide | first pass: classify the open rows | second pass: join, publish
"""

from __future__ import annotations

import os
from contextlib import closing

import msgspec

from pipeline.checkpoint import digest_file, identity_of
from pipeline.chunks import Feed
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.loader import Source, TextSpec, estimate_rows, open_source
from pipeline.output import Next, place_output
from pipeline.progress import Progress
from pipeline.record import RunRecord, nothing_to_do
from pipeline.runner.context import Context
from pipeline.runner.first_pass import classify, urls_of
from pipeline.runner.second_pass import publish
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
    source, spec = open_input(config)
    place = place_output(config)
    config = msgspec.structs.replace(config, writer=msgspec.structs.replace(config.writer, output=str(place.path)))
    check_types(config, source)
    place.make_directory()
    identity = identity_of(config, digest_file(source.path))
    with place.lock:
        decision = place.decide(config, identity)
        record = place.record
        if decision is Next.DONE and record is not None:
            return nothing_to_do(record, progress.started, progress.elapsed_s)
        with closing(place.checkpoint()) as checkpoint:
            if config.run.retry_failed:
                reopened = checkpoint.reopen_failed()
                progress.notice(f"{place.path}: {reopened:,} failed rows are classified again" if reopened else "")
            context = Context(
                config=config,
                source=source,
                spec=spec,
                place=place,
                checkpoint=checkpoint,
                # What was learned of the model goes on counting; the rest was compared by `decide`.
                identity=(checkpoint.get("identity") or {}) | identity,
                progress=progress,
                environment=dict(os.environ) if environment is None else environment,
                total=checkpoint.get("total_rows") if source.total_rows is None else source.total_rows,
            )
            return await _both_passes(context)


async def _both_passes(context: Context) -> RunRecord:
    progress = context.progress
    progress.resume(*context.checkpoint.counts())
    rows, is_exact = estimate_rows(context.source, context.spec)
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
        if await feed.has_rows():  # nothing is sent for a file without rows
            await classify(context, feed)
        context.total = feed.total if context.total is None else context.total
        progress.expect(progress.rows_done, is_exact=True)
        return await publish(context)
    finally:
        progress.end()


def open_input(config: Config) -> tuple[Source, TextSpec]:
    """The input and what its text is made of, checked as far as that goes without a server.

    Raises:
        ConfigError, InputError: see `loader.open_source` and `Source.check`.
    """
    source = open_source(config.loader)
    if source.is_empty and not config.run.allow_empty:
        raise InputError(f"{source.path}: is empty, not even a header; set run.allow_empty if that is all right")
    spec = TextSpec(config.loader)
    if not source.is_empty:
        source.check(spec, Layout(config, 0).names)
    return source, spec
