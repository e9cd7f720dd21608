"""Scores are counted in bins that lose little: quantiles and shares are those of the scores themselves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from answers import answers_of
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.appended_columns import Tally
from pipeline.scores import (
    BINS,
    COARSE_BINS,
    COARSE_EDGES,
    EDGES,
    MOST_LABELS,
    OTHERS,
    bands,
    bins_of,
    coarse,
    quantiles,
)

SCORES = st.lists(
    st.one_of(st.floats(0, 1), st.floats(0.9, 1), st.sampled_from([0.0, 0.5, 0.7, 0.9, 0.99, 0.999, 1.0])), min_size=1
)


@given(SCORES)
def test_every_score_is_in_the_bin_around_it(scores: list[float]) -> None:
    """The lower edge belongs to a bin, and so does 1.0 to the last; coarse bins are sums of fine ones."""
    given_scores = np.array(scores)
    found = bins_of(given_scores)
    assert (EDGES[found] <= given_scores).all()
    assert ((given_scores < EDGES[found + 1]) | (given_scores == 1)).all()
    summed = coarse(np.bincount(found, minlength=BINS))
    assert summed.tolist() == np.bincount(bins_of(given_scores, COARSE_EDGES), minlength=COARSE_BINS).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_those_of_the_scores(seed: int) -> None:
    """At most a bin's width off, for scores as models give them."""
    scores = 1 - np.random.default_rng(seed).beta(0.3, 3, 20_000)
    shares = (0.01, 0.1, 0.5, 0.9, 0.99)
    for edges, off in ((EDGES, 0.002), (COARSE_EDGES, 0.02)):
        counts = np.bincount(bins_of(scores, edges), minlength=len(edges) - 1)
        for share, found in zip(shares, quantiles(counts, edges, *shares), strict=True):
            assert found == pytest.approx(float(np.quantile(scores, share)), abs=off)
    assert quantiles([0] * BINS, EDGES, 0.5) == [None]


@given(SCORES)
def test_bands_are_shares_of_all_rows(scores: list[float]) -> None:
    """Below 0.5, to 0.7, to 0.9, to 0.99, above: each edge belongs to the band above it."""
    counts = np.bincount(bins_of(np.array(scores), COARSE_EDGES), minlength=COARSE_BINS)
    bounds = [0, 0.5, COARSE_EDGES[35], 0.9, 0.99, 2]
    wanted = [sum(low <= score < high for score in scores) / len(scores) for low, high in pairwise(bounds)]
    assert bands(counts, COARSE_EDGES) == pytest.approx(wanted)
    assert bands([0] * COARSE_BINS, COARSE_EDGES) == [0] * 5


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 99)), st.floats(0, 1)), max_size=200), st.integers(1, 50))
def test_a_tally_counts_labels_by_score(rows: list[tuple[int | None, float]], block: int) -> None:
    """However the rows are cut, every row is in one bin of its label; rare labels of many are summed."""
    labels = [None if number is None else f"label {number}" for number, _ in rows]
    scores = [None if number is None else score for number, score in rows]
    answers = answers_of(
        labels, scores, errors={row: "empty: no text" for row, label in enumerate(labels) if not label}
    )
    tally = Tally(answers.labels.names)
    for start in range(0, len(rows), block):
        tally.count(answers[start : start + block])
    counts = Counter(label for label in labels if label)
    assert tally.labels == counts
    assert list(tally.labels) == sorted(counts, key=lambda label: (-counts[label], label))
    told = list(tally.labels)[:MOST_LABELS]
    assert list(tally.scores) == told + [OTHERS] * (len(counts) > MOST_LABELS)
    for label, found in tally.scores.items():
        here = [each for each in counts if each not in told] if label == OTHERS else [label]
        mine = np.array([score for each, score in zip(labels, scores, strict=True) if each in here])
        assert found == np.bincount(bins_of(mine, COARSE_EDGES), minlength=COARSE_BINS).tolist()


def test_raw_logits_have_no_bins() -> None:
    """They are no probabilities: labels are counted, scores are not."""
    answers = answers_of(["a", "b"], [7.5, -0.5])
    tally = Tally(answers.labels.names)
    tally.count(answers)
    assert (tally.labels, tally.scores) == ({"a": 1, "b": 1}, {})
