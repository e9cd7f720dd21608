"""vLLM's `POST /classify`, and `GET /v1/models`: what is sent, what comes back, and how it is checked.

Read in the source of 0.9 to 0.33, recorded from 0.32 (tests/samples/):

- A request is `{"model": name?, "input": [text, ...]}` and some options: `use_activation` (since 0.11.2; false gives
  raw values), `truncate_prompt_tokens` (-1: to the model's length), `priority`. Fields that the server does not know
  are ignored, so what it did with `use_activation` shows only in its answer.
- An answer is `{"data": [{"index", "label", "probs", "num_classes"}, ...], "model": name}`, the same since 0.9. `probs`
  are in class order; `label` is that of the largest value, or null where the model has no name for it. The other
  classes are not named: names are learned from one answer after the other.
- A refusal is of the whole request and does not say which text is to blame; 400 and "maximum context length" for a text
  that is too long, 404 for another model's name or a model that is no classifier, 503 without `Retry-After` for a full
  queue, which counts texts.
- `/v1/models` lists the models with `id`, `root` and `max_model_len`, and adapters, which have a `parent`. A key guards
  it, but not `/classify`.
- There is no limit on the texts of a request, but thousands have crashed a server.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import getitem
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import BadAnswer, Misconfigured, OtherModel, RequestFailed
from pipeline.servers.dialects.scores import (
    ANSWER_BYTES,
    FIRST_ANSWER_BYTES,
    LONGEST_LABEL,
    TEXT_BYTES,
    PlainDialect,
    are_probabilities,
    body_of,
    other_name,
    read,
)
from pipeline.servers.model import Cuts, ModelEntry, ModelFacts, Probe, Replies, Served, decoded
from pipeline.servers.refusal import error_of, shorten
from pipeline.texts import Texts

MODELS, VERSION = Probe("/v1/models", is_optional=True), Probe("/version", is_optional=True)
TOO_LONG = b"maximum context length"  # in the message of every version

MOST_CLASSES_AT_ONCE = 128  # more take longer to decode so than to check one by one
CLASS_BYTES = 40  # of an answer, per text and class


class Vllm(PlainDialect):
    """The dialect of vLLM; what its members are for stands in `servers.dialect.Dialect`."""

    name = "vllm"
    server = "vLLM"
    path = "/classify"
    cuts: Cuts = "when asked"

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for the models, and for the version."""
        return (MODELS, VERSION)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Return the models that `/v1/models` lists; none where a gateway does not have it."""
        return Served(models=models_in(replies.get(MODELS)), version=version_in(replies.get(VERSION)))

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:
        """Return the body of one request."""
        return body_of("input", texts.data[:-1], fields_of(model, request, truncate=truncate))

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:
        """Check the answer, first against itself, then against what is known of the model."""
        answer = _read(body, texts, facts)
        values = [item.probs for item in answer.data]
        scores = list(map(max, values))
        labels = _known_labels(answer, values, scores, facts, model) or _learn_labels(answer, scores, facts, model)
        facts.model = answer.model
        return Answers(facts.labels, facts.labels.ids_of(labels), np.array(scores), np.array(values) if probs else None)

    def largest_answer(self, texts: int, facts: ModelFacts) -> int:
        """Return how many bytes an honest answer has at most; it grows with the classes, once they are known."""
        if not facts.num_classes:
            return FIRST_ANSWER_BYTES
        return ANSWER_BYTES + texts * (TEXT_BYTES + CLASS_BYTES * facts.num_classes)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for."""
        return error_of(status, headers, body, key_variable, is_too_long=TOO_LONG in body)

    def cannot(self, request: Request, canary: Answers) -> str | None:
        """Return that the server ignores `use_activation`, if its values are probabilities where logits were asked."""
        if request.activation is not True and are_probabilities(canary):
            return (
                "ignores use_activation (vLLM knows it from 0.11.2 on): its values are probabilities, "
                "not logits; leave request.activation = true"
            )
        return None


def fields_of(model: str | None, request: Request, *, truncate: bool) -> dict[str, Any]:
    """Return all members of a request but the texts."""
    body: dict[str, Any] = {}
    if model is not None:
        body["model"] = model
    if request.activation is not True:
        body["use_activation"] = False
    if request.priority is not None:
        body["priority"] = request.priority
    if truncate:
        body["truncate_prompt_tokens"] = -1
    return body | request.extra


# -- The answers as they come


class Item(msgspec.Struct, gc=False):
    """The answer to one text."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class Answer(msgspec.Struct, gc=False):
    """The answer to one request."""

    data: list[Item]
    model: str = ""


class ModelList(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[ModelEntry]


class Version(msgspec.Struct):
    """The answer of `GET /version`, and of others that have a version among the rest."""

    version: str = ""


Claim = tuple[str | None, tuple[int, ...]]  # a label, and the classes with the largest value: it names one of them

_decode_answer = msgspec.json.Decoder(Answer).decode


def models_in(body: bytes | None) -> Sequence[ModelEntry]:
    """Return the models that a list in OpenAI's form names; none if it is none."""
    found = decoded(ModelList, body)
    return found.data if found else ()


