"""The dialects as bytes: what real servers answered and refused, any text there and back, and hostile answers."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from answers import labels_of
from fake import LABELS, probs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import APIS, JSON_REQUEST, NAMELESS, dialect_for, sample, samples_of

from pipeline.config import Request
from pipeline.errors import (
    BadAnswer,
    Misconfigured,
    OtherModel,
    Overloaded,
    Rejected,
    RequestFailed,
    Unavailable,
)
from pipeline.servers.dialect import DIALECTS, Dialect
from pipeline.servers.dialects.hf import Hf, names_in_order
from pipeline.servers.dialects.infinity import Infinity
from pipeline.servers.dialects.kserve import Kserve
from pipeline.servers.dialects.oip import INDEX, LISTED, SERVER, Oip, OipModel
from pipeline.servers.dialects.own_json import OwnJson
from pipeline.servers.dialects.sglang import Sglang
from pipeline.servers.dialects.tei import INFO, Tei
from pipeline.servers.embedded_apis import About, HfApi, SglangApi, TeiApi
from pipeline.servers.endpoint import activated
from pipeline.servers.model import CANARY, ModelFacts, Probe
from pipeline.texts import escape_all

BERT3 = ["negative", "neutral", "positive"]  # the model of three classes that all real servers had when recorded
VALUES = [
    [0.8748306, 0.0530893, 0.0720800],
    [0.5204226, 0.2743211, 0.2052564],
    [0.0846869, 0.2344968, 0.6808163],
]
ABOUT = About("m", LABELS, 512)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=9)


def facts_of(*names: str) -> ModelFacts:
    """Return facts of a model before the canary, with names that the server or the config gave."""
    return ModelFacts(names=dict(enumerate(names)))


# -- What real servers said


@pytest.mark.parametrize(
    ("server", "name", "dialect"),
    [
        ("infinity-0.0.78", "classify", Infinity()),
        ("sglang-0.5.23", "bert3-classify", Sglang()),
        ("huggingface-inference-toolkit-0.5.6", "predict-all", Hf()),
        ("huggingface-inference-toolkit-0.5.6", "predict-all-batch-size", Hf()),
        ("huggingface-inference-toolkit-0.5.6", "predict-return-all-scores", Hf()),
        ("mlserver-1.7.1", "infer-top-k-hg-json", OipModel("mlserver")),
        ("kserve-0.21-huggingfaceserver", "v1-predict-bert3p", Kserve()),
        ("kserve-0.21-huggingfaceserver", "v2-infer-bert3p", OipModel("kserve")),
        ("litserve-0.2.19", "predict-all", OwnJson("inputs", "predictions")),
    ],
)
def test_one_model_gives_the_same_through_all_real_servers(server: str, name: str, dialect: Dialect) -> None:
    """Labels, scores and values in class order, whatever the order in which they came."""
    recorded = sample(server, name)
    assert recorded.status == 200
    count = 2 if server.startswith("litserve") else 3
    found = dialect.decode(recorded.body, count, facts_of(*BERT3))
    assert labels_of(found) == ["negative", "negative", "positive"][:count]
    assert found.probs is not None
    assert np.allclose(found.probs, VALUES[:count], atol=1e-4)
    assert np.allclose(found.scores, [0.8748306, 0.5204226, 0.6808163][:count], atol=1e-4)


def test_real_numbers_of_a_tensor_have_their_names_from_the_label_file() -> None:
    """Triton: names come from its extension, where they may hold colons; numbers from the tensor itself."""
    server = samples_of("triton-2.51")
    dialect = Oip()
    replies: dict[Probe, bytes | None] = {
        SERVER: server["server-metadata"].body,
        LISTED: None,
        INDEX: b'[{"name": "clf"}]',
        Probe("/v2/models/clf"): server["model-metadata"].body,
        Probe("/v2/models/clf/config", is_optional=True): server["model-config"].body,
    }
    (names,) = (probe for probe in dialect.probes(replies, None) if probe not in replies)
    assert json.loads(names.body or b"")["outputs"][0]["parameters"]["classification"] > 100
    served = dialect.served(replies | {names: server["infer-classification"].body}, None)
    assert served.names == ["negative", "neutral", "positive: very"]
    assert (served.texts, served.version) == (64, "2.51.0")
    found = served.dialect.decode(server["infer"].body, 3, facts_of(*served.names))
    assert labels_of(found) == ["positive: very", "negative", "negative"]
    assert found.scores.tolist() == [0.726190447807312, 0.3724137842655182, 0.43579766154289246]
    without = dialect.served(replies | {names: server["infer-classification-no-labels"].body}, None)
    assert without.names == []
    sent = json.loads(served.dialect.encode(escape_all(["a", "b"]), "clf", Request()))
    assert sent["inputs"] == [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}]


@pytest.mark.parametrize(
    ("server", "name", "dialect", "best"),
    [
        ("infinity-0.0.78", "classify-multi-label", Infinity(), 0.9283),
        ("huggingface-inference-toolkit-0.5.6", "predict-multi-label", Hf(), 0.9283),
        ("mlserver-1.7.1", "infer-multi-label", OipModel("mlserver"), 0.9283),
    ],
)
def test_several_labels_a_text_have_values_of_their_own(server: str, name: str, dialect: Dialect, best: float) -> None:
    """They do not sum to 1, and that is no mistake."""
    facts = ModelFacts()
    found = dialect.decode(sample(server, name).body, 3, facts)
    assert labels_of(found)[0] == "fear"
    assert found.scores[0] == pytest.approx(best, abs=1e-3)
    assert (facts.sums_to_one, facts.order) == (False, "name")


def test_logits_of_the_native_path_become_probabilities_here() -> None:
    """SGLang applies a softmax to several labels a text; with its logits they are what the model means."""
    sglang = Sglang(is_native=True)
    logits = sglang.decode(sample("sglang-0.5.23", "bert3-native-classify").body, 3, facts_of(*BERT3))
    assert np.allclose(activated(logits, "softmax", keeps_probs=True).probs_or_nan(3), VALUES, atol=1e-4)
    several = sglang.decode(
        sample("sglang-0.5.23", "bertml-native-classify").body, 3, facts_of("joy", "anger", "fear", "love")
    )
    assert activated(several, "sigmoid", keeps_probs=False).scores[0] == pytest.approx(0.9283, abs=1e-3)
    one = sglang.decode(sample("sglang-0.5.23", "bert1-native-classify").body, 3, facts_of("toxic"))
    assert activated(one, "sigmoid", keeps_probs=True).probs_or_nan(1)[0] == pytest.approx(0.9316, abs=1e-3)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_no_logit_is_too_large_to_become_a_probability(activation: str) -> None:
    """TEI's own softmax overflows at some 88."""
    facts = ModelFacts(names={0: "a", 1: "b"})
    answer = b'[[{"label":"a","score":-9000.0},{"label":"b","score":700.0}]]'
    found = activated(Tei().decode(answer, 1, facts), activation, keeps_probs=True)
    assert (labels_of(found), found.probs_or_nan(2).tolist()) == (["b"], [[0.0, 1.0]])


