"""An answer is believed only after checking; a status is a decision. Bytes in, values out, no socket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from answers import labels_of
from hypothesis import given
from hypothesis import strategies as st
from wire import BAD, FAIR, GOOD, TIE, body, item, sample

from pipeline.answers import Prediction
from pipeline.config import Request
from pipeline.errors import BadAnswer, OtherModel, RequestFailed
from pipeline.servers.dialects.vllm import MODELS, Vllm
from pipeline.servers.model import ModelFacts, Served
from pipeline.texts import escape_all

VLLM = Vllm()
encode, decode = VLLM.encode, VLLM.decode

# -- encode


def test_a_plain_request_carries_texts_and_model_and_nothing_else() -> None:
    """What is not asked for is not sent: an old server may not know it."""
    assert json.loads(encode(escape_all(["a", "ü😀"]), "m", Request())) == {"model": "m", "input": ["a", "ü😀"]}
    assert json.loads(encode(escape_all(["a"]), None, Request())) == {"input": ["a"]}


def test_each_setting_becomes_its_field() -> None:
    """Activation, priority and truncation go under vLLM's own names."""
    request = Request(activation=False, priority=0)
    assert json.loads(encode(escape_all(["a"]), "m", request, truncate=True)) == {
        "model": "m",
        "use_activation": False,
        "priority": 0,
        "truncate_prompt_tokens": -1,
        "input": ["a"],
    }


def test_extra_is_sent_as_it_is_but_never_replaces_the_texts() -> None:
    """`request.extra` may override every member except the texts, which belong to the rows."""
    request = Request(extra={"model": "other", "nested": {"a": [1, None]}, "input": ["not ours"]})
    sent = json.loads(encode(escape_all(["a"]), "m", request))
    assert sent == {"model": "other", "nested": {"a": [1, None]}, "input": ["a"]}


# -- decode: what is sound


@pytest.mark.parametrize("name", ["bert", "bert-empty-text", "bert-one-string", "bert-truncated", "qwen"])
def test_a_real_answer_is_believed(name: str) -> None:
    """The recorded answers of vLLM give each text its label, its score and its probabilities."""
    answer = sample(name)["body"]
    facts = ModelFacts()
    found = decode(json.dumps(answer).encode(), len(answer["data"]), facts)
    for position, expected in enumerate(answer["data"]):
        assert found[position] == Prediction(expected["label"], max(expected["probs"]), expected["probs"])
        assert facts.names[expected["probs"].index(max(expected["probs"]))] == expected["label"]
    assert (facts.num_classes, facts.model) == (answer["data"][0]["num_classes"], answer["model"])


@pytest.mark.parametrize("name", ["bert-no-activation", "qwen-no-activation"])
def test_real_logits_are_believed(name: str) -> None:
    """Raw logits may be negative and above one; the score is the label's own logit."""
    answer = sample(name)["body"]
    found = decode(json.dumps(answer).encode(), len(answer["data"]), ModelFacts())
    assert found.scores.tolist() == [max(each["probs"]) for each in answer["data"]]
    assert found.probs is not None
    assert found.probs.min() < 0


@given(st.permutations([item(0, BAD), item(1, FAIR), item(2, GOOD), item(3, BAD), item(4, TIE)]))
def test_the_order_of_the_items_says_nothing(items: list[dict[str, Any]]) -> None:
    """Any permutation of the items gives each text the same prediction: only the index counts."""
    found = decode(body(*items), 5, ModelFacts())
    assert labels_of(found) == ["bad", "fair", "good", "bad", "bad"]
    assert [prediction.probs for prediction in found] == [BAD, FAIR, GOOD, BAD, TIE]


def test_a_class_without_a_name_is_called_by_its_index() -> None:
    """A null label becomes LABEL_<index of the largest value>, and no name is learned."""
    facts = ModelFacts()
    assert labels_of(decode(body(item(0, FAIR, label=None)), 1, facts)) == ["LABEL_1"]
    assert facts.names == {}


@pytest.mark.parametrize("label", ["bad", "fair"])
def test_at_a_tie_either_label_is_right(label: str) -> None:
    """Two classes share the largest value: the server may name either, and nothing is learned from it."""
    facts = ModelFacts(3, {0: "bad", 1: "fair", 2: "good"})
    assert labels_of(decode(body(item(0, TIE, label=label)), 1, facts)) == [label]
    assert facts.names == {0: "bad", 1: "fair", 2: "good"}


def test_one_class_has_one_value() -> None:
    """A model with one output gives one sigmoid value, which is the score."""
    assert decode(body(item(0, [0.25], label="yes")), 1, ModelFacts())[0] == Prediction("yes", 0.25, [0.25])


# -- decode: what is broken in itself

