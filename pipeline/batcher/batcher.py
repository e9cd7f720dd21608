"""Texts in, predictions out: chunks, requests in flight, tries again, isolates the rows that are to blame.

    chunks | parcels | places, attempts, halves | one record a chunk

A parcel ends in one of four ways: predictions; Overloaded or Unavailable, and again later; Rejected, and halved down
to the guilty row, which becomes a prediction with an error; or the run stops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from pipeline.answers import Predictions
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.requests import Parcel, parcels
from pipeline.config import Request, Retry
from pipeline.errors import Misconfigured, Overloaded, Rejected, RequestFailed, TimedOut, Unreachable
from pipeline.monitoring.progress import Counts, Progress
from pipeline.servers.endpoint import Endpoint
from pipeline.servers.pool import Endpoints
from pipeline.servers.retry import delay_before_next
from pipeline.texts import Texts

TEXT_IN_FLIGHT = 64 << 20  # bytes of text held by all parcels that are not finished
SUSPECT_AFTER = 2  # failures of a request on servers that are well, before it is halved
COSTLY = 3  # failures that one counts for which took a server's whole patience, or the server
TOO_LARGE_AFTER = 4  # times a server was too busy for a request, before it is halved: full queues count texts
REFUSED_AT_FIRST = 32  # rows that fail before any is answered: the server refuses everything
PARCELS_PER_PLACE = 2  # under way for each place in flight, so that those who wait do not leave places empty


class Batcher:
    """Sends chunks, many at once, until each has predictions for all its rows.

    `store(chunk, predictions, spent)` is called once a chunk with the predictions of its rows, in any order, and what
    they cost; before that `remember` with those of its texts.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        request: Request,
        retry: Retry,
        progress: Progress,
        store: Callable[[Chunk, Predictions, Counts], None],
        *,
        remember: Callable[[Chunk, Predictions], None] = lambda _, __: None,
        failed_allowed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints, self._request, self._retry = endpoints, request, retry
        self._progress, self._store, self._remember = progress, store, remember
        self._failed_allowed = failed_allowed
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._size = 0  # bytes of text in the parcels under way
        self._failed_first = 0
        self._is_answered = False  # a server has said something sensible of a row
        self._aside = Counts()  # what is spent on texts that are of no row

    async def run(self, chunks: AsyncIterator[Chunk]) -> None:
        """Send all chunks and wait for the last.

        Raises:
            ClassifyError: the first failure that ends the run; what was stored by then stays.
        """
        try:
            async with aclosing(parcels(chunks, self._endpoints.sizes, self._request.max_chars)) as gathered:
                async for parcel in gathered:
                    while self._under_way and not self._has_room(parcel):
                        await self._wait_for_one()
                    self._size += parcel.size
                    self._under_way.add(asyncio.ensure_future(self._walk(parcel)))
            while self._under_way:
                await self._wait_for_one()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def _has_room(self, parcel: Parcel) -> bool:
        places = sum(endpoint.limiter.limit for endpoint in self._endpoints.all)
        return len(self._under_way) < PARCELS_PER_PLACE * places and self._size + parcel.size <= TEXT_IN_FLIGHT

    async def _wait_for_one(self) -> None:
        done, self._under_way = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]  # the first failure ends the run

    async def _walk(self, parcel: Parcel) -> None:
        spent = Counts()
        first, *others = parcel.chunks
        found = await self._classify(Texts.joined([chunk.texts for chunk in parcel.chunks]), spent)
        # Of a request for several chunks each has its texts; the rest is on the account of the first.
        for chunk in others:
            spent.texts_sent -= len(chunk.texts)
        start = 0
        for chunk in parcel.chunks:
            predictions = found.of(start, start + len(chunk.texts)) if others else found
            start += len(chunk.texts)
            self._keep(chunk, predictions, spent if chunk is first else Counts(texts_sent=len(chunk.texts)))
        self._size -= parcel.size

    def _keep(self, chunk: Chunk, predictions: Predictions, spent: Counts) -> None:
        self._remember(chunk, predictions)
        predictions = chunk.of_rows(predictions)
        spent.answered(predictions, shared=chunk.shared, reused=chunk.reused)
        self._store(chunk, predictions, spent)
        self._progress.answered(predictions, shared=chunk.shared, reused=chunk.reused)

    async def classify(self, texts: Texts) -> Predictions:
        """Predictions for some texts that are in no chunk."""
        return await self._classify(texts, self._aside)

    async def _classify(self, texts: Texts, spent: Counts, *, alone: bool = False) -> Predictions:
        """Predictions for all texts: a request that fails for good is halved, down to the text that is to blame."""
        if not texts:
            return Predictions()
        if len(texts) == 1 or len(texts) <= self._endpoints.sizes.rows:  # else it is known to be too large by now
            try:
                return await self._ask(texts, spent, alone=alone)
            except RequestFailed as error:
                if len(texts) == 1:
                    return await self._blame(texts, spent, error)
                alone = error.broke_server  # then its halves are suspects, too
        middle = len(texts) // 2
        # One half after the other: the first guilty row is known soon, and other chunks keep the places busy.
        left = await self._classify(texts[:middle], spent, alone=alone)
        return left + await self._classify(texts[middle:], spent, alone=alone)

    async def _blame(self, texts: Texts, spent: Counts, error: RequestFailed) -> Predictions:
        """The one text that is left is to blame: cut it if that was asked for, or give it its error."""
        if error.code == "too_long" and self._request.too_long == "truncate":
            try:
                return await self._ask(texts, spent, truncate=True)
            except RequestFailed as still:
                error = still
        if not self._is_answered:
            self._failed_first += 1
            if self._failed_first >= max(REFUSED_AT_FIRST, self._failed_allowed + 1):
                raise Misconfigured(
                    f"the first {self._failed_first} rows failed and none was answered, the last with: {error}; "
                    f"raise run.max_failed_rows to go on all the same"
                )
        return Predictions.failed(f"{error.code}: {error.reason}")

    async def _ask(self, texts: Texts, spent: Counts, *, truncate: bool = False, alone: bool = False) -> Predictions:
        """One request, tried again as long as it is not the request's fault.

        What was in flight when a server broke is suspect, and is tried alone from then on: if the server breaks again,
        it is known why, and no row can break it for ever.

        Raises:
            RequestFailed: it is (or may be, if there are several texts): refused, or failed on servers that are well.
        """
        tries = _Tries(self._clock(), alone)
        while True:
            endpoint, outcome = await self._endpoints.ask(texts, truncate=truncate, alone=tries.alone)
            spent.spend(len(texts))
            if isinstance(outcome, Predictions):
                self._is_answered |= spent is not self._aside
                return outcome
            # The place is given back: nobody waits while holding one.
            if isinstance(outcome, Rejected):
                raise outcome
            await self._weigh(tries, endpoint, outcome)
            # How busy a server is has no bound in time but server.wait_s.
            elapsed = 0.0 if isinstance(outcome, Overloaded) else self._clock() - tries.since
            delay = delay_before_next(
                tries.failures, tries.overloads, elapsed, self._retry, retry_after=outcome.retry_after
            )
            too_large = tries.overloads >= TOO_LARGE_AFTER or len(texts) > self._endpoints.sizes.rows
            suspect = tries.failures >= SUSPECT_AFTER or too_large
            if delay is None or (suspect and len(texts) > 1):
                raise outcome
            self._progress.retries += 1
            spent.retries += 1
            await self._endpoints.wait(delay, outcome)

    async def _weigh(self, tries: _Tries, endpoint: Endpoint, outcome: RequestFailed) -> None:
        """Count a failure against the request, if the server answers others."""
        if isinstance(outcome, Overloaded):
            tries.overloads += 1
            if outcome.may_be_broken and tries.overloads > TOO_LARGE_AFTER:
                if tries.alone and await self._endpoints.is_well(endpoint, outcome):
                    tries.failures += 1
                tries.alone = True
        elif await self._endpoints.is_well(endpoint, outcome):
            tries.failures += COSTLY if isinstance(outcome, TimedOut) else 1
        else:
            tries.since = self._clock()  # a sick server's time is not on the request's account
            if not isinstance(outcome, Unreachable):
                tries.failures += COSTLY if tries.alone else 0
                outcome.broke_server = tries.alone
                tries.alone = True


@dataclass(slots=True)
class _Tries:
    """What became of a request so far."""

    since: float  # the time that counts
    alone: bool  # it is sent where nothing else is in flight
    failures: int = 0  # that count against it
    overloads: int = 0  # times a server was too busy for it
