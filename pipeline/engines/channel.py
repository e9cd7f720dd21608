"""What a run and its workers tell each other, and the stream that carries it.

A message is a length in four bytes and a pickle: the other side is our own process, and paths and variables may hold
what is no UTF-8. Rows never travel, only what is to be read and what was answered.
"""

from __future__ import annotations

import asyncio
import pickle
import platform
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, Self

import msgspec

from pipeline._version import __version__
from pipeline.checkpoint import Range
from pipeline.checkpoint.store import Row
from pipeline.config import Config
from pipeline.errors import ClassifyError
from pipeline.monitoring.progress import Counts
from pipeline.monitoring.record import RunRecord
from pipeline.storage import Location
from pipeline.streams import storable
from pipeline.texts import Position

LENGTH_BYTES = 4
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}  # s, s, times: a node is gone after 30 s


class Hello(msgspec.Struct):
    """From a worker, first, as a line of JSON: who it is. Nothing else is read before that is known."""

    token: str
    version: str
    python: str
    node: str

    @classmethod
    def of_us(cls, token: str, node: str) -> Self:
        """Say who we are."""
        return cls(token, __version__, ".".join(platform.python_version_tuple()[:2]), node)


class Begin(msgspec.Struct):
    """To a worker, first: the run that it works for."""

    config: Config
    environment: dict[str, str]  # where secrets are read from; not an argument, which anybody may see
    directory: str  # in which the run works, and from which relative paths count
    urls: list[str]  # of the servers, also where the run has started one
    slots: int | Literal["auto"]  # its share of `request.concurrency`
    is_answered: bool  # whether a server has said something sensible of a row of the run

    @property
    def asking(self) -> Config:
        """The config by which it asks: its share of the slots, and no deadline, since the run has the clock."""
        config = self.config
        return msgspec.structs.replace(
            config,
            server=msgspec.structs.replace(config.server, url=self.urls),
            request=msgspec.structs.replace(config.request, concurrency=self.slots),
            run=msgspec.structs.replace(config.run, deadline=None),
        )


class Probe(msgspec.Struct):
    """To a worker, first, instead of `Begin`: see whether it could work there, and send nothing but the canary."""

    begin: Begin
    location: Location | None  # of an input


class Probed(msgspec.Struct):
    """From a worker: what it has seen."""

    identity: dict[str, Any]  # of the model
    pyarrow: str  # its version


class Shard(msgspec.Struct):
    """To a worker: rows of one file to be answered."""

    number: int
    location: Location  # of the input
    output: str  # in messages
    ranges: Sequence[Range]  # rows without answers
    positions: list[Position]  # from which they can be read; none: from the start
    wanted: int | None  # rows of the file, as far as that is known
    identity: dict[str, Any]


class Bundle(msgspec.Struct):
    """To a worker: small files to be classified, from their opening to their output."""

    number: int
    pairs: dict[int, Any]  # `runs.plan.Pair`, by number


class Drop(msgspec.Struct):
    """To a worker: read no further in a shard, as its file can't be classified."""

    shard: int


class Answering(msgspec.Struct):
    """To a worker: a server has said something sensible of a row, so it does not refuse everything."""


class Finish(msgspec.Struct):
    """To a worker: no more shards."""

    within_s: float | None = None  # send nothing more, and wait so long for what is in flight; None: all is answered


class Next(msgspec.Struct):
    """From a worker: all rows of its shards are read, it can take another one."""


class Learned(msgspec.Struct):
    """From a worker: what it knows of the model now, before the first answer of a shard, and when it changes."""

    shard: int
    identity: dict[str, Any]


class Answered(msgspec.Struct):
    """From a worker: answers of rows of a shard."""

    shard: int
    labels: list[str]  # all that the worker has met, by the ids of the records
    records: list[Row]
    spent: Counts  # on these


class Done(msgspec.Struct):
    """From a worker: all rows of a shard are answered."""

    shard: int
    total: int | None  # rows of the file, if it was read to its end


class Failed(msgspec.Struct):
    """From a worker: the file can't be classified; others can."""

    shard: int
    error: Trouble


class FileEnded(msgspec.Struct):
    """From a worker: what came of a file of a bundle, its record or an error that concerns it alone."""

    bundle: int
    pair: int  # its index in the bundle
    record: RunRecord | None = None
    error: Trouble | None = None


class News(msgspec.Struct):
    """From a worker, four times a second: what it spent since the last one, and how it stands."""

    spent: Counts
    in_flight: int
    oldest_s: float
    waiting: tuple[float, float] | None  # seconds without an answer of any server, and for how long it will wait


class Notice(msgspec.Struct):
    """From a worker: a message for the person, see `Progress.notice`."""

    message: str
    topic: str


class Ended(msgspec.Struct):
    """From a worker, last: nothing more comes, and why, unless it was told to finish."""

    error: Trouble | None = None


class Trouble(msgspec.Struct):
    """An error as it travels."""

    kind: str  # the class; that of a bug is none of ours
    message: str
    traceback: str = ""  # of a bug

    @classmethod
    def of(cls, error: ClassifyError) -> Self:
        """Describe an error of the tree in `errors`."""
        return cls(type(error).__name__, storable(str(error)))

    def error(self, where: str = "") -> Exception:
        """Make the error again; `where` is the node that it comes from, if it is another one."""
        from pipeline import errors

        message = f"{where}: {self.message}" if where else self.message
        kind = getattr(errors, self.kind, None)
        if self.traceback or kind is None:
            bug = RuntimeError(f"{self.kind} in a worker: {message}")
            bug.add_note(self.traceback)
            return bug
        error: ClassifyError = kind.__new__(kind)
        ClassifyError.__init__(error, message)
        return error


ToWorker = Begin | Probe | Shard | Bundle | Drop | Answering | Finish
FromWorker = Probed | Next | Learned | Answered | Done | Failed | FileEnded | News | Notice | Ended


class Channel:
    """A stream of messages to and from the other side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, message: msgspec.Struct) -> None:
        """Send a message; if the other side is gone, nothing happens."""
        body = pickle.dumps(message)
        if not self._writer.is_closing():
            self._writer.write(len(body).to_bytes(LENGTH_BYTES, "little") + body)

    async def drain(self) -> None:
        """Wait until the other side has taken most of what was sent, or is gone."""
        with suppress(OSError):
            await self._writer.drain()

    async def receive(self) -> Any:
        """Receive a message; None when the other side is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "little")
            return pickle.loads(await self._reader.readexactly(size))  # noqa: S301 - of our own process
        except (asyncio.IncompleteReadError, OSError):
            return None

    def abort(self) -> None:
        """Close the stream without sending what is left; `receive` then returns None, at both ends."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Send what is left, and close the stream."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel close a connection whose other side has gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