def test_the_names_in_class_order_are_believed_only_where_they_can_be_one() -> None:
    """Transformers 4 gives them so when asked, 5 does not; what is sorted by score is no order."""
    toolkit, litserve = "huggingface-inference-toolkit-0.5.6", "litserve-0.2.19"
    rows = json.loads(sample(toolkit, "predict-return-all-scores").body)
    assert names_in_order(json.dumps([*rows, rows[0]]).encode()) == BERT3
    best = json.loads(sample(litserve, "return-all-scores-transformers-5").body)["predictions"]
    by_score = json.loads(sample(toolkit, "predict-all").body)
    alike = [by_score[0]] * len(CANARY)  # the same order four times, but that of the scores
    for other in (best, [*by_score, by_score[0]], alike, rows, None):
        assert names_in_order(None if other is None else json.dumps(other).encode()) == []


REFUSALS: list[tuple[str, str, Dialect, type[RequestFailed | Misconfigured], str]] = [
    ("infinity-0.0.78", "error-overloaded", Infinity(), Overloaded, ""),
    ("infinity-0.0.78", "error-null", Infinity(), Rejected, "positions 1 2"),
    ("infinity-0.0.78", "error-too-many", Infinity(), Rejected, "most 2048"),
    ("infinity-0.0.78", "prefixed-error-too-many-64", Infinity("/v1"), Rejected, "most 64"),
    ("infinity-0.0.78", "classify-one-class", Infinity(), Misconfigured, ""),
    ("infinity-0.0.78", "error-unknown-model", Infinity(), Misconfigured, ""),
    ("infinity-0.0.78", "prefixed-error-no-key", Infinity(), Misconfigured, ""),
    ("sglang-0.5.23", "bert3-error-empty-text", Sglang(), Rejected, "positions 1"),
    ("sglang-0.5.23", "bert3-error-too-long", Sglang(), Rejected, "too_long"),
    ("sglang-0.5.23", "bert1-classify", Sglang(), Misconfigured, ""),
    ("huggingface-inference-toolkit-0.5.6", "error-too-long", Hf(), Rejected, "too_long"),
    ("huggingface-inference-toolkit-0.5.6", "error-null", Hf(), Rejected, "rejected"),
    ("huggingface-inference-toolkit-0.5.6", "error-surrogate", Hf(), Rejected, "rejected"),
    ("kserve-0.21-huggingfaceserver", "v1-error-null", Kserve(), Unavailable, ""),
    ("kserve-0.21-huggingfaceserver", "v1-error-unknown-model", Kserve(), Misconfigured, ""),
    ("mlserver-1.7.1", "error-too-long", OipModel("mlserver"), Unavailable, ""),
    ("mlserver-1.7.1", "error-unknown-model", OipModel("mlserver"), Misconfigured, ""),
    ("triton-2.51", "error-too-many", OipModel("triton"), Rejected, "most 64"),
    ("triton-2.51", "error-overloaded", OipModel("triton"), Overloaded, ""),
    ("triton-2.51", "error-null", OipModel("triton"), Rejected, "rejected"),
    ("triton-2.51", "error-surrogate", OipModel("triton"), Rejected, "rejected"),
]


