"""The rows that are open, as chunks: consecutive rows and the distinct texts to be sent for them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.checkpoint import Range
from pipeline.config import Request
from pipeline.limiter import ChunkSize
from pipeline.loader import Place, Source, TextBlock, TextSpec

ROWS_PER_TEXT = 16  # a chunk of repeated texts is cut at so many rows for each text it might send


@dataclass(slots=True)
class Chunk:
    """Consecutive rows and the distinct texts to be sent for them."""

    first_row: int
    place: Place  # a known place at or before the first row
    texts: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # for each row: which of `texts`, -1 if none
    errors: dict[int, str] = field(default_factory=dict)  # index of a row that is not sent -> why
    chars: int = 0
    size: int = 0  # bytes of memory of the texts


class Cutter:
    """Cuts a stream of text blocks into chunks, bounded in texts, characters and rows, wherever the blocks end."""

    def __init__(self, request: Request, sizes: ChunkSize, first_row: int, stop_row: int | None) -> None:
        self._sizes = sizes
        self._max_chars, self._dedupe = request.max_chars, request.dedupe
        self._row, self._stop = first_row, stop_row
        self._chunk: Chunk | None = None
        self._known: dict[str, int] = {}

    @property
    def row(self) -> int:
        """The next row it wants."""
        return self._row

    @property
    def is_done(self) -> bool:
        """Whether the last row that is wanted was seen."""
        return self._stop is not None and self._row >= self._stop

    def cut(self, block: TextBlock) -> Iterator[Chunk]:
        """Take a block and give the chunks that are full. Rows outside the range are passed over."""
        start = max(0, self._row - block.place.row)
        stop = len(block.texts) if self._stop is None else min(len(block.texts), self._stop - block.place.row)
        for index in range(start, stop):
            text = block.texts[index]
            if index in block.not_text:
                error: str | None = f"not_text: {block.not_text[index]}"
            else:
                error = "empty: no text" if text is None or not text or text.isspace() else None
            if self._chunk is not None and self._is_full(self._chunk, text if error is None else None):
                yield self._finish(self._chunk)
            chunk = self._chunk = self._chunk or Chunk(self._row, block.place)
            self._row += 1
            if error is not None:
                chunk.errors[len(chunk.positions)] = error
                chunk.positions.append(-1)
            else:
                self._add(chunk, text or "")

    def rest(self) -> Iterator[Chunk]:
        """The last chunk, if there is one."""
        if self._chunk is not None:
            yield self._finish(self._chunk)

    def _add(self, chunk: Chunk, text: str) -> None:
        position = self._known.get(text) if self._dedupe else None
        if position is None:
            position = len(chunk.texts)
            if self._dedupe:
                self._known[text] = position
            chunk.texts.append(text)
            chunk.chars += len(text)
            chunk.size += sys.getsizeof(text)
        chunk.positions.append(position)

    def _is_full(self, chunk: Chunk, text: str | None) -> bool:
        if len(chunk.positions) >= self._sizes.rows * ROWS_PER_TEXT:
            return True
        if text is None or text in self._known:
            return False
        return len(chunk.texts) >= self._sizes.rows or (bool(chunk.texts) and chunk.chars + len(text) > self._max_chars)

    def _finish(self, chunk: Chunk) -> Chunk:
        self._chunk, self._known = None, {}
        return chunk


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
        self._read_to = 0  # the row after the last one read
        self.total: int | None = None  # rows in the file, once its end was seen

    async def has_rows(self) -> bool:
        """Whether any open row exists; reads no further than that."""
        return bool(self._ranges) and await self._reach(self._ranges[0].start)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """All open rows."""
        for each in self._ranges:
            cutter = Cutter(self._request, self._sizes, each.start, each.stop)
            while not cutter.is_done and await self._reach(cutter.row) and self._block is not None:
                for chunk in cutter.cut(self._block):
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
            block = await asyncio.to_thread(next, self._blocks, None)
            if block is None:
                self.total = self._read_to
                return False
            self._block, self._read_to = block, block.place.row + len(block.texts)
        return True


async def chunks_of(texts: Sequence[str | None], request: Request) -> AsyncIterator[Chunk]:
    """Texts in memory as chunks; what can't be sent as UTF-8 is `not_text`."""
    bad = {row: "a string with half a surrogate pair" for row, text in enumerate(texts) if text and not _is_utf8(text)}
    cutter = Cutter(request, ChunkSize(request.rows), 0, len(texts))
    for chunk in cutter.cut(TextBlock(Place(0, 0, 0), list(texts), bad)):
        yield chunk
    for chunk in cutter.rest():
        yield chunk


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