BROKEN: dict[str, bytes] = {
    "too few items": body(item(0, BAD)),
    "too many items": body(item(0, BAD), item(1, FAIR), item(2, GOOD)),
    "none": body(),
    "doubled index": body(item(0, BAD), item(0, FAIR)),
    "missing index": body(item(0, BAD), item(2, FAIR)),
    "negative index": body(item(-1, BAD), item(0, FAIR)),
    "index is text": body(item(0, BAD), item(1, FAIR) | {"index": "1"}),
    "NaN": body(item(0, BAD), item(1, FAIR)).replace(b"0.75", b"NaN"),
    "Infinity": body(item(0, BAD), item(1, FAIR)).replace(b"0.75", b"Infinity"),
    "beyond a double": body(item(0, BAD), item(1, FAIR)).replace(b"0.75", b"1e999"),
    "null among numbers": body(item(0, BAD), item(1, FAIR)).replace(b"0.75", b"null"),
    "text among numbers": body(item(0, BAD), item(1, FAIR)).replace(b"0.75", b'"0.75"'),
    "true among numbers": body(item(0, BAD), item(1, FAIR)).replace(b"0.75", b"true"),
    "no numbers": body(item(0, BAD), {"index": 1, "label": "bad", "probs": [], "num_classes": 0}),
    "fewer numbers than classes": body(item(0, BAD), item(1, FAIR, num_classes=4, label="fair")),
    "classes differ between items": body(item(0, BAD), item(1, [0.2, 0.8])),
    "label of another class": body(item(0, BAD), item(1, FAIR, label="bad")),
    "two names for a class": body(item(0, BAD), item(1, BAD, label="fair")),
    "a name and no name for a class": body(item(0, BAD), item(1, BAD, label=None)),
    "tie with a label of neither": body(item(0, BAD), item(1, FAIR), item(2, TIE, label="good")),
    "tie with a label of neither, said first": body(item(0, TIE, label="good"), item(1, BAD), item(2, FAIR)),
    "huge label": body(item(0, BAD), item(1, FAIR, label="x" * 2_000_000)),
    "label is a number": body(item(0, BAD), item(1, FAIR, label=7)),
    "HTML": b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
    "empty": b"",
    "not UTF-8": b'{"data": [{"index": 0, "label": "\xff\xfe"}]}',
    "cut": body(item(0, BAD), item(1, FAIR))[:-30],
    "nested deeply": b'{"data": ' + b"[" * 200_000,
    "nested deeply, elsewhere": b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b', "data": []}',
    "a list": b"[]",
    "data is missing": b'{"object": "list"}',
    "data is null": b'{"data": null}',
    "an error with status 200": b'{"error": {"message": "engine dead", "code": 500}}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_not_believed(name: str) -> None:
    """Whatever fails a check is BadAnswer in one short printable line, and teaches nothing of the model."""
    facts = ModelFacts()
    texts = 3 if name.startswith("tie") else 2
    with pytest.raises(BadAnswer) as caught:
        decode(BROKEN[name], texts, facts)
    assert str(caught.value).isprintable()
    assert 0 < len(str(caught.value)) < 500
    assert (facts.num_classes, facts.names, facts.model) == (0, {}, "")


def test_control_characters_of_a_label_reach_no_message() -> None:
    """A message about a nasty label is safe for a terminal and stays one line."""
    answer = body(item(0, BAD), item(1, BAD, label="\x1b[2J\r\nowned\x00\u202e"))
    with pytest.raises(BadAnswer) as caught:
        decode(answer, 2, ModelFacts())
    assert str(caught.value).isprintable()


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_no_bytes_whatever_escape_the_checks(answer: bytes) -> None:
    """Random bytes never raise anything but BadAnswer."""
    with pytest.raises(BadAnswer):
        decode(answer, 1, ModelFacts())


# -- decode: sound, but of another model

KNOWN: dict[str, Callable[[], bytes]] = {
    "another number of classes": lambda: body(item(0, [0.2, 0.8])),
    "another number of classes, known names": lambda: body(item(0, [0.8, 0.2])),
    "another name": lambda: body(item(0, BAD, label="terrible")),
    "no name where there was one": lambda: body(item(0, BAD, label=None)),
    "a new name beside a changed one": lambda: body(item(0, GOOD), item(1, BAD, label="terrible")),
}


@pytest.mark.parametrize("name", KNOWN)
def test_another_model_is_noticed_and_teaches_nothing(name: str) -> None:
    """An answer that disagrees with what is known of the model is OtherModel; what is known stays as it was."""
    facts = ModelFacts(3, {0: "bad"})
    answer = KNOWN[name]()
    with pytest.raises(OtherModel):
        decode(answer, len(json.loads(answer)["data"]), facts)
    assert (facts.num_classes, facts.names, facts.model) == (3, {0: "bad"}, "")


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([item(0, GOOD, label="bad")], id="the known name of another class"),
        pytest.param([item(0, TIE, label="good")], id="tie with the known name of a third class"),
        pytest.param([item(0, TIE, label="new")], id="tie of two known classes with a new name"),
    ],
)
def test_a_label_is_held_against_all_names_known_so_far(items: list[dict[str, Any]]) -> None:
    """A label that is not that of the largest value, as far as names are known from earlier answers, is refused."""
    facts = ModelFacts(3, {0: "bad", 1: "fair"})
    if items[0]["label"] == "good":
        facts.names[2] = "good"
    known = dict(facts.names)
    with pytest.raises((BadAnswer, OtherModel)):
        decode(body(*items), len(items), facts)
    assert facts.names == known


