"""What comes back: an answer, checked against itself and against all that is known of the model."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from operator import getitem
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from pipeline.answers import Answers, Labels
from pipeline.config import mask_url
from pipeline.errors import BadAnswer, ClassifyError, Misconfigured, OtherModel, Overloaded, Rejected, Unavailable

if TYPE_CHECKING:
    from pipeline.config import Request
    from pipeline.texts import Texts


# -- What is sent: the body of one request


_encode = msgspec.json.Encoder().encode


def encode(texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:
    """The body of one request.

    `request.extra` is sent as it is and may override all but the texts.
    """
    body: dict[str, Any] = {}
    if model is not None:
        body["model"] = model
    if not request.activation:
        body["use_activation"] = False
    if request.priority is not None:
        body["priority"] = request.priority
    if truncate:
        body["truncate_prompt_tokens"] = -1
    body.update(request.extra)
    body.pop("input", None)
    head = b'%b%b"input":[' % (_encode(body)[:-1], b"," if body else b"")
    return b"".join([head, texts.data[:-1], b"]}"])


# -- What comes instead of an answer: a status and a server's words, as the error to raise


LONGEST_MESSAGE = 300  # characters of a server's message that we repeat


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, api_key_env: str, secrets: Sequence[str] = ()
) -> ClassifyError:
    """What a status other than 200 means, as the error to raise: its class decides what happens next.

    A server may repeat what it was sent: `secrets` never get into the message.
    """
    for secret in secrets:
        body = body.replace(secret.encode(), b"***")
    message = f"HTTP {status}: {error_message(body)}"
    retry_after = parse_retry_after(headers.get("Retry-After"))
    if status in (400, 413, 422):
        return Rejected(message, too_long=b"maximum context length" in body)
    if status in (408, 425, 429, 503):
        busy = Overloaded(message, retry_after=retry_after)
        busy.may_be_broken = status in (408, 503) and retry_after is None
        return busy
    if status == 424 or status >= 500:  # noqa: PLR2004
        return Unavailable(message, retry_after=retry_after)
    if status in (401, 403):
        return Misconfigured(f"{message}; put the server's key into the environment variable {api_key_env}")
    if 300 <= status < 400:  # noqa: PLR2004
        target = headers.get("Location", "another address")
        for secret in secrets:
            target = target.replace(secret, "***")
        target = shorten(mask_url(target))
        return Misconfigured(f"HTTP {status}: redirects to {target}; redirects are not followed, give that url")
    return Misconfigured(f"{message}; check server.url and server.model")


def error_message(body: bytes) -> str:
    """The server's own words, shortened: nested since vLLM 0.10, flat before, `detail` from FastAPI, else the text."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return shorten(body[:2000].decode("utf-8", "replace"))
    for key in ("error", "message", "detail"):
        if isinstance(tree, dict) and key in tree:
            tree = tree[key]
    return shorten(tree if isinstance(tree, str) else msgspec.json.encode(tree).decode())


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, from `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None if absent or nonsense."""
    text = (value or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        date = email.utils.parsedate_to_datetime(text)
        # Dates without a zone (asctime's, in RFC 9110) are in UTC, too.
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def shorten(text: str) -> str:
    """One printable line of at most `LONGEST_MESSAGE` characters: it may go into a file, a log or a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_MESSAGE]).split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


# -- What comes back: an answer, checked against itself and against all that is known of the model


# What a server may at most answer while nothing is known of its model, and per request and text once it is.
FIRST_ANSWER_BYTES = 64 << 20
ANSWER_BYTES, TEXT_BYTES, CLASS_BYTES = 64 << 10, 2 << 10, 40
MOST_CLASSES_AT_ONCE = 128  # more take longer to read than to check one by one
LONGEST_LABEL = 1_000  # characters
_Decode = Callable[[bytes], Any]


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


class ModelEntry(msgspec.Struct):
    """What `/v1/models` says of one model; its times and permissions change at every call and say nothing."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[ModelEntry]


class ModelFacts:
    """What the answers so far say of the model; every further answer must agree with it.

    `names` maps a class to its label, as far as answers have named it: only the top label of a text is named.
    """

    def __init__(
        self, num_classes: int = 0, names: Mapping[int, str] | None = None, given: Mapping[int, str] | None = None
    ) -> None:
        self.num_classes = num_classes  # 0: nothing was answered yet
        self.given = dict(given or {})  # by the config: the server may have no names of its own
        self.names = {**self.given, **(names or {})}
        self.model = ""  # as the answers call it
        self.labels = Labels()  # of all answers of this model
        self._decoder: tuple[int, int, _Decode] | None = None  # for so many classes, so many of them named

    @property
    def decoder(self) -> _Decode:
        """A decoder that takes only items of this model, and is quicker for it: it makes no new string of a label.

        Raises, when it is called:
            msgspec.DecodeError: other classes, another number of them, or a value that is no finite number.
        """
        if self._decoder is None or self._decoder[:2] != (self.num_classes, len(self.names)):
            fields = [
                ("index", int),
                ("label", Literal[tuple(self.names.values())]),
                ("probs", tuple[(float,) * self.num_classes]),  # type: ignore[misc]
                ("num_classes", Literal[self.num_classes]),
            ]
            item = msgspec.defstruct("KnownItem", fields, gc=False)
            answer = msgspec.defstruct("KnownAnswer", [("data", list[item]), ("model", str, "")], gc=False)  # type: ignore[valid-type]
            self._decoder = (self.num_classes, len(self.names), msgspec.json.Decoder(answer).decode)
        return self._decoder[2]

    def largest_answer(self, texts: int) -> int:
        """How many bytes an honest answer to `texts` texts can have at most."""
        if not self.num_classes:
            return FIRST_ANSWER_BYTES
        return ANSWER_BYTES + texts * (TEXT_BYTES + CLASS_BYTES * self.num_classes)


_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_models = msgspec.json.Decoder(ModelList).decode
_UNSEEN = object()


def decode(body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:
    """Check the 200 answer to `texts` texts and return the answers in the order of the texts.

    `facts` learns the number of classes and the names of classes from a sound answer; `model` is what answers of that
    server call the model, if they do. Without `probs`, only the largest value of each text is kept.

    Raises:
        BadAnswer: it is broken in itself (count, index, numbers, label that is not that of the largest value).
        OtherModel: sound, but not of the model in `facts`. Nothing is learned from it.
    """
    known = _decode_known(body, texts, facts, model, probs=probs)
    return _decode_closely(body, texts, facts, model, probs=probs) if known is None else known


def _decode_closely(body: bytes, texts: int, facts: ModelFacts, model: str, *, probs: bool) -> Answers:
    try:
        answer = _decode_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"the answer is not that of a classifier: {shorten(str(error))}") from None
    items = answer.data
    if len(items) != texts:
        raise BadAnswer(f"{len(items)} answers to {texts} texts")
    if any(item.index != position for position, item in enumerate(items)):
        items.sort(key=lambda item: item.index)
        if any(item.index != position for position, item in enumerate(items)):
            raise BadAnswer("an index is missing, doubled or out of range")
    classes = items[0].num_classes if items else facts.num_classes
    names: dict[int, str | None] = {}
    labels: list[str] = []
    scores: list[float] = []
    tied: list[Item] = []
    for item in items:
        values, label = item.probs, item.label
        if item.num_classes != classes or len(values) != classes or not values:
            raise BadAnswer(f"{len(values)} values and num_classes {item.num_classes} among items of {classes} classes")
        score = max(values)
        index = values.index(score)
        if names.get(index, _UNSEEN) != label:
            _name(item, index, names, tied)
        labels.append(label if label is not None else facts.names.get(index, f"LABEL_{index}"))
        scores.append(score)
    _compare_model(answer, model)
    _compare(facts, classes, names, tied)
    facts.num_classes, facts.model = classes, answer.model
    facts.names.update({index: name for index, name in names.items() if name is not None})
    return _answers(facts, labels, scores, [item.probs for item in items] if probs else None)


def _answers(
    facts: ModelFacts, labels: list[str], scores: list[float], probs: Sequence[Sequence[float]] | None
) -> Answers:
    values = None if probs is None else np.array(probs, np.float64).reshape(len(scores), -1)
    return Answers(facts.labels, facts.labels.ids_of(labels), np.array(scores, np.float64), values)


def _compare_model(answer: Answer, model: str) -> None:
    if not _is_of(answer, model):
        raise OtherModel(f"the model is called {shorten(answer.model)!r} where it was {shorten(model)!r}")


def _is_of(answer: Any, model: str) -> bool:
    return not (answer.model and model) or answer.model == model


def _decode_known(body: bytes, texts: int, facts: ModelFacts, model: str, *, probs: bool) -> Answers | None:
    """The quick way: an answer in order that agrees with all that is known already. None: the long way has the word.

    A label must be the known name of a class with the largest value, so nothing is learned here, and nothing is open.
    """
    if not facts.names or not 0 < facts.num_classes <= MOST_CLASSES_AT_ONCE:
        return None
    try:
        answer = facts.decoder(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if [item.index for item in answer.data] != list(range(texts)) or not _is_of(answer, model):
        return None
    labels, values = [item.label for item in answer.data], [item.probs for item in answer.data]
    scores, class_of = list(map(max, values)), {name: index for index, name in facts.names.items()}
    if len(class_of) < len(facts.names) or scores != list(map(getitem, values, map(class_of.__getitem__, labels))):
        return None
    facts.model = answer.model
    return _answers(facts, labels, scores, values if probs else None)


def _name(item: Item, index: int, names: dict[int, str | None], tied: list[Item]) -> None:
    """Learn the name of class `index`, or refuse a label that can't be the one of the largest value."""
    label = item.label
    if label is not None and len(label) > LONGEST_LABEL:
        raise BadAnswer(f"a label of {len(label)} characters")
    if item.probs.count(item.probs[index]) > 1:  # any of these classes may give its name, so nothing is learned
        tied.append(item)
    elif index in names or (label is not None and label in names.values()):
        raise BadAnswer(f"the label {shorten(str(label))!r} is not that of the largest value")
    else:
        names[index] = label


def _compare(facts: ModelFacts, classes: int, names: Mapping[int, str | None], tied: Sequence[Item]) -> None:
    """The answer against all that is known of the model, itself included."""
    if facts.num_classes and classes != facts.num_classes:
        raise OtherModel(f"{classes} classes where the model had {facts.num_classes}")
    for index, name in names.items():
        known = facts.names.get(index, name)
        if name != known and not (name is None and index in facts.given):
            raise OtherModel(f"class {index} is named {shorten(str(name))!r} where it was {shorten(str(known))!r}")
        if any(name == other and index != place for place, other in facts.names.items()):
            raise OtherModel(f"two classes are named {shorten(str(name))!r}")
    known_names = {**facts.names, **names}
    for item in tied:
        best = max(item.probs)
        places = [place for place, value in enumerate(item.probs) if value == best]
        of_another = any(item.label == name and place not in places for place, name in known_names.items())
        if of_another or all(known_names.get(place, item.label) != item.label for place in places):
            raise BadAnswer(f"the label {shorten(str(item.label))!r} is not that of the largest value")


def decode_models(body: bytes) -> list[ModelEntry]:
    """The models of a `/v1/models` answer; none if it is no such answer (gateways need not have it)."""
    try:
        return _decode_models(body).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
