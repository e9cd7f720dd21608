"""The statistics of a report, from counts alone: shares with intervals, distances, agreement, and what chance explains.

Each takes plain numbers or arrays of counts and knows nothing of labels, files or limits. The tests compare them with
scikit-learn and scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from pipeline.scores import Counts, Floats

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ids = np.ndarray[Any, np.dtype[np.int_]]

CHANCE = 0.001  # a difference as large as this one is seen by chance once in 1,000 comparisons
MANY_ROWS = 1000  # from so many rows on; of fewer, chance must be rarer still
DIGITS = 9
A_FIFTH = 0.2  # of the values may have fewer expected rows than ...
_FEW = 5  # rows that are expected, from which on a chi-square is to be trusted
_GROUPS = 8  # values that are told apart even of few rows
_LITTLE = 0.05  # of the rows: what chance may move between groups, half of the limit of `label_shift`
CURVE_STEP = 0.005  # of the coverage, between two points of a curve
_Z_95 = 1.96
_Z_CHANCE = 3.29


def wilson(right: float, rows: float, z: float = _Z_95) -> list[float | None]:
    """Return a share and the interval after Wilson that it is in with 95 %: [share, low, high], all None without rows.

    The interval stays inside 0 to 1 and holds for few rows, too.
    """
    if not rows:
        return [None, None, None]
    share, spread = right / rows, z * z / rows
    half = z * math.sqrt(share * (1 - share) / rows + spread / rows / 4)
    low, high = (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)
    return [share, max(0.0, low), min(1.0, high)]


def mean_of(total: float, rows: float) -> float | None:
    """Return a mean, None of no rows; without the last digits, which the order of a sum makes."""
    return round(float(total) / rows, DIGITS) if rows else None


def wilson_low(right: float, rows: float, z: float = _Z_CHANCE) -> float:
    """Return the lower end of the interval after Wilson, 0 without rows; by default of one in 1,000."""
    return wilson(right, rows, z)[1] or 0.0


def is_beyond_chance(probability: float, rows: float) -> bool:
    """Return whether a difference is more than chance makes; `rows` are those of the smaller side.

    A report asks every night, and of few rows chance makes large differences: there it must be rarer, by the square.
    """
    return probability < CHANCE * min(1.0, rows / MANY_ROWS) ** 2


# -- two sets of rows


class Distance(NamedTuple):
    """How far two rows of counts are apart. With 0 rows on a side all is 0."""

    moved: float  # total variation: the share of rows that would have to get another value; rare values are gathered
    js: float  # Jensen-Shannon distance, base 2
    psi: float  # population stability index, shares of at least 1e-4
    cramers_v: float
    chi2: float  # this and what follows: with rare values gathered
    df: int
    p: float  # the probability of a chi-square that large, if both were of one source
    is_few: bool  # too few rows for that; then `moved` is of the values as they are


def distance(now: Counts | Sequence[int], then: Counts | Sequence[int]) -> Distance:
    """Compare two rows of counts, one number a value."""
    counts = np.array([now, then], float)
    rows = counts.sum(1)
    counts = counts[:, counts.sum(0) > 0]
    if not rows.all():
        return Distance(0.0, 0.0, 0.0, 0.0, 0.0, 0, 1.0, is_few=True)
    shares = counts / rows[:, None]
    middle, safe = shares.mean(0), np.maximum(shares, 1e-4)
    with np.errstate(divide="ignore", invalid="ignore"):
        js = np.nansum(shares * np.log2(shares / middle)) / 2
    groups = _groups(counts.sum(0) / counts.sum(), rows)
    rare = np.bincount(groups)[groups] > 1
    # A change among rare values alone can't be seen once they are gathered. It must be more certain than others: rare
    # values are many, and `moved` is large then without any change.
    changed = chi_square_tail(_sparse(counts[:, rare], rows), int(rare.sum())) < CHANCE / 100
    gathered = counts if changed else np.array([np.bincount(groups, each) for each in counts])
    here, there = shares if gathered.shape[1] == 1 else gathered / rows[:, None]
    chi2, expected = _chi_square(gathered)
    return Distance(
        moved=float(np.abs(here - there).sum() / 2),
        js=math.sqrt(max(0.0, float(js))),
        psi=float(((safe[0] - safe[1]) * np.log(safe[0] / safe[1])).sum()),
        cramers_v=math.sqrt(_chi_square(counts)[0] / rows.sum()),
        chi2=chi2,
        df=gathered.shape[1] - 1,
        p=chi_square_tail(chi2, gathered.shape[1] - 1),
        is_few=bool(not changed and (gathered.shape[1] == 1 or (expected < _FEW).mean() > A_FIFTH)),
    )


def _chi_square(counts: Floats) -> tuple[float, Floats]:
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum()), expected


def _groups(shares: Floats, rows: Floats) -> Ids:
    """Return the group of each value: frequent ones are alone, rare ones together with others that are as rare.

    Groups have at least 5 expected rows on the smaller side, and more, up to an eighth of its rows, until chance alone
    moves few rows between them. They depend on the `shares` in both sides together, not on how these differ.
    """
    order = np.argsort(-shares, kind="stable")
    enough = float(_FEW)
    while True:
        groups = np.zeros(len(shares), int)
        group, filled = 0, 0.0
        for value in order:
            groups[value] = group
            filled += rows.min() * shares[value]
            if filled >= enough:
                group, filled = group + 1, 0.0
        groups = np.minimum(groups, max(0, group - 1))  # what is left joins the rarest group
        if (
            enough >= rows.min() / _GROUPS
            or _moved_by_chance(np.bincount(groups, shares).astype(float), rows) <= _LITTLE
        ):
            return groups
        enough = min(2 * enough, rows.min() / _GROUPS)


def _moved_by_chance(shares: Floats, rows: Floats) -> float:
    """Return the share of rows that is moved on average between two sides of one source (the normal curve's)."""
    return float(np.sqrt(shares * (1 - shares) * (1 / rows).sum() / (2 * math.pi)).sum())


def _sparse(counts: Floats, rows: Floats) -> float:
    """Return how far rare values are apart: without a change it is near their number, and spreads less than chi-square.

    `rows` are those of the two sides, with all values.
    """
    scale = math.sqrt(rows[1] / rows[0])
    return float(((counts[0] * scale - counts[1] / scale) ** 2 / counts.sum(0)).sum())


def chi_square_tail(value: float, df: int) -> float:
    """Return the probability of a chi-square of at least `value`."""
    if df < 1 or value <= 0:
        return 1.0
    half, is_odd = value / 2, df % 2
    powers = [step + is_odd / 2 for step in range(df // 2)]
    terms = [math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers]
    return min(1.0, (math.erfc(math.sqrt(half)) if is_odd else 0.0) + math.fsum(terms))


def largest_gap(now: Counts | Sequence[int], then: Counts | Sequence[int]) -> tuple[float, float]:
    """Return the largest gap between two cumulated histograms, and how probable it is by chance (Kolmogorov)."""
    counts = np.array([now, then], float)
    n, m = counts.sum(1)
    if not n or not m:
        return 0.0, 1.0
    gap = float(np.abs(np.diff(np.cumsum(counts / counts.sum(1, keepdims=True), 1), axis=0)).max())
    return gap, min(1.0, 2 * math.exp(-2 * gap * gap * n * m / (n + m)))


def rise_by_chance(now: int, now_rows: int, then: int, then_rows: int) -> float:
    """Return how probable it is that so many or more of the rows of both fall on this side, if they are alike.

    The exact binomial probability, for a share that may be near 0.
    """
    total, share = now + then, now_rows / max(1, now_rows + then_rows)
    if not 0 < share < 1:
        return 1.0
    if total * share * (1 - share) > 1000:  # noqa: PLR2004 - the normal curve is as good then
        z = (now - 0.5 - total * share) / math.sqrt(total * share * (1 - share))
        return NormalDist().cdf(-z)
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        + k * math.log(share) + (total - k) * math.log1p(-share)
        for k in range(now, total + 1)
    ]  # fmt: skip
    return min(1.0, sum(map(math.exp, logs)))


def difference_by_chance(now: int, now_rows: int, then: int, then_rows: int) -> float:
    """Return how probable two shares so far apart are by chance (two-sided, pooled); 1 without rows."""
    rows = now_rows + then_rows
    share = (now + then) / max(1, rows)
    spread = math.sqrt(share * (1 - share) * (1 / max(1, now_rows) + 1 / max(1, then_rows)))
    if not (now_rows and then_rows and spread):
        return 1.0
    return 2 * NormalDist().cdf(-abs(now / now_rows - then / then_rows) / spread)


_MOST_EXACT = 1000  # rows, up to which the binomial probability is summed


def mcnemar(better: int, worse: int) -> dict[str, Any]:
    """Return how probable so unequal numbers of better and worse rows are by chance, after McNemar (two-sided).

    The exact binomial probability, or, of many rows, chi-square with continuity correction; 1 without rows.
    """
    rows = better + worse
    if rows <= _MOST_EXACT:
        logs = [math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) - rows * math.log(2)
                for k in range(min(better, worse) + 1)]  # fmt: skip
        return {"test": "exact", "statistic": min(better, worse), "p": min(1.0, 2 * math.fsum(map(math.exp, logs)))}
    statistic = (abs(better - worse) - 1) ** 2 / rows
    return {"test": "chi-square", "statistic": statistic, "p": chi_square_tail(statistic, 1)}


# -- labels and truth


def agreement(matrix: Counts) -> dict[str, Any]:
    """Return accuracy, F1 and the like of a confusion matrix; `matrix[truth, label]` are rows.

    Macro F1 is the mean over the labels that occur, as truth or as label.
    """
    rows, hits = int(matrix.sum()), np.diag(matrix)
    true, said = matrix.sum(1), matrix.sum(0)
    if not rows:
        return {"accuracy": wilson(0, 0), "majority": None, "macro_f1": None, "weighted_f1": None} | {
            "mcc": None,
            "kappa": None,
        }
    f1 = 2 * hits / np.maximum(1, true + said)
    accuracy, expected = float(hits.sum()) / rows, float(true @ (said / rows)) / rows
    scale = math.sqrt((1 - ((said / rows) ** 2).sum()) * (1 - ((true / rows) ** 2).sum()))
    return {
        "accuracy": wilson(float(hits.sum()), rows),
        "majority": float(true.max() / rows),
        "macro_f1": float(f1[true + said > 0].mean()),
        "weighted_f1": float((f1 * true).sum() / rows),
        "mcc": (accuracy - expected) / scale if scale else 0.0,
        "kappa": (accuracy - expected) / (1 - expected) if expected < 1 else 0.0,
    }


# Calibration: the scores in eleven groups, narrower where the scores of good models are.
GROUPS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)  # lower edges


