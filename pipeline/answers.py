"""What was answered of many texts or rows, column by column, from the decoder of a response to the writer of a file.

A Python object per row would cost more than its answer, so nothing between the two handles a row on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from pipeline.errors import RowError

NO_LABEL = -1  # the label id of a row that was not classified

Ids = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


SHOWN_PROBS = 8


class Prediction(NamedTuple):
    """The answer of one text. `probs` are in class order; `error` is `code: message`, and then the rest is None.

    `truncated` is None where the server cuts texts without saying so. `parts` is in how many parts the text was
    answered, None where it was not. The last three are None where the config does not ask for them: whether the score
    is below `writer.min_score`, the classes of `writer.multi_label`, and those of `writer.top_k` with their values.
    """

    label: str | None
    score: float | None
    probs: Sequence[float] | None = None
    error: str | None = None
    truncated: bool | None = False
    parts: int | None = 1
    unsure: bool | None = None
    labels: Sequence[str] | None = None
    top: Sequence[tuple[str, float]] | None = None

    def __repr__(self) -> str:
        """Show at most `SHOWN_PROBS` of the values: a model may have hundreds of classes."""
        probs = self.probs
        if probs is not None and len(probs) > SHOWN_PROBS:
            shown = ", ".join(f"{value:.4g}" for value in probs[:SHOWN_PROBS])
            probs_shown = f"({shown}, ... {len(probs)} values)"
        else:
            probs_shown = repr(probs)
        more = ", truncated=True" if self.truncated else ""
        more += f", parts={self.parts}" if (self.parts or 0) > 1 else ""
        asked_for = {"unsure": self.unsure, "labels": self.labels, "top": self.top}
        more += "".join(f", {name}={value!r}" for name, value in asked_for.items() if value is not None)
        return f"Prediction({self.label!r}, {self.score!r}, probs={probs_shown}, error={self.error!r}{more})"


class Labels:
    """The names of labels by id, in order of first appearance. It only grows, and may be read while it does."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self.ids = {name: index for index, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self.names)

    def id_of(self, name: str) -> int:
        """Return the id of a label, a new one if it has none yet."""
        found = self.ids.get(name)
        if found is None:
            self.names.append(name)
            found = self.ids[name] = len(self.names) - 1
        return found

    def ids_of(self, names: Sequence[str]) -> Ids:
        """Return the ids of labels, `NO_LABEL` never among them: shape (names,)."""
        try:
            return np.array([*map(self.ids.__getitem__, names)], np.int32)
        except KeyError:
            return np.array([*map(self.id_of, names)], np.int32)


