"""Workers on the nodes of a Ray cluster. Ray places them and says how one ended; nothing else goes through it.

    the run ─ Place, Cancel ─▶ ray_process ─ a task a worker ─▶ Ray
       ▲                                                         │
       └── Hello, then the channel of every worker ◀─────────────┘

A worker is a Ray task that connects to the run and shows its token. So the config, secrets and answers are in no log or
object of Ray. Ray's library has a process of its own, since it prints to standard output and takes over signals.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import msgspec

from pipeline.config.engine import Engine as Settings
from pipeline.engines.channel import Channel, Hello, Trouble, keep_alive
from pipeline.engines.engine import Engine, EngineWorker
from pipeline.engines.local import LocalProcess
from pipeline.errors import ConfigError, ServerGone, WorkerLost

MODULE = "pipeline.engines.ray_process"
CONNECT_S = 60.0  # to the cluster
HELLO_S = 10.0  # for a worker that has connected to say who it is
HELLO_BYTES = 4096
PLACED_S = 10.0  # from which on the person is told that the cluster has no room
LET_GO_S = 5.0  # between the end of a task and that of its connection


class Connect(msgspec.Struct):
    """To Ray's process, first: the cluster."""

    address: str


class Cluster(msgspec.Struct):
    """From Ray's process: what the cluster has now."""

    host: str  # the address of this node
    cores: int
    nodes: list[tuple[str, str]]  # those that have cores: id, address
    room: str  # what is free, in words


class Place(msgspec.Struct):
    """To Ray's process: start a worker where there is room, or on a node."""

    token: str
    host: str
    port: int  # of the run
    name: str
    memory_mb: int
    node: str | None = None  # its id


class Cancel(msgspec.Struct):
    """To Ray's process: end a worker at once, or take it out of the queue."""

    token: str


class Over(msgspec.Struct):
    """From Ray's process: how a worker ended."""

    token: str
    how: str


