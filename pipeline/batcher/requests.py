"""Chunks that travel in one request: alone, those of small files would be small requests.

chunks, in order | parcels of one or several, together within the bounds of one
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from pipeline.batcher.cutter import Chunk
from pipeline.servers.limiter import ChunkSize

PATIENCE_S = 0.05  # for the next chunk, where there is room for it


class Parcel:
    """Some chunks, in their order."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.texts = 0
        self.size = 0  # bytes, see `Chunk.size`

    def add(self, chunk: Chunk) -> None:
        """Take one more."""
        self.chunks.append(chunk)
        self.texts += len(chunk.texts)
        self.size += chunk.size


async def parcels(chunks: AsyncIterator[Chunk], sizes: ChunkSize, max_chars: int) -> AsyncGenerator[Parcel, None]:
    """Gather chunks as long as they fit and come quickly; a full one goes at once, by itself.

    So whoever must wait for a file to end before the next begins does not wait for this.
    """
    parcel = Parcel()
    coming: asyncio.Future[Chunk | None] | None = None
    try:
        while True:
            if parcel.chunks:
                coming = coming or asyncio.ensure_future(_next(chunks))
                await asyncio.wait([coming], timeout=PATIENCE_S)
                if not coming.done():
                    yield parcel
                    parcel = Parcel()
                    continue
            chunk = await (coming or _next(chunks))
            coming = None
            if parcel.chunks and (chunk is None or not _fits(chunk, parcel, sizes.rows, max_chars)):
                yield parcel
                parcel = Parcel()
            if chunk is None:
                return
            parcel.add(chunk)
            if parcel.texts >= sizes.rows or parcel.size >= max_chars:
                yield parcel
                parcel = Parcel()
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _fits(chunk: Chunk, parcel: Parcel, rows: int, max_chars: int) -> bool:
    return parcel.texts + len(chunk.texts) <= rows and parcel.size + chunk.size <= max_chars


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(chunks, None)
