"""The rows that are open, as chunks: the ranges of a file that have no answers, read and cut."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from pipeline.answers import Prediction, Predictions
from pipeline.checkpoint import Range
from pipeline.config import Request
from pipeline.formats.source import Source, TextSpec
from pipeline.servers.limiter import ChunkSize
from pipeline.texts import Indices, Mask, Position, TextBlock, Texts, block_of

# -- Blocks of texts as chunks: consecutive rows and the distinct texts to be sent for them. No I/O


ROWS_PER_TEXT = 16  # a chunk of repeated texts is cut at so many rows for each text it might send
KNOWN_ROWS = 8192  # at most in a chunk: with 1 % new rows, some eighty texts go into a request
KNOWN_SIZE = 4 << 20  # bytes at most of what is known in it
ROW_SIZE, VALUE_SIZE = 100, 40  # bytes of memory of a known row, and of each of its probabilities
MOST_BYTES = 4  # of a character
LOOK_AHEAD = 32  # rows at least that are looked at beyond those there is room for: some of them may repeat others
NO_TEXTS = Texts.of([])
Scores = np.ndarray[Any, np.dtype[np.float64]]


class Known(NamedTuple):
    """What other runs have answered of the rows of a block that are wanted, in their order."""

    keys: list[bytes]  # under which the answers of those that are sent are kept
    labels: list[str | None]  # None where nothing is known
    scores: list[float]
    probs: Scores | None  # (rows, classes), if they are wanted

    @classmethod
    def nothing(cls, rows: int) -> Known:
        """Of so many rows nothing is known, and no answer is kept."""
        return cls([b""] * rows, [None] * rows, [math.nan] * rows, None)


@dataclass(slots=True)
class Chunk:
    """Consecutive rows and the distinct texts to be sent for them."""

    first_row: int
    place: Position  # a known place at or before the first row
    texts: Texts = NO_TEXTS
    positions: Sequence[int] = ()  # for each row: which of `texts`, -1 if none
    errors: dict[int, str] = field(default_factory=dict)  # index of a row that is not sent -> why
    known_size: int = 0  # bytes of what is known, about
    keys: list[bytes] = field(default_factory=list)  # of `texts`; none if no answers are kept for other runs
    known: Predictions = field(default_factory=Predictions)  # of its rows, where answers are kept; no label: not known
    reused: int = 0  # rows that are known, and not sent
    owner: Any = None  # whose rows they are, for whoever stores the predictions

    @property
    def size(self) -> int:
        """Bytes of the texts and of what is known."""
        return self.texts.size + self.known_size

    @property
    def shared(self) -> int:
        """Rows that another row's text is sent for."""
        return len(self.positions) - len(self.errors) - len(self.texts) - self.reused

    def of_rows(self, predictions: Predictions) -> Predictions:
        """The predictions of the rows, from those of the texts."""
        if not self.errors and len(self.texts) == len(self.positions):
            return predictions
        if not self.reused:
            return predictions.spread(self.positions, self.errors)
        rows = self.known.of(0, len(self.known))
        for row, position in enumerate(self.positions):
            if position >= 0:
                rows[row] = predictions[position]
        for row, why in self.errors.items():
            rows[row] = Prediction(None, None, error=why)
        return rows


class Rows(NamedTuple):
    """The rows of a block that are wanted; what is sent of them is neither an error nor known."""

    texts: Texts
    errors: dict[int, str]
    known: Known | None
    is_known: Mask
    is_sent: Mask
    known_size: int  # bytes of memory of each row that is known

    @classmethod
    def of(cls, block: TextBlock, wanted: range, known: Known | None) -> Rows:
        """The rows `wanted`; `known` is of them alone."""
        errors = {index - wanted.start: why for index, why in block.errors.items() if index in wanted}
        has_text, is_known = np.ones(len(wanted), bool), np.zeros(len(wanted), bool)
        has_text[list(errors)] = False
        size = ROW_SIZE
        if known is not None:
            is_known = has_text & np.array([label is not None for label in known.labels], bool)
            size += VALUE_SIZE * known.probs.shape[1] if known.probs is not None else 0
        return cls(block.texts[wanted.start : wanted.stop], errors, known, is_known, has_text & ~is_known, size)


