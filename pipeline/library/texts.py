"""Texts in memory to the server and back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pipeline.batcher import Batcher
from pipeline.chunks import Chunk, chunks_of
from pipeline.config import Config
from pipeline.counts import Counts
from pipeline.endpoints import Endpoints
from pipeline.predictions import Prediction, Predictions
from pipeline.progress import Progress
from pipeline.runner import urls_of

SHOW_EVERY_S = 0.25


async def answers_to(
    texts: Sequence[Any],
    config: Config,
    progress: Progress,
    *,
    wait: bool = True,
    check: Callable[[int], object] = lambda _: None,
) -> tuple[list[Prediction], int]:
    """The predictions of `texts`, in their order, and how many classes the model has (0: nobody was asked).

    `check(num_classes)` is called before the first text is sent. Without `wait`, no server is waited for.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a list of strings, not one string")
    # Subclasses of str, numpy's for instance, are no strings to those who write JSON.
    plain = [str.__str__(text) if isinstance(text, str) else text for text in texts]
    if not plain:
        return [], 0
    found: dict[int, Predictions] = {}

    def store(chunk: Chunk, predictions: Predictions, _: Counts) -> None:
        found[chunk.first_row] = predictions

    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=wait)
        num_classes = endpoints.facts.num_classes
        check(num_classes)
        batcher = Batcher(endpoints, config.request, config.retry, progress, store, failed_allowed=len(plain))
        async with _shown(progress, rows=len(plain)):
            await batcher.run(chunks_of(plain, config.request))
    return [found[first][row] for first in sorted(found) for row in range(len(found[first]))], num_classes


@asynccontextmanager
async def _shown(progress: Progress, *, rows: int) -> AsyncIterator[None]:
    """Progress is shown meanwhile."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            progress.show()

    progress.expect(rows, is_exact=True)
    progress.begin()
    ticking = asyncio.ensure_future(tick())
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        progress.end()
