"""What is made of scores: labels that are not sure, several labels a text, and the best classes of each.

`writer.min_score` and `writer.multi_label` are thresholds, `writer.top_k` a number of classes. Equal is enough: a value
is compared as it stands in the output, as a double. Where two values are equal, the class that comes first in class
order is named first. None of this changes an answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.answers import Answers, Floats, Labels
from pipeline.config import Config, Writer
from pipeline.errors import ConfigError
from pipeline.texts import bitmap, string_array

DEFAULT = "default"  # the key of a table of thresholds that stands for all labels it does not name
COMPETE = "the values of a text sum to 1: these classes compete, and no two can be over 0.5"
SEVERAL = 'of a model with several labels a text, request.activation = "sigmoid" asks for values that do not compete'
SUM_ERROR = 0.01  # the values of one text sum to 1 within this: servers round
MOST_NAMED = 20  # classes, in a message
LABELS, TOP = (
    pa.list_(pa.string()),
    pa.list_(pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float64())])),
)


class Thresholds:
    """What the config makes of the scores of an output.

    Args:
        writer: the settings.
        names: of all classes, in class order; needed for `multi_label` and `top_k` as soon as there is a label.
    """

    def __init__(self, writer: Writer, names: Sequence[str] = ()) -> None:
        self._min_score, self._unsure_label, self._top_k = writer.min_score, writer.unsure_label, writer.top_k
        self._thresholds = np.array([_threshold(writer.multi_label, name, np.inf) for name in names], np.float64)
        self._names = string_array(names)
        # The vocabulary of an output with a label of its own for what is not sure, which is the first.
        self._labels = None if writer.unsure_label is None else Labels([writer.unsure_label])

    def names_with(self, known: Labels) -> list[str]:
        """Return the names of the labels of an output by label id, of which `known` are those of its answers so far.

        Raises:
            ConfigError: `writer.unsure_label` is one of them.
        """
        if self._labels is None:
            return known.names
        self._see_no_class(known)
        for name in known.names:
            self._labels.id_of(name)
        return self._labels.names

    def applied(self, answers: Answers) -> Answers:
        """Return answers that say which labels are not sure, and have `writer.unsure_label` in their place.

        Raises:
            ConfigError: `writer.unsure_label` is the label of a class.
        """
        if self._min_score is None:
            return answers
        least = [*(_threshold(self._min_score, name, -np.inf) for name in answers.labels.names), np.nan]
        unsure = answers.scores < np.array(least, np.float64)[answers.ids]  # NO_LABEL takes the last
        labels, ids = answers.labels, answers.ids
        if self._labels is not None:
            self._see_no_class(labels)
            labels, ids = self._labels, np.where(unsure, np.int32(0), answers.ids_in(self._labels))
        return Answers(
            *(labels, ids, answers.scores, answers.probs),
            errors=answers.errors,
            truncated=answers.truncated,
            parts=answers.parts,
            unsure=unsure,
        )

    def _see_no_class(self, known: Labels) -> None:
        if self._unsure_label in known.ids:
            raise ConfigError(
                f"writer.unsure_label is {self._unsure_label!r}, and so is a class of the model; choose another text"
            )

    def reached(self, answers: Answers) -> pa.Array:
        """Return, of each row, the classes whose value is at least their threshold, the highest first."""
        probs = answers.probs_or_nan(len(self._thresholds))
        rows, classes = np.nonzero(probs >= self._thresholds)  # in class order; never where there is no label
        order = np.lexsort((classes, -probs[rows, classes], rows))
        counts = np.bincount(rows, minlength=len(answers))
        return _lists(answers, counts, self._named(classes[order]), LABELS)

    def best(self, answers: Answers) -> pa.Array:
        """Return, of each row, the `top_k` classes with the largest values, as label and score."""
        probs = answers.probs_or_nan(len(self._thresholds))[answers.has_label]
        order = np.argsort(-probs, axis=1, kind="stable")[:, : self._top_k]
        values = np.take_along_axis(probs, order, axis=1)
        scores = pa.Array.from_buffers(pa.float64(), values.size, [None, pa.py_buffer(np.ascontiguousarray(values))])
        pairs = pa.Array.from_buffers(
            TOP.value_type, values.size, [None], children=[self._named(order.ravel()), scores]
        )
        return _lists(answers, answers.has_label * order.shape[1], pairs, TOP)

    def _named(self, classes: Any) -> pa.Array:
        indices = pa.py_buffer(classes.astype(np.int32))
        return self._names.take(pa.Array.from_buffers(pa.int32(), len(classes), [None, indices]))


def _threshold(thresholds: float | Mapping[str, float] | None, name: str, otherwise: float) -> float:
    if isinstance(thresholds, Mapping):
        return thresholds.get(name, thresholds.get(DEFAULT, otherwise))
    return otherwise if thresholds is None else thresholds


def _lists(answers: Answers, counts: Any, values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return lists of so many values of each row, null where there is no label."""
    offsets = pa.py_buffer(np.cumsum([0, *counts], dtype=np.int32))
    return pa.Array.from_buffers(kind, len(answers), [bitmap(answers.has_label), offsets], children=[values])


