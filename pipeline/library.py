"""The doors for Python: texts, frames and files, with and without an event loop of one's own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pipeline.config import Config
from pipeline.predictions import Prediction
from pipeline.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


def run(config: Config) -> RunRecord:
    """Classify the file `config.loader.input`; see `runner.run`. Blocks, also inside a notebook's running loop."""
    return _blocking(run_async(config))


async def run_async(config: Config) -> RunRecord:
    """`run` for those who have a loop."""
    from pipeline import runner

    return await runner.run(config)


def classify_texts(
    texts: Sequence[str | None], *, url: str | None = None, config: Config | None = None
) -> list[Prediction]:
    """The predictions of some texts, in their order.

    Args:
        texts: any number; None and blank ones are not sent, and their prediction carries the error `empty`.
        url: the server (default: that of `config`). "embedded" is the built-in language classifier.
        config: everything else; `config.loader`, `config.writer` and `config.run` do not matter.

    Raises:
        ClassifyError: the server is wrongly named, not there, or no classifier.
    """
    return _blocking(classify_texts_async(texts, url=url, config=config))


async def classify_texts_async(
    texts: Sequence[str | None], *, url: str | None = None, config: Config | None = None, wait: bool = True
) -> list[Prediction]:
    """`classify_texts` for those who have a loop. Without `wait`, a server that is not there is not waited for."""
    from pipeline.batcher import Batcher
    from pipeline.chunks import Chunk, chunks_of
    from pipeline.endpoints import Endpoints
    from pipeline.predictions import Predictions
    from pipeline.progress import Progress
    from pipeline.runner import urls_of

    config = config or Config()
    if url is not None:
        config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, url=url))
    progress = Progress("quiet")
    found: dict[int, Predictions] = {}

    def store(chunk: Chunk, predictions: Predictions) -> None:
        found[chunk.first_row] = predictions

    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=wait)
        batcher = Batcher(endpoints, config.request, config.retry, progress, store, failed_allowed=len(texts))
        await batcher.run(chunks_of(texts, config.request))
    return [found[first][row] for first in sorted(found) for row in range(len(found[first]))]


def classify_frame(
    frame: pd.DataFrame, text_column: str, *, url: str | None = None, config: Config | None = None
) -> pd.DataFrame:
    """A copy of `frame` with the columns of an output file added, joined by position; the index is kept.

    Raises:
        KeyError: no such column. ClassifyError: as `classify_texts`.
    """
    return _blocking(classify_frame_async(frame, text_column, url=url, config=config))


async def classify_frame_async(
    frame: pd.DataFrame, text_column: str, *, url: str | None = None, config: Config | None = None
) -> pd.DataFrame:
    """`classify_frame` for those who have a loop."""
    import pandas as pd

    config = config or Config()
    texts = [None if pd.isna(text) else text for text in frame[text_column].tolist()]
    predictions = await classify_texts_async(texts, url=url, config=config)
    prefix = config.writer.prefix
    added = pd.DataFrame(
        {
            f"{prefix}label": [prediction.label for prediction in predictions],
            f"{prefix}score": [prediction.score for prediction in predictions],
            f"{prefix}error": [prediction.error for prediction in predictions],
        },
        index=frame.index,
    ).astype({f"{prefix}score": "float64"})
    return pd.concat([frame, added], axis=1)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where it is installed: a request costs a fifth less."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end: on a loop of its own, in a thread of its own where one is running already."""

    def on_own_loop() -> T:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(work)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return on_own_loop()
    outcome: list[T | BaseException] = []

    def catch() -> None:
        try:
            outcome.append(on_own_loop())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
