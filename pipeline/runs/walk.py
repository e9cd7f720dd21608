"""The walk of a run through its files, of which a single one is the simplest list.

opened, a few ahead | first pass: the chunks of one file after those of the other | published, a few at a time
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.cancellation import run_cancellable
from pipeline.config import PIPE, Config, cores_here, public_settings
from pipeline.errors import ClassifyError, DiskTrouble
from pipeline.monitoring.progress import SHOW_EVERY_S, Progress
from pipeline.monitoring.record import Outcome, RunRecord, encode_record, read_record
from pipeline.runs.accept import take_up
from pipeline.runs.file import Opener, RunFile
from pipeline.runs.first_pass import FirstPass
from pipeline.runs.open_rows import OF_ONE_FILE
from pipeline.runs.output import lock_of_directory, make_directory, record_of_directory
from pipeline.runs.pipes import stream
from pipeline.runs.plan import Pair, Plan
from pipeline.runs.publish import can_be_published_together, publish
from pipeline.runs.spread import SmallFiles, Spread
from pipeline.runs.totals import Totals
from pipeline.storage.draft import write_whole

# Files are opened and published many at a time, since threads are dear; in stores each apart, but some at once.
BATCH = 16
THREADS, THREADS_OF_STORE = 2, 8
# What one worker is given at once, see `Walk._take_small`.
BUNDLE_FILES, BUNDLE_BYTES, BUNDLES_A_WORKER = 64, 64 << 20, 4
SOON_DONE = 4 << 20  # bytes of a file
MOST_OPEN = 48  # files between their opening and their end: each holds descriptors and memory
Opened = RunFile | RunRecord | ClassifyError
Opening = asyncio.Future[list[Opened]]


class Walk:
    """A run. An error that concerns one file of many is reported, and does not stop the others.

    Args:
        plan: the files; of a single one, an error and the record are those of the run.
        environment: where secrets are read from.
        private: a directory of the run's own, if one of its ends is a pipe.
        asking: how servers are asked, in a worker; by default as `config` says, by several workers if it says so.
        tell: is told in a worker what came of each file.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        progress: Progress,
        environment: dict[str, str],
        private: Path | None,
        *,
        asking: Config | None = None,
        tell: Callable[[Pair, RunRecord | ClassifyError], None] | None = None,
    ) -> None:
        self._config, self._plan, self._progress = config, plan, progress
        is_here = (
            asking is not None or not config.is_spread or (plan.is_single and _is_soon_done(config, plan.pairs[0]))
        )
        way = FirstPass[RunFile] if is_here else Spread
        self._first_pass = way(asking or config, progress, environment, self._publish_later)
        self._tell = tell
        self._opener = Opener(config, plan, progress, private, reads_ahead=is_here)
        self._totals = Totals(config, plan, progress)
        is_remote = any(place.store for pair in plan.pairs for place in (pair.source, pair.output or pair.source))
        self._threads = THREADS_OF_STORE if is_remote else THREADS
        self._batch = BATCH if is_here and not is_remote else 1  # workers have the small files
        self._room = asyncio.Semaphore(MOST_OPEN)
        self._open: dict[RunFile, Pair] = {}
        self._answered: deque[RunFile] = deque()
        self._writers = 0
        self._has_begun = False  # whether there is anything to classify
        self._sizes: dict[Pair, int] = {}  # bytes of the inputs, where there are many
        self._bytes_ended = 0
        self._publishing: set[asyncio.Task[None]] = set()
        self._fatal: Exception | None = None

    async def run(self) -> RunRecord:
        """Classify all that is not complete, and return what came of it.

        Raises:
            ClassifyError: what keeps all files from being classified; those that are complete stay so.
        """
        self._progress.files_total = len(self._plan.pairs)
        for message in self._plan.left_out:
            self._progress.notice(message)
        with ExitStack() as locks, ThreadPoolExecutor(self._threads) as self._pool:
            for folder in self._plan.folders:
                if folder.store is None:
                    make_directory(Path(folder.path))
                locks.enter_context(lock_of_directory(folder, self._config.run.state_dir))
                await asyncio.to_thread(take_up, folder, self._config)
            if not self._plan.is_single:
                self._sizes = await asyncio.to_thread(lambda: {pair: _size(pair) for pair in self._plan.pairs})
                self._bytes_total = sum(self._sizes.values())
                self._progress.begin()
            ticking = asyncio.ensure_future(self._tick())
            try:
                async with aclosing(self._opened()) as files:
                    await self._classify(files)
                if self._fatal is not None:
                    raise self._fatal
            except ClassifyError as error:
                worse = self._totals.worse_than(error)
                if worse is None:
                    raise
                raise worse from error
            finally:
                ticking.cancel()
                self._progress.end()
                await asyncio.shield(asyncio.to_thread(self._let_go))
            record = self._totals.record()
            await asyncio.to_thread(self._record, record)
        return record

    def _record(self, outcome: Outcome) -> None:
        """Write down in each directory of outputs how the run stands, unless nothing has changed."""
        for folder in self._plan.folders:
            location = record_of_directory(folder)
            last = read_record(location, Outcome)
            if not (outcome.already_complete and last and last.finished and last.exit_code == outcome.exit_code):
                write_whole(location, encode_record(outcome))

    async def _classify(self, files: AsyncIterator[RunFile]) -> None:
        try:
            await self._first_pass.run(files)
        except asyncio.CancelledError:
            for task in self._publishing:
                task.cancel()
            raise
        finally:
            if self._config.writer.output == PIPE:
                await asyncio.shield(asyncio.to_thread(self._end_streaming))
            await self._end_publishing()

    def _end_streaming(self) -> None:
        """Let the rows that are answered go to standard output; no more will be."""
        for file in self._open:
            with suppress(ClassifyError):  # the same is met, and reported, when the run lets go of the file
                file.keep()
            file.all_answered.set()

    async def _end_publishing(self) -> None:
        """Wait for the writers: what is answered is written, whatever ended the first pass, but for a signal."""
        cancelled = None
        while self._publishing:
            try:
                await asyncio.wait(self._publishing)
            except asyncio.CancelledError as error:
                cancelled = error
                for task in self._publishing:
                    task.cancel()
        if cancelled is not None:
            raise cancelled

    async def _tick(self) -> None:
        try:
            while True:
                await asyncio.sleep(SHOW_EVERY_S)
                self._progress.show()
                for file in list(self._open):
                    await self._commit(file)
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self._end_with(error)

    async def _commit(self, file: RunFile) -> None:
        """Commit what came since; of a file in memory, if that has been there for long."""
        if not file.is_due(self._progress.elapsed_s):
            return
        file.checkpoint.put_later(progress=self._news(file))
        try:
            await asyncio.to_thread(file.commit_if_free)
        except OF_ONE_FILE:
            if not file.checkpoint.is_in_memory:  # else no harm, if it is published
                raise

    def _news(self, file: RunFile) -> dict[str, Any]:
        """Return what `classify status` shows of a file while it is running."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = self._progress.started.isoformat(timespec="seconds")
        servers = public_settings(self._config)["server"]["url"]
        news = self._progress.snapshot() | {"started": started, "updated": now, "servers": servers}
        of_this_file = {"rows_total": file.wanted, "rows_total_is_exact": True, "rows_per_s": None, "eta_s": None}
        return news | ({} if self._plan.is_single else of_this_file)

    def _let_go(self) -> None:
        """Keep what was answered of the files that are not published."""
        for file in self._open:
            with closing(file), suppress(DiskTrouble, *OF_ONE_FILE):  # the first has ended the run
                if file.source.location.is_piped and not file.checkpoint.get("published"):
                    file.forget()  # it will not come again; whose output stands there stays known
                else:
                    file.keep()

    # -- opening

    async def _opened(self) -> AsyncGenerator[RunFile, None]:
        """Yield the files that are not complete, in order, each with its output locked."""
        waiting, begun = deque(self._plan.pairs), deque[tuple[list[Pair], Opening]]()
        try:
            while waiting or begun:
                await self._give_small(waiting)
                # What is being opened goes on before there must be room for more.
                while waiting and len(begun) < self._threads and (not begun or self._has_room(begun)):
                    pairs = [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]
                    for _ in pairs:
                        await self._room.acquire()
                    opening = asyncio.get_running_loop().run_in_executor(self._pool, self._open_all, pairs)
                    begun.append((pairs, opening))
                if not begun:
                    break
                await asyncio.wait([begun[0][1]])
                files = self._take(*begun.popleft())
                if files:
                    await self._note_begun()
                for file in files:
                    yield file
        finally:
            await asyncio.gather(*(opening for _, opening in begun), return_exceptions=True)
            for pairs, opening in begun:
                with suppress(ClassifyError):  # something else has ended the run
                    self._take(pairs, opening)

    async def _note_begun(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            await asyncio.to_thread(self._record, self._totals.begun())

    async def _give_small(self, waiting: deque[Pair]) -> None:
        """Give workers the next files, as long as they are small."""
        while isinstance(self._first_pass, Spread) and (small := self._take_small(waiting)):
            await self._note_begun()
            await self._first_pass.add(SmallFiles(dict(enumerate(small)), self._small_ended))

    def _take_small(self, waiting: deque[Pair]) -> list[Pair]:
        """Take the next files, if they are small, that one worker classifies as a whole."""
        taken: list[Pair] = []
        most = max(
            1, min(BUNDLE_FILES, len(self._plan.pairs) // (BUNDLES_A_WORKER * self._config.workers_on(cores_here())))
        )
        while waiting and len(taken) < most and self._is_small(waiting[0]):
            if sum(self._sizes[pair] for pair in [*taken, waiting[0]]) > BUNDLE_BYTES:
                break
            taken.append(waiting.popleft())
        return taken

    def _is_small(self, pair: Pair) -> bool:
        is_on_disk = not any(place.store for place in (pair.source, pair.output or pair.source))
        is_here = is_on_disk and self._config.engine.name != "ray"  # only this machine writes
        is_whole = not (self._plan.is_single or self._config.report.holds or pair.trouble)
        return is_here and is_whole and self._sizes[pair] <= BUNDLE_BYTES

    def _small_ended(self, pair: Pair, came: RunRecord | ClassifyError) -> None:
        """Take what came of a file that a worker has classified as a whole."""
        if isinstance(came, RunRecord) and came.accepted:
            self._plan.accepted.add(came.accepted)
        if (fatal := self._came(pair, came)) is not None:
            self._end_with(fatal)
        self._ended(pair)

    def _has_room(self, begun: Iterable[tuple[list[Pair], Opening]]) -> bool:
        return len(self._open) + sum(len(pairs) for pairs, _ in begun) + self._batch <= MOST_OPEN

    def _open_all(self, pairs: list[Pair]) -> list[Opened]:
        opened: list[Opened] = []
        for pair in pairs:
            try:
                opened.append(self._opener.open(pair))
            except ClassifyError as error:
                opened.append(error)
        return opened

    def _take(self, pairs: list[Pair], opening: Opening) -> list[RunFile]:
        """Return the files that can be classified; count the others, and raise what concerns not one of many alone."""
        files, fatal = [], None
        for pair, opened in zip(pairs, opening.result(), strict=True):
            if isinstance(opened, RunFile):
                self._open[opened] = pair
                files.append(opened)
                self._progress.resume(*opened.checkpoint.counts())
                if self._config.writer.output == PIPE:
                    self._begin(self._stream(opened))
                continue
            if isinstance(opened, RunRecord):
                self._progress.resume(opened.rows, opened.failed | {"empty": opened.empty})
            fatal = self._came(pair, opened) or fatal
            self._room.release()
            self._ended(pair)
        if fatal is not None:
            raise fatal
        if self._config.is_piped and files:
            self._progress.notice(
                "no resume: a pipe can't be taken up again where it broke off; an interrupted run starts over"
            )
        if self._plan.is_single and files:
            self._progress.expect(files[0].expected, is_exact=files[0].is_expected_exactly)
            self._progress.begin()
        self._expect()
        return files

    # -- publishing

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    def _publish_later(self, file: RunFile) -> None:
        if self._plan.is_single and file.error is None:
            self._progress.expect(self._progress.rows_done, is_exact=True)
            self._progress.rows_written = 0
        if self._config.writer.output == PIPE:  # its rows go out as they are answered
            if file.error is not None:
                self._end_with(file.error)
            return
        self._answered.append(file)
        if self._writers < self._threads:  # not the tasks: one that ends looks at nothing any more
            self._writers += 1
            self._begin(self._publish_answered())

    async def _publish_answered(self) -> None:
        try:
            while self._answered:
                files = [self._answered.popleft()]
                while self._answered and len(files) < self._batch:
                    if not all(map(can_be_published_together, (files[0], self._answered[0]))):
                        break
                    files.append(self._answered.popleft())
                await self._publish(files)
        finally:
            self._writers -= 1

    async def _publish(self, files: list[RunFile]) -> None:
        try:
            work = partial(publish, files, self._progress)
            for file, came in zip(files, await run_cancellable(work, self._pool), strict=True):
                if isinstance(came, RunRecord) and file.output.holds:
                    self._plan.waiting.append(file.output)
                if (fatal := self._came(self._open[file], came)) is not None:
                    self._end_with(fatal)
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self._end_with(error)
        finally:
            self._close(files)

    async def _stream(self, file: RunFile) -> None:
        try:
            self._totals.add(await stream(file, self._progress))
        except ClassifyError as error:
            self._end_with(error)
        else:
            self._close([file])

    def _close(self, files: list[RunFile]) -> None:
        for file in files:
            file.close()
            self._room.release()
            self._ended(self._open.pop(file))

    def _end_with(self, error: Exception) -> None:
        """Let the run end with this error, after what is being published."""
        self._fatal = self._fatal or error
        self._first_pass.stop()

    # -- what came of it

    def _came(self, pair: Pair, came: RunRecord | ClassifyError) -> ClassifyError | None:
        """Count and report what came of a file; return an error that ends the run."""
        if isinstance(came, RunRecord):
            self._totals.add(came)
        elif self._plan.is_single or not isinstance(came, OF_ONE_FILE):
            return came
        else:
            message = self._totals.fail(pair, came)
            if self._tell is None:
                self._progress.notice(message)
        if self._tell is not None:
            self._tell(pair, came)
        return None

    async def let_in(self, within_s: float) -> None:
        """See `FirstPass.let_in`."""
        if isinstance(self._first_pass, FirstPass):
            await self._first_pass.let_in(within_s)

    def _ended(self, pair: Pair) -> None:
        self._progress.files_done += 1
        self._bytes_ended += self._sizes.get(pair, 0)
        self._expect()

    def _expect(self) -> None:
        """Estimate the rows of all files: what is known of some says how many rows there are to a byte."""
        progress, limit = self._progress, self._config.run.limit_rows
        if self._plan.is_single:
            return
        known = {file: pair for file, pair in self._open.items() if file.expected}
        rows = self._totals.rows + sum(file.expected for file in known)
        size = self._bytes_ended + sum(self._sizes[pair] for pair in known.values())
        if not size:
            return
        total = rows * max(1.0, self._bytes_total / size)
        if limit is not None:
            total = min(total, limit * progress.files_total)
        progress.expect(max(int(total), progress.rows_done), is_exact=progress.files_done == progress.files_total)


def _is_soon_done(config: Config, pair: Pair) -> bool:
    """Whether this process would answer a file before workers have started, unless the size of shards is given."""
    return config.engine.shard_rows == "auto" and pair.source.store is None and _size(pair) <= SOON_DONE


def _size(pair: Pair) -> int:
    """Return the bytes of an input on a disk. One in a store counts as one: so all are taken for equally long."""
    return 1 if pair.source.store else pair.source.look()[1]
