"""A worker of a run: reads the shards that it is given, asks the servers, and says what they answered."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa

from pipeline.answers import Answers, Labels
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import Feed
from pipeline.cancellation import every, running
from pipeline.checkpoint.store import Row, record_of
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
    Hello,
    Learned,
    News,
    Next,
    Notice,
    Probe,
    Probed,
    Shard,
    Trouble,
    keep_alive,
)
from pipeline.errors import ClassifyError
from pipeline.formats.source import Source, TextSpec
from pipeline.loops import new_loop
from pipeline.monitoring.progress import SHOW_EVERY_S, Counts, Progress
from pipeline.monitoring.record import RunRecord
from pipeline.runs.file import open_checked
from pipeline.runs.first_pass import FirstPass
from pipeline.runs.open_rows import OpenRows
from pipeline.runs.plan import Pair, Plan
from pipeline.runs.walk import Walk
from pipeline.servers.pool import Endpoints
from pipeline.storage import Location
from pipeline.texts import Position


@dataclass(eq=False)
class ShardRows(OpenRows):
    """The rows of a shard; their answers go to the run, some at a time."""

    shard: Shard
    labels: Labels  # of the worker
    channel: Channel
    records: list[Row] = field(default_factory=list)  # that were not sent yet
    spent: Counts = field(default_factory=Counts)  # on these

    def __post_init__(self) -> None:
        self.feed = Feed(self.source, self.spec, self.shard.ranges, self._position_before)
        self.feed.total = self.shard.ranges[-1].stop  # a shard that ends before the file says nothing of its length

    def _position_before(self, row: int) -> Position | None:
        return next((at for at in reversed(self.shard.positions) if at.row <= row), None)

    @property
    def shown(self) -> str:
        """See `OpenRows.shown`."""
        return self.shard.output

    @property
    def wanted(self) -> int | None:
        """See `OpenRows.wanted`."""
        return self.shard.wanted

    def store(self, chunk: Chunk, answers: Answers, spent: Counts, num_classes: int, now_s: float) -> None:  # noqa: ARG002
        """See `OpenRows.store`."""
        self.records.append(record_of(chunk.first_row, chunk.position, answers, self.labels, num_classes))
        self.spent.add(spent)
        self.unanswered -= len(answers)

    async def have_room(self) -> None:
        """See `OpenRows.have_room`: what the run has not taken yet is in our memory."""
        await self.channel.drain()

    def send(self) -> None:
        """Send what was answered since the last time."""
        if self.records:
            self.channel.send(Answered(self.shard.number, self.labels.names, self.records, self.spent.take()))
            self.records = []

    def keep(self) -> None:
        """See `OpenRows.keep`: the worker sends it."""

    def keep_identity(self) -> None:
        """See `OpenRows.keep_identity`."""
        self.channel.send(Learned(self.shard.number, self.identity))

    def keep_facts(self) -> None:
        """See `OpenRows.keep_facts`."""
        self.keep_identity()


class _Relay(Progress):
    """A progress that nobody sees: what it has to say goes to the run."""

    def __init__(self, channel: Channel) -> None:
        super().__init__("quiet")
        self._channel = channel

    def notice(self, message: str, topic: str = "") -> None:
        """See `Progress.notice`."""
        self._channel.send(Notice(message, topic))


class Worker:
    """Answers shards until there are no more."""

    def __init__(self, channel: Channel, begin: Begin) -> None:
        self._channel, self._begin, self._config = channel, begin, begin.asking
        self._progress = _Relay(channel)
        self._progress.is_answered = begin.is_answered
        self._environment = begin.environment
        self._first_pass = FirstPass[ShardRows](self._config, self._progress, self._environment, self._done)
        self._walk: Walk | None = None  # of small files, while it goes on
        self._labels = Labels()
        self._coming: asyncio.Queue[Shard | Bundle | None] = asyncio.Queue()
        self._rows: dict[int, ShardRows] = {}  # by the number of their shard: those that are not done
        self._dropped: set[int] = set()  # shards of which no more is to be read
        self._opened: tuple[Location, Source, TextSpec] | None = None  # the last input

    async def run(self) -> None:
        """Answer what comes, until the run says that it is finished.

        Raises:
            ClassifyError: what keeps all files from being classified.
        """
        works = (self._first_pass.run(self._shards()), self._listen(), every(SHOW_EVERY_S, self._tell))
        try:
            async with running(*works) as tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            self._tell()

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Shard | Bundle):
                self._coming.put_nowait(message)
            elif isinstance(message, Drop):
                self._dropped.add(message.shard)
                if message.shard in self._rows:
                    self._rows[message.shard].feed.is_dropped = True
            elif isinstance(message, Answering):
                self._progress.is_answered = True
            elif isinstance(message, Finish):
                self._finishing = asyncio.ensure_future(self._finish(message.within_s))
        os._exit(1)  # the run has ended: no answer would be kept

    async def _finish(self, within_s: float | None) -> None:
        if within_s is None:
            self._coming.put_nowait(None)
            return
        await asyncio.gather(*(each.let_in(within_s) for each in (self._first_pass, self._walk) if each is not None))
        self._first_pass.stop()

    async def _shards(self) -> AsyncIterator[ShardRows]:
        while True:
            self._channel.send(Next())
            shard = await self._coming.get()
            if shard is None:
                return
            if isinstance(shard, Bundle):
                await self._classify_files(shard)
                continue
            try:
                source, spec = await asyncio.to_thread(self._open, shard)
            except ClassifyError as error:
                self._channel.send(Failed(shard.number, Trouble.of(error)))
                continue
            self._rows[shard.number] = rows = ShardRows(
                self._config, source, spec, shard.identity, shard, self._labels, self._channel
            )
            rows.feed.is_dropped = shard.number in self._dropped
            yield rows

    async def _classify_files(self, bundle: Bundle) -> None:
        """Classify small files, and say of each what came of it as soon as it has ended."""
        pairs: dict[int, Pair] = bundle.pairs
        numbers = {pair: number for number, pair in pairs.items()}

        def tell(pair: Pair, came: RunRecord | ClassifyError) -> None:
            self._tell()
            ended = FileEnded(bundle.number, numbers[pair])
            if isinstance(came, RunRecord):
                ended.record = came
            else:
                ended.error = Trouble.of(came)
            self._channel.send(ended)

        config, plan = self._begin.config, Plan([*pairs.values()])
        self._walk = Walk(config, plan, self._progress, self._environment, None, asking=self._config, tell=tell)
        try:
            await self._walk.run()
        finally:
            self._walk = None

    def _open(self, shard: Shard) -> tuple[Source, TextSpec]:
        """Open the input of a shard; most often it is that of the last one."""
        if self._opened is None or self._opened[0] != shard.location:
            self._opened = (shard.location, *open_checked(self._config, shard.location))
        return self._opened[1:]

    def _done(self, rows: ShardRows) -> None:
        self._tell()
        del self._rows[rows.shard.number]
        if rows.error is not None:
            self._channel.send(Failed(rows.shard.number, Trouble.of(rows.error)))
        else:
            has_end = rows.shard.ranges[-1].stop is None
            self._channel.send(Done(rows.shard.number, rows.feed.total if has_end else None))

    def _tell(self) -> None:
        for rows in self._rows.values():
            rows.send()
        progress = self._progress
        self._channel.send(News(progress.take(), progress.in_flight, progress.oldest_s, progress.waiting))


async def _work(channel: Channel, own: Mapping[str, str]) -> None:
    """Work for the run at the other end; `own` are variables besides those that it sends."""
    match await channel.receive():
        case Begin() as begin:
            works = Worker(channel, _settled(begin, own)).run()
        case Probe() as probe:
            works = _probe(channel, _settled(probe.begin, own), probe.location)
        case _:
            return
    trouble: Trouble | None = None
    try:
        await works
    except ClassifyError as error:
        trouble = Trouble.of(error)
    except Exception as error:  # noqa: BLE001 - the run shows it
        trouble = Trouble(type(error).__name__, str(error), traceback.format_exc())
    channel.send(Ended(trouble))
    await channel.close()


def _settled(begin: Begin, own: Mapping[str, str]) -> Begin:
    """Go where the run works, and add our own variables to those that it sends."""
    with suppress(OSError):  # another node may not have the directory, and need not if all paths are absolute
        os.chdir(begin.directory)
    begin.environment = {**own, **begin.environment}
    return begin


async def _probe(channel: Channel, begin: Begin, location: Location | None) -> None:
    """See whether the input can be read from here, and which model answers."""
    if location is not None:
        await asyncio.to_thread(open_checked, begin.config, location)
    async with Endpoints(begin.config, begin.urls, begin.environment, _Relay(channel)) as endpoints:
        await endpoints.connect(wait=False)
        channel.send(Probed(dict(endpoints.identity), pa.__version__))


def work_for(host: str, port: int, token: str, node: str) -> str | None:
    """Be a worker, on a node, of a run that waits for it at an address; return why it could not begin.

    Secrets are read from the environment of the node, and what the run sends.
    """

    async def connect_and_work() -> str | None:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            return f"can't reach the run at {host}:{port} ({error.strerror})"
        keep_alive(writer.get_extra_info("socket"))
        writer.write(msgspec.json.encode(Hello.of_us(token, node)) + b"\n")
        await _work(Channel(reader, writer), os.environ)
        return None

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(connect_and_work())


def main() -> None:
    """Be a worker; the argument is the descriptor of the socket to the run."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # systemd sends it to all
        signal.signal(number, signal.SIG_IGN)  # the run decides when we end
    connection = socket.socket(fileno=int(sys.argv[1]))

    async def connect_and_work() -> None:
        await _work(Channel(*await asyncio.open_connection(sock=connection)), {})

    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(connect_and_work())


if __name__ == "__main__":
    main()