class Cutter:
    """Cuts a stream of text blocks into chunks, bounded in texts, characters and rows, wherever the blocks end."""

    def __init__(self, request: Request, sizes: ChunkSize, first_row: int, stop_row: int | None) -> None:
        self._sizes = sizes
        self._max_chars, self._dedupe = request.max_chars, request.dedupe
        self._row, self._stop = first_row, stop_row
        self._begin()

    def _begin(self) -> None:
        self._chunk: Chunk | None = None
        self._positions: list[Indices] = []  # of its rows

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
        rows = Rows.of(block, wanted, known)
        index = 0
        while index < len(wanted):
            chunk = self._chunk = self._chunk or Chunk(self._row, block.place)
            stop = self._look(chunk, rows, index)
            taken = self._take(chunk, rows, index, stop) if stop > index else 0
            index += taken
            self._row += taken
            if index < stop or not taken:
                yield self._finish(chunk)

    def rest(self) -> Iterator[Chunk]:
        """The last chunk, if there is one."""
        if self._chunk is not None:
            yield self._finish(self._chunk)

    def _look(self, chunk: Chunk, rows: Rows, start: int) -> int:
        """The end of the rows to look at next: not many more than may fit."""
        new = max(0, self._sizes.rows - len(chunk.texts))  # the server's bound may have shrunk meanwhile
        others = self._sizes.rows * ROWS_PER_TEXT - (self._row - chunk.first_row) + chunk.reused
        known = min(KNOWN_ROWS - chunk.reused, -(-(KNOWN_SIZE - chunk.known_size) // rows.known_size))
        ahead = max(LOOK_AHEAD, len(chunk.texts))  # these are looked at again each time
        offsets = rows.texts.offsets
        most = min(int(offsets[start]) + MOST_BYTES * self._max_chars, int(offsets[-1]))  # of any size in the config
        long = int(np.searchsorted(offsets, most, "right"))
        return min(start + max(0, min(new + ahead, others, known)), long, len(rows.is_sent))

    def _take(self, chunk: Chunk, rows: Rows, start: int, stop: int) -> int:
        """Add as many of these rows as fit, and say how many."""
        texts, positions = self._find(chunk.texts, rows.texts[start:stop], rows.is_sent[start:stop])
        fitting = self._fitting(texts, len(chunk.texts))
        if fitting < len(texts):
            stop = start + int((positions >= fitting).argmax())
            positions = positions[: stop - start]
        if rows.known is not None:
            self._take_known(chunk, rows, range(start, stop), positions)
        if rows.errors:
            without = np.flatnonzero(~(rows.is_sent[start:stop] | rows.is_known[start:stop])).tolist()
            done = self._row - chunk.first_row
            chunk.errors |= {done + index: rows.errors[start + index] for index in without}
        chunk.texts = texts[:fitting].copy()  # what is under way must not hold all that was read with it
        self._positions.append(positions)
        return stop - start

    def _find(self, earlier: Texts, texts: Texts, is_sent: Mask) -> tuple[Texts, Indices]:
        """All texts to be sent, first those of the chunk; and for each new row which one it has, -1 if none."""
        if earlier:
            texts, is_sent = Texts.joined([earlier, texts]), np.append(np.ones(len(earlier), bool), is_sent)
        found, positions = texts.distinct(is_sent) if self._dedupe else texts.present(is_sent)
        return found, positions[len(earlier) :]

    def _fitting(self, texts: Texts, least: int) -> int:
        """How many of the texts the chunk may have; never less than it has, nor than one."""
        fitting = self._sizes.rows
        if texts.size > self._max_chars:  # bytes
            fitting = min(fitting, int(np.searchsorted(texts.chars(), self._max_chars, "right")))
        return max(1, least, fitting)

    def _take_known(self, chunk: Chunk, rows: Rows, some: range, positions: Indices) -> None:
        """The keys of new texts, and what is known of `some` of the rows; `positions` are theirs."""
        known: Known = rows.known  # type: ignore[assignment] # there are some
        found, first = np.unique(positions, return_index=True)
        chunk.keys += [known.keys[some[index]] for index in first[found >= len(chunk.texts)].tolist()]
        part = slice(some.start, some.stop)
        chunk.known.labels += known.labels[part]
        chunk.known.scores += known.scores[part]
        chunk.known.probs += [None] * len(some) if known.probs is None else known.probs[part].tolist()
        reused = int(np.count_nonzero(rows.is_known[part]))
        chunk.reused += reused
        chunk.known_size += reused * rows.known_size

    def _finish(self, chunk: Chunk) -> Chunk:
        is_plain = not chunk.errors and not chunk.reused and len(chunk.texts) == self._row - chunk.first_row
        chunk.positions = range(len(chunk.texts)) if is_plain else np.concatenate(self._positions).tolist()
        self._begin()
        return chunk


# -- The rows that are open, as chunks: the ranges of a file that have no answers, read and cut


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
        place_before: Callable[[int], Position | None],
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
    for chunk in cutter.cut(block_of(Position(0, 0, 0), known, bad)):
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