class RayEngine(Engine):
    """A Ray cluster that is there.

    Args:
        tell: shows a message to the person, under a topic.
    """

    def __init__(self, settings: Settings, tell: Callable[[str, str], None]) -> None:
        self.settings, self.tell = settings, tell
        self._expected: dict[str, asyncio.Future[tuple[Hello, Channel]]] = {}  # workers, by their tokens
        self._running: dict[str, asyncio.Future[str]] = {}  # tasks, by the tokens of their workers

    async def __aenter__(self) -> Self:
        """Connect to the cluster, and wait for workers.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster. ServerGone: it does not answer.
        """
        self._process, address = LocalProcess(MODULE), self.settings.address
        self._ray = await self._process.start()
        self._ray.send(Connect(address))
        try:
            async with asyncio.timeout(CONNECT_S):
                answer = await self._ray.receive()
        except TimeoutError:  # Ray itself tries for ever
            answer = Trouble.of(ServerGone(f"the Ray cluster at {address} does not answer within {CONNECT_S:g} s"))
        if not isinstance(answer, Cluster):
            self._process.kill()
            how = await self._process.ended()
            lost = WorkerLost(f"the process that speaks with Ray {how}")
            raise answer.error() if isinstance(answer, Trouble) else lost
        self.cluster = answer
        self._server = await asyncio.start_server(self._meet, answer.host, limit=HELLO_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]
        self._listening = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the cluster, which ends what is left of our workers."""
        self._server.close()
        await self._ray.close()  # so that the process ends
        await self._listening
        await self._process.ended()

    @property
    def cores(self) -> int:
        """See `Engine`: of all nodes that are there now."""
        return self.cluster.cores

    def worker(self, number: int) -> RayWorker:
        """See `Engine`."""
        return RayWorker(self, f"classify worker {number}")

    def one_a_node(self) -> list[tuple[str, RayWorker]]:
        """Return the address of each node that could have workers, and a worker for it."""
        return [(address, RayWorker(self, "classify check", node)) for node, address in self.cluster.nodes]

    def environment(self, ours: dict[str, str]) -> dict[str, str]:
        """See `Engine`: those of `engine.pass_env`.

        Raises:
            ConfigError: one of them is not set.
        """
        for name in self.settings.pass_env:
            if name not in ours:
                raise ConfigError(
                    f"engine.pass_env: the environment variable {name} is not set; set it, or take it out"
                )
        return {name: ours[name] for name in self.settings.pass_env}

    def place(
        self, token: str, name: str, node: str | None
    ) -> tuple[asyncio.Future[tuple[Hello, Channel]], asyncio.Future[str]]:
        """Have a worker started; return who will have connected, and how its task will have ended."""
        loop = asyncio.get_running_loop()
        connected, over = self._expected[token], self._running[token] = loop.create_future(), loop.create_future()
        if self._listening.done():
            self._end_all()
        self._ray.send(Place(token, self.cluster.host, self._port, name, self.settings.memory_mb, node))
        return connected, over

    def cancel(self, token: str) -> None:
        """End a worker at once, or take it out of the queue."""
        self._ray.send(Cancel(token))

    async def _listen(self) -> None:
        """Take what Ray's process says, until it ends."""
        while (message := await self._ray.receive()) is not None:
            if isinstance(message, Cluster):
                self.cluster = message
            elif isinstance(message, Over):
                self._expected.pop(message.token, None)
                self._running.pop(message.token).set_result(message.how)
        self._end_all()

    def _end_all(self) -> None:
        """Say of all workers that nobody knows how they end."""
        self._expected.clear()
        while self._running:
            self._running.popitem()[1].set_result("was lost: the process that speaks with Ray has ended")

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take up a connection, if it is that of a worker of ours."""
        try:
            async with asyncio.timeout(HELLO_S):
                hello = msgspec.json.decode(await reader.readline(), type=Hello)
            token = next(each for each in self._expected if hmac.compare_digest(each, hello.token))
        except (OSError, ValueError, TypeError, StopIteration, msgspec.MsgspecError):
            writer.close()
            return
        keep_alive(writer.get_extra_info("socket"))
        self._expected.pop(token).set_result((hello, Channel(reader, writer)))


class RayWorker(EngineWorker):
    """A task of the cluster, on any node or the one with an id."""

    def __init__(self, engine: RayEngine, name: str, node: str | None = None) -> None:
        self._engine, self._name, self._node = engine, name, node
        self._token = secrets.token_hex(32)
        self._over: asyncio.Future[str] | None = None
        self._is_killed = False

    async def start(self) -> Channel | None:
        """See `EngineWorker`. A cluster that has no room now may get some: it is waited for."""
        connected, self._over = self._engine.place(self._token, self._name, self._node)
        ways: set[asyncio.Future[Any]] = {connected, self._over}
        while not connected.done() and not self._over.done():
            done, _ = await asyncio.wait(ways, timeout=PLACED_S, return_when="FIRST_COMPLETED")
            if not done:
                room = self._engine.cluster.room
                self._engine.tell(f"the cluster has not started a worker yet ({room}); waiting", "no room")
        if not connected.done():
            return None
        hello, self.channel = connected.result()
        self.where = f"node {hello.node}"
        ours = Hello.of_us(self._token, hello.node)
        if hello != ours:
            raise ConfigError(
                f"{self.where} has classify-pipeline {hello.version} on Python {hello.python}, this machine "
                f"{ours.version} on {ours.python}; install the same on all nodes"
            )
        # A task that has ended without closing its connection, as when its node is gone, is let go.
        loop, abort = asyncio.get_running_loop(), self.channel.abort
        self._over.add_done_callback(lambda _: loop.call_later(LET_GO_S, abort))
        if self._is_killed:  # meanwhile
            self.channel.abort()
        return self.channel

    def kill(self) -> None:
        """See `EngineWorker`."""
        self._is_killed = True
        if self._over is not None and not self._over.done():
            self._engine.cancel(self._token)
        if self.channel is not None:
            self.channel.abort()

    async def ended(self) -> str:
        """See `EngineWorker`."""
        how = "lost its connection"
        if self._over is not None:
            with suppress(TimeoutError):
                how = await asyncio.wait_for(asyncio.shield(self._over), LET_GO_S)
        return f"on {self.where} {how}" if self.where else how
