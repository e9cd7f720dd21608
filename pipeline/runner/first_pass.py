"""First pass: the rows that are open get their answers, which go into the checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline.batcher import Batcher
from pipeline.checkpoint import differences
from pipeline.chunks import Chunk, Feed
from pipeline.config import EMBEDDED, Config, public_settings
from pipeline.endpoints import Endpoints
from pipeline.errors import CheckpointMismatch, DeadlineReached
from pipeline.predictions import Predictions
from pipeline.runner.context import SHOW_EVERY_S, Context
from pipeline.runner.reusing import Reusing
from pipeline.writer import Layout

GRACE_S = 5.0  # for what is in flight when the deadline comes


async def answer(run: Context, feed: Feed) -> None:
    """Answers for all rows of `feed`, if there are any: nothing is sent for a file without rows. Then all are counted.

    Raises:
        ClassifyError: see `classify`.
    """
    if await feed.has_rows():
        await classify(run, feed)
    run.total = feed.total if run.total is None else run.total
    run.progress.expect(run.progress.rows_done, is_exact=True)


async def classify(run: Context, feed: Feed) -> None:
    """Answers for all rows of `feed`, into the checkpoint.

    Raises:
        ClassifyError: what ends the run; what was answered by then is kept.
    """
    config = run.config
    async with (
        Reusing(run) as reusing,
        urls_of(config) as urls,
        Endpoints(config, urls, run.environment, run.progress, sizes=run.sizes) as endpoints,
    ):
        await endpoints.connect()
        await _adopt(run, endpoints)
        batcher = Batcher(
            endpoints,
            config.request,
            config.retry,
            run.progress,
            _store(run, endpoints),
            remember=reusing.remember,
            failed_allowed=config.run.failed_rows_allowed(run.wanted or run.progress.rows_total or 0),
        )
        reusing.begin(endpoints, batcher.classify)
        feed.look_up = reusing.look_up
        try:
            await _while_ticking(run, batcher.run(feed.chunks()), endpoints, reusing)
        finally:
            _remember_progress(run)
            run.identity["model.names"] = {str(index): name for index, name in endpoints.facts.names.items()}
            run.checkpoint.put_later(identity=run.identity, total_rows=feed.total)
            await asyncio.shield(asyncio.to_thread(run.checkpoint.flush))


async def _adopt(run: Context, endpoints: Endpoints) -> None:
    """The model that answers must be the one whose answers are there already."""
    begun = {key: run.identity.get(key) for key in endpoints.identity}
    if other := differences(begun, endpoints.identity):
        raise CheckpointMismatch(
            f"{run.place.location}: was begun with another model ({'; '.join(other)}); "
            f"start over with --restart, or choose another output"
        )
    added = Layout(run.config, endpoints.facts.num_classes).names
    await asyncio.to_thread(run.source.check, run.spec, added)
    run.identity = endpoints.identity | run.identity
    # The names of classes that earlier answers gave are checked in every answer of this run, too.
    endpoints.facts.names.update({int(index): name for index, name in run.identity["model.names"].items()})
    run.checkpoint.put(identity=run.identity, published=None)


def _store(run: Context, endpoints: Endpoints) -> Callable[[Chunk, Predictions], None]:
    keep_probs = run.config.writer.probs != "none"

    def store(chunk: Chunk, predictions: Predictions) -> None:
        classes = endpoints.facts.num_classes if keep_probs else 0
        run.checkpoint.add(chunk.first_row, chunk.place, predictions, classes)

    return store


async def _while_ticking(run: Context, work: Coroutine[Any, Any, None], endpoints: Endpoints, reusing: Reusing) -> None:
    """Do `work` while progress is shown and answers are committed; end it when the deadline comes."""
    left = run.config.run.seconds_left(run.started.astimezone().replace(tzinfo=None))
    tasks = [asyncio.ensure_future(each) for each in (work, _tick(run), reusing.keep_committing())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            endpoints.gate.close()
            await _let_in(tasks[0], endpoints)
            kept = "" if run.config.is_piped else " and kept, the same command goes on from there"
            raise DeadlineReached(
                f"the deadline {run.config.run.deadline} came; {run.progress.rows_done:,} rows are answered{kept}"
            )
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _let_in(work: asyncio.Future[None], endpoints: Endpoints) -> None:
    """Wait a little for what is in flight: it is paid for."""
    for _ in range(int(GRACE_S / SHOW_EVERY_S)):
        if work.done() or not endpoints.gate.in_flight:
            return
        await asyncio.sleep(SHOW_EVERY_S)


async def _tick(run: Context) -> None:
    while True:
        await asyncio.sleep(SHOW_EVERY_S)
        run.progress.show()
        _remember_progress(run)
        await asyncio.to_thread(run.checkpoint.flush)


def _remember_progress(run: Context) -> None:
    """What `classify status` tells, kept with the next commit."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    started = run.started.isoformat(timespec="seconds")
    servers = public_settings(run.config)["server"]["url"]
    run.checkpoint.put_later(
        progress=run.progress.snapshot() | {"started": started, "updated": now, "servers": servers}
    )


@asynccontextmanager
async def urls_of(config: Config) -> AsyncIterator[list[str]]:
    """The urls to ask; the built-in server runs as long as they are needed."""
    if EMBEDDED not in config.server.urls:
        yield config.server.urls
        return
    from pipeline.embedded import spawned

    async with spawned() as url:
        yield [url if each == EMBEDDED else each for each in config.server.urls]
