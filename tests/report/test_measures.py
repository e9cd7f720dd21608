"""The statistics of a report are those of scikit-learn and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn import metrics

from pipeline.report.measures import (
    GROUPS,
    agreement,
    calibration,
    chi_square_tail,
    difference_by_chance,
    distance,
    is_beyond_chance,
    largest_gap,
    rise_by_chance,
    thresholds,
    wilson,
)

COUNTS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=30)


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_intervals_are_those_of_wilson(right: int, more: int) -> None:
    """Of any share, also of 0 and 1."""
    rows = right + more
    theirs = stats.binomtest(right, rows).proportion_ci(0.95, "wilson")
    assert wilson(right, rows) == pytest.approx([right / rows, theirs.low, theirs.high], abs=1e-4)
    assert wilson(0, 0) == [None, None, None]


@given(COUNTS)
def test_distances_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    """Jensen-Shannon, total variation, PSI, Cramér's V; and chi-square, where nothing is rare."""
    now, then = (np.array(side) for side in zip(*pairs, strict=True))
    assume(now.sum() and then.sum())
    found = distance(now.tolist(), then.tolist())
    p, q = now / now.sum(), then / then.sum()
    assert found.js == pytest.approx(float(jensenshannon(p, q, 2)), abs=1e-6)
    assert found.moved <= float(np.abs(p - q).sum()) / 2 + 1e-9
    used = np.array([now, then])[:, now + then > 0]
    if used.shape[1] > 1:
        assert found.cramers_v == pytest.approx(float(stats.contingency.association(used, "cramer")))
        if stats.contingency.expected_freq(used).min() >= 5:
            theirs = stats.chi2_contingency(used, correction=False)
            assert found.chi2 == pytest.approx(theirs.statistic)
            assert found.moved == pytest.approx(float(np.abs(p - q).sum()) / 2)
            assert (found.df, found.is_few) == (theirs.dof, False)


@given(COUNTS)
def test_psi_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    """The sum of differences of shares, each weighted with the log of their ratio, and shares of at least 1e-4."""
    now, then = zip(*pairs, strict=True)
    assume(sum(now) and sum(then))
    wanted = 0.0
    for here, there in pairs:
        if here or there:
            p, q = max(here / sum(now), 1e-4), max(there / sum(then), 1e-4)
            wanted += (p - q) * math.log(p / q)
    assert distance(now, then).psi == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("df", [1, 2, 7, 30, 151, 1999])
def test_the_tail_of_chi_square_is_that_of_scipy(df: int) -> None:
    """Near its middle, where it decides, and far out."""
    for p in (0.9, 0.5, 0.05, 0.001, 1e-5, 1e-40):
        assert chi_square_tail(float(stats.chi2.isf(p, df)), df) == pytest.approx(p, rel=1e-6)
    assert chi_square_tail(0, df) == chi_square_tail(1, 0) == 1


@pytest.mark.parametrize("shares", [[0.5, *[0.5 / 200] * 200], [1 / 200] * 200], ids=["one frequent", "alike"])
def test_rare_values_are_gathered(shares: list[float]) -> None:
    """Two hundred labels of a few rows each differ much by chance; together they do not."""
    chance = np.random.default_rng(1)
    for _ in range(50):
        found = distance(*(chance.multinomial(1000, shares).tolist() for _ in range(2)))
        assert not found.is_few
        assert found.df < 15
        assert found.moved < 0.1


def test_a_rare_value_that_becomes_frequent_is_seen() -> None:
    """It is alone then, whatever the others are taken together for."""
    chance = np.random.default_rng(2)
    shares = np.full(200, 1 / 200)
    grown = shares * 0.87 + 0.13 * (np.arange(200) == 7)
    found = distance(chance.multinomial(1000, grown).tolist(), chance.multinomial(1000, shares).tolist())
    assert found.moved > 0.1
    assert found.p < 0.001


def test_few_rows_are_few() -> None:
    """Whatever they are gathered into."""
    assert distance([3, 1], [2, 2]).is_few
    assert distance([], []).is_few


@given(COUNTS)
def test_the_largest_gap_is_that_of_kolmogorov_and_smirnov(pairs: list[tuple[int, int]]) -> None:
    """Of two histograms over the same bins."""
    now, then = (np.array(side)[:12] % 60 for side in zip(*pairs, strict=True))
    assume(now.sum() and then.sum())
    values = np.arange(len(now))
    theirs = stats.ks_2samp(np.repeat(values, now), np.repeat(values, then), method="asymp")
    assert largest_gap(now.tolist(), then.tolist())[0] == pytest.approx(float(theirs.statistic))


