"""What most servers answer: pairs of label and score, or values in class order. Checked, and made into `Answers`.

Pairs say nothing of which class is which index: servers sort them by score. The order is, if the server announces none,
that of the config; else by the number in names like `LABEL_2`; else by code point. All names are then known from the
first answer on, so each further row must have exactly these.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from pipeline.answers import Answers, Floats
from pipeline.config import Request
from pipeline.errors import BadAnswer, Misconfigured, OtherModel, RequestFailed
from pipeline.servers.model import ModelFacts, Probe, Replies, Served, TakesPairs
from pipeline.servers.refusal import error_of, shorten
from pipeline.texts import Texts

JSON = {"Content-Type": "application/json"}
GZIP = b"\x1f\x8b"  # its first bytes
# The most bytes of an answer while nothing is known of the model; then per request, per text, and per text and class.
FIRST_ANSWER_BYTES = 64 << 20
ANSWER_BYTES, TEXT_BYTES, PAIR_BYTES = 64 << 10, 2 << 10, 80
CHARACTER_BYTES = 6  # of a label, escaped
LONGEST_LABEL = 1_000  # characters
ROUNDING = 0.05  # values of a text may sum to so much more or less than 1: float16, or four digits of each
EXACT = 1e-4  # where the values of all canary texts do so, it is a softmax: independent ones would by chance alone
ENOUGH = 4  # texts
NUMBERED = re.compile(r"LABEL_(\d+)\Z", re.ASCII)
NO_SCORES = "answers with labels or class numbers alone, without scores"

Decoded = TypeVar("Decoded")
encode_json = msgspec.json.Encoder().encode


class Pair(msgspec.Struct, gc=False):
    """One class of one text."""

    label: str
    score: float


class PlainDialect:
    """What dialects have in common: JSON over HTTP, texts in a list, no key in the body."""

    headers: Mapping[str, str] = JSON
    other_paths: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    pairs: TakesPairs = "never"

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask nothing."""
        return ()

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Announce nothing."""
        return Served()

    def largest_answer(self, texts: int, facts: ModelFacts) -> int:
        """Return how many bytes an honest answer has at most; it grows with the classes, once they are known."""
        if not facts.num_classes:
            return FIRST_ANSWER_BYTES
        names = CHARACTER_BYTES * sum(map(len, facts.names.values()))
        return ANSWER_BYTES + texts * (TEXT_BYTES + PAIR_BYTES * facts.num_classes + names)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Mean by a status what most servers mean by it."""
        return error_of(status, headers, body, key_variable)

    def cannot(self, request: Request, canary: Answers) -> str | None:
        """Return that the server ignores what it does not know, if its values are probabilities, not logits."""
        if request.activation is True or not are_probabilities(canary):
            return None
        return "gives probabilities where logits were asked for; leave request.activation = true"


def are_probabilities(canary: Answers) -> bool:
    """Return whether values of more than one class are positive and sum to 1, as logits hardly do."""
    rows = canary.probs_or_nan(1)
    return bool(rows.shape[1] > 1 and (rows >= 0).all() and (abs(rows.sum(axis=1) - 1) < 1e-3).all())  # noqa: PLR2004


def body_of(field: str, texts: bytes | memoryview, others: Mapping[str, Any]) -> bytes:
    """Return a JSON object with `others`, and the texts as the one piece of JSON that they are, in the list `field`."""
    head = encode_json({name: value for name, value in others.items() if name != field})[:-1]
    return b"".join([head, b"," if len(head) > 1 else b"", encode_json(field), b":[", texts, b"]}"])


def other_name(called: str, known: str) -> OtherModel | None:
    """Return the error that an answer is of another model, by what it calls the model; None if it is not."""
    if not (called and known and called != known):
        return None
    return OtherModel(f"the model is called {shorten(called)!r} where it was {shorten(known)!r}")


