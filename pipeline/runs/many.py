"""A command about many files: each has its own checkpoint and record, and all share the places in flight.

pairs | opened, a few ahead | first pass: the chunks of one file after those of the other | published, a few at a time
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cancellation import SHOW_EVERY_S
from pipeline.config import Config
from pipeline.errors import ClassifyError, DiskTrouble
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.file import Context
from pipeline.runs.first_pass import OF_ONE_FILE, FirstPass
from pipeline.runs.opening import Opener
from pipeline.runs.output import lock_of_directory, make_directory
from pipeline.runs.plan import Pair, Plan
from pipeline.runs.publish import published
from pipeline.runs.totals import Total

# Files are opened and published many at a time, since threads are dear; in stores each apart, but some at once.
BATCH = 16
THREADS, THREADS_OF_STORE = 2, 8
SETTLED_AT_ONCE = 16  # checkpoints that are made in one tick: it holds up everything else
MOST_OPEN = 48  # files between their opening and their end: each holds descriptors and memory
T = TypeVar("T")
Opened = Context | RunRecord | ClassifyError
Job = asyncio.Future[list[Opened]]


class Many:
    """A command about many files. What is wrong with one is told, and does not stop the others."""

    def __init__(self, config: Config, plan: Plan, progress: Progress, environment: dict[str, str]) -> None:
        self._config, self._plan, self._progress = config, plan, progress
        self._first_pass = FirstPass(config, progress, environment, self._publish_later)
        self._opener = Opener(config, progress, is_one_of_many=True)
        self._total = Total(config, plan, progress)
        is_remote = any(place.store for pair in plan.pairs for place in (pair.source, pair.output or pair.source))
        self._threads, self._batch = (THREADS_OF_STORE, 1) if is_remote else (THREADS, BATCH)
        self._room = asyncio.Semaphore(MOST_OPEN)
        self._open: dict[Context, Pair] = {}
        self._answered: deque[Context] = deque()
        self._writers = 0
        self._rows_ended = 0  # of the files that are done
        self._publishing: set[asyncio.Task[None]] = set()
        self._is_cancelled = False
        self._fatal: Exception | None = None

    async def run(self) -> RunRecord:
        """Classify all that is not complete, and say what came of it.

        Raises:
            ClassifyError: what keeps all files from being classified; those that are complete stay so.
        """
        self._progress.files_total = len(self._plan.pairs)
        with ExitStack() as locks, ThreadPoolExecutor(self._threads) as self._pool:
            for folder in self._plan.folders:
                if folder.store is None:
                    make_directory(Path(folder.path))
                locks.enter_context(lock_of_directory(folder, self._config.run.state_dir))
            self._progress.begin()
            settling = asyncio.ensure_future(self._settle_late_ones())
            try:
                async with aclosing(self._opened()) as files:
                    await self._classify(files)
            except ClassifyError as error:
                self._total.weigh(error)
                raise
            finally:
                settling.cancel()
                self._progress.end()
                await asyncio.shield(asyncio.to_thread(self._let_go))
        if self._fatal is not None:
            raise self._fatal
        return self._total.record()

    async def _classify(self, files: AsyncIterator[Context]) -> None:
        try:
            await self._first_pass.run(files)
        except asyncio.CancelledError:
            self._is_cancelled = True
            raise
        finally:
            await self._end_publishing()

    async def _end_publishing(self) -> None:
        """Wait for those who write: what is answered is written, whatever ended the asking, but for a signal."""
        cancelled = None
        while self._publishing:
            try:
                await asyncio.wait(self._publishing, timeout=SHOW_EVERY_S)
            except asyncio.CancelledError as error:
                self._is_cancelled, cancelled = True, error
            self._progress.show()
        if cancelled is not None:
            raise cancelled

    async def _settle_late_ones(self) -> None:
        """Files that take longer than small ones do get a checkpoint on the disk, until they are published."""
        failed = set[Context]()  # which is said when they are published
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            now_s = self._progress.elapsed_s
            for file in [file for file in self._open if file.is_late(now_s) and file not in failed][:SETTLED_AT_ONCE]:
                try:
                    file.settle_meanwhile()
                except OF_ONE_FILE:
                    failed.add(file)
                except ClassifyError as error:
                    return self._end_with(error)

    def _let_go(self) -> None:
        """Keep what was answered of the files that are not published."""
        for file in self._open:
            with closing(file), suppress(DiskTrouble, *OF_ONE_FILE):  # the first has ended the command
                file.keep()

    # -- opening

    async def _opened(self) -> AsyncGenerator[Context, None]:
        """The files that are not complete, in order, each with its output locked."""
        waiting, jobs = deque(self._plan.pairs), deque[tuple[list[Pair], Job]]()
        try:
            while waiting or jobs:
                # What is being opened goes on before there must be room for more.
                while waiting and len(jobs) < self._threads and (not jobs or self._has_room(jobs)):
                    pairs = [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]
                    for _ in pairs:
                        await self._room.acquire()
                    jobs.append((pairs, self._begin(self._open_all, pairs)))
                await asyncio.wait([jobs[0][1]])
                for file in self._take(*jobs.popleft()):
                    yield file
        finally:
            await asyncio.gather(*(job for _, job in jobs), return_exceptions=True)
            for pairs, job in jobs:
                with suppress(ClassifyError):  # something else has ended the command
                    self._take(pairs, job)

    def _has_room(self, jobs: Iterable[tuple[list[Pair], Job]]) -> bool:
        """Whether a batch more may be open, beside those that are and those of `jobs`."""
        return len(self._open) + sum(len(pairs) for pairs, _ in jobs) + self._batch <= MOST_OPEN

    def _begin(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def _open_all(self, pairs: list[Pair]) -> list[Opened]:
        return [self._open_one(pair) for pair in pairs]

    def _open_one(self, pair: Pair) -> Opened:
        try:
            return self._opener.open(pair)
        except ClassifyError as error:
            return error

    def _take(self, pairs: list[Pair], job: Job) -> list[Context]:
        """The files that can be classified; the others are counted.

        Raises:
            ClassifyError: what is not wrong with one file alone.
        """
        files, fatal = [], None
        for pair, opened in zip(pairs, job.result(), strict=True):
            if isinstance(opened, Context):
                self._progress.resume(*opened.checkpoint.counts())
                self._open[opened] = pair
                files.append(opened)
                continue
            if isinstance(opened, RunRecord):
                self._add(opened)
                self._progress.resume(opened.rows, opened.failed | {"empty": opened.empty})
            elif isinstance(opened, OF_ONE_FILE):
                self._failed(pair, opened)
            else:
                fatal = opened
            self._ended()
        if fatal is not None:
            raise fatal
        return files

    # -- publishing

    def _publish_later(self, file: Context) -> None:
        self._answered.append(file)
        if self._writers < self._threads:  # not the tasks: one that ends looks at nothing any more
            self._writers += 1
            task = asyncio.ensure_future(self._publish())
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish(self) -> None:
        """Publish what is answered, until nothing is."""
        try:
            while self._answered:
                files = [self._answered.popleft()]
                while files[0].is_brief and self._answered and self._answered[0].is_brief and len(files) < self._batch:
                    files.append(self._answered.popleft())
                await self._publish_some(files)
        finally:
            self._writers -= 1

    async def _publish_some(self, files: list[Context]) -> None:
        try:
            for file, came in zip(files, await self._begin(published, files, self._tick), strict=True):
                if isinstance(came, RunRecord):
                    self._add(came)
                else:
                    self._failed(self._open[file], came)
        except Exception as error:  # noqa: BLE001 - raised again at the end of the command
            self._end_with(error)
        finally:
            for file in files:
                file.close()
                del self._open[file]
                self._ended()

    def _end_with(self, error: Exception) -> None:
        """Let the command end with this error, after what is being published."""
        self._fatal = self._fatal or error
        self._first_pass.stop()

    def _tick(self) -> None:
        if self._is_cancelled:
            raise asyncio.CancelledError

    def _add(self, record: RunRecord) -> None:
        self._total.add(record)
        self._rows_ended += record.rows

    def _ended(self) -> None:
        self._room.release()
        progress = self._progress
        progress.files_done += 1
        # Those that are open may be far larger than those that are done: what is known of them counts.
        known = [file.wanted or 0 for file in self._open]
        begun = progress.files_done + len(known)
        rows = max(self._rows_ended + sum(known), progress.rows_done) / begun * progress.files_total
        progress.expect(int(rows), is_exact=progress.files_done == progress.files_total)

    def _failed(self, pair: Pair, error: ClassifyError) -> None:
        self._progress.notice(self._total.fail(pair, error))
