"""The rows that are open, as chunks: the ranges of a file that have no answers, read and cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from numbers import Number
from typing import Any

from pipeline.checkpoint import Range
from pipeline.config import Request
from pipeline.cutter import Chunk, Cutter, Known
from pipeline.limiter import ChunkSize
from pipeline.loader import Place, Source, TextBlock, TextSpec, block_of

__all__ = ["Chunk", "Feed", "Known", "chunks_of"]

SMALL = 1 << 18  # bytes of text of a file that is read at once, where that spares threads


class Feed:
    """Reads the open ranges of a file and cuts them into chunks.

    `place_before(row)` is the last known place at or before a row. A part that is done is jumped over where the
    file can be entered anywhere, and read through where it can't.
    """

    def __init__(
        self,
        source: Source,
        spec: TextSpec,
        *,
        request: Request,
        sizes: ChunkSize,
        ranges: Sequence[Range],
        place_before: Callable[[int], Place | None],
    ) -> None:
        self._source, self._spec, self._request, self._sizes = source, spec, request, sizes
        self._ranges, self._place_before = ranges, place_before
        self._blocks: Iterator[TextBlock] | None = None
        self._block: TextBlock | None = None
        self._ahead: deque[TextBlock | None] = deque()  # None: the end
        self._read_to = 0  # the row after the last one read
        self.look_up: Callable[[TextBlock, range], Awaitable[Known | None]] | None = None  # what need not be sent
        self.total: int | None = None  # rows in the file, once its end was seen

    def read_ahead(self) -> None:
        """Read as far as a small file goes, in the thread that has opened it: its rows need no other thread then."""
        self._blocks = self._source.texts(self._spec)
        first = next(self._blocks, None)
        self._ahead.append(first)
        if first is not None and first.texts.size < SMALL:
            self._ahead.append(next(self._blocks, None))

    async def has_rows(self) -> bool:
        """Whether any open row exists; reads no further than that."""
        return bool(self._ranges) and await self._reach(self._ranges[0].start)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """All open rows."""
        for each in self._ranges:
            cutter = Cutter(self._request, self._sizes, each.start, each.stop)
            while not cutter.is_done and await self._reach(cutter.row) and self._block is not None:
                known = await self.look_up(self._block, cutter.wanted(self._block)) if self.look_up else None
                for chunk in cutter.cut(self._block, known):
                    yield chunk
            for chunk in cutter.rest():
                yield chunk
        if self.total is None:  # the last wanted row was read; only one more look tells whether it is the last
            await self._reach(self._read_to)

    async def _reach(self, row: int) -> bool:
        """Read until the block in hand holds `row`; False if the file ends before."""
        if row >= self._read_to:
            place = self._place_before(row) if self._source.seekable else None
            if self._blocks is None or (place is not None and place.row > self._read_to):
                self._blocks = self._source.texts(self._spec, place)
        while row >= self._read_to and self._blocks is not None:
            block = self._ahead.popleft() if self._ahead else await asyncio.to_thread(next, self._blocks, None)
            if block is None:
                self.total = self._read_to
                return False
            self._block, self._read_to = block, block.place.row + len(block.texts)
        return True


async def chunks_of(texts: Sequence[Any], request: Request) -> AsyncIterator[Chunk]:
    """Texts in memory as chunks; None is a row without one, what is no string or no UTF-8 is `not_text`."""
    bad = {row: why for row, text in enumerate(texts) if text is not None and (why := _why_not_text(text))}
    cutter = Cutter(request, ChunkSize(request.rows), 0, len(texts))
    known = [None if row in bad else text for row, text in enumerate(texts)]
    for chunk in cutter.cut(block_of(Place(0, 0, 0), known, bad)):
        yield chunk
    for chunk in cutter.rest():
        yield chunk


def _why_not_text(text: object) -> str:
    """What it is instead, in the words used for files; "" if it is a text."""
    if not isinstance(text, str):
        return "a boolean" if isinstance(text, bool) else "a number" if isinstance(text, Number) else "no string"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a string with half a surrogate pair"
    return ""
