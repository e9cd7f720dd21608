"""Populations whose truth is known, and samples of them, to see whether the intervals of an estimate hold the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.report.estimates import Ids, Judged, estimate
from pipeline.report.strata import BANDS, bands_of, strata_of
from pipeline.scores import Floats

EIGHT = (0.15, 0.14, 0.12, 0.11, 0.08, 0.14, 0.21, 0.05)
RARE = (0.60, 0.20, 0.10, 0.05, 0.03, 0.01, 0.006, 0.004)
MANY = tuple((1 / np.arange(1, 41) / (1 / np.arange(1, 41)).sum()).tolist())


class Setting(NamedTuple):
    """A population, and how many rows are drawn of it."""

    name: str
    shares: Sequence[float]  # of the labels
    accuracy: float
    scores: str  # calibrated | too sure | all alike | say nothing
    rows: int = 20_000
    drawn: int = 200


SETTINGS = (
    Setting("90 % right", EIGHT, 0.90, "calibrated"),
    Setting("99 % right", EIGHT, 0.99, "calibrated"),
    Setting("85 %, too sure of itself", EIGHT, 0.85, "too sure"),
    Setting("95 %, too sure of itself", EIGHT, 0.95, "too sure"),
    Setting("97 %, all scores 0.999", EIGHT, 0.97, "all alike"),
    Setting("90 %, scores say nothing", EIGHT, 0.90, "say nothing"),
    Setting("rare labels, 90 %", RARE, 0.90, "calibrated"),
    Setting("rare labels, 99 %", RARE, 0.99, "calibrated"),
    Setting("40 labels, 90 %", MANY, 0.90, "calibrated"),
    Setting("50 rows of 20,000", EIGHT, 0.90, "calibrated", drawn=50),
    Setting("200 rows of 300", EIGHT, 0.90, "calibrated", rows=300),
    Setting("1,000 rows of 20,000", RARE, 0.95, "too sure", drawn=1000),
)


class Population(NamedTuple):
    """Rows with a truth, as arrays of that length."""

    labels: Ids
    truths: Ids
    scores: Floats

    @property
    def true(self) -> dict[str, Any]:
        """Accuracy, macro F1, and precision, recall and F1 of each label, as the whole population has them."""
        size = int(max(self.labels.max(), self.truths.max())) + 1
        hits = np.bincount(self.labels[self.labels == self.truths], minlength=size)
        said, is_true = np.bincount(self.labels, minlength=size), np.bincount(self.truths, minlength=size)
        f1 = 2 * hits / (said + is_true)
        return {"accuracy": float((self.labels == self.truths).mean()), "macro_f1": float(f1.mean()), "f1": f1} | {
            "precision": hits / said,
            "recall": hits / is_true,
        }


def population(setting: Setting, seed: int) -> Population:
    """Rows of a model that is right as often as said."""
    chance, labels = np.random.default_rng(seed), len(setting.shares)
    truths = chance.choice(labels, setting.rows, p=setting.shares)
    sure = chance.beta(8 * setting.accuracy, 8 * (1 - setting.accuracy), setting.rows)
    wrong = chance.random(setting.rows) >= sure
    said = np.where(wrong, (truths + chance.integers(1, labels, setting.rows)) % labels, truths)
    scores = {
        "calibrated": sure,
        "too sure": 1 - (1 - sure) ** 3 / 2,
        "all alike": np.full(setting.rows, 0.999),
        "say nothing": chance.random(setting.rows),
    }
    return Population(said, truths, scores[setting.scores])


def drawn(rows: Population, most: int, chance: np.random.Generator) -> Judged:
    """A sample, every row of it judged."""
    bands = bands_of(rows.scores)
    strata = strata_of(cells_of(rows), [str(label) for label in range(rows.labels.max() + 1)], most)
    of = strata.of[rows.labels, bands]
    order, starts = np.argsort(of, kind="stable"), np.concatenate([[0], np.cumsum(strata.rows)])
    places, weights = [], []
    for start, size, taken in zip(starts, strata.rows, strata.taken, strict=False):
        places.append(order[start + chance.choice(size, taken, replace=False)])
        weights.append(np.full(taken, size / taken))
    at = np.concatenate(places)
    return Judged(rows.labels[at], rows.truths[at], bands[at], np.concatenate(weights))


def cells_of(rows: Population) -> Ids:
    """Rows by label and band."""
    cells = np.zeros((int(max(rows.labels.max(), rows.truths.max())) + 1, BANDS), np.int64)
    np.add.at(cells, (rows.labels, bands_of(rows.scores)), 1)
    return cells


class Coverage(NamedTuple):
    """Of many samples of one population: how many intervals hold the truth, and what is estimated."""

    accuracy: float
    width: float  # of the interval of the accuracy, mean
    mean: float  # of the estimates
    spread: float  # their standard deviation
    true: float
    macro_f1: float
    precision: float
    recall: float
    f1: float


def coverage(setting: Setting, samples: int, seed: int = 1) -> Coverage:
    """Draw so many samples of a population."""
    rows = population(setting, seed)
    cells, true, chance = cells_of(rows), rows.true, np.random.default_rng(seed)
    names = [str(label) for label in range(len(cells))]
    held: dict[str, list[bool]] = {name: [] for name in ("accuracy", "macro_f1", "precision", "recall", "f1")}
    found = []
    for _ in range(samples):
        said = estimate(cells, drawn(rows, setting.drawn, chance), names)
        found.append(said["accuracy"])
        for name in ("accuracy", "macro_f1"):
            held[name].append(_holds(said[name], true[name]))
        for entry in said["labels"]:
            for name in ("precision", "recall", "f1"):
                if entry[name][0] is not None:
                    held[name].append(_holds(entry[name], true[name][int(entry["label"])]))
    value, low, high = np.array(found).T
    shares = {name: float(np.mean(each)) for name, each in held.items()}
    return Coverage(
        width=float((high - low).mean()),
        mean=float(value.mean()),
        spread=float(value.std()),
        true=true["accuracy"],
        **shares,
    )


def _holds(interval: Sequence[float], value: float) -> bool:
    return interval[1] - 1e-9 <= value <= interval[2] + 1e-9
