"""What a sample that a person has labelled says of the whole output: accuracy, precision, recall, F1, with intervals.

The rows of a sample stand for unequal numbers of rows, their weights. How many rows the output has of each label and in
each band of the score is known, so shares are taken by band and summed. The intervals are those of Wilson for as many
rows as the weights leave of the sample, put together (MOVER, Zou and Donner 2008; Donner and Zou 2012 for ratios): a
band in which all rows are right still adds what its number of rows leaves open. Arrays only: no files, no limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.report.measures import Mask
from pipeline.scores import BAND_EDGES, Counts, Floats

Ids = np.ndarray[Any, np.dtype[np.int64]]
Interval = list[float]  # value, low, high
_Z = 1.96


class Judged(NamedTuple):
    """The rows of a sample that have a truth, all arrays of that length."""

    labels: Ids  # of the output, as lines of `cells`
    truths: Ids
    bands: Ids  # as columns of `cells`
    weights: Floats  # rows that each stands for

    def where(self, mask: Mask) -> Judged:
        """Return only some of the rows."""
        return Judged(self.labels[mask], self.truths[mask], self.bands[mask], self.weights[mask])


def estimate(cells: Counts, judged: Judged, names: Sequence[str]) -> dict[str, Any]:
    """Return what the judged rows say of all rows.

    `cells[label, band]` are the rows of the output, `names` those of the labels: also of truths that are no label of
    any row, whose lines are 0. What no row was judged for is None.
    """
    right = judged.labels == judged.truths
    labels: list[dict[str, Any]] = [
        {"label": name, "rows": int(cells[at].sum()), "judged": int(np.count_nonzero(judged.labels == at))}
        | _of_label(cells, judged, at)
        for at, name in enumerate(names)
    ]
    labels = [entry for entry in labels if entry["rows"] or entry["recall"][0] is not None]
    edges = (0, *BAND_EDGES, 1) if cells.shape[1] > 1 else (None, None)  # raw logits have no bands
    bands: list[dict[str, Any]] = []
    for band, (rows, start, stop) in enumerate(zip(cells.sum(0).tolist(), edges, edges[1:], strict=False)):
        inside = judged.bands == band
        share = _share(judged.weights[inside], right[inside])
        bands.append({"from": start, "to": stop, "rows": rows, "judged": int(np.count_nonzero(inside)), "right": share})
    return {
        "accuracy": _in_all(cells.sum(0), judged, right),
        "macro_f1": _mean([entry["f1"] for entry in labels]),
        "labels": sorted(labels, key=lambda entry: -int(entry["rows"])),
        "bands": [entry for entry in bands if entry["rows"]],
    }


def _of_label(cells: Counts, judged: Judged, label: int) -> dict[str, Any]:
    """Return precision, recall and F1 of a label.

    The rows of the label that have it as truth, and those of other labels, come of different rows, so they vary by
    themselves: recall and F1 are ratios of the two.
    """
    rows, mine = int(cells[label].sum()), judged.labels == label
    others = judged.where(~mine)
    precision = _share(judged.weights[mine], (judged.truths == label)[mine])
    missed = _in_all(cells.sum(0) - cells[label], others, others.truths == label)
    outside = int(cells.sum()) - rows
    nothing = [None, None, None]
    if (rows and precision[0] is None) or (outside and missed[0] is None):
        return {"precision": precision, "recall": nothing, "f1": nothing}
    hits = [rows * (share or 0.0) for share in precision]
    lost = [outside * (share or 0.0) for share in missed]
    if not hits[0] and not lost[0]:  # no row of the sample has this truth
        return {"precision": precision, "recall": nothing, "f1": [0.0, 0.0, _flip(_ratio([rows] * 3, hits), 2)[2]]}
    return {
        "precision": precision,
        "recall": _flip(_ratio(lost, hits), 1),
        "f1": _flip(_ratio([rows + each for each in lost], hits), 2),
    }


def _in_all(rows: Counts, judged: Judged, hits: Mask) -> list[float | None]:
    """Return the share of the hits among all rows, of which there are so many in each band.

    Bands without a judged row are counted as like the next one.
    """
    if not len(hits):
        return [None, None, None] if rows.sum() else [0.0, 0.0, 0.0]
    total, waiting, parts = max(1, int(rows.sum())), 0, []
    for band, count in enumerate(rows.tolist()):
        waiting += count
        inside = judged.bands == band
        if inside.any():
            parts.append((waiting / total, inside))
            waiting = 0
    weight, inside = parts[-1]
    parts[-1] = (weight + waiting / total, inside)
    shares = [_share(judged.weights[inside], hits[inside]) for _, inside in parts]
    return _sum(np.array([weight for weight, _ in parts]), np.array(shares, float))


def _share(weights: Floats, hits: Mask) -> list[float | None]:
    """Return the share of the hits by weight, with an interval.

    It is that of Wilson for the number of equal rows which would tell as much: fewer where weights are unequal, still
    fewer where the heavy rows differ, more where a row stands for few (of a population that is known whole, it is
    exact).
    """
    total = float(weights.sum())
    if not total:
        return [None, None, None]
    share = float(weights[hits].sum()) / total
    open_weights = weights * np.maximum(0.0, weights - 1)
    if not open_weights.any():
        return [share, share, share]
    equal = total**2 / float(open_weights.sum())
    if len(weights) > 1 and 0 < share < 1:
        variance = float((open_weights * (hits - share) ** 2).sum()) / total**2 * len(weights) / (len(weights) - 1)
        equal = min(equal, share * (1 - share) / variance)
    return _interval(share, equal)


def _interval(share: float, rows: float) -> list[float | None]:
    """Return a share with the interval after Wilson for so many rows, corrected for continuity.

    Without the correction too few of the intervals hold the true share, where that is near 0 or 1.
    """
    z2, pull = _Z * _Z, 2 * rows * share

    def spread(sign: int) -> float:
        return _Z * math.sqrt(max(0.0, z2 + 2 * sign - 1 / rows + 4 * share * (rows * (1 - share) - sign)))

    low = (pull + z2 - 1 - spread(-1)) / (2 * (rows + z2))
    high = (pull + z2 + 1 + spread(1)) / (2 * (rows + z2))
    return [share, 0.0 if share <= 0 else max(0.0, low), 1.0 if share >= 1 else min(1.0, high)]


def _sum(weights: Floats, shares: Floats) -> list[float | None]:
    """Return the sum of independent shares, each with its weight: shape (shares, 3)."""
    value, low, high = shares.T
    total = min(1.0, float(weights @ value))
    below, above = (math.sqrt(float(((weights * side) ** 2).sum())) for side in (value - low, high - value))
    return [total, max(0.0, total - below), min(1.0, total + above)]


def _ratio(over: Sequence[float], under: Sequence[float]) -> Interval:
    """Return the ratio of two independent numbers that are not negative, infinite where `under` may be 0."""
    (x, x_low, x_high), (a, a_low, a_high) = over, under
    product = x * a

    def end(x_end: float, a_end: float, sign: int) -> float:
        squares = x_end * (2 * x - x_end), a_end * (2 * a - a_end)
        if abs(squares[1]) < 1e-12 * max(1.0, a * a):  # but for rounding 0
            if sign > 0 or not a:
                return math.inf
            return squares[0] / (2 * product) if product else 0.0
        return (product + sign * math.sqrt(max(0.0, product**2 - squares[0] * squares[1]))) / squares[1]

    return [x / a if a else math.inf, max(0.0, end(x_low, a_high, -1)), end(x_high, a_low, 1)]


def _flip(ratio: Interval, most: int) -> Interval:
    """Return `most` / (1 + ratio), at most 1, the ends in their order."""
    value, low, high = ratio
    return [min(1.0, most / (1 + each)) for each in (value, high, low)]


def _mean(labels: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Return the mean of the F1 of labels; one of which nothing is known may be anything.

    An interval that ends at 1 is short above; in a mean, what is above varies as what is below does. A mistake counts
    in two labels, so they do not vary by themselves; `bench/report_sample.py` measures that the intervals are wide
    enough for that.
    """
    known = np.array([each for each in labels if each[0] is not None], float).reshape(-1, 3)
    if not len(known):
        return [None, None, None]
    value, low, high = known.T
    mean = float(value.mean())
    below, above = value - low, np.where(value < 1, np.maximum(high - value, value - low), 0)
    unknown = len(labels) - len(known)
    squares = [float((side**2).sum()) + unknown * end**2 for side, end in ((below, mean), (above, 1 - mean))]
    down, up = (math.sqrt(each) / len(labels) for each in squares)
    return [mean, max(0.0, mean - down), min(1.0, mean + up)]