@pytest.mark.parametrize(("server", "name", "dialect", "kind", "fact"), REFUSALS)
def test_real_refusals_are_understood(
    server: str, name: str, dialect: Dialect, kind: type[RequestFailed | Misconfigured], fact: str
) -> None:
    """The class decides; some name the guilty texts, or how many texts they take."""
    recorded = sample(server, name)
    error = dialect.refusal(recorded.status, recorded.headers, recorded.body, "KEY")
    assert type(error) is kind
    assert "\n" not in str(error)
    if isinstance(error, Rejected):
        words = {
            "positions": " ".join(["positions", *map(str, sorted(error.positions))]) if error.positions else "",
            "most": f"most {error.most_texts}" if error.most_texts else "",
        }
        assert fact in (words["positions"] or words["most"] or error.code)


def test_refusals_that_were_read_in_a_source() -> None:
    """TEI could not be recorded; and a GPU that is dead, a model that loads, SGLang's text of its own."""

    def refused(dialect: Dialect, status: int, body: str) -> Any:
        return dialect.refusal(status, {}, body.encode(), "KEY")

    too_many = '{"error":"batch size 33 > maximum allowed batch size 32","error_type":"Validation"}'
    assert refused(Tei(), 422, too_many).most_texts == 32
    for unit in ("tokens", "characters"):
        too_long = f'{{"error":"Input validation error: `inputs` must have less than 512 {unit}. Given: 1002"}}'
        assert refused(Tei(), 422, too_long).code == "too_long"
    assert type(refused(Tei(), 424, '{"error":"Backend error: score is NaN"}')) is Rejected
    assert type(refused(Tei(), 424, '{"error":"Backend error: it failed"}')) is Unavailable
    assert type(refused(Tei(), 424, '{"error":"Model is not a classifier model"}')) is Misconfigured
    assert type(refused(Tei(), 429, '{"error":"Model is overloaded"}')) is Overloaded
    assert "KEY" in str(refused(Tei(), 401, ""))
    dead = '{"error":"CUDA error: device-side assert triggered"}'
    assert type(refused(Hf(), 400, dead)) is Unavailable
    loading = refused(Hf(), 503, '{"error":"Model x is currently loading","estimated_time":20.5}')
    assert loading.retry_after == 20.5


def test_a_refusal_that_repeats_texts_names_no_position_of_theirs() -> None:
    """And one that was cut after 64 KiB still says what is wrong."""
    text = '"type":"string_too_long","loc":["body","input",0],"msg":"x"'
    detail = {"type": "string_too_long", "loc": ["body", "input", 3], "msg": "at most 122880 characters", "input": text}
    body = json.dumps({"detail": [detail]}, separators=(",", ":")).encode()
    for received in (body, body[:-20]):
        error = Infinity().refusal(422, {}, received, "KEY")
        assert isinstance(error, Rejected)
        assert ([*error.positions], error.code) == ([3], "too_long")


