"""The slots of a run: each request in flight holds one, on an endpoint that may be asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.errors import ClassifyError
from pipeline.servers.endpoint import Endpoint


class Slots:
    """Gives out slots on the endpoints that may be asked, up to the limit of each.

    `endpoints` is shared with what drops endpoints from it.
    """

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self._endpoints = endpoints
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._fatal: ClassifyError | None = None
        self._closed = False

    @asynccontextmanager
    async def take(self, texts: int = 1, *, alone: bool = False) -> AsyncIterator[Endpoint]:
        """Wait for a slot for so many texts on an endpoint that may be asked, the least loaded one, and hold it.

        With `alone`, nothing else is in flight on that endpoint as long as the slot is held.

        Raises:
            ClassifyError: what `stop` was given: no server answered for `server.wait_s`, one has another model now, or
                no endpoint is left.
        """
        endpoint = await (self._reserve() if alone else self._free(texts))
        endpoint.limiter.in_flight += 1
        endpoint.texts_in_flight += texts
        try:
            yield endpoint
        finally:
            endpoint.limiter.in_flight -= 1
            endpoint.texts_in_flight -= texts
            endpoint.is_reserved = endpoint.is_reserved and not alone
            self._wake()

    async def _free(self, texts: int) -> Endpoint:
        while (endpoint := self._least_loaded(texts)) is None or not endpoint.has_room_for(texts):
            await self._wait()
        return endpoint

    async def _reserve(self) -> Endpoint:
        """Wait until one endpoint has nothing in flight, and reserve it."""
        while True:
            while (endpoint := self._least_loaded()) is None:
                await self._wait()
            endpoint.is_reserved = True
            try:
                while endpoint.limiter.in_flight and endpoint in self._open():
                    await self._wait()
                if endpoint in self._open():
                    return endpoint
            except BaseException:
                endpoint.is_reserved = False
                raise
            endpoint.is_reserved = False

    def _least_loaded(self, texts: int = 0) -> Endpoint | None:
        free = [each for each in self._open() if not each.is_reserved]
        return min(free, key=lambda each: (not each.has_room_for(texts), each.limiter.load), default=None)

    def raise_if_stopped(self) -> None:
        """Raise what `stop` was given, if it was called."""
        if self._fatal:
            raise self._fatal

    def _open(self) -> list[Endpoint]:
        """Return the endpoints that may be asked."""
        self.raise_if_stopped()
        return [] if self._closed else [each for each in self._endpoints if each.may_be_asked]

    async def _wait(self) -> None:
        """Wait until a slot is given back, or until an endpoint may no longer be asked, or may be asked again."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # the slot that this one was woken for is for another
            raise

    def _wake(self) -> None:
        """Wake as many as there are free slots; all of them where they wait for different things."""
        if any(each.is_reserved or not each.may_be_asked for each in self._endpoints):
            return self.wake_all()
        free = sum(max(0, each.limiter.limit - each.limiter.in_flight) for each in self._endpoints)
        while self._waiters and free > 0:
            if not (waiter := self._waiters.popleft()).done():
                waiter.set_result(None)
                free -= 1
        return None

    def wake_all(self) -> None:
        """Wake all that wait: something changed that each of them must look at."""
        while self._waiters:
            if not (waiter := self._waiters.popleft()).done():
                waiter.set_result(None)

    def stop(self, error: ClassifyError) -> None:
        """Raise `error` in all that wait for a slot, now or later."""
        self._fatal = error
        self.wake_all()

    def close(self) -> None:
        """Give out no more slots: what is in flight may be answered, nothing new is sent."""
        self._closed = True

    @property
    def in_flight(self) -> int:
        """How many requests are in flight on all endpoints."""
        return sum(endpoint.limiter.in_flight for endpoint in self._endpoints)
