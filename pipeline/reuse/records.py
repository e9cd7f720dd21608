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

from pipeline.answers import NO_LABEL, Answers, Labels
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

    def answers(self, names: Mapping[int, str], labels: Labels) -> Answers:
        """Return the answers, without a label where nothing is known.

        Stored is which class it was, not its name: labels are the `names` that the model gives its classes now.
        """
        id_of = {index: labels.id_of(name) for index, name in names.items()}
        ids = np.array([id_of.get(index, NO_LABEL) for index in self.classes.tolist()], np.int32)
        return Answers(labels, ids, self.scores, self.probs)


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
    keys: Sequence[bytes], answers: Answers, names: Mapping[int, str], num_classes: int
) -> tuple[bytes, Array]:
    """Return sound answers as keys and records: none of a row with an error, of a text that was cut, of an open tie."""
    classes = _classes_of(answers, names)
    classes[list(answers.truncated)] = NO_ANSWER
    kept = np.flatnonzero(classes != NO_ANSWER)
    of_kept = b"".join([keys[row] for row in kept.tolist()])
    records = np.zeros(len(kept), record_type(num_classes))
    records["check"] = halves_of(of_kept)[:, 1]
    records["class"] = classes[kept]
    records["score"] = answers.scores[kept]
    if num_classes and answers.probs is not None:
        records["probs"] = answers.probs[kept]
    return of_kept, records


def _classes_of(answers: Answers, names: Mapping[int, str]) -> Array:
    """Return the class of each label; `NO_ANSWER` if that is open, or there is no label."""
    index_of = {name: index for index, name in names.items()}
    by_id = np.array([*(index_of.get(name, NO_ANSWER) for name in answers.labels.names), NO_ANSWER], np.int32)
    classes = np.asarray(by_id[answers.ids])  # NO_LABEL takes the last
    if answers.probs is not None:
        # A server that names no classes, or a tie: then the label says nothing of the class.
        for row in np.flatnonzero((classes == NO_ANSWER) & answers.has_label).tolist():
            largest = int(answers.probs[row].argmax())
            if answers.labels.names[answers.ids[row]] == f"LABEL_{largest}":
                classes[row] = largest
    return classes