def calibration(rows: Counts, right: Counts, sums: Floats) -> dict[str, Any]:
    """Return how far scores are from what comes true: shape of all (groups,), see `GROUPS`; `sums` are of scores.

    `ece` is the mean distance over the rows, `too_sure` the same with its sign, and `by_chance` the `ece` that scores
    which mean what they say would not exceed, but once in 1,000, with so few rows.
    """
    total = max(1, int(rows.sum()))
    score = np.round(sums / np.maximum(1, rows), DIGITS)
    gap = (score - right / np.maximum(1, rows)) * rows / total
    # Of a group of n rows with the score s, chance makes a gap like the normal curve's, with this deviation.
    noise = np.sqrt(np.clip(score * (1 - score), 0, None) * rows) / total
    mean, spread = math.sqrt(2 / math.pi) * noise.sum(), math.sqrt((1 - 2 / math.pi) * (noise**2).sum())
    bins = [
        {"from": edge, "rows": int(n), "score": float(s), "right": wilson(int(r), int(n))}
        for edge, n, r, s in zip(GROUPS, rows, right, score, strict=True)
        if n
    ]
    return {
        "ece": round(float(np.abs(gap).sum()), DIGITS),
        "too_sure": round(float(gap.sum()), DIGITS),
        "by_chance": float(mean + _Z_CHANCE * spread),
        "bins": bins,
    }


