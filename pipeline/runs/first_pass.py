"""First pass: the rows that are open get their answers, which go into the checkpoints.

files | those with open rows | chunks, one file after the other | batcher | the checkpoint of each
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

from pipeline.answers import Answers
from pipeline.batcher.batcher import Batcher
from pipeline.batcher.cutter import Chunk
from pipeline.cancellation import running
from pipeline.config import EMBEDDED, Config
from pipeline.errors import DeadlineReached
from pipeline.monitoring.progress import SHOW_EVERY_S, Counts, Progress
from pipeline.runs.open_rows import OF_ONE_FILE, OpenRows
from pipeline.runs.reused import Reusing
from pipeline.servers.pool import Endpoints

GRACE_S = 5.0  # for what is in flight when the deadline comes
Rows = TypeVar("Rows", bound=OpenRows)


class FirstPass(Generic[Rows]):
    """Answers the open rows of all files of a run, through the same slots in flight.

    `when_done(file)` is called for each as soon as all its rows are answered, or it has an `error`. It
    connects when the first open row is found: a run that has nothing to send needs no server.
    """

    def __init__(
        self, config: Config, progress: Progress, environment: dict[str, str], when_done: Callable[[Rows], None]
    ) -> None:
        self._config, self._progress, self._environment = config, progress, environment
        self._when_done = when_done
        self._reusing = Reusing(config, progress)
        self._endpoints: Endpoints | None = None
        self._files: dict[Rows, None] = {}  # files that are not done, in their order
        self._stopped = asyncio.Event()

    async def run(self, files: AsyncIterator[Rows]) -> None:
        """Answer all open rows of `files`. What a ClassifyError that ends it finds answered is kept."""
        try:
            async with running(self._answer(files), self._stopped.wait()) as tasks:
                left = seconds_left(self._config, self._progress)
                done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    await self.let_in()
                    raise deadline_reached(self._config, self._progress)
                for task in done:
                    task.result()
        finally:
            for file in self._files:
                self._know(file)
            await asyncio.shield(asyncio.to_thread(keep_all, list(self._files)))

    def stop(self) -> None:
        """End `run` before its time; what was answered is kept."""
        self._stopped.set()

    # -- from files to chunks

    async def _answer(self, files: AsyncIterator[Rows]) -> None:
        async with aclosing(self._open(files)) as opened:
            first = await anext(opened, None)
            if first is None:
                return
            keeps_probs = self._config.needs_all_values is not None
            async with (
                self._reusing as reusing,
                urls_of(self._config) as urls,
                Endpoints(self._config, urls, self._environment, self._progress, keeps_probs=keeps_probs) as endpoints,
            ):
                await endpoints.connect()
                self._endpoints = endpoints
                rows = first.wanted or self._progress.rows_total or 0
                batcher = Batcher(
                    endpoints,
                    self._config.request,
                    self._config.retry,
                    self._progress,
                    self._store,
                    failed_allowed=self._config.run.failed_rows_allowed(rows),
                )
                await reusing.begin(first.identity, endpoints, batcher.classify)
                committing = asyncio.ensure_future(reusing.keep_committing())
                try:
                    await batcher.run(self._chunks(first, opened))
                finally:
                    committing.cancel()

    async def _open(self, files: AsyncIterator[Rows]) -> AsyncGenerator[Rows, None]:
        """Yield the files that have open rows; the others are done."""
        async for file in files:
            self._files[file] = None
            try:
                has_rows = await file.feed.has_rows()
            except OF_ONE_FILE as error:
                file.error, has_rows = error, False
            if has_rows:
                yield file
            else:
                self._read(file)

    async def _chunks(self, first: Rows, rest: AsyncIterator[Rows]) -> AsyncIterator[Chunk]:
        request, batch_size = self._config.request, self._connected.batch_size
        file: Rows | None = first
        while file is not None:
            try:
                await file.adopt(self._connected)
                async for chunk in file.feed.chunks(request, batch_size, self._reusing.look_up):
                    chunk.file = file
                    file.unanswered += len(chunk.text_of_row)
                    yield chunk
                    await file.have_room()
            except OF_ONE_FILE as error:
                file.error = error
            self._read(file)
            file = await anext(rest, None)

    # -- from answers to files

    def _store(self, chunk: Chunk, of_texts: Answers, of_rows: Answers, spent: Counts) -> None:
        file: Rows = chunk.file
        self._reusing.remember(chunk, of_texts)
        classes = self._connected.facts.num_classes if self._config.writer.needs_probs else 0
        file.store(chunk, of_rows, spent, classes, self._progress.elapsed_s)
        self._finish_if_answered(file)

    def _read(self, file: Rows) -> None:
        file.is_read = True
        self._finish_if_answered(file)

    def _finish_if_answered(self, file: Rows) -> None:
        if file.is_read and not file.unanswered and file in self._files:
            del self._files[file]
            self._know(file)
            self._when_done(file)

    def _know(self, file: Rows) -> None:
        if self._endpoints is not None:
            file.know(self._endpoints.facts.names)

    @property
    def _connected(self) -> Endpoints:
        assert self._endpoints is not None  # noqa: S101 - chunks come after it
        return self._endpoints

    async def let_in(self, within_s: float = GRACE_S) -> None:
        """Send nothing more, and wait a little for the requests in flight, which are paid for already."""
        if self._endpoints is None:
            return
        self._endpoints.slots.close()
        for _ in range(int(within_s / SHOW_EVERY_S)):
            if not self._endpoints.slots.in_flight:
                return
            await asyncio.sleep(SHOW_EVERY_S)


def seconds_left(config: Config, progress: Progress) -> float | None:
    """Return the seconds to the deadline of the command, which began when its files were looked for; None without."""
    left = config.run.seconds_left(progress.started)
    return None if left is None else max(0.0, left - progress.elapsed_s)


def deadline_reached(config: Config, progress: Progress) -> DeadlineReached:
    """Make the error that ends a run whose time is over."""
    kept = "" if config.is_piped else " and kept, the same command goes on from there"
    return DeadlineReached(f"the deadline {config.run.deadline} came; {progress.rows_done:,} rows are answered{kept}")


def keep_all(files: Iterable[OpenRows]) -> None:
    """Make durable what was answered of some files."""
    for file in files:
        file.keep()


@asynccontextmanager
async def urls_of(config: Config) -> AsyncIterator[list[str]]:
    """Yield the URLs to send to; the built-in server runs as long as they are in use."""
    if EMBEDDED not in config.server.urls:
        yield config.server.urls
        return
    from pipeline.servers.embedded import spawned

    async with spawned("vllm" if config.server.api == "auto" else config.server.api) as url:
        yield [url if each == EMBEDDED else each for each in config.server.urls]
