"""Blocks of texts as chunks: consecutive rows and the distinct texts to be sent for them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import Any, NamedTuple

from pipeline.config import Request
from pipeline.limiter import ChunkSize
from pipeline.loader import Place, TextBlock
from pipeline.predictions import Predictions

ROWS_PER_TEXT = 16  # a chunk of repeated texts is cut at so many rows for each text it might send
KNOWN_ROWS = 8192  # at most in a chunk: with 1 % new rows, some eighty texts go into a request
KNOWN_SIZE = 4 << 20  # bytes at most, as soon as anything in it is known
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
        self._chars = 0
        self._seen: AbstractSet[bytes] = frozenset()  # the texts of the chunk, where equal ones are sent once
        self._is_odd = False  # the chunk is made row by row from here on; before that row i has text i
        self._positions: list[int] = []  # these two are known only then
        self._position_of: dict[bytes, int] = {}

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
                taken = 1
                self._go_row_by_row(chunk)
                self._add_row(chunk, text, block.errors.get(index), known, at)
            index += taken
            self._row += taken

    def rest(self) -> Iterator[Chunk]:
        """The last chunk, if there is one."""
        if self._chunk is not None:
            yield self._finish(self._chunk)

    def _take_at_once(self, chunk: Chunk, block: TextBlock, rows: range, known: Known | None, at: int) -> int:
        """Fill the chunk with the next rows, if all is plain: texts that it has not."""
        rows = rows[: max(0, self._sizes.rows - len(chunk.texts))]  # the server's bound may have shrunk meanwhile
        texts, size = self._that_fit(block.texts[rows.start : rows.stop])
        if block.errors and not block.errors.keys().isdisjoint(rows[: len(texts)]):
            return 0
        if known is not None and known.labels[at : at + len(texts)].count(None) < len(texts):
            return 0
        if self._dedupe:
            seen = self._seen | set(texts) if self._seen else set(texts)
            if len(seen) < len(chunk.texts) + len(texts):
                return 0
            self._seen = seen
        chunk.texts += texts
        if known is not None:
            chunk.keys += known.keys[at : at + len(texts)]
        chunk.size += size
        self._chars += size
        return len(texts)

    def _that_fit(self, texts: list[bytes]) -> tuple[list[bytes], int]:
        """As many of the next texts as there is room for characters; if bytes leave room for half of them, so many.

        And how many bytes they have.
        """
        size = sum(map(len, texts))
        if self._chars + size <= self._max_chars:
            return texts, size
        sizes = accumulate(map(len, texts), initial=self._chars)
        fitting = len(list(takewhile(self._max_chars.__ge__, sizes))) - 1
        if 2 * fitting < len(texts):
            sizes = accumulate(map(_chars, texts), initial=self._chars)
            fitting = len(list(takewhile(self._max_chars.__ge__, sizes))) - 1
        texts = texts[: max(0, fitting)]
        return texts, sum(map(len, texts))

    def _go_row_by_row(self, chunk: Chunk) -> None:
        """From now on each row says which text it has."""
        if not self._is_odd:
            self._is_odd, self._positions = True, list(range(len(chunk.texts)))
            if self._dedupe:
                self._position_of = dict(zip(chunk.texts, self._positions, strict=True))
                self._seen = self._position_of.keys()

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
        position = self._position_of.get(text)
        if position is None:
            position = len(chunk.texts)
            if self._dedupe:
                self._position_of[text] = position
            chunk.texts.append(text)
            if key is not None:
                chunk.keys.append(key)
            chunk.size += len(text)
            self._chars += _chars(text)
        self._positions.append(position)

    def _is_full(self, chunk: Chunk, text: bytes | None) -> bool:
        rows, known = self._row - chunk.first_row, len(chunk.known)
        if known >= KNOWN_ROWS or (known and chunk.size >= KNOWN_SIZE):
            return True
        if rows - known >= self._sizes.rows * ROWS_PER_TEXT:
            return True
        if text is None or text in self._seen:
            return False
        too_many = bool(chunk.texts) and self._chars + _chars(text) > self._max_chars
        return len(chunk.texts) >= self._sizes.rows or too_many

    def _finish(self, chunk: Chunk) -> Chunk:
        chunk.positions = self._positions if self._is_odd else range(len(chunk.texts))
        self._begin()
        return chunk


def _chars(text: bytes) -> int:
    return len(text) if text.isascii() else len(text.decode())