def read(decode: Callable[[bytes], Decoded], body: bytes) -> Decoded:
    """Decode the body of an answer.

    Raises:
        BadAnswer: it has another form.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if body.startswith(GZIP):
        raise BadAnswer("the answer is compressed, which was not asked for; correct the proxy before the server")
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"the answer is not that of a classifier: {shorten(str(error))}") from None


def of_pairs(rows: Sequence[Sequence[Pair]], texts: int, facts: ModelFacts, *, probs: bool) -> Answers:
    """Check the pairs of each text, and bring their scores into class order."""
    _check_count(rows, texts)
    first = [pair.label for pair in rows[0]]
    _check_labels(first)
    names = _known_names(facts) or _in_order(first, facts)
    index_of = {name: index for index, name in enumerate(names)}
    classes = [index_of.get(pair.label, -1) for row in rows for pair in row]
    counts = np.array([*map(len, rows)])
    values = np.full((texts, len(names)), np.nan)
    if -1 not in classes and (counts == len(names)).all():
        values[np.repeat(np.arange(texts), counts), classes] = [pair.score for row in rows for pair in row]
    if np.isnan(values).any():  # a class that is there twice leaves out another
        other = {frozenset(pair.label for pair in row) for row in rows}
        if len(other) == 1 and (counts == len(*other)).all():
            found, known = (shorten(", ".join(sorted(some))) for some in (*other, names))
            raise OtherModel(f"the classes are {found} where they were {known}")
        raise BadAnswer("a class is missing, or is there twice, in the answer to one text")
    return _checked(values, names, facts, probs=probs)


def of_best(rows: Sequence[Pair], texts: int, facts: ModelFacts) -> Answers:
    """Take the best class of each text, where a server gives no other: the classes and their order stay unknown."""
    _check_count(rows, texts)
    labels, scores = [pair.label for pair in rows], np.array([pair.score for pair in rows])
    _check_labels(list(dict.fromkeys(labels)))
    if not np.isfinite(scores).all():
        raise BadAnswer("a score is no finite number")
    if facts.gives == "all" or (texts > 1 and len({*labels}) == texts and abs(scores.sum() - 1) < EXACT):
        raise BadAnswer("the answer to several texts is that to one, or has only the best class of each")
    facts.gives = "best"
    known = facts.preferred or [*facts.given.values()]
    if known and not {*labels} <= {*known}:
        raise OtherModel(f"a label is {shorten(next(label for label in labels if label not in known))!r}")
    facts.order, facts.num_classes = ("config" if known else "name"), len(known)
    facts.names.update(enumerate(known))
    return Answers(facts.labels, facts.labels.ids_of(labels), scores)


def of_values(rows: Sequence[Sequence[float]] | Floats, texts: int, facts: ModelFacts, *, probs: bool) -> Answers:
    """Check values that are in class order; a class without a name is called `LABEL_` and its index."""
    _check_count(rows, texts)
    try:
        values = np.asarray(rows, np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.empty(0)
    if values.ndim != 2 or not values.shape[1]:  # noqa: PLR2004
        raise BadAnswer("the texts have different numbers of values, or none")
    count = values.shape[1]
    if facts.num_classes and count != facts.num_classes:
        raise OtherModel(f"{count} classes where the model had {facts.num_classes}")
    if facts.names and len(facts.names) != count:
        raise BadAnswer(f"{count} values where {len(facts.names)} classes are named")
    if not facts.names and len(facts.preferred) == count:
        facts.names.update(enumerate(facts.preferred))
        facts.order = "config"
    names = [facts.names.get(index, f"LABEL_{index}") for index in range(count)]
    return _checked(values, names, facts, probs=probs, learn=bool(facts.names))


def of_items(items: Any, texts: int, facts: ModelFacts, *, probs: bool) -> Answers:
    """Take what people write by hand, one item a text.

    An item may be a list of pairs of label and score, one such pair, {label: score}, or a list of numbers; an object
    whose keys are 0, 1, 2 ... has its values in class order.
    """
    if not isinstance(items, list):
        raise BadAnswer("the answer is no list with an item for each text")
    _check_count(items, texts)
    try:
        if all(isinstance(item, list) and item and isinstance(item[0], dict) for item in items):
            return of_pairs(msgspec.convert(items, list[list[Pair]]), texts, facts, probs=probs)
        if all(isinstance(item, dict) and "label" in item and "score" in item for item in items):
            return of_best(msgspec.convert(items, list[Pair]), texts, facts)
        if all(isinstance(item, list) for item in items):
            return of_values(msgspec.convert(items, list[list[float]]), texts, facts, probs=probs)
        if all(isinstance(item, dict) for item in items):
            return of_named(msgspec.convert(items, list[dict[str, float]]), texts, facts, probs=probs)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"the answer is not that of a classifier: {shorten(str(error))}") from None
    if all(isinstance(item, (str, int)) for item in items):
        raise BadAnswer(f"the server {NO_SCORES}")
    raise BadAnswer("the items of the answer are of different kinds")


def of_named(items: Sequence[Mapping[str, float]], texts: int, facts: ModelFacts, *, probs: bool) -> Answers:
    """Take {label: score} of each text, or {class index: score}."""
    numbers = [str(index) for index in range(len(items[0]))] if items else []
    if all(sorted(item, key=_number_in) == numbers for item in items):
        return of_values([[item[key] for key in numbers] for item in items], texts, facts, probs=probs)
    return of_pairs([[Pair(*pair) for pair in item.items()] for item in items], texts, facts, probs=probs)


def _number_in(key: str) -> int:
    return int(key) if key.isdecimal() else -1


def _check_count(rows: Sequence[Any] | Floats, texts: int) -> None:
    if len(rows) != texts:
        raise BadAnswer(f"{len(rows)} answers to {texts} texts")


def _check_labels(names: Sequence[str]) -> None:
    if not names:
        raise BadAnswer("no class in the answer to a text")
    if (longest := max(map(len, names))) > LONGEST_LABEL:
        raise BadAnswer(f"a label of {longest} characters")
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise BadAnswer(f"two classes are named {shorten(double)!r}, so they can't be told apart")


def _known_names(facts: ModelFacts) -> list[str]:
    return [facts.names[index] for index in sorted(facts.names)]


def _in_order(found: Sequence[str], facts: ModelFacts) -> list[str]:
    """Return the names of a model in the order that will be theirs from now on."""
    if set(facts.preferred) == set(found):
        facts.order = "config"
        return list(facts.preferred)
    facts.order = "name"
    numbers = [int(number[1]) for name in found if (number := NUMBERED.match(name))]
    if len(numbers) == len(found):
        return [name for _, name in sorted(zip(numbers, found, strict=True))]
    return sorted(found)


def _checked(values: Floats, names: Sequence[str], facts: ModelFacts, *, probs: bool, learn: bool = True) -> Answers:
    """Check numbers against each other and against the model, learn from them, and make the answers."""
    if not np.isfinite(values).all():
        raise BadAnswer("a value is no finite number")
    if facts.gives == "best":
        raise BadAnswer("all classes where only the best of each text was given before")
    facts.gives = "all"
    error = abs(values.sum(axis=1) - 1).max()
    if facts.sums_to_one and error > ROUNDING:
        raise BadAnswer("the values of a text do not sum to 1, as those of all others do")
    if not facts.num_classes:
        is_softmax = bool(len(values) >= ENOUGH and error < EXACT and (values >= 0).all())
        facts.num_classes, facts.sums_to_one = len(names), is_softmax
    if learn:
        facts.names.update(enumerate(names))
    best = values.argmax(axis=1)
    ids = facts.labels.ids_of([names[index] for index in best.tolist()])
    return Answers(facts.labels, ids, values[np.arange(len(best)), best], values if probs else None)


def texts_in_lists(texts: Texts) -> bytes:
    """Return the texts, escaped, each in a list of its own, or pairs as they are, with commas between the lists."""
    if texts.are_pairs:
        return bytes(texts.data[:-1])
    return b'["' + b'"],["'.join(texts.views()) + b'"]'
