"""One pass over labelled rows, in memory that does not grow with them: all that a report shows is counted here.

One array, `Counts.hist`, holds rows by label, by what the truth says of them, and by score. Shares, quantiles,
calibration, and accuracy from any score on are read off it later. Beside it are the confusion matrix, failures, lengths
of texts, and a few rows of each kind to look at.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, RowError
from pipeline.formats.values import to_cells
from pipeline.report.measures import GROUPS
from pipeline.scores import BINS, OTHERS, Floats, bins_of
from pipeline.streams import storable

UNKNOWN, RIGHT, WRONG = range(3)  # what the truth says of a label
MOST_LABELS = 2000  # that are told apart; the rows of all others are summed
NO_CODE = "no_answer"  # of a row that has neither a label nor an error
MISTAKES = 4  # times as many examples of them as of other rows
MOST_TRIED = 500  # rows of a block for the examples of a label, should they all have one text
LONGEST_TEXT = 400  # characters of an example
LENGTHS: Floats = np.concatenate([[0], 2.0 ** np.arange(3, 17), [np.inf]])  # characters: bounds of the steps

Ids = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Block(NamedTuple):
    """Consecutive rows of an output, only what is counted of them."""

    file: str  # "" if there is only one
    first_row: int  # from 1 on, in the file
    labels: pa.Array  # strings or a dictionary of them; null or "" where there is none
    scores: Floats  # NaN where there is none
    errors: pa.Array
    truths: pa.Array | None = None  # values of any type
    text: pa.Array | None = None  # strings; of several text columns joined by a line feed
    unsure: Mask | None = None  # labels whose score is below a threshold; None: there are no thresholds
    unjudged: Mask | None = None  # rows that have another text in the place of the label of the model

    def part(self, start: int, stop: int | None = None) -> Block:
        """Return some of the rows, from `start` up to `stop`."""
        rows = slice(start, stop)
        columns: list[Any] = [each if each is None else each[rows] for each in self[2:]]
        return Block(self.file, self.first_row + start, *columns)


class Values:
    """The values of label and truth columns as ids, the same ones in all blocks and files.

    `renamed` says what values of the truth are called as labels.
    """

    def __init__(self, renamed: dict[str, str]) -> None:
        self.ids: dict[str, int] = {}
        self._renamed = renamed

    def of_labels(self, column: pa.Array) -> Ids:
        """Return the id of each value, -1 for null and for an empty one."""
        return self._ids(column, {})

    def of_truths(self, column: pa.Array) -> Ids:
        """Return the id of each value as it is called as a label."""
        return self._ids(column, self._renamed)

    def _ids(self, column: pa.Array, renamed: dict[str, str]) -> Ids:
        if not pa.types.is_dictionary(column.type):
            try:
                column = column.dictionary_encode()
            except pa.ArrowNotImplementedError:
                raise InputError(f"a truth of the type {column.type} is no label; choose another column") from None
        is_number = pa.types.is_floating(column.dictionary.type)  # NaN is how a number is missing
        values = [
            None if value is None or (is_number and value.lower() == "nan") else label_name(storable(value))
            for value in to_cells(column.dictionary, "truth")
        ]
        known = np.array([self._id(renamed.get(value, value)) if value else -1 for value in values] + [-1], np.int64)
        numbers, is_there = numbers_of(column.indices)
        return np.asarray(known[numbers if is_there is None else np.where(is_there, numbers, len(values))])

    def _id(self, value: str) -> int:
        if len(self.ids) < MOST_LABELS or value in self.ids:
            return self.ids.setdefault(value, len(self.ids))
        return self.ids.setdefault(OTHERS, MOST_LABELS)


def label_name(value: str) -> str:
    """Print an integer without the `.0` that it gets from programs which have no missing integers."""
    number, dot, zero = value.partition(".0")
    return number if dot and not zero and number.lstrip("-").isdecimal() else value


class Top:
    """The `size` rows with the smallest keys. A row whose key is not below `bound` does not get in."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, dict[str, Any]]] = []
        self._offered = 0

    @property
    def bound(self) -> float:
        """The key of the last row that would get in, infinite as long as there is room."""
        if len(self._heap) < self._size:
            return math.inf
        return -self._heap[0][0] if self._size else -math.inf

    def offer(self, key: float, row: dict[str, Any]) -> None:
        """Take a row, unless it has the text of one that is there: that would teach nothing. The earlier one stays."""
        self._offered += 1
        if row["text"] and any(row["text"] == other["text"] for _, _, other in self._heap):
            return
        push = heapq.heappush if len(self._heap) < self._size else heapq.heappushpop
        push(self._heap, (-key, -self._offered, row))

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, that with the smallest key first."""
        return [row for _, _, row in sorted(self._heap, key=lambda each: (-each[0], -each[1]))]


class Counts:
    """What is counted of the rows of one output or of several.

    Args:
        examples: rows of each kind that are kept with their text.
        renamed: what values of the truth are called as labels.
    """

    def __init__(self, examples: int = 3, renamed: dict[str, str] | None = None) -> None:
        self.values = Values(renamed or {})
        self.rows = 0
        self.hist = np.zeros((8, 3, BINS), np.int64)  # label id, UNKNOWN or RIGHT or WRONG, bin of the score
        self.sums = np.zeros((8, 3))  # of the scores themselves, so that means are exact
        self.groups = np.zeros(len(GROUPS))  # sums of the scores of rows with a truth, for the calibration
        self.matrix = np.zeros((8, 8), np.int64)  # truth id, label id
        self.without_label = 0  # rows with a truth
        self.errors: Counter[str] = Counter()
        self.lengths = np.zeros((3, len(LENGTHS) - 1))  # by length: rows, sum of the scores, rows without a label
        self.kept: list[int] | None = None  # labels that are sure, of these with a truth, and right; None: all are
        self.logits = 0  # scores that are no probabilities
        self.has_no_score = False  # a row with a label
        self.unsure: dict[int, Top] = {}  # by label id: the lowest scores
        self.mistakes: dict[int, Top] = {}  # by label id: the highest scores of wrong labels
        self.failed: dict[str, Top] = {}  # by error code: the first rows
        self.examples = examples

    def add(self, block: Block) -> None:
        """Count the rows of a block."""
        labels, truths = self.values.of_labels(block.labels), None
        if block.truths is not None:
            truths = self.values.of_truths(block.truths)
            truths[np.zeros(len(truths), bool) if block.unjudged is None else block.unjudged] = -1
        self._make_room()
        has_label = labels >= 0
        scores, bins = block.scores, bins_of(block.scores)
        outcome = np.full(len(labels), UNKNOWN)
        if truths is not None:
            truths[(truths >= MOST_LABELS) | (labels >= MOST_LABELS)] = -1  # which of the others it is, nobody knows
            outcome[truths >= 0] = WRONG
            outcome[truths == labels] = RIGHT
            self._count_truths(labels, truths, has_label, scores)
        if block.unsure is not None:
            kept = outcome[has_label & ~block.unsure]
            found = [len(kept), int((kept != UNKNOWN).sum()), int((kept == RIGHT).sum())]
            self.kept = [*map(sum, zip(self.kept or [0, 0, 0], found, strict=True))]
        key = (labels * 3 + outcome)[has_label]
        np.add.at(self.hist.reshape(-1), key * BINS + bins[has_label], 1)
        np.add.at(self.sums.reshape(-1), key, scores[has_label])
        self.has_no_score |= bool(np.isnan(scores[has_label]).any())
        self.logits += int(np.count_nonzero((scores < 0) | (scores > 1)))
        self._count_lengths(block, has_label)
        self._count_failures(block, np.flatnonzero(~has_label))
        if self.examples:
            self._keep(self.unsure, block, labels, np.where(has_label, scores, np.inf), most=self.examples)
            if truths is not None:
                surest = np.where(has_label & (outcome == WRONG), -scores, np.inf)
                self._keep(self.mistakes, block, labels, surest, most=MISTAKES * self.examples)
        self.rows += len(labels)

    def _make_room(self) -> None:
        """Let the arrays have room for all ids; doubled, so that they are seldom copied."""
        need, have = max(self.values.ids.values(), default=0) + 1, len(self.hist)
        if need > have:
            size = max(need, 2 * have)
            self.hist, self.sums = _grown(self.hist, size, 3, BINS), _grown(self.sums, size, 3)
            self.matrix = _grown(self.matrix, size, size)

    def _count_truths(self, labels: Ids, truths: Ids, has_label: Mask, scores: Floats) -> None:
        both = has_label & (truths >= 0)
        size = len(self.matrix)
        np.add.at(self.matrix.reshape(-1), truths[both] * size + labels[both], 1)
        group = np.searchsorted(GROUPS, scores[both], "right") - 1
        self.groups += np.bincount(np.clip(group, 0, None), scores[both], len(GROUPS))
        self.without_label += int(np.count_nonzero(~has_label & (truths >= 0)))

    def _count_lengths(self, block: Block, has_label: Mask) -> None:
        if block.text is None:
            return
        characters, is_there = numbers_of(pc.utf8_length(block.text))
        characters = characters if is_there is None else np.where(is_there, characters, 0)
        step = np.searchsorted(LENGTHS, characters, "right") - 1
        for line, weights in enumerate((None, np.where(has_label, block.scores, 0), ~has_label)):
            self.lengths[line] += np.bincount(step, weights, len(LENGTHS) - 1)

    def _count_failures(self, block: Block, rows: Ids) -> None:
        errors = to_cells(block.errors, "error") if len(rows) else []
        for at in rows.tolist():
            error = errors[at] or ""
            code = RowError.parse(error).code or NO_CODE
            self.errors[code] += 1
            top = self.failed.setdefault(code, Top(self.examples))
            if top.bound > 0 and code != "empty":
                top.offer(0, row_of(block, at) | {"error": _shortened(error)})

    def _keep(self, tops: dict[int, Top], block: Block, labels: Ids, keys: Floats, *, most: int) -> None:
        """Keep the rows with the smallest keys of each label; those whose key is infinite are left out."""
        ids = range(max(self.values.ids.values(), default=-1) + 1)
        bounds = np.array([tops[label].bound if label in tops else np.inf for label in ids] + [-np.inf])
        found = np.flatnonzero(keys < bounds[labels])
        found = found[np.lexsort((keys[found], labels[found]))]
        starts = np.flatnonzero(np.diff(labels[found], prepend=-1)).tolist()
        for start, stop in pairwise([*starts, len(found)]):
            top = tops.setdefault(int(labels[found[start]]), Top(most))
            for at in found[start : min(stop, start + MOST_TRIED)].tolist():
                if keys[at] >= top.bound:
                    break
                top.offer(float(keys[at]), row_of(block, at))


def numbers_of(array: pa.Array) -> tuple[np.ndarray[Any, Any], Mask | None]:
    """Return the numbers of an array, and which of them are there (None: all). pyarrow's own way imports pandas."""
    there, data = array.buffers()
    window = slice(array.offset, array.offset + len(array))
    numbers = np.frombuffer(data, array.type.to_pandas_dtype())[window]
    if not array.null_count:
        return numbers, None
    return numbers, np.unpackbits(np.frombuffer(there, np.uint8), bitorder="little")[window].astype(bool)


