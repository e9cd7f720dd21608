"""How an answer stands in the file: a key made of the text, and a record of fixed width, the same on every machine.

The key is 128 bits of BLAKE2 over the escaped text, personalised with the context: the answer of another model,
or under other settings, has another key. Its first half is SQLite's row id, the fastest thing it can look for; the
second half stands in the record and is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from pipeline.answers import Predictions
from pipeline.texts import Texts

KEY_BYTES = 16
NO_ANSWER = -1
Array = np.ndarray[Any, np.dtype[Any]]


class Found(NamedTuple):
    """What is known of some texts, column by column."""

    keys: list[bytes]
    classes: Array  # int, NO_ANSWER where nothing is known
    scores: Array
    probs: Array | None  # (texts, num_classes)

    def examples(self) -> list[tuple[int, int]]:
        """Each class that is among the answers, and the position of one of them."""
        classes, positions = np.unique(self.classes, return_index=True)
        pairs = zip(classes.tolist(), positions.tolist(), strict=True)
        return [(index, position) for index, position in pairs if index != NO_ANSWER]

    def labels(self, names: Mapping[int, str]) -> list[str | None]:
        """The labels under the names that the model gives its classes now, None where nothing is known.

        Which class it is was kept, not what it was called.
        """
        return [names.get(index) for index in self.classes.tolist()]


def record_type(num_classes: int) -> np.dtype[Any]:
    """The layout of a record; with 0 classes no probabilities are kept."""
    return np.dtype([("check", "<i8"), ("class", "<i4"), ("score", "<f8"), ("probs", "<f8", (num_classes,))])


def keys_of(texts: Texts, context: bytes) -> list[bytes]:
    """The keys of texts."""
    begun, keys = blake2b(digest_size=KEY_BYTES, person=context), []
    for text in texts.views():
        hashed = begun.copy()
        hashed.update(text)
        keys.append(hashed.digest())
    return keys


def halves_of(keys: bytes) -> Array:
    """Keys, one after the other, as (keys, 2) integers."""
    return np.frombuffer(keys, "<i8").reshape(-1, 2)


def records_of(
    keys: Sequence[bytes], predictions: Predictions, names: Mapping[int, str], num_classes: int
) -> tuple[bytes, Array]:
    """Sound answers as keys and records: none of a row with an error, of a text that was cut, of an open tie."""
    index_of = {name: index for index, name in names.items()}
    classes = [
        NO_ANSWER if probs is None or position in predictions.truncated else _class_of(label, score, probs, index_of)
        for position, (_, label, score, probs) in enumerate(
            zip(keys, predictions.labels, predictions.scores, predictions.probs, strict=True)
        )
    ]
    kept = [position for position, index in enumerate(classes) if index != NO_ANSWER]
    of_kept = b"".join([keys[position] for position in kept])
    records = np.zeros(len(kept), record_type(num_classes))
    records["check"] = halves_of(of_kept)[:, 1]
    records["class"] = [classes[position] for position in kept]
    records["score"] = [predictions.scores[position] for position in kept]
    if num_classes and kept:
        records["probs"] = [predictions.probs[position] for position in kept]
    return of_kept, records


def _class_of(label: str | None, score: float, probs: Sequence[float], index_of: Mapping[str, int]) -> int:
    """Which class the label is of; NO_ANSWER if that is open, or there is no label."""
    if label is None:
        return NO_ANSWER
    index = index_of.get(label)
    if index is not None:
        return index
    index = probs.index(score)
    return index if label == f"LABEL_{index}" else NO_ANSWER  # a server that names no classes; or a tie