# -- decode: a model that is known

NAMES_BY_CLASS = {0: "a", 1: "b", 2: "c"}
VALUES = st.sampled_from([0.0, 0.25, 0.5, 1, -1e300, 1e-300])


@st.composite
def answers_of_known_model(draw: st.DrawFn) -> dict[str, Any]:
    """Answers to some texts, sound but for at most one thing."""
    wrong = draw(st.sampled_from(["nothing", "order", "index", "label", "num_classes", "probs", "classes"]))
    classes = 2 if wrong == "classes" else 3
    rows = draw(st.lists(st.lists(VALUES, min_size=classes, max_size=classes), min_size=1, max_size=4))
    items: list[dict[str, Any]] = [
        {"index": index, "label": NAMES_BY_CLASS[row.index(max(row))], "probs": row, "num_classes": classes}
        for index, row in enumerate(rows)
    ]
    wrong_item = draw(st.sampled_from(items))
    if wrong == "order":
        items.reverse()
    elif wrong == "probs":
        wrong_item["probs"] = [*wrong_item["probs"], *draw(st.lists(VALUES, max_size=1))][draw(st.integers(0, 1)) :]
    elif wrong in wrong_item:
        choices: dict[str, list[Any]] = {"index": [0, 1, 9], "num_classes": [2, 4], "label": ["a", "b", "x", None]}
        wrong_item[wrong] = draw(st.sampled_from(choices[wrong]))
    return {"data": items, "model": draw(st.sampled_from(["m", "n"]))}


def is_sound(answer: dict[str, Any], texts: int, model: str) -> bool:
    """Whether an answer is one of the model with the classes of `NAMES_BY_CLASS`."""
    return (
        sorted(each["index"] for each in answer["data"]) == list(range(texts))
        and all(len(each["probs"]) == each["num_classes"] == 3 for each in answer["data"])
        and all(
            max(each["probs"]) in [each["probs"][index] for index in range(3) if NAMES_BY_CLASS[index] == each["label"]]
            for each in answer["data"]
        )
        and model in ("", answer["model"])
    )


@given(answers_of_known_model(), st.integers(0, 1), st.sampled_from(["", "m"]))
def test_an_answer_of_a_known_model_is_taken_if_it_is_sound(answer: dict[str, Any], more: int, model: str) -> None:
    """What is known already allows no answer that is unsound, refuses none that is sound, and stays as it is."""
    facts, texts = ModelFacts(3, NAMES_BY_CLASS), len(answer["data"]) + more
    try:
        found = decode(json.dumps(answer).encode(), texts, facts, model)
    except RequestFailed:
        assert not is_sound(answer, texts, model)
    else:
        assert is_sound(answer, texts, model)
        items = sorted(answer["data"], key=lambda each: each["index"])
        assert list(found) == [Prediction(each["label"], max(each["probs"]), each["probs"]) for each in items]
    assert (facts.num_classes, facts.names) == (3, NAMES_BY_CLASS)


# -- decode: how large an answer may be


def test_an_honest_answer_is_never_too_large() -> None:
    """The bound on an answer's size admits what vLLM really sends, pretty long labels included."""
    facts = ModelFacts(1000)
    honest = body(*(item(n, [-0.12345678901234567] * 999 + [0.5], label="x" * 900) for n in range(64)))
    assert len(honest) <= VLLM.largest_answer(64, facts)


def test_the_bound_follows_the_request() -> None:
    """Once the model is known, a small request allows only a small answer."""
    assert VLLM.largest_answer(1, ModelFacts(3)) < 1 << 20
    assert VLLM.largest_answer(1, ModelFacts()) <= 64 << 20


# -- /v1/models


def test_the_models_of_a_real_server_are_read() -> None:
    """The recorded list of models gives id, root and length."""
    (entry,) = VLLM.served({MODELS: json.dumps(sample("bert-models")["body"]).encode()}, None).models
    assert (entry.id, entry.root, entry.max_model_len) == ("tiny-bert", "./tiny-bert", 256)


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"[]", b'{"data": 3}', b'{"detail":"Not Found"}', b"\xff", b"[" * 200_000]
)
def test_a_gateway_without_models_has_none(answer: bytes) -> None:
    """What is no list of models is no reason to stop."""
    assert VLLM.served({MODELS: answer}, None) == VLLM.served({}, None) == Served()


def test_decoding_takes_no_longer_than_it_must() -> None:
    """A full request of 256 texts and 1,000 classes is checked in well under a second."""
    answer = body(*(item(n, [0.001] * 999 + [0.5], label="x") for n in range(256)))
    began = time.perf_counter()
    decode(answer, 256, ModelFacts())
    assert time.perf_counter() - began < 1