# -- Any text there and back


@pytest.mark.parametrize("spoken", APIS)
@given(texts=TEXTS, is_scored=st.booleans())
def test_any_text_is_sent_as_it_is_and_gets_its_own_values(spoken: str, texts: list[str], *, is_scored: bool) -> None:
    """Whatever it holds of the syntax around it: the server reads the same texts, and each gets its own answer."""
    api = APIS[spoken]
    dialect = dialect_for(api, ABOUT)
    body = dialect.encode(escape_all(texts), "m", JSON_REQUEST)
    tree = json.loads(body)
    assert api.asked(tree, ABOUT).texts == texts
    rows = [probs_of(text) for text in texts]
    answer = json.dumps(api.answer(tree, rows, ABOUT)).encode()
    facts = facts_of(*LABELS) if is_scored or spoken in (*NAMELESS, "triton") else ModelFacts()
    found = dialect.decode(answer, len(texts), facts, probs=is_scored)
    assert labels_of(found) == [LABELS[row.index(max(row))] for row in rows]
    assert found.scores.tolist() == [max(row) for row in rows]
    assert (None if found.probs is None else found.probs.tolist()) == (rows if is_scored else None)
    assert len(answer) <= dialect.largest_answer(len(texts), facts)


def test_what_is_asked_for_goes_under_each_server_s_own_names() -> None:
    """Cutting, logits, priority and whatever the config adds; the texts are never replaced."""
    texts = escape_all(["a", "b"])

    def sent(dialect: Dialect, request: Request, *, truncate: bool = False) -> Any:
        return json.loads(dialect.encode(texts, "m", request, truncate=truncate))

    logits = Request(activation=False, extra={"more": 1, "inputs": [], "input": [], "instances": []})
    assert sent(Tei(), Request()) == {"inputs": [["a"], ["b"]], "truncate": False, "raw_scores": False}
    assert sent(Tei(), logits, truncate=True) | {"input": 0, "instances": 0} == {
        "inputs": [["a"], ["b"]], "truncate": True, "raw_scores": True, "more": 1, "input": 0, "instances": 0
    }  # fmt: skip
    assert sent(Infinity(), Request()) == {"model": "m", "input": ["a", "b"]}
    assert sent(Sglang(), Request(priority=3)) == {"model": "m", "input": ["a", "b"], "priority": 3}
    assert sent(Sglang(is_native=True), Request()) == {"model": "m", "text": ["a", "b"]}
    assert sent(Kserve(), Request()) == {"instances": ["a", "b"]}
    assert sent(OwnJson("texts", ""), Request(extra={"k": 1})) == {"texts": ["a", "b"], "k": 1}
    usual = {"top_k": None, "truncation": True}
    assert sent(Hf(is_batched=False), Request()) == {"inputs": ["a", "b"], "parameters": usual}
    assert sent(Hf(), Request())["parameters"] == usual | {"padding": True, "batch_size": 32}
    raw = sent(Hf(), Request(activation="sigmoid", extra={"parameters": {"batch_size": 4}}))["parameters"]
    assert raw == usual | {"padding": True, "batch_size": 4, "function_to_apply": "none"}
    tensors = sent(OipModel("mlserver", "array_inputs"), Request(activation=False))["inputs"]
    assert [each["name"] for each in tensors] == ["array_inputs", "top_k", "truncation", "function_to_apply"]


def test_a_tokenizer_without_padding_is_asked_for_single_texts() -> None:
    """Where the question with padding is refused, the other one is asked, and from then on nothing is padded."""
    first, *none = Hf().probes({}, None)
    assert not none
    _, second = Hf().probes({first: None}, None)
    rows = [[{"label": name, "score": value} for name, value in zip("xy", pair, strict=True)]
            for pair in ((0.2, 0.8), (0.6, 0.4), (0.1, 0.9), (0.5, 0.5))]  # fmt: skip
    served = Hf().served({first: None, second: json.dumps(rows).encode()}, None)
    assert served.names == ["x", "y"]
    assert "padding" not in json.loads(served.dialect.encode(escape_all(["a"]), None, Request()))["parameters"]


# -- Class order