def thresholds(
    edges: Floats, all_rows: Counts, rows: Counts, right: Counts, targets: Sequence[float]
) -> dict[str, Any]:
    """Return what is right among the rows that remain from a score on: shape of the counts (bins,).

    `all_rows` are all with a label, `rows` and `right` those with a truth. For each of the `targets` the lowest score
    from which on at least that share is right with 95 % certainty; where there is none, `few` says whether more rows
    might show one.
    """
    kept, kept_right = (np.cumsum(counts[::-1])[::-1] for counts in (rows, right))
    coverage = np.cumsum(all_rows[::-1])[::-1] / max(1, int(all_rows.sum()))
    low = np.array([wilson_low(r, n, _Z_95) for r, n in zip(kept_right.tolist(), kept.tolist(), strict=True)])
    enough = kept > 20  # noqa: PLR2004 - rows, or a share of them says nothing
    best = float((kept_right / np.maximum(1, kept))[enough].max(initial=0))
    found = []
    for target in targets:
        at = int(np.argmax(low >= target)) if (low >= target).any() else None
        found.append(
            {
                "target": target,
                "threshold": None if at is None else float(edges[at]),
                "coverage": 0.0 if at is None else float(coverage[at]),
                "few": at is None and best >= target,
            }
        )
    curve: list[list[float]] = []
    for at in np.flatnonzero(enough).tolist():
        if not curve or curve[-1][1] - coverage[at] > CURVE_STEP:
            curve.append([float(edges[at]), float(coverage[at]), float(kept_right[at] / kept[at])])
    return {"curve": curve, "targets": found}
