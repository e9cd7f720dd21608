"""Cuts blocks of texts into chunks: consecutive rows, and the distinct texts that are sent for them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import RowError
from pipeline.servers.limiter import BatchSize
from pipeline.texts import Indices, Mask, Position, TextBlock, Texts

ROWS_PER_TEXT = 16  # a chunk of repeated texts is cut at so many rows for each text it might send
REUSED_ROWS = 8192  # reused rows in a chunk at most: with 1 % new rows, some eighty texts go into a request
REUSED_BYTES = 4 << 20  # bytes of reused answers in a chunk at most
ROW_BYTES, VALUE_BYTES = 100, 40  # of memory: of a reused row, and of each of its probabilities
CHARACTER_BYTES = 4  # at most
LOOK_AHEAD = 32  # rows at least that are looked at beyond those there is room for: some may repeat others
NO_TEXTS = Texts.of([])


class Reused(NamedTuple):
    """The answers that earlier runs got for some rows."""

    keys: list[bytes]  # of the rows' texts, under which new answers are kept; b"": not to be kept
    answers: Answers  # of the rows, without a label where none is known

    @classmethod
    def nothing(cls, rows: int) -> Reused:
        """Return rows of which no answer is known, and none will be kept."""
        return cls([b""] * rows, Answers.none(rows))


@dataclass(slots=True)
class Chunk:
    """Consecutive rows of one file, whose texts go into one request."""

    first_row: int
    position: Position  # at or before the first row: reading can start again there
    texts: Texts = NO_TEXTS  # distinct, unless `request.dedupe` is off
    text_of_row: Indices = field(default_factory=lambda: np.empty(0, np.int32))  # index in `texts`; -1: none is sent
    errors: dict[int, RowError] = field(default_factory=dict)  # row of the chunk -> why it is not sent
    keys: list[bytes] = field(default_factory=list)  # of `texts`, to keep their answers for other runs; [] if not kept
    reused: Answers | None = None  # of the rows, by earlier runs; None where such answers are not looked up
    rows_reused: int = 0  # rows with an answer among `reused`
    reused_bytes: int = 0  # of memory
    file: Any = None  # to which the rows belong; for the receiver of the answers

    @property
    def size(self) -> int:
        """Bytes of texts and of reused answers."""
        return self.texts.size + self.reused_bytes

    @property
    def rows_shared(self) -> int:
        """Rows for which the text of another row is sent."""
        return len(self.text_of_row) - len(self.errors) - len(self.texts) - self.rows_reused

    def rows(self, answers: Answers) -> Answers:
        """Return the answers of the rows, given those of `texts`."""
        rows = answers.take(self.text_of_row, self.errors)
        return rows.completed(self.reused) if self.rows_reused and self.reused is not None else rows


class _Rows(NamedTuple):
    """The wanted rows of a block, each with an error, a reused answer, or a text that is sent."""

    texts: Texts
    errors: dict[int, RowError]
    reused: Reused | None
    is_reused: Mask
    is_sent: Mask
    reused_row_bytes: int

    @classmethod
    def of(cls, block: TextBlock, wanted: range, reused: Reused | None) -> _Rows:
        """Take the rows `wanted` of a block; `reused` holds only these."""
        errors = {index - wanted.start: error for index, error in block.errors.items() if index in wanted}
        has_text, is_reused, size = np.ones(len(wanted), bool), np.zeros(len(wanted), bool), ROW_BYTES
        has_text[list(errors)] = False
        if reused is not None:
            is_reused = has_text & reused.answers.has_label
            size += VALUE_BYTES * reused.answers.probs.shape[1] if reused.answers.probs is not None else 0
        return cls(block.texts[wanted.start : wanted.stop], errors, reused, is_reused, has_text & ~is_reused, size)


class Cutter:
    """Cuts the rows from `first_row` to before `stop_row` (None: to the end) of a stream of blocks into chunks.

    Chunks are bounded in texts, characters and rows, wherever the blocks end; `sizes` may shrink meanwhile.
    """

    def __init__(self, request: Request, sizes: BatchSize, first_row: int, stop_row: int | None) -> None:
        self._sizes = sizes
        self._max_chars, self._dedupe = request.max_chars, request.dedupe
        self.row = first_row  # the next one that it needs
        self._stop = stop_row
        self._begin()

    def _begin(self) -> None:
        self._chunk: Chunk | None = None
        self._text_of_row: list[Indices] = []
        self._reused: list[Answers] = []

    @property
    def is_done(self) -> bool:
        """Whether it has seen the last row it needs."""
        return self._stop is not None and self.row >= self._stop

    def wanted(self, block: TextBlock) -> range:
        """Return the indices of the rows of a block that it needs."""
        stop = len(block.texts) if self._stop is None else min(len(block.texts), self._stop - block.position.row)
        return range(max(0, self.row - block.position.row), stop)

    def cut(self, block: TextBlock, reused: Reused | None = None) -> Iterator[Chunk]:
        """Take a block and yield the chunks that are full; `reused` is of the rows that are `wanted`."""
        rows = _Rows.of(block, self.wanted(block), reused)
        index = 0
        while index < len(rows.is_sent):
            chunk = self._chunk = self._chunk or Chunk(self.row, block.position)
            stop = self._next_stop(chunk, rows, index)
            taken = self._take(chunk, rows, index, stop) if stop > index else 0
            index += taken
            self.row += taken
            if index < stop or not taken:
                yield self._finish(chunk)

    def rest(self) -> Iterator[Chunk]:
        """Yield the last chunk, if one was begun."""
        if self._chunk is not None:
            yield self._finish(self._chunk)

    def _next_stop(self, chunk: Chunk, rows: _Rows, start: int) -> int:
        """Return the end of the rows to look at next: not many more than may fit."""
        room_for_texts = max(0, self._sizes.texts - len(chunk.texts))  # the server's bound may have shrunk meanwhile
        room_for_rows = self._sizes.texts * ROWS_PER_TEXT - (self.row - chunk.first_row) + chunk.rows_reused
        room_for_bytes = -((chunk.reused_bytes - REUSED_BYTES) // rows.reused_row_bytes)  # rounded up
        room_for_reused = min(REUSED_ROWS - chunk.rows_reused, room_for_bytes)
        ahead = max(LOOK_AHEAD, len(chunk.texts))  # these are looked at again each time
        offsets = rows.texts.offsets
        most_bytes = min(int(offsets[start]) + CHARACTER_BYTES * self._max_chars, int(offsets[-1]))
        stop_by_size = int(np.searchsorted(offsets, most_bytes, "right"))
        room = min(room_for_texts + ahead, room_for_rows, room_for_reused)
        return min(start + max(0, room), stop_by_size, len(rows.is_sent))

    def _take(self, chunk: Chunk, rows: _Rows, start: int, stop: int) -> int:
        """Add as many of these rows as fit, and return how many."""
        texts, text_of_row = self._find(chunk.texts, rows.texts[start:stop], rows.is_sent[start:stop])
        fitting = self._fitting(texts, len(chunk.texts))
        if fitting < len(texts):
            stop = start + int((text_of_row >= fitting).argmax())
            text_of_row = text_of_row[: stop - start]
        if rows.reused is not None:
            self._take_reused(chunk, rows, range(start, stop), text_of_row)
        if rows.errors:
            without = np.flatnonzero(~(rows.is_sent[start:stop] | rows.is_reused[start:stop])).tolist()
            done = self.row - chunk.first_row
            chunk.errors |= {done + index: rows.errors[start + index] for index in without}
        chunk.texts = texts[:fitting].copy()  # a request in flight must not hold the whole block
        self._text_of_row.append(text_of_row)
        return stop - start

    def _find(self, earlier: Texts, texts: Texts, is_sent: Mask) -> tuple[Texts, Indices]:
        """Return all texts to be sent, first those of the chunk; and the index of each new row's text, or -1."""
        if earlier:
            texts, is_sent = Texts.joined([earlier, texts]), np.append(np.ones(len(earlier), bool), is_sent)
        found, text_of_row = texts.distinct(is_sent) if self._dedupe else texts.present(is_sent)
        return found, text_of_row[len(earlier) :]

    def _fitting(self, texts: Texts, least: int) -> int:
        """Return how many of the texts the chunk may have; never less than it has, nor than one."""
        fitting = self._sizes.texts
        if texts.size > self._max_chars:  # bytes
            fitting = min(fitting, int(np.searchsorted(texts.chars(), self._max_chars, "right")))
        return max(1, least, fitting)

    def _take_reused(self, chunk: Chunk, rows: _Rows, some: range, text_of_row: Indices) -> None:
        """Add the keys of new texts and the reused answers of `some` of the rows."""
        reused: Reused = rows.reused  # type: ignore[assignment] # there are some
        found, first = np.unique(text_of_row, return_index=True)
        chunk.keys += [reused.keys[some[index]] for index in first[found >= len(chunk.texts)].tolist()]
        self._reused.append(reused.answers[some.start : some.stop])
        count = int(np.count_nonzero(rows.is_reused[some.start : some.stop]))
        chunk.rows_reused += count
        chunk.reused_bytes += count * rows.reused_row_bytes

    def _finish(self, chunk: Chunk) -> Chunk:
        chunk.text_of_row = np.concatenate(self._text_of_row)
        chunk.reused = Answers.joined(self._reused) if self._reused else None
        self._begin()
        return chunk
