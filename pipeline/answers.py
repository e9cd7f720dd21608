"""What is known of texts and rows, as one value and as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Prediction(NamedTuple):
    """What is known of one text. `probs` are in class order; `error` is `code: message`, and then the rest is None."""

    label: str | None
    score: float | None
    probs: Sequence[float] | None = None
    error: str | None = None
    truncated: bool = False


@dataclass(slots=True)
class Predictions:
    """The predictions of some texts, column by column: one Python object a text would cost more than its answer."""

    labels: list[str | None] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # NaN where there is no label
    probs: list[Sequence[float] | None] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)  # position -> "code: message"
    truncated: set[int] = field(default_factory=set)  # positions

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> Prediction:
        label, truncated = self.labels[position], position in self.truncated
        if label is None:
            return Prediction(None, None, None, self.errors[position], truncated)
        return Prediction(label, self.scores[position], self.probs[position], None, truncated)

    def __setitem__(self, position: int, prediction: Prediction) -> None:
        """Instead of one that had neither an error nor a cut text."""
        label, score, probs, error, truncated = prediction
        self.labels[position], self.scores[position] = label, math.nan if score is None else score
        self.probs[position] = probs
        if error is not None:
            self.errors[position] = error
        if truncated:
            self.truncated.add(position)

    @classmethod
    def failed(cls, error: str) -> Predictions:
        """One text that has no answer, and why."""
        return cls([None], [math.nan], [None], {0: error})

    def __add__(self, other: Predictions) -> Predictions:
        shift = len(self)
        return Predictions(
            self.labels + other.labels,
            self.scores + other.scores,
            self.probs + other.probs,
            self.errors | {position + shift: error for position, error in other.errors.items()},
            self.truncated | {position + shift for position in other.truncated},
        )

    def of(self, start: int, stop: int) -> Predictions:
        """Those of some consecutive texts."""
        return Predictions(
            self.labels[start:stop],
            self.scores[start:stop],
            self.probs[start:stop],
            {position - start: error for position, error in self.errors.items() if start <= position < stop},
            {position - start for position in self.truncated if start <= position < stop},
        )

    def spread(self, positions: Sequence[int], errors: Mapping[int, str]) -> Predictions:
        """The predictions of rows: row i is that of text `positions[i]`, or has no answer because of `errors[i]`."""
        known = [(row, position) for row, position in enumerate(positions) if position in self.errors]
        return Predictions(
            [self.labels[position] if position >= 0 else None for position in positions],
            [self.scores[position] if position >= 0 else math.nan for position in positions],
            [self.probs[position] if position >= 0 else None for position in positions],
            {row: self.errors[position] for row, position in known} | dict(errors),
            {row for row, position in enumerate(positions) if position in self.truncated} if self.truncated else set(),
        )
