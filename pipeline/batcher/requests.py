"""Gathers chunks into requests: those of small files travel together, since each alone would be a small request.

chunks, in order -> requests of one or several chunks, together within the bounds of one request
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk
from pipeline.servers.limiter import BatchSize
from pipeline.texts import Texts

WAIT_S = 0.05  # for the next chunk, where there is room for it


class PendingRequest:
    """Chunks, in their order, whose texts are sent at once."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.count = 0  # of texts
        self.size = 0  # bytes, see `Chunk.size`

    def add(self, chunk: Chunk) -> None:
        """Take one more chunk."""
        self.chunks.append(chunk)
        self.count += len(chunk.texts)
        self.size += chunk.size

    def has_room_for(self, chunk: Chunk, texts: int, size: int) -> bool:
        """Return whether the request stays within `texts` and `size` bytes with one more chunk."""
        return self.count + len(chunk.texts) <= texts and self.size + chunk.size <= size

    @property
    def texts(self) -> Texts:
        """The texts of all chunks."""
        return Texts.joined([chunk.texts for chunk in self.chunks])

    def by_chunk(self, answers: Answers) -> Iterator[tuple[Chunk, Answers]]:
        """Yield each chunk with the answers of its texts, given those of all."""
        start = 0
        for chunk in self.chunks:
            yield chunk, answers[start : start + len(chunk.texts)]
            start += len(chunk.texts)


async def gather_requests(
    chunks: AsyncIterator[Chunk], sizes: BatchSize, max_chars: int
) -> AsyncGenerator[PendingRequest, None]:
    """Gather chunks as long as they fit and come quickly; a full one goes at once, by itself.

    It never waits long for the next chunk: that may be one of a file that is opened only when this one is done.
    """
    request = PendingRequest()
    coming: asyncio.Future[Chunk | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(_next(chunks))
            await asyncio.wait([coming], timeout=WAIT_S if request.chunks else None)
            if not coming.done():
                yield request
                request = PendingRequest()
                continue
            chunk, coming = coming.result(), None
            if request.chunks and (chunk is None or not request.has_room_for(chunk, sizes.texts, max_chars)):
                yield request
                request = PendingRequest()
            if chunk is None:
                return
            request.add(chunk)
            if request.count >= sizes.texts or request.size >= max_chars:
                yield request
                request = PendingRequest()
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(chunks, None)
