"""One record: the predictions of consecutive rows, compact, as a row of the checkpoint's table and as columns."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline.answers import Predictions
from pipeline.texts import Position

NO_LABEL = -1
COLUMNS = "first_row, rows, at_row, at_offset, at_line, labels, scores, probs, errors, truncated"
INSERT = f"INSERT INTO chunks ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - no value is in it
Row = tuple[Any, ...]  # in the order of COLUMNS


class Slab(NamedTuple):
    """The predictions of consecutive rows as columns."""

    labels: np.ndarray[Any, np.dtype[np.int32]]  # ids, NO_LABEL where there is none
    scores: np.ndarray[Any, np.dtype[np.float64]]
    probs: np.ndarray[Any, np.dtype[np.float64]] | None  # (rows, num_classes)
    errors: dict[int, str]  # index in the slab -> "code: message"
    truncated: frozenset[int]


def record_of(
    first_row: int, place: Position, predictions: Predictions, ids: Mapping[str, int], num_classes: int
) -> Row:
    """Predictions as a record; `ids` are those of the labels, and `num_classes` > 0 keeps the probabilities."""
    labels = array("i", [NO_LABEL if label is None else ids[label] for label in predictions.labels])
    probs = None
    if num_classes:
        nothing = [float("nan")] * num_classes
        probs = array("d", [value for row in predictions.probs for value in (row or nothing)]).tobytes()
    return (
        *(first_row, len(predictions), *place),
        *(labels.tobytes(), array("d", predictions.scores).tobytes(), probs),
        json.dumps(predictions.errors) if predictions.errors else None,
        json.dumps(sorted(predictions.truncated)) if predictions.truncated else None,
    )


def slab_of(row: Row, num_classes: int) -> Slab:
    """A record as columns."""
    labels, scores, probs, errors, truncated = row[5:]
    return Slab(
        np.frombuffer(labels, np.int32),
        np.frombuffer(scores, np.float64),
        None if probs is None else np.frombuffer(probs, np.float64).reshape(-1, num_classes),
        {int(index): error for index, error in json.loads(errors or "{}").items()},
        frozenset(json.loads(truncated or "[]")),
    )


def without(row: Row, failed: list[int], errors: dict[int, str]) -> Iterator[Row]:
    """What is left of a record when some of its rows are taken out: a record for each run of rows between them."""
    first, rows, *place, labels, scores, probs, _, truncated = row
    cut = json.loads(truncated or "[]")
    starts, stops = [0, *(index + 1 for index in failed)], [*failed, rows]
    for start, stop in zip(starts, stops, strict=True):
        if start == stop:
            continue
        width = len(probs) // rows if probs else 0
        kept = {index - start: error for index, error in errors.items() if start <= index < stop}
        still_cut = [index - start for index in cut if start <= index < stop]
        yield (
            *(first + start, stop - start, *place),
            *(labels[4 * start : 4 * stop], scores[8 * start : 8 * stop]),
            probs[width * start : width * stop] if probs else None,
            json.dumps(kept) if kept else None,
            json.dumps(still_cut) if still_cut else None,
        )
