"""Texts that are longer than the model: cut into parts, and the values of the parts combined. No tokenizer.

A text is cut near its middle, its halves again, until all parts are short enough: after the end of a sentence if there
is one near the middle, else after white space, else between two characters. Parts do not overlap, so that each
character counts once; parts of white space alone are not sent. Where a text is cut depends on nothing but the text and
what the server refuses, so a run that was interrupted cuts it as before.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pipeline.answers import Answers
from pipeline.config.sections import SHORTEST_PART
from pipeline.texts import Texts

ENDS = (  # where a text is cut, the best first
    re.compile(r"(?:[.!?…][\"'”’»)\]]*\s|[。！？]|\n)\s*"),  # noqa: RUF001 - of sentences, in Chinese and Japanese, too
    re.compile(r"\s+"),
)
HALF = 0.6  # of what was refused: a text is seldom cut at its very middle
Ask = Callable[[Sequence[str]], Awaitable[Answers]]


class Part(NamedTuple):
    """A part of a text, or all of it, with its answer: one row."""

    text: str
    answer: Answers


def is_too_long(answer: Answers) -> bool:
    """Return whether the server says that a text, of which this is the answer, is longer than the model."""
    return bool(answer.errors) and answer.errors[0].code == "too_long"


def cut(text: str, most: int) -> list[str]:
    """Cut a text into parts of at most `most` characters; joined, they are the text."""
    parts, rest = [], [text]
    while rest:
        part = rest.pop()
        if len(part) <= most:
            parts.append(part)
        else:
            middle = _middle(part)
            rest += [part[middle:], part[:middle]]
    return parts


def _middle(text: str) -> int:
    """Return where a text of two or more characters is cut: in the half of it around its middle."""
    margin = max(1, len(text) // 4)
    first, last = margin, len(text) - margin
    for pattern in ENDS:
        # From the start on: a sentence that ends in that half may have its full stop before it.
        ends = [end for found in pattern.finditer(text, 0, last) if (end := found.end()) >= first]
        if ends:
            return min(ends, key=lambda end: abs(2 * end - len(text)))
    return len(text) // 2


def sent(text: str, most: int) -> list[str]:
    """Cut a text, and leave out the parts of white space."""
    return [part for part in cut(text, most) if not part.isspace()]


def cut_before(texts: Texts, most: int | None) -> dict[int, list[str]]:
    """Cut the texts of more than `most` characters; return their parts by the index of the text."""
    found = {}
    if most is not None:
        chars = np.diff(texts.chars(), prepend=0)  # as they are escaped: no fewer than they have
        for index in np.flatnonzero(chars > most).tolist():
            text = _first(texts, index)
            if len(text) > most:
                found[index] = sent(text, most)
    return found


def _first(texts: Texts, index: int) -> str:
    """Return text `index`, of a pair the first: that is cut, and each part has the whole second one."""
    (text,) = texts[index : index + 1].unescaped()
    return str(text[0] if isinstance(text, list) else text)


def parts_of(texts: Texts, cut: Mapping[int, Sequence[str]], answers: Answers) -> list[list[Part]]:
    """Return the parts of each text, given the answers to all parts in order; of most texts that is one.

    The string of a part is there only where it is of use: of texts that were cut, and of those that are too long.
    """
    parts, start = list[list[Part]](), 0
    for index in range(len(texts)):
        stop = start + len(cut.get(index, "1"))
        rows = [answers[row : row + 1] for row in range(start, stop)]
        strings = cut.get(index) or [_first(texts, index) if is_too_long(rows[0]) else ""]
        parts.append([Part(*each) for each in zip(strings, rows, strict=True)])
        start = stop
    return parts


async def answered(parts: Sequence[Part], ask: Ask) -> list[Part]:
    """Cut the parts that are too long until all parts are answered.

    `ask` answers some texts. Returns the parts in order, up to the first that failed for good.
    """
    done: list[Part] = []
    for part in parts:
        done += await _in_parts(part, ask) if is_too_long(part.answer) else [part]
        if done[-1].answer.errors:
            break
    return done


async def _in_parts(whole: Part, ask: Ask) -> list[Part]:
    """Find a length that the server takes, and ask for all parts of that length at most."""
    first = whole.text
    while (most := int(HALF * len(first))) >= SHORTEST_PART:
        first, *others = sent(whole.text, most)
        begin = Part(first, await ask([first]))
        if not is_too_long(begin.answer):
            if begin.answer.errors or not others:
                return [begin]
            answers = await ask(others)
            rest = [Part(text, answers[row : row + 1]) for row, text in enumerate(others)]
            return await answered([begin, *rest], ask)
    return [whole]


def combined(parts: Sequence[Part], how: Literal["mean", "max"], names: Mapping[int, str]) -> Answers:
    """Return the answer of a text, given those of its parts: one row.

    Args:
        parts: at least one. The error of the first that failed is that of the text.
        how: the mean of the values of each class, weighted by the lengths of the parts, or the largest. Neither is
            normalised: a mean of probabilities sums to 1 as they do, and the largest value is one that the model gave.
        names: of the classes, by index.
    """
    if failed := next((part.answer for part in parts if part.answer.errors), None):
        return failed
    if len(parts) == 1:
        return parts[0].answer
    values = np.concatenate([part.answer.probs_or_nan(1) for part in parts])
    lengths = np.array([len(part.text) for part in parts], np.float64)
    row = values.max(axis=0) if how == "max" else (values * lengths[:, None]).sum(axis=0) / lengths.sum()
    best = int(row.argmax())
    labels = parts[0].answer.labels
    ids = labels.ids_of([names.get(best, f"LABEL_{best}")])
    return Answers(labels, ids, row[best : best + 1], row[None, :], parts={0: len(parts)})