def _grown(array: Any, *shape: int) -> Any:
    wider = np.zeros(shape, array.dtype)
    wider[tuple(slice(size) for size in array.shape)] = array
    return wider


def row_of(block: Block, at: int) -> dict[str, Any]:
    """Make an example of one row."""
    score = float(block.scores[at])
    row = {
        "row": block.first_row + at,
        "label": cell_of(block.labels, at) or None,
        "score": None if math.isnan(score) else score,
        "text": "" if block.text is None else _shortened(cell_of(block.text, at) or ""),
    }
    if block.truths is not None:
        row["truth"] = cell_of(block.truths, at) or None
    return row | ({"file": block.file} if block.file else {})


def cell_of(column: pa.Array, at: int) -> str | None:
    """Return one value as text."""
    with suppress(UnicodeDecodeError):
        value = column[at].as_py()
        if value is None or isinstance(value, str):
            return value
    return to_cells(column.slice(at, 1), "value")[0]


def unsure_in_words(rows: int) -> str:
    """Say that rows are not judged because the model's own label is not in the output."""
    return (
        f"{rows:,} rows that are not sure are left out: writer.unsure_label stands there, not the model's own label; "
        f"writer.top_k or writer.probs keeps it"
    )


def _shortened(text: str) -> str:
    """Return the beginning of a text in one line, as JSON can hold it."""
    start = storable(" ".join(text[: 4 * LONGEST_TEXT].split()))
    return start if len(start) <= LONGEST_TEXT and len(text) <= 4 * LONGEST_TEXT else f"{start[:LONGEST_TEXT]}…"
