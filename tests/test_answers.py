"""What was answered, column by column: rows are joined, cut, spread and renumbered without being mixed up."""

from __future__ import annotations

import numpy as np
from answers import answers_of, failed
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import Answers, Labels
from pipeline.texts import EMPTY

ROW = st.one_of(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 1), st.booleans()).map(
        lambda row: answers_of([row[0]], [row[1]], [[row[1], 0.0]], truncated={0} if row[2] else ())
    ),
    st.sampled_from(["empty: no text", "timeout: x"]).map(failed),
)


@given(st.lists(st.lists(ROW, max_size=4), max_size=5))
def test_joined_answers_are_the_rows_of_the_parts(groups: list[list[Answers]]) -> None:
    """However rows are gathered, row i of the whole is row i of the parts, errors and marks included."""
    rows = [row for group in groups for row in group]
    whole = Answers.joined([Answers.joined(group) if group else Answers.none() for group in groups] or [Answers.none()])
    assert list(whole) == [prediction for row in rows for prediction in row]


@given(st.lists(ROW, min_size=1, max_size=5), st.data())
def test_each_row_takes_the_answer_of_its_text(texts: list[Answers], data: st.DataObject) -> None:
    """Rows that share a text share its answer or its error; a row that was not sent has its own error."""
    known = Answers.joined(texts)
    indices = data.draw(st.lists(st.integers(-1, len(texts) - 1), max_size=8))
    rows = known.take(np.array(indices, np.int32), {row: EMPTY for row, text in enumerate(indices) if text < 0})
    assert list(rows) == [known[text] if text >= 0 else failed(str(EMPTY))[0] for text in indices]


@given(st.lists(ROW, max_size=6), st.lists(st.sampled_from(["c", "x", "b"]), unique=True))
def test_ids_of_another_vocabulary_mean_the_same_labels(rows: list[Answers], names: list[str]) -> None:
    """Labels it has keep their ids, others are added, and only those that are in use."""
    answers, vocabulary = Answers.joined([Answers.none(), *rows]), Labels(names)
    ids = answers.ids_in(vocabulary)
    assert [vocabulary.names[index] if index >= 0 else None for index in ids] == [each.label for each in answers]
    assert vocabulary.names[: len(names)] == names
    assert set(vocabulary.names[len(names) :]) <= {each.label for each in answers}


@given(st.lists(st.sampled_from(["mine", "theirs", "both", "failed", None]), max_size=6))
def test_reused_answers_fill_in_where_there_is_none(kinds: list[str | None]) -> None:
    """An answer of one's own stays, an error too; without either, that of the other."""
    mine = answers_of(
        ["a" if kind in ("mine", "both") else None for kind in kinds], [1.0] * len(kinds), None,
        {row: "rejected: no" for row, kind in enumerate(kinds) if kind == "failed"},
    )  # fmt: skip
    theirs = answers_of(["b" if kind in ("theirs", "both") else None for kind in kinds], [2.0] * len(kinds))
    expected = {"mine": "a", "both": "a", "theirs": "b"}
    completed = mine.completed(theirs)
    assert [completed.labels.names[i] if i >= 0 else None for i in completed.ids] == [
        expected.get(kind or "") for kind in kinds
    ]
    assert completed.errors == mine.errors
