"""The rows that are open, as chunks: consecutive rows and the distinct texts to be sent for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, NamedTuple

from pipeline.checkpoint import Range
from pipeline.config import Request
from pipeline.limiter import ChunkSize
from pipeline.loader import Place, Source, TextBlock, TextSpec, block_of
from pipeline.predictions import Predictions

ROWS_PER_TEXT = 16  # a chunk of repeated texts is cut at so many rows for each text it might send
KNOWN_ROWS = 8192  # at most in a chunk: with 1 % new rows, some eighty texts go into a request
KNOWN_SIZE = 4 << 20  # bytes at most, as soon as anything in it is known
SMALL = 1 << 18  # bytes of text of a file that is read at once, where that spares threads
ROW_SIZE, VALUE_SIZE = 100, 40  # bytes of memory of a known row, and of each of its probabilities


class Known(NamedTuple):
    """What other runs have answered of the rows of a block that are wanted, in their order."""

    keys: list[bytes]  # under which the answers of those that are sent are kept
    labels: list[str | None]  # None where nothing is known
    scores: list[float]
    probs_of: Callable[[int], list[float] | None]  # made one by one: a block of them would be large


@dataclass(slots=True)
class Chunk:
    """Consecutive rows and the distinct texts to be sent for them."""

    first_row: int
    place: Place  # a known place at or before the first row
    texts: list[bytes] = field(default_factory=list)  # escaped
    positions: Sequence[int] = ()  # for each row: which of `texts`, -1 if none
    errors: dict[int, str] = field(default_factory=dict)  # index of a row that is not sent -> why
    size: int = 0  # bytes of the texts and of what is known
    keys: list[bytes] = field(default_factory=list)  # of `texts`; none if no answers are kept for other runs
    known: Predictions = field(default_factory=Predictions)  # of rows that need not be sent: -2, -3, ... in `positions`
    owner: Any = None  # whose rows they are, for whoever stores the predictions

    @property
    def shared(self) -> int:
        """Rows that another row's text is sent for."""
        return len(self.positions) - len(self.errors) - len(self.texts) - len(self.known)

    def of_rows(self, predictions: Predictions) -> Predictions:
        """The predictions of the rows, from those of the texts."""
        if not self.errors and len(self.texts) == len(self.positions):
            return predictions
        if not len(self.known):
            return predictions.spread(self.positions, self.errors)
        after = len(self.texts) - 2
        positions = [position if position >= -1 else after - position for position in self.positions]
        return (predictions + self.known).spread(positions, self.errors)


class Cutter:
    """Cuts a stream of text blocks into chunks, bounded in texts, characters and rows, wherever the blocks end."""

    def __init__(self, request: Request, sizes: ChunkSize, first_row: int, stop_row: int | None) -> None:
        self._sizes = sizes
        self._max_chars, self._dedupe = request.max_chars, request.dedupe
        self._row, self._stop = first_row, stop_row
        self._begin()

    def _begin(self) -> None:
        self._chunk: Chunk | None = None
        self._positions: list[int] = []
        self._chars = 0
        self._known: dict[bytes, int] = {}
        self._is_odd = False  # the chunk is made row by row

    @property
    def row(self) -> int:
        """The next row it wants."""
        return self._row

    @property
    def is_done(self) -> bool:
        """Whether the last row that is wanted was seen."""
        return self._stop is not None and self._row >= self._stop

    def wanted(self, block: TextBlock) -> range:
        """Which texts of a block are of rows in the range."""
        stop = len(block.texts) if self._stop is None else min(len(block.texts), self._stop - block.place.row)
        return range(max(0, self._row - block.place.row), stop)

    def cut(self, block: TextBlock, known: Known | None = None) -> Iterator[Chunk]:
        """Take a block and give the chunks that are full; `known` is of the rows that are `wanted`."""
        wanted = self.wanted(block)
        index = wanted.start
        while index < wanted.stop:
            at = index - wanted.start
            is_known = known is not None and known.labels[at] is not None
            text = None if is_known or index in block.errors else block.texts[index]
            if self._chunk is not None and self._is_full(self._chunk, text):
                yield self._finish(self._chunk)
            chunk = self._chunk = self._chunk or Chunk(self._row, block.place)
            taken = 0 if self._is_odd else self._take_at_once(chunk, block, wanted[at:], known, at)
            if not taken:
                self._is_odd, taken = True, 1
                self._add_row(chunk, text, block.errors.get(index), known, at)
            index += taken
            self._row += taken

    def rest(self) -> Iterator[Chunk]:
        """The last chunk, if there is one."""
        if self._chunk is not None:
            yield self._finish(self._chunk)

    def _take_at_once(self, chunk: Chunk, block: TextBlock, rows: range, known: Known | None, at: int) -> int:
        """Fill the chunk with the next rows, if all is plain: texts that it has not, and not too many characters."""
        rows = rows[: max(0, self._sizes.rows - len(chunk.texts))]  # the server's bound may have shrunk meanwhile
        texts = block.texts[rows.start : rows.stop]
        size = sum(map(len, texts))
        if chunk.size + size > self._max_chars or not block.errors.keys().isdisjoint(rows):
            return 0
        if known is not None and known.labels[at : at + len(texts)].count(None) < len(texts):
            return 0
        if self._dedupe:
            different = set(texts)
            if len(different) < len(texts) or not self._known.keys().isdisjoint(different):
                return 0
            self._known.update(zip(texts, range(len(chunk.texts), self._sizes.rows), strict=False))
        self._positions += range(len(chunk.texts), len(chunk.texts) + len(texts))
        chunk.texts += texts
        if known is not None:
            chunk.keys += known.keys[at : at + len(texts)]
        chunk.size += size
        self._chars += size
        return len(texts)

    def _add_row(self, chunk: Chunk, text: bytes | None, error: str | None, known: Known | None, at: int) -> None:
        if error is not None:
            chunk.errors[len(self._positions)] = error
            self._positions.append(-1)
        elif text is not None:
            self._add_text(chunk, text, known.keys[at] if known is not None else None)
        elif known is not None:
            probs = known.probs_of(at)
            self._positions.append(-2 - len(chunk.known))
            chunk.known.labels.append(known.labels[at])
            chunk.known.scores.append(known.scores[at])
            chunk.known.probs.append(probs)
            chunk.size += ROW_SIZE + VALUE_SIZE * len(probs or ())

    def _add_text(self, chunk: Chunk, text: bytes, key: bytes | None) -> None:
        position = self._known.get(text) if self._dedupe else None
        if position is None:
            position = len(chunk.texts)
            if self._dedupe:
                self._known[text] = position
            chunk.texts.append(text)
            if key is not None:
                chunk.keys.append(key)
            chunk.size += len(text)
            self._chars += _chars(text)
        self._positions.append(position)

    def _is_full(self, chunk: Chunk, text: bytes | None) -> bool:
        known = len(chunk.known)
        if known >= KNOWN_ROWS or (known and chunk.size >= KNOWN_SIZE):
            return True
        if len(self._positions) - known >= self._sizes.rows * ROWS_PER_TEXT:
            return True
        if text is None or text in self._known:
            return False
        too_many = bool(chunk.texts) and self._chars + _chars(text) > self._max_chars
        return len(chunk.texts) >= self._sizes.rows or too_many

    def _finish(self, chunk: Chunk) -> Chunk:
        chunk.positions = self._positions
        self._begin()
        return chunk


def _chars(text: bytes) -> int:
    return len(text) if text.isascii() else len(text.decode())


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
        if first is not None and sum(map(len, first.texts)) < SMALL:
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
