"""Files of `run.reuse` with answers to numbered texts, each of which tells its number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from answers import answers_of, labels_of
from identities import identity

from pipeline.answers import Answers, Labels
from pipeline.checkpoint import Identity
from pipeline.reuse import Reuse
from pipeline.texts import escape_all

TEXTS = [f"text {number}" for number in range(20_000)]


NAMES = {0: "no", 1: "yes"}


GB = 10**9


def answer(number: int) -> list[float]:
    """Two values that tell which number they are of."""
    share = (number % 1000 + 1) / 2048
    return [share, 1 - share] if number % 2 else [1 - share, share]


def answers(numbers: list[int]) -> Answers:
    """Sound answers, each with the values of its number."""
    probs = [answer(number) for number in numbers]
    return answers_of([NAMES[row.index(max(row))] for row in probs], [max(row) for row in probs], list(probs))


@contextmanager
def opened(
    path: Path, whose: Identity | None = None, *, keep_probs: bool = False, max_bytes: int = GB, classes: int = 2
) -> Iterator[Reuse]:
    """The file in one run, bound to a model and its settings."""
    with closing(Reuse(path, max_bytes=max_bytes)) as store:
        store.bind(whose or identity(), classes, keep_probs=keep_probs)
        yield store


def remember(store: Reuse, texts: list[str], numbers: list[int] | None = None) -> None:
    """Keep an answer to each text: that of its number."""
    keys = store.find(escape_all(texts)).keys
    store.remember(keys, answers(list(range(len(texts))) if numbers is None else numbers), NAMES)


def found(store: Reuse, texts: list[str], names: dict[int, str] | None = None) -> list[tuple[Any, ...] | None]:
    """Label, score and probabilities of each text, None if nothing is known."""
    known = store.find(escape_all(texts))
    labels = labels_of(known.answers(NAMES if names is None else names, Labels()))
    return [
        None
        if label is None
        else (label, float(known.scores[row]), None if known.probs is None else known.probs[row].tolist())
        for row, label in enumerate(labels)
    ]


def said(number: int) -> tuple[str, float, list[float]]:
    """What an answer says."""
    probs = answer(number)
    return NAMES[probs.index(max(probs))], max(probs), probs
