"""What is counted of rows is what a look at each of them would give, however they are cut into blocks."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import LABELS, Labelled, blocks_of, document, made_up
from sklearn import metrics

from pipeline.report.counts import LONGEST_TEXT, MOST_LABELS, Block, Counts
from pipeline.report.document import About, document_of
from pipeline.report.measures import GROUPS
from pipeline.scores import OTHERS

ROWS = st.lists(
    st.one_of(
        st.builds(
            Labelled,
            st.sampled_from(LABELS),
            st.floats(0, 1),
            st.none(),
            st.one_of(st.none(), st.just(""), st.sampled_from([*LABELS, "never said"])),
            st.text(max_size=40),
        ),
        st.builds(
            Labelled,
            st.none(),
            st.none(),
            st.sampled_from(["empty: no text", "too_long: 900 tokens", "rejected: 400"]),
            st.one_of(st.none(), st.sampled_from(LABELS)),
            st.text(max_size=40),
        ),
    ),
    max_size=120,
)


@given(ROWS, st.integers(1, 130))
def test_every_number_is_that_of_the_rows(rows: list[Labelled], size: int) -> None:
    """Shares, means, failures, lengths, and what scikit-learn says of labels and truth."""
    found = document(rows, size=size)
    labelled = [row for row in rows if row.label]
    counts = Counter(row.label for row in labelled)
    assert found["rows"] == {
        "all": len(rows),
        "labelled": len(labelled),
        "failed": sum(row.label is None and not (row.error or "").startswith("empty") for row in rows),
        "empty": sum((row.error or "").startswith("empty") for row in rows),
    }
    assert {each["label"]: each["rows"] for each in found["labels"] if each["rows"]} == counts
    for each in found["labels"]:
        scores = [row.score or 0.0 for row in labelled if row.label == each["label"]]
        assert each["score"]["mean"] == (pytest.approx(np.mean(scores), abs=1e-9) if scores else None)
        assert sum(each["scores"]) == len(scores)
        assert [row["score"] for row in each["unsure"]] == sorted(row["score"] for row in each["unsure"])
    assert sum(step["rows"] for step in found["lengths"]) == len(rows)
    assert {each["code"]: each["rows"] for each in found["errors"]} == Counter(
        (row.error or "").partition(":")[0] for row in rows if row.label is None
    )
    judged = [row for row in labelled if row.truth]
    truth = found["truth"]
    assert truth["rows"] == len(judged)
    assert truth["without_label"] == sum(row.label is None and bool(row.truth) for row in rows)
    if judged:
        true, said = [row.truth for row in judged], [row.label for row in judged]
        assert truth["accuracy"][0] == pytest.approx(metrics.accuracy_score(true, said))
        assert truth["macro_f1"] == pytest.approx(metrics.f1_score(true, said, average="macro", zero_division=0))
        names = truth["confusion"]["labels"]
        theirs = metrics.confusion_matrix(true, said, labels=[*names, "one more"])  # of a single label it warns
        assert truth["confusion"]["counts"] == theirs[:-1, :-1].tolist()
        wrong = sorted(row.score or 0.0 for row in judged if row.truth != row.label)
        assert all(row["truth"] != row["label"] for row in truth["mistakes"])
        assert not wrong or truth["mistakes"][0]["score"] == wrong[-1]


@given(ROWS, st.integers(1, 130))
def test_blocks_do_not_matter(rows: list[Labelled], size: int) -> None:
    """Nothing depends on where rows are cut, the rows that are shown neither."""
    assert document(rows, size=size) == document(rows, size=1000)


def test_the_rows_that_are_shown_are_the_outermost() -> None:
    """The lowest scores of each label, the surest mistakes, the first failures of each code, with their row numbers."""
    rows = made_up(3000, 1)
    rows[100] = Labelled(None, None, "rejected: 400", None, "a bad one")
    found = document(rows, size=97)
    for each in found["labels"]:
        mine = sorted((row.score or 0, at + 1) for at, row in enumerate(rows) if row.label == each["label"])
        assert [(row["score"], row["row"]) for row in each["unsure"]] == mine[:3]
    wrong = sorted((-(row.score or 0), at + 1) for at, row in enumerate(rows) if row.label and row.label != row.truth)
    assert [(-row["score"], row["row"]) for row in found["truth"]["mistakes"]] == wrong[:12]
    assert (
        found["errors"][0]["examples"][0] | {"text": "a bad one", "row": 101, "error": "rejected: 400"}
        == (found["errors"][0]["examples"][0])
    )


def test_a_text_that_comes_often_is_shown_once() -> None:
    """Three times the same lowest score of the same text would teach nothing."""
    rows = [Labelled("spam", 0.1, text="again") for _ in range(50)] + [Labelled("spam", 0.2, text="once")]
    (label,) = document(rows, truth=None)["labels"]
    assert [row["text"] for row in label["unsure"]] == ["again", "once"]


def test_without_examples_there_is_no_text() -> None:
    """`report.examples = 0`: no row of any kind."""
    rows = [*made_up(500, 2), Labelled(None, None, "rejected: 400", None, "a bad one")]
    assert "text 1" not in str(document(rows, examples=0))
    assert "a bad one" not in str(document(rows, examples=0))


def test_long_texts_are_shortened_and_broken_ones_can_be_stored() -> None:
    """A row may have any size, and half of a surrogate pair."""
    rows = [Labelled("spam", 0.1, text="x" * 10**6), Labelled("spam", 0.2, text="a\n\n b")]
    (label,) = document(rows, truth=None)["labels"]
    assert label["unsure"][0]["text"] == "x" * LONGEST_TEXT + "…"
    assert label["unsure"][1]["text"] == "a b"


def test_memory_has_a_bound_with_any_number_of_labels() -> None:
    """Labels beyond 2,000 are counted together, and nobody says of one of them that it is right."""
    rows = [Labelled(f"label {number}", 0.5, truth=f"label {number}") for number in range(MOST_LABELS + 500)]
    found = document(rows)
    by_name = {each["label"]: each["rows"] for each in found["labels"]}
    assert by_name[OTHERS] == 500
    assert len(by_name) == MOST_LABELS + 1
    assert found["truth"]["rows"] == MOST_LABELS
    assert found["truth"]["accuracy"][0] == 1


def test_values_of_the_truth_may_have_other_names_and_types() -> None:
    """Numbers are compared as they are printed, whole ones without the `.0` of programs without missing integers."""
    rows = [Labelled(label, 0.9) for label in ("negative", "positive", "positive")]
    for truths in (
        pa.array([0, 1, 0]),
        pa.array([0.0, 1.0, 0.0]),
        pa.array(["0", "1", "0"]),
        pa.array([0, 1, 0], pa.int8()),
    ):
        counts = Counts(0, {"0": "negative", "1": "positive"})
        for block in blocks_of(rows):
            counts.add(block._replace(truths=truths))
        assert int(np.diag(counts.matrix).sum()) == 2
        assert int(counts.matrix.sum()) == 3


def test_raw_logits_are_counted_and_not_believed() -> None:
    """They promise nothing that could come true: no calibration, no threshold."""
    found = document([Labelled("spam", 7.3, truth="spam"), Labelled("spam", -2.0, truth="refund")])
    assert found["scores"]["out_of_range"] == 2
    assert found["truth"]["accuracy"][0] == 0.5
    assert (found["truth"]["calibration"], found["truth"]["keep"]) == (None, None)
    assert math.isclose(found["scores"]["mean"], 2.65)


@pytest.mark.slow
def test_a_million_rows_have_the_numbers_of_scikit_learn() -> None:
    """With a truth in a tenth of them, in blocks as they are read; quantiles are a bin off at most."""
    rows, chance = 1_000_000, np.random.default_rng(5)
    names = np.array(LABELS)
    true, score = chance.integers(0, 4, rows), 1 - chance.beta(0.3, 3, rows)
    said = np.where(chance.random(rows) < score, true, chance.integers(0, 4, rows))
    has_truth = chance.random(rows) < 0.1
    counts = Counts(0)
    for start in range(0, rows, 16_384):
        part = slice(start, start + 16_384)
        labels = pa.array(names[said[part]].tolist())
        truths = pa.array(names[true[part]].tolist(), mask=~has_truth[part])
        counts.add(Block("", start + 1, labels, score[part], pa.nulls(len(labels), pa.string()), truths))
    found = document_of(counts, About("out", 1, "", None, None, {}, None, "truth"))
    y, p, s = (each[has_truth] for each in (true, said, score))
    truth = found["truth"]
    assert truth["accuracy"][0] == pytest.approx(metrics.accuracy_score(y, p))
    assert truth["macro_f1"] == pytest.approx(metrics.f1_score(y, p, average="macro"))
    assert truth["weighted_f1"] == pytest.approx(metrics.f1_score(y, p, average="weighted"))
    assert truth["mcc"] == pytest.approx(metrics.matthews_corrcoef(y, p))
    assert truth["kappa"] == pytest.approx(metrics.cohen_kappa_score(y, p))
    group = np.searchsorted(GROUPS, s, "right") - 1
    gaps = [
        (group == each).mean() * abs(s[group == each].mean() - (y == p)[group == each].mean()) for each in set(group)
    ]
    assert truth["calibration"]["ece"] == pytest.approx(sum(gaps))
    for name, share in (("p01", 0.01), ("p10", 0.1), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert found["scores"]["quantiles"][name] == pytest.approx(float(np.quantile(score, share)), abs=0.002)
    for target in truth["keep"]["targets"]:
        if target["threshold"] is not None:
            assert target["coverage"] == pytest.approx(float((score >= target["threshold"]).mean()), abs=1e-6)