@pytest.mark.parametrize(
    ("names", "preferred", "order", "who"),
    [
        (["b", "a"], [], ["a", "b"], "name"),
        (["b", "a"], ["b", "a"], ["b", "a"], "config"),
        (["b", "a"], ["b", "c"], ["a", "b"], "name"),
        (["LABEL_10", "LABEL_2", "LABEL_0"], [], ["LABEL_0", "LABEL_2", "LABEL_10"], "name"),
        (["LABEL_1", "x"], [], ["LABEL_1", "x"], "name"),
        (["é", "z", "Z"], [], ["Z", "z", "é"], "name"),
    ],
)
def test_classes_without_an_order_get_one_that_is_the_same_tomorrow(
    names: list[str], preferred: list[str], order: list[str], who: str
) -> None:
    """That of the config, else by number, else by name; never that of an answer, which is sorted by score."""
    for first in (names, names[::-1]):
        facts = ModelFacts(preferred=preferred)
        row = [{"label": name, "score": 1 / (2 + place)} for place, name in enumerate(first)]
        Tei().decode(json.dumps([row]).encode(), 1, facts)
        assert ([facts.names[index] for index in range(len(names))], facts.order) == (order, who)


def test_what_tei_announces_is_the_order_and_the_bound() -> None:
    """All names are known before the first answer."""
    info = json.dumps(TeiApi().about(About("m", ["z", "a"], 512, 7, 99))["/info"]).encode()
    served = Tei().served({INFO: info}, None)
    assert (served.names, served.texts, served.texts_in_flight, served.version) == (["z", "a"], 7, 99, "1.9.3")
    other = info.replace(b'"classifier"', b'"embedding"')
    assert "gives embeddings" in Tei().served({INFO: other}, None).problem
    for odd in (b"{}", b"[]", b"", info.replace(b'"0"', b'"5"')):
        assert list(Tei().served({INFO: odd}, None).names) == []


# -- What they can't do


@pytest.mark.parametrize(
    ("dialect", "request_", "answer", "said"),
    [
        (Infinity(), Request(activation=False), VALUES, "gives no logits"),
        (Sglang(), Request(too_long="truncate"), VALUES, "cuts no text"),
        (Sglang(), Request(), [[1.0], [1.0]], "one class"),
        (Tei(), Request(activation=False), VALUES, "probabilities where logits"),
        (Hf(), Request(activation="sigmoid"), VALUES, "probabilities where logits"),
        (OwnJson(), Request(activation=False), VALUES, "gives what it gives"),
        (Tei(), Request(), VALUES, None),
        (Sglang(), Request(), VALUES, None),
    ],
)
def test_what_a_server_cannot_do_is_said(
    dialect: Dialect, request_: Request, answer: Sequence[Sequence[float]], said: str | None
) -> None:
    """By the config, and by what the canary shows."""
    rows = [[{"label": f"l{place}", "score": value} for place, value in enumerate(row)] for row in answer]
    canary = Tei().decode(json.dumps(rows).encode(), len(rows), ModelFacts())
    found = dialect.cannot(request_, canary)
    assert (found is None) if said is None else (said in (found or ""))


def test_class_numbers_without_scores_are_refused_with_what_to_do() -> None:
    """KServe, unless it was started with --return_probabilities."""
    runtime = "kserve-0.21-huggingfaceserver"
    with pytest.raises(BadAnswer, match="--return_probabilities"):
        Kserve().decode(sample(runtime, "v1-predict-bert3").body, 3, ModelFacts())
    with pytest.raises(BadAnswer, match="--return_probabilities"):
        OipModel("kserve").decode(sample(runtime, "v2-infer-bert3").body, 3, ModelFacts())
    with pytest.raises(BadAnswer, match="without scores"):
        OwnJson().decode(b'["good", "bad"]', 2, ModelFacts())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('[{"label": "x", "score": 0.9}, {"label": "y", "score": 0.6}]', [("x", 0.9), ("y", 0.6)]),
        ("[[0.1, 0.9], [0.6, 0.4]]", [("LABEL_1", 0.9), ("LABEL_0", 0.6)]),
        ('[{"x": 0.9, "y": 0.1}, {"y": 0.6, "x": 0.4}]', [("x", 0.9), ("y", 0.6)]),
        ('[[{"label": "x", "score": 1}], [{"label": "x", "score": 0.5}]]', [("x", 1.0), ("x", 0.5)]),
    ],
)
def test_what_people_write_by_hand_is_understood(answer: str, expected: list[tuple[str, float]]) -> None:
    """One item a text: the best pair, numbers, an object, or pairs; below any path."""
    for path, body in (("", answer), ("a.b", f'{{"a": {{"b": {answer}}}}}')):
        found = OwnJson("inputs", path).decode(body.encode(), 2, ModelFacts())
        assert [(each.label, each.score) for each in found] == expected
    with pytest.raises(BadAnswer, match=r"no 'a\.c': it has b; correct request\.answer"):
        OwnJson("inputs", "a.c").decode(b'{"a": {"b": []}}', 2, ModelFacts())
    with pytest.raises(BadAnswer, match=r"request\.answer says"):
        OwnJson().decode(b'{"a": []}', 2, ModelFacts())