def class_names(writer: Writer, model: Mapping[str, Any]) -> list[str]:
    """Return the names of all classes in class order, as far as config and `model`, an identity, say them all.

    Raises:
        ConfigError: they contradict each other.
    """
    known = {int(index): name for index, name in (model.get("model.names") or {}).items()}
    given, count = writer.class_names, model.get("model.num_classes") or 0
    if given is None:
        return [known[index] for index in range(count)] if count and {*range(count)} <= {*known} else []
    if count and len(given) != count:
        raise ConfigError(f"writer.labels names {len(given)} classes where the model has {count}")
    if any(given[index] != name for index, name in known.items()):
        raise ConfigError(f"writer.labels says {given}, the model's answers say {known}; mend writer.labels")
    return given


def see_thresholds(config: Config, model: Mapping[str, Any]) -> None:
    """See that thresholds can be had from a model; `model` is its part of an identity, with nothing if it is not known.

    Raises:
        ConfigError: a name is no class, the names are not known and are needed, or a threshold is out of range.
    """
    writer = config.writer
    if "model.num_classes" not in model:
        return
    names = class_names(writer, model)
    seen = names or [*(model.get("model.names") or {}).values()]
    needs_names = next((key for key in ("multi_label", "top_k") if getattr(writer, key) is not None), None)
    if needs_names and not names:
        raise ConfigError(f"writer.{needs_names} needs the names of all classes; {_how_to_name(model, seen)}")
    if writer.unsure_label in seen:
        raise ConfigError(f"writer.unsure_label is {writer.unsure_label!r}, which is a class; choose another text")
    for key, thresholds in (("min_score", writer.min_score), ("multi_label", writer.multi_label)):
        by_name = thresholds if isinstance(thresholds, dict) else {DEFAULT: thresholds or 0.0}
        if unknown := next((name for name in by_name if name not in (DEFAULT, *seen)), None):
            advice = _which_there_are(unknown, names) if names else _how_to_name(model, seen)
            raise ConfigError(f"writer.{key} names {unknown!r}; {advice}")
        if gives_shares(config, model) and (wrong := [each for each in by_name.values() if not 0 <= each <= 1]):
            raise ConfigError(f"writer.{key} is {wrong[0]:g}, and the values of this model are from 0 to 1")
    _see_all_named(writer, names)


def _see_all_named(writer: Writer, names: Sequence[str]) -> None:
    by_name = writer.multi_label
    if isinstance(by_name, dict) and DEFAULT not in by_name and {*names} > {*by_name}:
        missing = _in_words([name for name in names if name not in by_name])
        raise ConfigError(f"writer.multi_label has no threshold for {missing}; name them, or {DEFAULT} for all others")


def _which_there_are(unknown: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(unknown, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {_in_words(names)}"
    return f"the model has no such class; {hint}"


def _how_to_name(model: Mapping[str, Any], seen: Sequence[str]) -> str:
    """Say that a server has not told all names, and what to type."""
    count = model["model.num_classes"]
    example = msgspec.json.encode([*seen[:1], "..."]).decode()
    told = f"the server has told {len(seen)} of {count} so far" if count else "the server has not told them"
    return (
        f"{told} ({_in_words(seen) or 'none'}): give all, in class order, with --set writer.labels='{example}', "
        f"or the path of the model's config.json with --set writer.labels=PATH"
    )


def _in_words(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more


def gives_shares(config: Config, model: Mapping[str, Any]) -> bool:
    """Return whether the values of a model are from 0 to 1, as far as the canary tells."""
    values = _canary(model)
    if config.request.activation is True:
        return bool(values.size and values.min() >= 0 and values.max() <= 1)
    return config.request.activation is not False


def classes_compete(config: Config, model: Mapping[str, Any]) -> bool | None:
    """Return whether the values of a text sum to 1, so that at most one is over 0.5; None if that is not known."""
    values = _canary(model)
    if values.ndim < 2 or values.shape[1] < 2 or not gives_shares(config, model):  # noqa: PLR2004 - classes
        return None
    if config.request.activation is not True:
        return config.request.activation == "softmax"
    return bool((abs(values.sum(axis=1) - 1) < SUM_ERROR).all())


def _canary(model: Mapping[str, Any]) -> Floats:
    return np.array(model.get("model.canary") or [], np.float64)
