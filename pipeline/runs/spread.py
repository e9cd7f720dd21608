"""The first pass on several workers: open rows are cut into shards, and what comes back goes into the checkpoints.

A worker that ends before its shard is done costs what it had in flight: the rows without answers go to another one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cancellation import every, running
from pipeline.checkpoint import differences
from pipeline.config import Config
from pipeline.engines.channel import (
    Answered,
    Answering,
    Begin,
    Bundle,
    Channel,
    Done,
    Drop,
    Ended,
    Failed,
    FileEnded,
    Finish,
    FromWorker,
    Learned,
    News,
    Next,
    Notice,
    Shard,
    ToWorker,
)
from pipeline.engines.engine import Engine, EngineWorker
from pipeline.engines.local import LocalEngine
from pipeline.engines.ray import RayEngine
from pipeline.errors import ClassifyError, ModelChanged, ServerGone, StoreGone, WorkerLost
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.file import RunFile
from pipeline.runs.first_pass import GRACE_S, deadline_reached, keep_all, seconds_left, urls_of
from pipeline.runs.open_rows import OF_ONE_FILE
from pipeline.runs.plan import Pair
from pipeline.runs.shards import OpenShard, shards_of

WATCH_S = 1.0
SILENT_S = 60.0  # after which a worker that says nothing, though it does so four times a second, is ended
END_S = 2.0  # for workers to send what they have, when they are told to end


@dataclass(eq=False)
class SmallFiles:
    """Files that one worker classifies from their opening to their output."""

    pairs: dict[int, Pair]  # that have not ended, by number
    on_ended: Callable[[Pair, RunRecord | ClassifyError], None]
    deaths: int = 0  # of workers, since one of them ended


class _Worker:
    """A worker as its run sees it."""

    def __init__(self, number: int, process: EngineWorker) -> None:
        self.number, self.process = number, process
        self.shards: dict[int, OpenShard] = {}  # that it has begun, by number
        self.bundles: dict[int, SmallFiles] = {}  # the same
        self.has_begun = False  # it has asked for its first one
        self.is_ready = False  # it can take one more
        self.waits_for_s: float | None = None  # no server answers it, and it waits so long
        self.silent_s: float | None = None  # since it spoke; None: it has not spoken yet
        self._unsent: list[ToWorker] = []  # until it is started

    def send(self, message: ToWorker) -> None:
        """Send a message, after those that it gets when it is started."""
        if self.process.channel is None:
            self._unsent.append(message)
        else:
            self.process.channel.send(message)

    async def start(self, begin: Begin) -> Channel | None:
        """Start it; None: it ended at once."""
        channel = await self.process.start()
        if channel is not None:
            for message in (begin, *self._unsent):
                channel.send(message)
        return channel


class Spread:
    """Answers the open rows of all files of a run with several workers; see `FirstPass`, whose methods it has."""

    def __init__(
        self, config: Config, progress: Progress, environment: dict[str, str], when_done: Callable[[RunFile], None]
    ) -> None:
        self._config, self._progress, self._environment = config, progress, environment
        self._when_done = when_done
        self._engine: Engine = LocalEngine()
        if config.engine.name == "ray":
            self._engine = RayEngine(config.engine, progress.notice)
        self._most = 0  # workers, once the engine is in use
        self._files: dict[RunFile, int] = {}  # that are not done, in their order -> their shards that are not done
        self._bundles: set[SmallFiles] = set()  # that are not done
        self._waiting: deque[OpenShard | SmallFiles] = deque()
        self._numbers = 0  # of what was given out
        self._workers: dict[int, _Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._urls: list[str] = []
        self._is_cut = False  # no more shards will come, but those of workers that ended
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_ending = False
        self._speakers: dict[str, int] = {}  # what was said -> the worker that says it for all
        self._false_starts = 0  # workers that ended before they began, since rows were answered

    async def run(self, files: AsyncIterator[RunFile]) -> None:
        """Answer all open rows of `files`. What a ClassifyError that ends it finds answered is kept."""
        async with AsyncExitStack() as self._in_use:
            try:
                async with running(self._cut(files), every(WATCH_S, self._watch)):
                    left = seconds_left(self._config, self._progress)
                    done, _ = await asyncio.wait([self._ended], timeout=left)
                    if not done:
                        await self._end(GRACE_S)
                        raise deadline_reached(self._config, self._progress)
                    self._ended.result()
            finally:
                await asyncio.shield(self._end(0.0))

    def stop(self) -> None:
        """End `run` before its time; what was answered is kept."""
        self._end_with(None)

    def _end_with(self, error: Exception | None) -> None:
        self._is_ending = True
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)
                self._ended.exception()  # it is known, though something else may end `run`

    async def _end(self, grace_s: float) -> None:
        """Have the workers send what they have, and end them."""
        self._is_ending = True
        for worker in self._workers.values():
            worker.send(Finish(grace_s))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s + END_S)
        for worker in self._workers.values():
            worker.process.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(keep_all, list(self._files))

    # -- from files to shards

    async def _cut(self, files: AsyncIterator[RunFile]) -> None:
        try:
            async for file in files:
                self._files[file] = 0
                try:
                    await self._cut_file(file)
                except OF_ONE_FILE as error:
                    self._fail(file, error)
                file.is_read = True
                self._finish_if_answered(file)
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            self._end_with(error)
        self._is_cut = True
        self._end_if_done()

    async def _cut_file(self, file: RunFile) -> None:
        if not file.feed.ranges:
            return
        await self._begin()
        shards = shards_of(file, self._config.engine.rows_of(file.expected, self._most))
        while (shard := await asyncio.to_thread(next, shards, None)) is not None and file.error is None:
            self._files[file] += 1
            self._offer(shard)

    async def add(self, files: SmallFiles) -> None:
        """Have small files classified, beside those that `run` is given; while it asks for these."""
        self._bundles.add(files)
        await self._begin()
        self._offer(files)

    async def _begin(self) -> None:
        """Start what workers need, before the first shard."""
        if not self._most:
            self._urls = await self._in_use.enter_async_context(urls_of(self._config))
            self._most = self._config.workers_on((await self._in_use.enter_async_context(self._engine)).cores)

    def _offer(self, work: OpenShard | SmallFiles) -> None:
        self._waiting.append(work)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give shards to workers that can take one, and start workers as long as there are more shards than these."""
        if self._is_ending:
            return
        ready = [worker for worker in self._workers.values() if worker.is_ready]
        while self._waiting and ready:
            self._give(ready.pop(), self._waiting.popleft())
        begun = sum(not (worker.shards or worker.bundles or worker.is_ready) for worker in self._workers.values())
        while len(self._waiting) > begun and len(self._workers) < self._most:
            number = next(number for number in range(self._most) if number not in self._workers)
            worker = self._workers[number] = _Worker(number, self._engine.worker(number))
            task = asyncio.ensure_future(self._work(worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            begun += 1

    def _give(self, worker: _Worker, work: OpenShard | SmallFiles) -> None:
        worker.is_ready = False
        self._numbers += 1
        if isinstance(work, SmallFiles):
            worker.bundles[self._numbers] = work
            worker.send(Bundle(self._numbers, work.pairs))
            return
        shard, file = work, work.file
        worker.shards[self._numbers] = shard
        worker.send(
            Shard(
                number=self._numbers,
                location=replace(file.source.location, content=None),
                output=file.shown,
                ranges=shard.ranges,
                positions=shard.positions,
                wanted=file.wanted or file.expected,
                identity=file.identity,
            )
        )

    # -- what workers say

    async def _work(self, worker: _Worker) -> None:
        """Start a worker, and take what it says until it ends."""
        try:
            error: Exception | None = None
            channel = await worker.start(self._message_to(worker))
            while channel is not None and (message := await channel.receive()) is not None:
                if isinstance(message, Ended):
                    error = message.error.error(worker.process.where) if message.error is not None else None
                    break
                self._take(worker, message)
            how = await worker.process.ended()
            if isinstance(error, ServerGone | StoreGone) and self._is_answered_elsewhere(worker):
                how, error = str(error), None
            if error is not None:
                self._end_with(error)
            await self._forget(worker, how)
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            worker.process.kill()
            self._end_with(error)
            if worker.process.channel is not None:
                await worker.process.ended()

    def _is_answered_elsewhere(self, worker: _Worker) -> bool:
        """Whether others are answered, so that what a worker can't reach concerns its node alone."""
        others = [each for each in self._workers.values() if each is not worker and (each.shards or each.bundles)]
        return any(each.waits_for_s is None for each in others)

    def _watch(self) -> None:
        """End workers that have stopped, or whose node has. Not by the clock: this process may have stopped, too."""
        for worker in self._workers.values():
            if worker.silent_s is not None:
                worker.silent_s += WATCH_S
                if worker.silent_s > SILENT_S:
                    worker.process.kill()

    def _message_to(self, worker: _Worker) -> Begin:
        slots = self._config.request.concurrency
        if slots != "auto":
            slots = slots // self._most + (worker.number < slots % self._most)
        return Begin(
            config=self._config,
            environment=self._engine.environment(self._environment),
            directory=str(Path.cwd()),
            urls=self._urls,
            slots=slots,
            is_answered=self._progress.is_answered,
        )

    def _take(self, worker: _Worker, message: FromWorker) -> None:
        worker.silent_s = 0.0
        if isinstance(message, Next):
            worker.has_begun = worker.is_ready = True
            self._hand_out()
        elif isinstance(message, News):
            self._progress.add(message.spent)
            self._note_answers()
            self._progress.hear_of(worker.number, message.in_flight, message.oldest_s)
            worker.waits_for_s = message.waiting[1] if message.waiting else None
            self._show_waiting()
        elif isinstance(message, Notice):
            # All of them meet the same servers: one speaks for all.
            said = message.topic or message.message
            is_new = said not in self._speakers
            if is_new or (message.topic and self._speakers[said] == worker.number):
                self._speakers[said] = worker.number
                self._progress.notice(message.message, message.topic)
        elif isinstance(message, FileEnded):
            self._take_of_bundle(worker, message)
        elif isinstance(message, Learned | Answered | Done | Failed):
            self._take_of_shard(worker, message)

    def _take_of_bundle(self, worker: _Worker, message: FileEnded) -> None:
        files, where = worker.bundles[message.bundle], worker.process.where
        files.deaths = self._false_starts = 0
        came = message.error.error(where) if message.error is not None else message.record
        if not isinstance(came, RunRecord | ClassifyError):
            raise TypeError(f"a worker says nothing of a file: {came!r}")
        files.on_ended(files.pairs.pop(message.pair), came)
        if not files.pairs:
            del worker.bundles[message.bundle]
            self._bundles.discard(files)
            self._end_if_done()

    def _take_of_shard(self, worker: _Worker, message: Learned | Answered | Done | Failed) -> None:
        file = worker.shards[message.shard].file
        if isinstance(message, Learned):
            self._learn(file, message.identity)
        elif isinstance(message, Answered):
            worker.shards[message.shard].deaths = self._false_starts = 0
            file.take(message.records, message.labels, message.spent, self._progress.elapsed_s)
        else:
            del worker.shards[message.shard]
            self._files[file] -= 1
            if isinstance(message, Failed):
                self._fail(file, message.error.error(worker.process.where))
            elif message.total is not None:
                file.feed.total = message.total
            self._finish_if_answered(file)

    def _note_answers(self) -> None:
        """Let workers whose first rows all fail know that the servers do not refuse everything."""
        progress = self._progress
        if not progress.is_answered and progress.rows_answered > progress.errors.total():
            progress.is_answered = True
            for worker in self._workers.values():
                worker.send(Answering())

    def _show_waiting(self) -> None:
        """Show that no server answers, if none answers any worker."""
        waits = [each.waits_for_s for each in self._workers.values() if each.shards or each.bundles]
        for_s = [each for each in waits if each is not None]
        if for_s and len(for_s) == len(waits):
            self._progress.begin_waiting(max(for_s))
        else:
            self._progress.end_waiting()

    def _learn(self, file: RunFile, identity: dict[str, Any]) -> None:
        """Take what a worker knows of the model; all of them must meet the same one."""
        model = {key: value for key, value in identity.items() if key.startswith("model.")}
        if other := differences({key: file.identity.get(key) for key in model}, model):
            raise ModelChanged(f"workers of this run met different models ({'; '.join(map(str, other))}); serve one")
        names = file.identity.get("model.names", {}) | model.get("model.names", {})
        is_new = "model.id" not in file.identity
        file.identity = model | file.identity | {"model.names": names}
        if is_new or not file.is_adopted:
            file.keep_identity()
            file.is_adopted = True
        else:
            file.checkpoint.put_later(identity=file.identity)

    def _fail(self, file: RunFile, error: Any) -> None:
        """Read no further in a file that can't be classified."""
        file.error = file.error or error
        dropped = [work for work in self._waiting if isinstance(work, OpenShard) and work.file is file]
        self._files[file] -= len(dropped)
        self._waiting = deque(work for work in self._waiting if work not in dropped)
        for worker in self._workers.values():
            for number, shard in worker.shards.items():
                if shard.file is file:
                    worker.send(Drop(number))

    def _finish_if_answered(self, file: RunFile) -> None:
        if file.is_read and not self._files[file]:
            del self._files[file]
            if file.is_adopted:
                file.keep_facts()
            self._when_done(file)
            self._end_if_done()

    def _end_if_done(self) -> None:
        """Let the workers end when all files are done."""
        if self._is_cut and not self._files and not self._bundles:
            self._is_ending = True
            for worker in self._workers.values():
                worker.send(Finish())
                if worker.process.channel is None:  # it may never find room
                    worker.process.kill()
            if not self._workers:
                self._end_with(None)
            asyncio.get_running_loop().call_later(GRACE_S, self._end_with, None)  # whatever a worker still does

    async def _forget(self, worker: _Worker, how: str) -> None:
        """Let a worker go that has ended; what it has not answered is given to others."""
        del self._workers[worker.number]
        for said in [said for said, number in self._speakers.items() if number == worker.number]:
            self._speakers[said] = next(iter(self._workers), 0)
        self._progress.hear_of(worker.number, 0, 0.0)
        if self._is_ending:
            if not self._workers:
                self._end_with(None)
            return
        self._false_starts += not worker.has_begun
        given: list[OpenShard | SmallFiles] = [*worker.shards.values(), *worker.bundles.values()]
        deaths = max([self._false_starts, *(work.deaths + 1 for work in given)])
        if deaths > self._config.engine.retries:
            raise WorkerLost(
                f"a worker {how}, {deaths} times before it had answered anything; what was answered is kept; "
                f"if memory is short, fewer workers take less of it"
            )
        self._progress.notice(f"a worker {how}; what it had not answered goes to another one", "a worker ended")
        for files in worker.bundles.values():
            files.deaths += 1
            self._waiting.appendleft(files)
        for shard in worker.shards.values():
            file = shard.file
            await asyncio.to_thread(file.keep)
            shard.deaths += 1
            if shard.has_rows_left() and file.error is None:
                self._waiting.appendleft(shard)
            else:
                self._files[file] -= 1
                self._finish_if_answered(file)
        self._hand_out()