def version_in(body: bytes | None) -> str:
    """Return the `version` of a JSON object; empty if there is none."""
    found = decoded(Version, body)
    return shorten(found.version) if found else ""


@functools.lru_cache(maxsize=16)
def _decoder_of(classes: int, names: tuple[str, ...]) -> Callable[[bytes], Any]:
    """Make a decoder of answers with so many classes, of which some have these names.

    To see the number while decoding costs nothing, item by item a third; a label that is known makes no new string.
    """
    label: Any = Literal.__getitem__(names) if names else str | None
    number: Any = Annotated[int, msgspec.Meta(ge=classes, le=classes)]
    values: Any = tuple.__class_getitem__((float,) * classes)
    fields: list[Any] = [("index", int), ("label", label), ("probs", values), ("num_classes", number)]
    item: Any = msgspec.defstruct("Item", fields, gc=False)
    answer = msgspec.defstruct("Answer", [("data", list[item]), ("model", str, "")], gc=False)
    return msgspec.json.Decoder(answer).decode


def _read(body: bytes, texts: int, facts: ModelFacts) -> Any:
    """Decode an answer to `texts` texts, and put its items into their order."""
    if 0 < facts.num_classes <= MOST_CLASSES_AT_ONCE:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            answer = _decoder_of(facts.num_classes, tuple(facts.names.values()))(body)
            if [item.index for item in answer.data] == list(range(texts)):
                return answer
    return _read_closely(body, texts)


def _read_closely(body: bytes, texts: int) -> Answer:
    answer = read(_decode_answer, body)
    items = answer.data
    if len(items) != texts:
        raise BadAnswer(f"{len(items)} answers to {texts} texts")
    if [item.index for item in items] != list(range(texts)):
        items.sort(key=lambda item: item.index)
        if [item.index for item in items] != list(range(texts)):
            raise BadAnswer("an index is missing, doubled or out of range")
    classes = items[0].num_classes
    for item in items:
        if item.num_classes != classes or len(item.probs) != classes or not classes:
            found = f"{len(item.probs)} values and num_classes {item.num_classes}"
            raise BadAnswer(f"{found} among items of {classes} classes")
    return answer


def _known_labels(
    answer: Answer, values: list[list[float]], scores: list[float], facts: ModelFacts, model: str
) -> list[str] | None:
    """Return the labels if each is the known name of a class with the largest value, so that there is none to learn."""
    if len(values[0]) != facts.num_classes or other_name(answer.model, model):
        return None
    class_of: dict[str | None, int] = {name: index for index, name in facts.names.items()}
    labels = [item.label for item in answer.data]
    try:
        named = list(map(getitem, values, map(class_of.__getitem__, labels)))
    except KeyError:
        return None
    return labels if named == scores else None  # type: ignore[return-value] # None is no class


def _learn_labels(answer: Answer, scores: list[float], facts: ModelFacts, model: str) -> list[str]:
    """Compare the labels with each other and with all that is known, and learn the names of classes from them."""
    claims = [
        (item.label, tuple(place for place, value in enumerate(item.probs) if value == score))
        for item, score in zip(answer.data, scores, strict=True)
    ]
    distinct, classes = list(dict.fromkeys(claims)), len(answer.data[0].probs)
    names = _names_in(distinct)
    if other := other_name(answer.model, model):
        raise other
    if facts.num_classes and classes != facts.num_classes:
        raise OtherModel(f"{classes} classes where the model had {facts.num_classes}")
    _compare(facts, names, distinct)
    labels = [facts.names.get(place, f"LABEL_{place}") if label is None else label for label, (place, *_) in claims]
    facts.num_classes = classes
    facts.names.update({index: name for index, name in names.items() if name is not None})
    return labels


def _names_in(claims: list[Claim]) -> dict[int, str | None]:
    """Return the names of classes; at a tie any of the classes may give its name, so nothing is learned from it."""
    names: dict[int, str | None] = {}
    for label, places in claims:
        if label is not None and len(label) > LONGEST_LABEL:
            raise BadAnswer(f"a label of {len(label)} characters")
        if len(places) == 1:
            if places[0] in names or (label is not None and label in names.values()):
                two = "" if places[0] in names else ", or is the name of two classes"
                raise BadAnswer(f"the label {shorten(str(label))!r} is not that of the largest value{two}")
            names[places[0]] = label
    return names


def _compare(facts: ModelFacts, names: Mapping[int, str | None], claims: list[Claim]) -> None:
    """Compare the names with those that are known, and the label of each tie with all of them."""
    for index, name in names.items():
        known = facts.names.get(index, name)
        if name != known and not (name is None and index in facts.given):
            raise OtherModel(f"class {index} is named {shorten(str(name))!r} where it was {shorten(str(known))!r}")
        if any(name == other and index != place for place, other in facts.names.items()):
            raise OtherModel(f"two classes are named {shorten(str(name))!r}")
    known_names = {**facts.names, **names}
    for label, places in claims:
        of_another = any(label == name and place not in places for place, name in known_names.items())
        if len(places) > 1 and (of_another or all(known_names.get(place, label) != label for place in places)):
            raise BadAnswer(f"the label {shorten(str(label))!r} is not that of the largest value")
