"""Answers made up for a test, and how they go into a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipeline.answers import NO_LABEL, Answers, Labels
from pipeline.checkpoint import Checkpoint
from pipeline.errors import RowError
from pipeline.texts import Position


def answers_of(
    labels: Sequence[str | None],
    scores: Sequence[float | None],
    probs: Sequence[Sequence[float] | None] | None = None,
    errors: Mapping[int, str] | None = None,
    truncated: Iterable[int] = (),
) -> Answers:
    """Return answers row by row; `errors` are `code: message`, and nothing is kept of `probs` if all are None."""
    names = Labels()
    rows = probs or []
    width = max((len(row) for row in rows if row is not None), default=0)
    return Answers(
        names,
        np.array([NO_LABEL if label is None else names.id_of(label) for label in labels], np.int32),
        np.array([math.nan if score is None else score for score in scores], np.float64),
        np.array([row or [math.nan] * width for row in rows], np.float64) if width else None,
        errors={row: RowError.parse(error) for row, error in (errors or {}).items()},
        truncated=frozenset(truncated),
    )


def failed(error: str) -> Answers:
    """Return one row that has no answer, and why."""
    return Answers.none(1, {0: RowError.parse(error)})


def labels_of(answers: Answers) -> list[str | None]:
    """Return the label of each row."""
    return [prediction.label for prediction in answers]


def answers(first: int, rows: int) -> Answers:
    """Return the answers of rows from `first` on, each of which tells the number of its row."""
    numbers = range(first, first + rows)
    return answers_of(
        [f"label {row % 5}" for row in numbers], [row / 7 for row in numbers], [[row / 7, -row / 7] for row in numbers]
    )


def add(checkpoint: Checkpoint, first: int, rows: int, classes: int = 0) -> None:
    """Remember the rows from `first` on."""
    checkpoint.add(first, Position(first, 10 * first, first + 1), answers(first, rows), classes)
