"""Batches of Arrow rows in, the same batches with the columns of an output out, for engines that call a function.

    engine ─ batches ─▶ Classifier ─ texts ─▶ batcher ─▶ servers
       ▲                    │
       └─ batches, wider ◀──┘

An engine ships a `Classifier` to its workers as a pickle, which holds settings and no secret. Each process has one
event loop, in a thread, and for each config one pool of connections, however many `Classifier`s use it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import msgspec
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.batcher.batcher import Batcher
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import Feed
from pipeline.checkpoint import Range
from pipeline.config import Config, Server, load, mask_url
from pipeline.config.masking import FROM_ENVIRONMENT
from pipeline.errors import ConfigError, InputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.column_lists import schema_with_fields
from pipeline.formats.columnar import ColumnarSource, heads_of, slices
from pipeline.formats.registry import FORMATS
from pipeline.formats.source import TextSpec
from pipeline.library import Answered, answered_by, layout_of, with_url
from pipeline.loops import new_loop
from pipeline.monitoring.progress import Counts, Progress
from pipeline.runs.first_pass import urls_of
from pipeline.servers.pool import Endpoints
from pipeline.storage import Location
from pipeline.texts import TextBlock, string_array

# What is sent ahead of the oldest batch that is not answered. One batch is, whatever its size.
ROWS_AHEAD = 1 << 16
BYTES_AHEAD = 64 << 20
IDLE_S = 30.0  # after so long without a request, servers are met again: one may have another model now
END_S = 5.0  # for closing what is open when the process ends

T = TypeVar("T")
Batch: TypeAlias = "pa.RecordBatch | pa.Table"


class Classifier:
    """Adds the columns of an output file to Arrow batches.

    A callable for an engine that calls a function or a class with one batch after the other; `stream` is for one that
    calls it with an iterator of batches. It connects when the first row comes, and stays connected until `close`, the
    end of its `with` block, or the end of the process. It may be called from several threads.

    Args:
        config: all settings, as a `Config` or as the path of a TOML file, which is read here. Of `loader`, what the
            text is made of is used; of `writer`, what columns there are. `run` and `report` are not used.
        text: the text column, or several, instead of those of `config.loader`.
        url: the server, instead of that of `config.server`.

    Raises:
        ConfigError: a setting is wrong; or, while it is pickled, a setting holds a secret.

    >>> import pyarrow as pa
    >>> from pipeline import Classifier
    >>> batch = pa.record_batch({"review": ["Das ist sehr gut.", None]})
    >>> with Classifier(text="review", url="embedded") as classifier:
    ...     labelled = classifier(batch)
    >>> labelled.schema.names
    ['review', 'predicted_label', 'predicted_score', 'predicted_error']
    >>> labelled["predicted_label"].to_pylist(), labelled["predicted_error"].to_pylist()
    (['de', None], [None, 'empty: no text'])
    """

    def __init__(
        self,
        config: Config | str | os.PathLike[str] | None = None,
        *,
        text: str | Sequence[str] | None = None,
        url: str | None = None,
    ) -> None:
        if not isinstance(config, Config):
            config = load(None if config is None else os.fspath(config), {})
        self._config = _of_batches(with_url(config, url), text)
        self._spec = TextSpec(self._config.loader)
        self._key = msgspec.json.encode(self._config)

    def __reduce__(self) -> tuple[type[Self], tuple[Config]]:
        _see_no_secret(self._config.server)
        return type(self), (self._config,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch of the same rows in the same order, with the new columns after its own.

        Args:
            batch: a `pyarrow.RecordBatch` or `Table`. One without rows needs no server, except for
                `writer.probs = "columns"` without `writer.labels`: then the server knows how many columns there are.

        Returns:
            The same kind of batch. Its own columns share memory with those of `batch`.

        Raises:
            TypeError: it is no Arrow batch.
            InputError: no such text column, or it holds no strings, or a column that would be added is there already.
            ClassifyError: the server can't be reached, or is no classifier.
        """
        pending = self._begin(batch)
        try:
            return self._end(pending)
        finally:
            _connections().cancel([pending.answered])

    def stream(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Yield each of `batches` with the new columns, see `__call__`, while texts of the next ones are being sent.

        It reads ahead of the batch that it waits for: one batch, or more up to 65,536 rows and 64 MiB. Where it is
        closed early, what is in flight is cancelled.
        """
        ahead: deque[_Pending] = deque()
        rows = size = 0  # of the batches in `ahead`

        def is_due(oldest: _Pending) -> bool:
            full = rows - oldest.batch.num_rows >= ROWS_AHEAD or size - oldest.size >= BYTES_AHEAD
            return len(ahead) > 1 and (full or oldest.answered.done())  # else the servers would have nothing to do

        try:
            for batch in batches:
                ahead.append(self._begin(batch))
                rows, size = rows + batch.num_rows, size + ahead[-1].size
                while is_due(ahead[0]):
                    labelled = self._end(ahead[0])
                    oldest = ahead.popleft()
                    rows, size = rows - oldest.batch.num_rows, size - oldest.size
                    yield labelled
            while ahead:
                labelled = self._end(ahead[0])
                ahead.popleft()
                yield labelled
        finally:
            _connections().cancel([each.answered for each in ahead])

    def close(self) -> None:
        """Close the connections, unless another `Classifier` of this process uses them. It may be used again."""
        _connections().leave(self._key, id(self))

    def _begin(self, batch: Batch) -> _Pending:
        """Begin to send the texts of a batch."""
        if not isinstance(batch, (pa.RecordBatch, pa.Table)):
            raise TypeError(f"a batch is a pyarrow.RecordBatch or Table, not a {type(batch).__qualname__}")
        source, writer = _BatchSource(batch), self._config.writer
        source.check(self._spec, AppendedColumns(self._config, 0).names)
        if not batch.num_rows and (writer.probs != "columns" or writer.labels is not None):
            answered: Future[Answered] = Future()
            answered.set_result(Answered(Answers.none()))
            return _Pending(batch, 0, answered)
        feed = Feed(source, self._spec, [Range(0, batch.num_rows)] if batch.num_rows else [], lambda _: None)
        feed.read_ahead()
        connections = _connections()
        connections.join(self._key, id(self))
        work = connections.answer(self._key, self._config, feed, lambda classes: self._check(source, classes))
        return _Pending(batch, source.size, connections.submit(work))

    def _check(self, source: _BatchSource, num_classes: int) -> None:
        """See that the batch has no column of a class yet."""
        source.check(self._spec, AppendedColumns(self._config, num_classes).names)

    def _end(self, pending: _Pending) -> Batch:
        """Wait for the answers of a batch, and return it with the new columns."""
        batch, answered = pending.batch, pending.answered.result()
        columns = layout_of(self._config, answered)
        answers = columns.thresholds.applied(answered.answers)
        added = columns.arrays(answers, string_array(answers.labels.names))
        schema = schema_with_fields(batch.schema, columns.fields)
        return type(batch).from_arrays([*batch.columns, *added], schema=schema)


def classify_batches(
    batches: Iterable[Batch],
    text: str | Sequence[str] | None = None,
    *,
    url: str | None = None,
    config: Config | str | os.PathLike[str] | None = None,
) -> Generator[Batch, None, None]:
    """Yield Arrow batches with the columns of an output file, the rows in their order, while the next ones are sent.

    Args:
        batches: `pyarrow.RecordBatch`es or `Table`s, or a `RecordBatchReader`. `Classifier.stream` says how far they
            are read ahead.
        text: the text column, or several, instead of those of `config.loader`.
        url: the server, instead of that of `config.server`. "embedded" is the built-in language classifier.
        config: all other settings, or the path of a TOML file; see `Classifier`.

    Returns:
        A generator. It closes its connections at its end, where a `Classifier` keeps them for the next batches.

    Raises:
        ConfigError: at once.
        TypeError, InputError, ClassifyError: from the generator, as `Classifier` does.

    >>> import pyarrow as pa
    >>> from pipeline import classify_batches
    >>> table = pa.table({"id": [1, 2, 3], "review": ["Das ist sehr gut.", "", "Je l'ai lu d'une traite."]})
    >>> for batch in classify_batches(table.to_batches(max_chunksize=2), "review", url="embedded"):
    ...     print(batch["id"].to_pylist(), batch["predicted_label"].to_pylist())
    [1, 2] ['de', None]
    [3] ['fr']
    """
    classifier = Classifier(config, text=text, url=url)

    def labelled() -> Generator[Batch, None, None]:
        with classifier:
            yield from classifier.stream(batches)

    return labelled()


class _Pending(NamedTuple):
    """A batch whose texts are being sent."""

    batch: Batch
    size: int  # bytes
    answered: Future[Answered]


class _BatchSource(ColumnarSource):
    """The rows of a batch, as if they were those of a file: the same texts, errors and messages."""

    advice = "; name one with text="

    def __init__(self, batch: Batch) -> None:
        self._table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        super().__init__(Location("the batch", ""), FORMATS["arrow"], batch.schema, batch.num_rows)

    @property
    def size(self) -> int:
        """Bytes of all columns."""
        return int(self._table.nbytes)

    def _batches(
        self, row: int, most_rows: int, most_bytes: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """See `ColumnarSource._batches`."""
        heads = self.columns if names is None else heads_of(names)
        table = self._table.select([index for index, name in enumerate(self.columns) if name in heads])
        for batch in table.slice(row).to_batches():
            yield from slices(batch, 0, most_rows, most_bytes)


def _of_batches(config: Config, text: str | Sequence[str] | None) -> Config:
    """Return the settings that matter for batches: no paths of files, and no files that a worker would have to have."""
    loader = msgspec.structs.replace(config.loader, input="")
    if text is not None:
        columns = text if isinstance(text, str) else list(text)
        loader = msgspec.structs.replace(loader, text_column=columns, template=None)
    writer = msgspec.structs.replace(config.writer, output="", labels=config.writer.class_names)
    return Config(loader=loader, server=config.server, request=config.request, retry=config.retry, writer=writer)


def _see_no_secret(server: Server) -> None:
    """See that settings may stand in a pickle, which engines write to logs and disks.

    Raises:
        ConfigError: naming the first that may be a secret; they are those that `classify check` masks.
    """
    headers = [name for name, value in server.headers.items() if not value.startswith(FROM_ENVIRONMENT)]
    urls = {"url": server.urls, "proxy": [server.proxy or ""]}
    masked = [name for name, values in urls.items() if any(mask_url(value) != value for value in values)]
    for name in [*(f"headers.{each}" for each in headers), *masked]:
        advice = "give it in server.headers as" if name == "url" else "replace it by"
        raise ConfigError(
            f"server.{name} may hold a secret, and a pickle is logged and kept by engines; "
            f'{advice} "env:NAME" and set that variable on the workers, or make the Classifier there'
        )


# -- the connections of a process


class _Servers:
    """The servers of one config, and the work under way on them."""

    def __init__(self, config: Config) -> None:
        self.config, self.progress = config, Progress("quiet")
        self.running: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        self._idle_since = time.monotonic()
        self._stack = AsyncExitStack()
        self._connected = asyncio.ensure_future(self._connect())

    async def _connect(self) -> Endpoints:
        urls = await self._stack.enter_async_context(urls_of(self.config))
        endpoints = Endpoints(self.config, urls, dict(os.environ), self.progress)
        await self._stack.enter_async_context(endpoints)
        await endpoints.connect()
        return endpoints

    async def answer(self, feed: Feed, check: Callable[[int], object]) -> Answered:
        """Answer all rows of `feed`; `check(num_classes)` is called before."""
        if not self.running and self._connected.done() and time.monotonic() - self._idle_since > IDLE_S:
            self._connected = asyncio.ensure_future(self._meet_again(self._connected.result()))
        self.running.add(task := _current_task())
        try:
            endpoints = await asyncio.shield(self._connected)
            check(endpoints.facts.num_classes)
            return answered_by(endpoints, self.config, await self._answers(endpoints, feed))
        finally:
            self.running.discard(task)
            self._idle_since = time.monotonic()

    async def _meet_again(self, endpoints: Endpoints) -> Endpoints:
        await endpoints.connect()
        return endpoints

    async def _answers(self, endpoints: Endpoints, feed: Feed) -> dict[int, Answers]:
        """Return the answers of each chunk by its first row."""
        found: dict[int, Answers] = {}

        def store(chunk: Chunk, _: Answers, of_rows: Answers, __: Counts) -> None:
            found[chunk.first_row] = of_rows

        request, retry = self.config.request, self.config.retry
        batcher = Batcher(endpoints, request, retry, self.progress, store, failed_allowed=sys.maxsize)
        async with aclosing(self._in_turn(feed.chunks(request, endpoints.batch_size, _nothing_reused))) as chunks:
            await batcher.run(chunks)
        return found

    async def _in_turn(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks of a batch when all of the batches before it are being sent, so that these end first."""
        async with self._turn:
            async for chunk in chunks:
                yield chunk

    async def close(self, *, at_once: bool = True) -> None:
        """Close all connections: when the work under way has ended, or at once, which cancels it."""
        for task in self.running if at_once else ():
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        self._connected.cancel()
        await asyncio.gather(self._connected, return_exceptions=True)
        await self._stack.aclose()


class _Connections:
    """The event loop of this process, in a thread of its own, and the servers that it is connected to, by config."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users: defaultdict[bytes, set[int]] = defaultdict(set)
        self._servers: dict[bytes, _Servers] = {}
        self._ending: set[asyncio.Task[None]] = set()  # servers that are being closed

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Let `work` go on in the loop."""
        with self._lock:
            if self._loop is None:
                self._loop = new_loop()
                threading.Thread(target=self._loop.run_forever, name="classify", daemon=True).start()
                atexit.register(self._end, os.getpid())
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def join(self, key: bytes, user: int) -> None:
        """Note who uses the servers of a config."""
        with self._lock:
            self._users[key].add(user)

    def leave(self, key: bytes, user: int) -> None:
        """Close the connections if no other uses them."""
        with self._lock:
            users = self._users[key]
            is_last = users == {user}
            users.discard(user)
        if is_last:
            self.submit(self._close(key)).result()

    def cancel(self, works: Iterable[Future[Any]]) -> None:
        """Cancel what has not ended, and wait until it has: then nothing of it is sent any more."""
        open_works = [work for work in works if not work.done()]
        for work in open_works:
            work.cancel()
        if open_works:
            self.submit(self._cancelled()).result()

    async def answer(self, key: bytes, config: Config, feed: Feed, check: Callable[[int], object]) -> Answered:
        """Answer all rows of `feed`, see `_Servers.answer`. After an error the next call connects anew."""
        servers = self._servers.get(key)
        if servers is None:
            servers = self._servers[key] = _Servers(config)
        try:
            return await servers.answer(feed, check)
        except InputError:  # of the batch
            raise
        except Exception:
            if self._servers.get(key) is servers:
                del self._servers[key]
                self._ending.add(task := asyncio.ensure_future(servers.close(at_once=False)))
                task.add_done_callback(self._ending.discard)
            raise

    async def _cancelled(self) -> None:
        running = [task for servers in self._servers.values() for task in servers.running if task.cancelling()]
        await asyncio.gather(*running, return_exceptions=True)

    async def _close(self, *keys: bytes) -> None:
        servers = [self._servers.pop(key) for key in keys if key in self._servers]
        await asyncio.gather(*(each.close() for each in servers), return_exceptions=True)

    def _end(self, process: int) -> None:
        if os.getpid() == process and self._loop is not None:  # a fork has no such thread
            with suppress(Exception):
                self.submit(self._close(*self._servers)).result(END_S)


_of_process: dict[int, _Connections] = {}


def _connections() -> _Connections:
    """Return the connections of this process; those of the process that it was forked from are not its own."""
    return _of_process.setdefault(os.getpid(), _Connections())


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - it is asked for in coroutines
    return task


async def _nothing_reused(block: TextBlock, wanted: range) -> None:  # noqa: ARG001 - what `Feed.chunks` calls
    return None