@given(st.integers(0, 60), st.integers(1, 3000), st.integers(0, 60), st.integers(1, 3000))
def test_a_rise_is_as_probable_as_the_binomial_says(now: int, more: int, then: int, then_more: int) -> None:
    """Also of shares near 0, where the normal curve is wrong."""
    n, m = now + more, then + then_more
    theirs = stats.binom.sf(now - 1, now + then, n / (n + m))
    assert rise_by_chance(now, n, then, m) == pytest.approx(float(theirs), abs=1e-9)
    assert rise_by_chance(5000, 100_000, 5000, 100_000) == pytest.approx(0.5, abs=0.01)


def test_a_difference_of_shares_is_a_z_test() -> None:
    """Two-sided and pooled: chi-square with one degree of freedom."""
    theirs = stats.chi2_contingency([[900, 100], [930, 70]], correction=False)
    assert difference_by_chance(900, 1000, 930, 1000) == pytest.approx(theirs.pvalue)
    assert difference_by_chance(0, 0, 5, 10) == 1
    assert difference_by_chance(10, 10, 10, 10) == 1


def test_few_rows_need_a_rarer_chance() -> None:
    """One in 1,000 from 1,000 rows on, the square of that for fewer."""
    assert is_beyond_chance(0.0009, 1000)
    assert is_beyond_chance(0.0009, 10**9)
    assert not is_beyond_chance(0.0011, 10**9)
    assert not is_beyond_chance(0.0009, 100)
    assert is_beyond_chance(0.000009, 100)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcde")), min_size=1, max_size=300))
def test_agreement_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    """Accuracy, macro and weighted F1, Matthews correlation and Cohen's kappa."""
    true, said = zip(*pairs, strict=True)
    names = sorted("abcdef")
    found = agreement(metrics.confusion_matrix(true, said, labels=names))
    assert found["accuracy"][0] == pytest.approx(metrics.accuracy_score(true, said))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, said, average="macro", zero_division=0))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(true, said, average="weighted", zero_division=0))
    assert found["majority"] == max(true.count(name) for name in names) / len(true)
    if len({*true, *said}) > 1:
        assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(true, said))
        assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(true, said))


def test_agreement_of_nothing_says_nothing() -> None:
    """No row has a truth."""
    found = agreement(np.zeros((3, 3), np.int64))
    assert found.pop("accuracy") == [None, None, None]
    assert set(found.values()) == {None}


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=300))
def test_calibration_is_its_definition(rows: list[tuple[float, bool]]) -> None:
    """In each group the distance between mean score and share of right ones, weighted with its rows."""
    score, right = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    group = np.searchsorted(GROUPS, score, "right") - 1
    size = len(GROUPS)
    counts, hits = np.bincount(group, minlength=size), np.bincount(group[right], minlength=size)
    found = calibration(counts, hits, np.bincount(group, score, size).astype(np.float64))
    wanted = sum(
        (group == each).mean() * abs(score[group == each].mean() - right[group == each].mean()) for each in set(group)
    )
    assert found["ece"] == pytest.approx(wanted, abs=1e-8)  # it is rounded
    assert found["too_sure"] == pytest.approx(score.mean() - right.mean(), abs=1e-8)
    assert sum(each["rows"] for each in found["bins"]) == len(rows)


def test_scores_that_mean_what_they_say_are_within_chance() -> None:
    """With few rows and with many; those of a model that is too sure are beyond it."""
    for rows in (300, 3_000, 30_000):
        for seed in range(20):
            chance = np.random.default_rng(seed)
            score = chance.beta(9, 1, rows)
            group = np.searchsorted(GROUPS, score, "right") - 1
            for true, is_within in ((score, True), (score - 0.15, False)):
                right = chance.random(rows) < true
                counts, hits = (np.bincount(each, minlength=len(GROUPS)) for each in (group, group[right]))
                found = calibration(counts, hits, np.bincount(group, score, len(GROUPS)).astype(np.float64))
                assert (found["ece"] <= found["by_chance"]) == is_within


def test_a_threshold_is_the_lowest_score_that_keeps_enough_right() -> None:
    """With 95 % certainty: by the lower end of the interval; none, and why, where there is no such score."""
    edges = np.linspace(0, 1, 11)
    rows, right = np.full(10, 100), np.arange(10, 110, 10)
    found = thresholds(edges, rows * 2, rows, right, (0.5, 0.8, 0.97, 0.999))
    by_hand = []
    for target in (0.5, 0.8, 0.97):
        lows = [wilson(int(right[at:].sum()), int(rows[at:].sum()))[1] or 0 for at in range(10)]
        by_hand.append(next((edges[at] for at in range(10) if lows[at] >= target), None))
    assert [each["threshold"] for each in found["targets"][:3]] == by_hand
    assert found["targets"][3] == {"target": 0.999, "threshold": None, "coverage": 0.0, "few": True}
    assert thresholds(edges, rows, rows, right // 2, (0.9,))["targets"][0]["few"] is False
    assert found["targets"][0]["coverage"] == pytest.approx(1 - by_hand[0])
    assert found["curve"][0] == [0.0, 1.0, pytest.approx(0.55)]
