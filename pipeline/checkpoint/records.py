"""One record of the checkpoint's table: the answers of consecutive rows, compact."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.answers import Answers, Labels
from pipeline.errors import RowError
from pipeline.texts import Position

COLUMNS = "first_row, rows, at_row, at_offset, at_line, labels, scores, probs, errors, truncated"
INSERT = f"INSERT INTO chunks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - no value is in it
Row = tuple[Any, ...]  # in the order of COLUMNS


def record_of(first_row: int, position: Position, answers: Answers, labels: Labels, num_classes: int) -> Row:
    """Return answers as a record with the label ids of `labels`; `num_classes` > 0 keeps the probabilities."""
    return (
        *(first_row, len(answers), *position),
        *(answers.ids_in(labels).tobytes(), answers.scores.tobytes()),
        answers.probs_or_nan(num_classes).tobytes() if num_classes else None,
        json.dumps({row: str(error) for row, error in answers.errors.items()}) if answers.errors else None,
        json.dumps(sorted(answers.truncated)) if answers.truncated else None,
    )


def answers_of(record: Row, labels: Labels, num_classes: int) -> Answers:
    """Return a record as answers; `labels` are those of the checkpoint."""
    ids, scores, probs, errors, truncated = record[5:]
    return Answers(
        labels,
        np.frombuffer(ids, np.int32),
        np.frombuffer(scores, np.float64),
        None if probs is None else np.frombuffer(probs, np.float64).reshape(-1, num_classes),
        errors=errors_of(errors),
        truncated=frozenset(json.loads(truncated or "[]")),
    )


def errors_of(column: str | None) -> dict[int, RowError]:
    """Return the errors of a record: row of the record -> error."""
    return {int(row): RowError.parse(error) for row, error in json.loads(column or "{}").items()}


def without_failed(record: Row, labels: Labels) -> tuple[list[Row], int]:
    """Take the rows that failed out of a record: return the records between them, and how many failed."""
    first_row, rows, at_row, at_offset, at_line, *_, probs, errors, _ = record
    failed = sorted(row for row, error in errors_of(errors).items() if error.is_failure)
    classes = len(probs) // (8 * rows) if probs else 0
    answers = answers_of(record, labels, classes)
    starts, stops = [0, *(row + 1 for row in failed)], [*failed, rows]
    kept = [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]
    position = Position(at_row, at_offset, at_line)
    return [record_of(first_row + start, position, answers[start:stop], labels, classes) for start, stop in kept], len(
        failed
    )