# -- Hostile answers


def right_answer(spoken: str, texts: list[str]) -> tuple[Dialect, ModelFacts, Any]:
    """Return a dialect, facts after the canary, and the right answer to some texts."""
    api = APIS[spoken]
    dialect = dialect_for(api, ABOUT)

    def answer(asked: Sequence[str]) -> Any:
        tree = json.loads(dialect.encode(escape_all(asked), "m", JSON_REQUEST))
        return api.answer(tree, [probs_of(text) for text in asked], ABOUT)

    facts = ModelFacts(names=dict(enumerate(LABELS)))
    dialect.decode(json.dumps(answer(CANARY)).encode(), len(CANARY), facts)
    return dialect, facts, answer(texts)


def places_in(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to all values of a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [way, *(each for key, value in inner for each in places_in(value, (*way, key)))]


HOSTILE: list[Callable[[Any], Any]] = [
    lambda _: None,
    lambda _: True,
    lambda _: "x",
    lambda _: "negative",
    lambda _: [],
    lambda _: {},
    lambda _: [[]],
    lambda _: -1,
    lambda _: 2,
    lambda _: 1e300,
    lambda _: math.inf,
    lambda _: math.nan,
    lambda value: [value],
    lambda value: [value, value],
    lambda value: value[:1] if isinstance(value, (list, str)) else value,
    lambda value: value[1:] if isinstance(value, (list, str)) else value,
    lambda value: [*value, *value] if isinstance(value, list) else value,
    json.dumps,
]


@pytest.mark.parametrize("spoken", APIS)
@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(data=st.data())
def test_a_hostile_answer_never_gives_a_wrong_label(spoken: str, data: st.DataObject) -> None:
    """Anything in the answer is replaced, taken away, doubled: it is refused, or every label is still right."""
    texts = ["one", "two", "three"]
    dialect, facts, answer = right_answer(spoken, texts)
    tree = copy.deepcopy(answer)
    way = data.draw(st.sampled_from(places_in(tree)))
    spoil = data.draw(st.sampled_from(HOSTILE))
    if not way:
        tree = spoil(tree)
    else:
        holder = tree
        for key in way[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[way[-1]] = spoil(holder[way[-1]])
        else:
            del holder[way[-1]]
    cut = data.draw(st.sampled_from([None, None, None, 1, 20]))
    body = json.dumps(tree).encode()[: None if cut is None else -cut]
    try:
        found = dialect.decode(body, len(texts), facts)
    except (BadAnswer, OtherModel):
        return
    rows = [probs_of(text) for text in texts]
    assert labels_of(found) == [LABELS[row.index(max(row))] for row in rows]
    if spoken != "sglang":  # whose answers are checked as vLLM's: a value has no sum to belong to
        assert found.scores.tolist() == [max(row) for row in rows]


@pytest.mark.parametrize("spoken", APIS)
@given(body=st.binary(max_size=40) | st.text('[]{}",:0123456789.eE-labelscorenulltrue ', max_size=60).map(str.encode))
def test_no_bytes_break_a_decoder(spoken: str, body: bytes) -> None:
    """Whatever comes is an answer or a BadAnswer; so it is with refusals and with what a server says of itself."""
    dialect, facts, _ = right_answer(spoken, ["one"])
    with pytest.raises((BadAnswer, OtherModel)):
        dialect.decode(body, 2, facts)
    assert isinstance(dialect.refusal(400, {}, body, "KEY"), (Rejected, Unavailable, Misconfigured))
    kind = DIALECTS[APIS[spoken].name](JSON_REQUEST)
    replies: dict[Probe, bytes | None] = {}
    while wanted := [probe for probe in kind.probes(replies, "m") if probe not in replies]:
        replies |= dict.fromkeys(wanted, body)
    kind.served(replies, "m")


def test_hostile_answers_that_real_servers_give() -> None:
    """Each of these is 200."""
    facts = facts_of(*BERT3)
    pairs = json.loads(sample("huggingface-inference-toolkit-0.5.6", "predict-all").body)
    Tei().decode(json.dumps(pairs).encode(), 3, facts)
    one_string = sample("huggingface-inference-toolkit-0.5.6", "predict-all-one-string").body
    broken: list[tuple[Dialect, bytes, int]] = [
        (Tei(), json.dumps(pairs[0]).encode(), 3),  # the flat answer to a text that was sent alone
        (Tei(), json.dumps(pairs[:1]).encode(), 2),  # two texts taken for one pair
        (Tei(), json.dumps([pairs[0], pairs[1][:2], pairs[2]]).encode(), 3),  # a class is missing in one row
        (Hf(), one_string, 3),  # all classes of one text look like the best of three
        (Hf(), one_string, 1),
        (Sglang(), b'{"data":[{"index":0,"label":"Default","probs":[1.0],"num_classes":1}]}', 1),
    ]
    for dialect, body, texts in broken:
        with pytest.raises((BadAnswer, OtherModel)):
            dialect.decode(body, texts, facts)
    with pytest.raises(BadAnswer, match="failed in its activation"):
        Sglang().decode(broken[-1][1], 1, ModelFacts())
    for dialect in (Hf(), OwnJson()):
        with pytest.raises(BadAnswer):
            dialect.decode(one_string, 3, ModelFacts())  # also in the first answer
    doubled = json.dumps([[*pairs[0], {"label": "neutral", "score": 0.0}]]).encode()
    with pytest.raises(BadAnswer, match="two classes are named 'neutral', so they can't be told apart"):
        Tei().decode(doubled, 1, ModelFacts())
    others = json.dumps([[{"label": "x", "score": 0.5}, {"label": "y", "score": 0.5}]]).encode()
    with pytest.raises(OtherModel, match="the classes are x, y where they were negative, neutral, positive"):
        Tei().decode(others, 1, facts)
    assert facts.names == dict(enumerate(BERT3))


def test_the_largest_score_is_the_label_not_the_first() -> None:
    """A server that does not sort, or by something else."""
    answer = b'[[{"label":"a","score":0.1},{"label":"b","score":0.7},{"label":"c","score":0.2}]]'
    assert labels_of(Tei().decode(answer, 1, ModelFacts())) == ["b"]


def test_an_honest_api_says_what_the_real_server_says() -> None:
    """The embedded server and the fake are made from recordings: forms are the same."""
    about = About("bert3", BERT3, 512)
    rows = json.loads(json.dumps(VALUES))
    for api, server, name in (
        (SglangApi(), "sglang-0.5.23", "bert3-classify"),
        (HfApi(), "huggingface-inference-toolkit-0.5.6", "predict-all"),
        (HfApi(), "huggingface-inference-toolkit-0.5.6", "predict-return-all-scores"),
        (APIS["infinity"], "infinity-0.0.78", "classify"),
        (APIS["kserve"], "kserve-0.21-huggingfaceserver", "v1-predict-bert3p"),
        (APIS["mlserver"], "mlserver-1.7.1", "infer-top-k-hg-json"),
        (APIS["triton"], "triton-2.51", "infer"),
        (APIS["triton"], "triton-2.51", "infer-classification"),
        (APIS["kserve v2"], "kserve-0.21-huggingfaceserver", "v2-infer-bert3p"),
    ):
        recorded = sample(server, name)
        assert api.path.replace("{model}", "M") == recorded.path.replace("bert3p", "M").replace("bert3", "M").replace(
            "/clf/", "/M/"
        )
        assert api.asked(recorded.asked, about).texts == [
            "the service was great",
            "awful quality",
            "café, 你好, привет 😀",
        ]
        made, real = api.answer(recorded.asked, rows, about), json.loads(recorded.body)
        assert form_of(made) <= form_of(real), name


def form_of(tree: Any, way: str = "") -> set[str]:
    """Return the members and types of a tree, with their places; numbers in a list all have one."""
    if isinstance(tree, dict):
        return {part for key, value in tree.items() for part in form_of(value, f"{way}.{key}")}
    if isinstance(tree, list):
        return {part for value in tree for part in form_of(value, f"{way}[]")}
    return {f"{way}: {type(tree).__name__}"}
