"""Who may send, and where: the place that every request needs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.errors import ClassifyError
from pipeline.servers.endpoint import Endpoint


class Gate:
    """Gives places on the endpoints that are well, up to their limits."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self._endpoints = endpoints  # shared with those who drop endpoints
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._fatal: ClassifyError | None = None
        self._closed = False

    @asynccontextmanager
    async def place(self, *, alone: bool = False) -> AsyncIterator[Endpoint]:
        """Wait for room on a server that is well, and hold a place there; the least loaded one is asked.

        With `alone`, nothing else is in flight on that server as long as the place is held.

        Raises:
            ServerGone: nobody has answered for `server.wait_s`.
            Misconfigured: a server has another model now, or no endpoint is left.
        """
        endpoint = await self._reserve() if alone else await self._room()
        endpoint.limiter.in_flight += 1
        try:
            yield endpoint
        finally:
            endpoint.limiter.in_flight -= 1
            endpoint.is_reserved = endpoint.is_reserved and not alone
            self._wake()

    async def _room(self) -> Endpoint:
        while not (free := [each for each in self._well() if each.limiter.has_room and not each.is_reserved]):
            await self._wait()
        return min(free, key=lambda each: each.limiter.load)

    async def _reserve(self) -> Endpoint:
        """A server that was emptied for one request."""
        while True:
            while not (free := [each for each in self._well() if not each.is_reserved]):
                await self._wait()
            endpoint = min(free, key=lambda each: each.limiter.load)
            endpoint.is_reserved = True
            try:
                while endpoint.limiter.in_flight and endpoint in self._well():
                    await self._wait()
                if endpoint in self._well():
                    return endpoint
            except BaseException:
                endpoint.is_reserved = False
                raise
            endpoint.is_reserved = False

    def raise_if_stopped(self) -> None:
        """Raise what `stop` was given, if it was called."""
        if self._fatal:
            raise self._fatal

    def _well(self) -> list[Endpoint]:
        self.raise_if_stopped()
        return (
            [] if self._closed else [each for each in self._endpoints if not each.is_resting and not each.is_doubtful]
        )

    async def _wait(self) -> None:
        """Until a place is given back, or a server rests or is well again."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # what woke us is for somebody else
            raise

    def _wake(self) -> None:
        """As many as there is room for; all of them where they wait for different things."""
        if any(each.is_reserved or each.is_resting or each.is_doubtful for each in self._endpoints):
            return self.wake_all()
        room = sum(max(0, each.limiter.limit - each.limiter.in_flight) for each in self._endpoints)
        while self._waiters and room > 0:
            if not (waiter := self._waiters.popleft()).done():
                waiter.set_result(None)
                room -= 1
        return None

    def wake_all(self) -> None:
        """Something changed that everybody who waits must look at."""
        while self._waiters:
            if not (waiter := self._waiters.popleft()).done():
                waiter.set_result(None)

    def stop(self, error: ClassifyError) -> None:
        """Raise `error` for everybody who waits for a place, now or later."""
        self._fatal = error
        self.wake_all()

    def close(self) -> None:
        """Give no more places: what is in flight may come in, nothing new is sent."""
        self._closed = True

    @property
    def in_flight(self) -> int:
        """Requests in flight on all endpoints."""
        return sum(endpoint.limiter.in_flight for endpoint in self._endpoints)
