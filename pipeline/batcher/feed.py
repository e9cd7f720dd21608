"""The open rows of a file as chunks: the ranges that have no answers yet, read and cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import chain
from numbers import Number
from typing import Any

from pipeline.batcher.cutter import Chunk, Cutter, Reused
from pipeline.checkpoint import Range
from pipeline.config import Request
from pipeline.formats.source import Source, TextSpec
from pipeline.servers.limiter import BatchSize
from pipeline.texts import Position, TextBlock, block_of

SMALL = 1 << 18  # bytes of text: a smaller file is read at once, which spares changes of threads


class Feed:
    """Reads the open ranges of a file and cuts them into chunks.

    A range that is done is skipped where the format can be entered anywhere, and read through where it can't.

    Args:
        source, spec: the file, and what its texts are made of.
        ranges: the rows without answers, in order.
        position_before: the last known position at or before a row; None: the start of the file.
    """

    def __init__(
        self,
        source: Source,
        spec: TextSpec,
        ranges: Sequence[Range],
        position_before: Callable[[int], Position | None],
    ) -> None:
        self._source, self._spec = source, spec
        self.ranges, self._position_before = ranges, position_before
        self.is_dropped = False  # nothing more is to be read
        self._blocks: Iterator[TextBlock] | None = None
        self._block: TextBlock | None = None
        self._ahead: deque[TextBlock | None] = deque()  # None: the end
        self._read_to = 0  # the row after the last one read
        self.total: int | None = None  # rows in the file, once its end was seen

    def read_ahead(self) -> int:
        """Read the first blocks, all of a small file: they need no other thread then. Return their number of rows."""
        self._blocks = self._source.texts(self._spec)
        first = next(self._blocks, None)
        self._ahead.append(first)
        if first is None:
            self._source.see_rows_left()
        elif first.texts.size < SMALL:
            self._ahead.append(next(self._blocks, None))
        return sum(len(block.texts) for block in self._ahead if block is not None)

    async def has_rows(self) -> bool:
        """Return whether there is any open row; read no further than that."""
        return bool(self.ranges) and await self._reach(self.ranges[0].start)

    async def chunks(
        self, request: Request, sizes: BatchSize, look_up: Callable[[TextBlock, range], Awaitable[Reused | None]]
    ) -> AsyncIterator[Chunk]:
        """Yield all open rows; `look_up` finds what earlier runs have answered."""
        for each in self.ranges:
            cutter = Cutter(request, sizes, each.start, each.stop)
            while not (cutter.is_done or self.is_dropped) and await self._reach(cutter.row) and self._block is not None:
                reused = await look_up(self._block, cutter.wanted(self._block))
                for chunk in cutter.cut(self._block, reused):
                    yield chunk
            for chunk in cutter.rest():
                yield chunk
        if self.total is None:  # the last wanted row was read; only one more look tells whether it is the last
            await self._reach(self._read_to)

    async def _reach(self, row: int) -> bool:
        """Read until the current block holds `row`; False if the file ends before."""
        if row >= self._read_to:
            position = self._position_before(row) if self._source.seekable else None
            if self._blocks is None or (position is not None and position.row > self._read_to):
                self._blocks = self._source.texts(self._spec, position)
        while row >= self._read_to and self._blocks is not None:
            block = self._ahead.popleft() if self._ahead else await asyncio.to_thread(next, self._blocks, None)
            if block is None:
                self.total = self._read_to
                return False
            self._block, self._read_to = block, block.position.row + len(block.texts)
        return True


async def chunks_of(texts: Sequence[Any], request: Request) -> AsyncIterator[Chunk]:
    """Yield texts in memory as chunks; None is a row without one, what is no string or no UTF-8 is `not_text`."""
    bad = {row: why for row, text in enumerate(texts) if text is not None and (why := _why_not_text(text))}
    cutter = Cutter(request, BatchSize(request.rows, request.manners), 0, len(texts))
    sound = [None if row in bad else text for row, text in enumerate(texts)]
    for chunk in chain(cutter.cut(block_of(Position(0, 0, 0), sound, bad)), cutter.rest()):
        yield chunk


def _why_not_text(text: object) -> str:
    """Return what it is instead, in the words used for files; "" if it is a text."""
    if not isinstance(text, str):
        return "a boolean" if isinstance(text, bool) else "a number" if isinstance(text, Number) else "no string"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a string with half a surrogate pair"
    return ""
