"""The quick way to read an answer: it takes nothing that the long way would not, and gives the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import Prediction
from pipeline.errors import RequestFailed
from pipeline.servers.model import ModelFacts
from pipeline.servers.vllm import Vllm, _decode_closely, _decode_known

NAMES = {0: "a", 1: "b", 2: "c"}
VALUES = st.sampled_from([0.0, 0.25, 0.5, 1, -1e300, 1e-300])


def facts() -> ModelFacts:
    """All that can be known of a model."""
    return ModelFacts(3, NAMES)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Answers to some texts, sound but for at most one thing."""
    rows = draw(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=4))
    items: list[dict[str, Any]] = [
        {"index": index, "label": NAMES[row.index(max(row))], "probs": row, "num_classes": 3}
        for index, row in enumerate(rows)
    ]
    item = draw(st.sampled_from(items))
    wrong = draw(st.sampled_from(["nothing", "order", "index", "label", "num_classes", "probs"]))
    if wrong == "order":
        items.reverse()
    elif wrong == "probs":
        item["probs"] = [*item["probs"], *draw(st.lists(VALUES, max_size=1))][draw(st.integers(0, 1)) :]
    elif wrong != "nothing":
        item[wrong] = draw(
            st.sampled_from({"index": [0, 1, 9], "num_classes": [2, 4]}.get(wrong, ["a", "b", "x", None]))
        )
    return {"data": items, "model": draw(st.sampled_from(["m", "n"]))}


def outcome_of(read: Any, body: bytes, texts: int, known: ModelFacts) -> list[Prediction] | type[Exception]:
    """Return what came of reading an answer."""
    try:
        return list(read(body, texts, known, "", probs=True))
    except RequestFailed as error:
        return type(error)


@given(answers(), st.integers(0, 1))
def test_what_is_known_already_changes_no_answer(answer: dict[str, Any], more: int) -> None:
    """With or without the quick way: the same predictions, the same refusals, the same knowledge after it."""
    body, texts = json.dumps(answer).encode(), len(answer["data"]) + more
    quick, close = facts(), facts()
    assert outcome_of(Vllm().decode, body, texts, quick) == outcome_of(_decode_closely, body, texts, close)
    assert (quick.names, quick.num_classes, quick.model) == (close.names, close.num_classes, close.model)


def test_the_quick_way_is_taken() -> None:
    """A sound answer of a model that is known, in order, needs no closer look."""
    item = {"index": 0, "label": "b", "probs": [0.1, 0.7, 0.2], "num_classes": 3}
    found = _decode_known(json.dumps({"data": [item], "model": "m"}).encode(), 1, facts(), "", probs=False)
    assert found is not None
    assert list(found) == [Prediction("b", 0.7)]
