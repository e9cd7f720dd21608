"""Sends chunks of texts until each is answered: requests in flight, retries, isolation of bad rows.

    chunks -> requests -> attempts, halves -> answers of one chunk at a time

A request ends in one of four ways: it is answered; it is tried again later (Overloaded, Unavailable); it is refused
and halved, down to the guilty text, whose row gets an error; or the run stops. A text that is too long may be answered
in parts: one text after the other, and the other rows of its chunk do not wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk, Cutter
from pipeline.batcher.parts import Part, answered, combined, cut_before, is_too_long, parts_of
from pipeline.batcher.requests import PendingRequest, gather_requests
from pipeline.config import Request, Retry
from pipeline.errors import Misconfigured, Overloaded, Rejected, RequestFailed, RowError, TimedOut, Unreachable
from pipeline.monitoring.progress import Counts, Progress
from pipeline.servers.endpoint import Endpoint
from pipeline.servers.pool import Endpoints
from pipeline.servers.retry import delay_before_next
from pipeline.texts import Mask, Position, TextBlock, Texts

BYTES_PENDING = 64 << 20  # bytes of text held by all requests that are not answered
SUSPECT_AFTER = 2  # failures of a request on healthy servers, before it is halved
COSTLY = 3  # failures that one counts for which took a server's whole timeout, or broke the server
TOO_LARGE_AFTER = 4  # times a server was too busy for a request, before it is halved: full queues count texts
REFUSED_AT_FIRST = 32  # rows that fail before any is answered: the server refuses everything
NO_ROWS = Answers.none()
REQUESTS_PER_SLOT = 2  # pending for each slot in flight, so that those which wait before a retry leave no slot empty


class Batcher:
    """Sends chunks, many requests at once, until all rows are answered.

    `store` is called once per chunk, in any order, with the answers of its texts, those of its rows, and their cost. A
    chunk with a text in parts comes in pieces: each is a chunk of consecutive rows.
    One more failed row than `failed_allowed`, before any row is answered, ends the run.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        request: Request,
        retry: Retry,
        progress: Progress,
        store: Callable[[Chunk, Answers, Answers, Counts], None],
        *,
        failed_allowed: int = 0,
    ) -> None:
        self._endpoints, self._request, self._retry = endpoints, request, retry
        self._progress, self._store = progress, store
        self._failed_allowed = failed_allowed
        self._pending: set[asyncio.Task[None]] = set()
        self._size = 0  # bytes of text of the pending requests
        self._failed_first = 0
        self._spent_on_no_row = Counts()  # on texts whose answers belong to no row

    async def run(self, chunks: AsyncIterator[Chunk]) -> None:
        """Send all chunks and wait for the last.

        Raises:
            ClassifyError: the first failure that ends the run; what was stored by then stays.
        """
        try:
            async with aclosing(
                gather_requests(chunks, self._endpoints.batch_size, self._request.max_chars)
            ) as requests:
                async for request in requests:
                    while self._pending and not self._has_room(request):
                        await self._wait_for_one()
                    self._size += request.size
                    self._pending.add(asyncio.ensure_future(self._answer(request)))
            while self._pending:
                await self._wait_for_one()
        finally:
            for task in self._pending:
                task.cancel()
            await asyncio.gather(*self._pending, return_exceptions=True)

    def _has_room(self, request: PendingRequest) -> bool:
        slots = sum(endpoint.limiter.limit for endpoint in self._endpoints.all)
        return len(self._pending) < REQUESTS_PER_SLOT * slots and self._size + request.size <= BYTES_PENDING

    async def _wait_for_one(self) -> None:
        done, self._pending = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]  # the first failure ends the run

    async def _answer(self, request: PendingRequest) -> None:
        spent = Counts()
        answers, unfinished = await self._begin(request.texts, spent)
        first, later = 0, list[tuple[Chunk, int, list[Part], Counts]]()
        for chunk, of_texts in request.by_chunk(answers):
            # Each chunk accounts for its texts; requests and retries are on the account of the first.
            of_chunk = spent if chunk is request.chunks[0] else Counts()
            of_chunk.texts_sent += len(chunk.texts) - (request.count if of_chunk is spent else 0)
            for counts in (of_chunk, self._progress):
                counts.answered(NO_ROWS, shared=chunk.rows_shared, reused=chunk.rows_reused)
            here = [text for text in range(len(chunk.texts)) if first + text in unfinished] if unfinished else []
            done = ~np.isin(chunk.text_of_row, here) if here else None
            left = self._keep(chunk, of_texts, chunk.rows(of_texts), of_chunk, done)
            for text in here:
                later.append((chunk, text, unfinished[first + text], left))
                left = Counts()
            first += len(chunk.texts)
        for chunk, text, parts, of_text in later:
            answer = await self._finish(chunk.texts[text : text + 1], parts, of_text)
            is_its = chunk.text_of_row == text
            of_rows = answer.take(np.where(is_its, 0, -1).astype(np.int32), {})
            self._keep(replace(chunk, keys=chunk.keys[text : text + 1]), answer, of_rows, of_text, is_its)
        self._size -= request.size

    def _keep(self, chunk: Chunk, of_texts: Answers, of_rows: Answers, spent: Counts, done: Mask | None) -> Counts:
        """Hand over the answers of the rows that are done (None: all), each run of them as a chunk.

        The texts go with the first. Returns `spent`, or as soon as that is handed over with a chunk, new counts.
        """
        runs = [[0, len(of_rows)]]
        if done is not None:
            runs = np.flatnonzero(np.diff(done, prepend=False, append=False)).reshape(-1, 2).tolist()
        for number, (start, stop) in enumerate(runs):
            rows = of_rows[start:stop]
            for counts in (spent, self._progress):
                counts.answered(rows)
            here = chunk
            if done is not None:
                here = replace(chunk, first_row=chunk.first_row + start, keys=[] if number else chunk.keys)
            self._store(here, of_texts, rows, spent)
            spent = Counts()
        return spent

    async def _begin(self, texts: Texts, spent: Counts) -> tuple[Answers, dict[int, list[Part]]]:
        """Answer texts, those over `request.max_text_chars` in parts.

        Also returns the parts of each text that is not finished: some of them are too long.
        """
        cut = cut_before(texts, self._request.max_text_chars)
        if cut:
            each = [texts[index : index + 1].replaced(cut.get(index)) for index in range(len(texts))]
            answers = await self._classify_many(Texts.joined(each), spent)
        else:
            answers = await self._classify(texts, spent)
        if self._request.too_long != "split" or not (cut or answers.errors):
            return answers, {}
        parts = parts_of(texts, cut, answers)
        unfinished = {index: some for index, some in enumerate(parts) if any(is_too_long(part.answer) for part in some)}
        return Answers.joined([self._combined(some) for some in parts]), unfinished

    async def _finish(self, text: Texts, parts: list[Part], spent: Counts) -> Answers:
        """Answer the parts of one text that are too long in parts of their own."""

        async def ask(some: Sequence[str]) -> Answers:
            return await self._classify_many(text.replaced(some), spent)

        found = self._combined(await answered(parts, ask))
        if is_too_long(found):  # of its parts only the others were counted
            self._count_failed(found.errors[0])
        return found

    def _combined(self, parts: list[Part]) -> Answers:
        return combined(parts, self._request.combine, self._endpoints.facts.names)

    async def _classify_many(self, texts: Texts, spent: Counts) -> Answers:
        """Answer any number of texts, in requests within the usual bounds."""
        cutter = Cutter(self._request, self._endpoints.batch_size, 0, len(texts))
        chunks = chain(cutter.cut(TextBlock(Position(0, 0, 0), texts, {})), cutter.rest())
        return Answers.joined([chunk.rows(await self._classify(chunk.texts, spent)) for chunk in chunks])

    async def classify(self, texts: Texts) -> Answers:
        """Return the answers of some texts that are in no chunk."""
        return await self._classify(texts, self._spent_on_no_row)

    async def _classify(self, texts: Texts, spent: Counts, *, alone: bool = False) -> Answers:
        """Answer all texts: a request that fails for good is halved, down to the text that is to blame."""
        if not texts:
            return Answers.none()
        if len(texts) == 1 or len(texts) <= self._endpoints.batch_size.texts:  # else it is known to be too large by now
            try:
                return await self._ask(texts, spent, alone=alone)
            except RequestFailed as error:
                if len(texts) == 1:
                    return await self._blame(texts, spent, error)
                if isinstance(error, Rejected) and (guilty := _named(error, len(texts))).any():
                    return await self._set_apart(guilty, texts, spent, error)
                alone = error.broke_server  # then its halves are suspects, too
        middle = len(texts) // 2
        # One half after the other: the first guilty row is known soon, and other requests keep the slots busy.
        left = await self._classify(texts[:middle], spent, alone=alone)
        return Answers.joined([left, await self._classify(texts[middle:], spent, alone=alone)])

    async def _set_apart(self, guilty: Mask, texts: Texts, spent: Counts, error: Rejected) -> Answers:
        """Blame the texts that the server names, and ask for the others."""
        named = [texts[index : index + 1] for index in np.flatnonzero(guilty).tolist()]
        parts = [await self._blame(text, spent, error) for text in named]
        others = texts.present(~guilty)[0]
        if others:
            parts.append(await self._classify(others, spent))
        places = np.empty(len(texts), np.int32)
        places[np.append(np.flatnonzero(guilty), np.flatnonzero(~guilty))] = np.arange(len(texts))
        return Answers.joined(parts).take(places, {})

    async def _blame(self, texts: Texts, spent: Counts, error: RequestFailed) -> Answers:
        """Have the one text that is left to blame cut, if that was asked for, or give its row an error."""
        if error.code == "too_long" and self._request.too_long == "truncate":
            try:
                return await self._ask(texts, spent, truncate=True)
            except RequestFailed as still:
                error = still
        failed = RowError(error.code, error.reason)
        if error.code != "too_long" or self._request.too_long != "split":  # else its parts may be answered
            self._count_failed(failed)
        return Answers.none(1, {0: failed})

    def _count_failed(self, error: RowError) -> None:
        """Count a failed text, as long as none is answered.

        Raises:
            Misconfigured: the server refuses everything.
        """
        if self._progress.is_answered:
            return
        self._failed_first += 1
        if self._failed_first >= max(REFUSED_AT_FIRST, self._failed_allowed + 1):
            raise Misconfigured(
                f"the first {self._failed_first} rows failed and none was answered, the last with: {error.message}; "
                f"raise run.max_failed_rows to go on all the same"
            )

    async def _ask(self, texts: Texts, spent: Counts, *, truncate: bool = False, alone: bool = False) -> Answers:
        """Send one request, again as long as its failures are not its own fault.

        What was in flight when a server broke is suspect, and is tried alone from then on: if the server breaks again,
        it is known why, and no row can break it for ever.
        """
        tries = _Tries(time.monotonic(), alone)
        while True:
            endpoint, outcome = await self._endpoints.ask(texts, truncate=truncate, alone=tries.alone)
            spent.spend(len(texts))
            if isinstance(outcome, Answers):
                self._progress.is_answered |= spent is not self._spent_on_no_row
                return outcome
            # The slot is free again: no request waits while it holds one.
            if isinstance(outcome, Rejected) and not await self._is_sick(texts, endpoint, outcome):
                raise outcome
            await self._weigh(tries, endpoint, outcome)
            # How busy a server is has no bound in time but server.wait_s.
            elapsed = 0.0 if isinstance(outcome, Overloaded) else time.monotonic() - tries.since
            delay = delay_before_next(
                tries.failures, tries.overloads, elapsed, self._retry, retry_after=outcome.retry_after
            )
            too_large = tries.overloads >= TOO_LARGE_AFTER or len(texts) > self._endpoints.batch_size.texts
            suspect = tries.failures >= SUSPECT_AFTER or too_large
            if delay is None or (suspect and len(texts) > 1):
                raise outcome
            self._progress.retries += 1
            spent.retries += 1
            await self._endpoints.wait(delay, outcome)

    async def _is_sick(self, texts: Texts, endpoint: Endpoint, refused: Rejected) -> bool:
        """Return whether a text would be refused because of the server: asked only before it is blamed for that."""
        return refused.is_doubtful and len(texts) == 1 and not await self._endpoints.is_well(endpoint, refused)

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
            tries.since = time.monotonic()  # a sick server's time is not on the request's account
            if not isinstance(outcome, Unreachable):
                tries.failures += COSTLY if tries.alone else 0
                outcome.broke_server = tries.alone
                tries.alone = True


def _named(error: Rejected, texts: int) -> Mask:
    """Return which texts a server names as guilty; none if what it says can't be of this request."""
    guilty = np.zeros(texts, bool)
    if all(position < texts for position in error.positions):
        guilty[list(error.positions)] = True
    return guilty


@dataclass(slots=True)
class _Tries:
    """The failures of a request so far."""

    since: float  # the time that counts
    alone: bool  # it is sent where nothing else is in flight
    failures: int = 0  # that count against it
    overloads: int = 0  # times a server was too busy for it