class Answers:
    """The answers of consecutive texts or rows, as columns.

    Args:
        labels: the names that the ids stand for.
        ids: shape (rows,); `NO_LABEL` where there is no label, and then `errors` says why.
        scores: shape (rows,); NaN where there is no label.
        probs: shape (rows, classes), NaN where there is no label; None where they are not kept.
        errors: row -> why it has no label.
        truncated: rows whose text was cut.
        parts: row -> in how many parts its text was answered; without those that were answered whole.
        unsure: which labels are not sure, shape (rows,), only in what is about to be written, see `thresholds`.
    """

    __slots__ = ("errors", "ids", "labels", "parts", "probs", "scores", "truncated", "unsure")

    def __init__(
        self,
        labels: Labels,
        ids: Ids,
        scores: Floats,
        probs: Floats | None = None,
        *,
        errors: Mapping[int, RowError] | None = None,
        truncated: frozenset[int] = frozenset(),
        parts: Mapping[int, int] | None = None,
        unsure: Mask | None = None,
    ) -> None:
        self.labels, self.ids, self.scores, self.probs = labels, ids, scores, probs
        self.errors, self.truncated, self.parts, self.unsure = errors or {}, truncated, parts or {}, unsure

    @classmethod
    def none(cls, rows: int = 0, errors: Mapping[int, RowError] | None = None) -> Answers:
        """Return rows without an answer."""
        return cls(Labels(), np.full(rows, NO_LABEL, np.int32), np.full(rows, np.nan), errors=errors)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the rows of all parts, in order; where only some parts have probabilities, the others get NaN."""
        if len(parts) == 1:
            return parts[0]
        labels = next((part.labels for part in parts if len(part.labels)), Labels())
        starts = np.cumsum([0, *map(len, parts[:-1])]).tolist()
        shifted = list(zip(parts, starts, strict=True))
        width = next((part.probs.shape[1] for part in parts if part.probs is not None), None)
        return cls(
            labels,
            np.concatenate([np.empty(0, np.int32), *(part.ids_in(labels) for part in parts)]),
            np.concatenate([np.empty(0), *(part.scores for part in parts)]),
            None if width is None else np.concatenate([part.probs_or_nan(width) for part in parts]),
            errors={row + start: why for part, start in shifted for row, why in part.errors.items()},
            truncated=frozenset(row + start for part, start in shifted for row in part.truncated),
            parts={row + start: count for part, start in shifted for row, count in part.parts.items()},
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, rows: int) -> Prediction: ...
    @overload
    def __getitem__(self, rows: slice) -> Answers: ...
    def __getitem__(self, rows: int | slice) -> Prediction | Answers:
        if not isinstance(rows, slice):
            return next(iter(self[rows : rows + 1]))
        start, stop, _ = rows.indices(len(self))
        if (start, stop) == (0, len(self)):
            return self
        return Answers(
            self.labels,
            self.ids[start:stop],
            self.scores[start:stop],
            None if self.probs is None else self.probs[start:stop],
            errors={row - start: error for row, error in self.errors.items() if start <= row < stop},
            truncated=frozenset(row - start for row in self.truncated if start <= row < stop),
            parts={row - start: count for row, count in self.parts.items() if start <= row < stop},
        )

    def __iter__(self) -> Iterator[Prediction]:
        names, probs = self.labels.names, [None] * len(self) if self.probs is None else self.probs.tolist()
        for row, (index, score) in enumerate(zip(self.ids.tolist(), self.scores.tolist(), strict=True)):
            is_cut = row in self.truncated
            if index == NO_LABEL:
                error = self.errors.get(row)
                yield Prediction(None, None, None, None if error is None else str(error), is_cut, None)
            else:
                yield Prediction(names[index], score, probs[row], None, is_cut, self.parts.get(row, 1))

    @property
    def has_label(self) -> Mask:
        """Which rows have a label: shape (rows,)."""
        return np.asarray(self.ids != NO_LABEL)

    def ids_in(self, labels: Labels) -> Ids:
        """Return the ids that the labels have in another vocabulary, which learns those it does not have."""
        if labels is self.labels:
            return self.ids
        new = [labels.ids.get(name, NO_LABEL) for name in self.labels.names]
        if NO_LABEL in new:
            for index in np.unique(self.ids[self.has_label]).tolist():
                new[index] = labels.id_of(self.labels.names[index])
        return np.array([*new, NO_LABEL], np.int32)[self.ids]  # the last one is that of NO_LABEL

    def probs_or_nan(self, classes: int) -> Floats:
        """Return the probabilities; NaN, of shape (rows, classes), if there are none."""
        return np.full((len(self), classes), np.nan) if self.probs is None else self.probs

    def take(self, indices: Ids, errors: Mapping[int, RowError]) -> Answers:
        """Return the answers of rows of which row i has text `indices[i]`, or is -1 and has `errors[i]`."""
        if not len(self):
            return Answers.none(len(indices), errors)
        if len(indices) == len(self) and not errors and (indices == np.arange(len(self))).all():
            return self  # as in most files: no text twice, none empty
        found = indices >= 0
        rows = np.where(found, indices, 0)
        ids, scores, probs = self.ids[rows], self.scores[rows], None if self.probs is None else self.probs[rows]
        if not found.all():
            ids[~found], scores[~found] = NO_LABEL, np.nan
            if probs is not None:
                probs[~found] = np.nan
        errors, truncated, parts = dict(errors), frozenset[int](), dict[int, int]()
        if self.errors or self.truncated or self.parts:
            texts = indices.tolist()
            errors |= {row: self.errors[text] for row, text in enumerate(texts) if text in self.errors}
            truncated = frozenset(row for row, text in enumerate(texts) if text in self.truncated)
            parts = {row: self.parts[text] for row, text in enumerate(texts) if text in self.parts}
        return Answers(self.labels, ids, scores, probs, errors=errors, truncated=truncated, parts=parts)

    def completed(self, others: Answers) -> Answers:
        """Return these answers, with those of `others` (as many rows) where a row has neither a label nor an error."""
        mine, theirs = Answers.joined([self, others]), np.flatnonzero(others.has_label & ~self.has_label)
        rows = np.arange(len(self), dtype=np.int32)
        rows[theirs] += len(self)
        return mine.take(rows, {})
