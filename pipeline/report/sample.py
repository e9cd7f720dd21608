"""A sample of the rows of an output for a person to label, and what the output says of one that is filled in.

The output is read twice: rows are counted by stratum, then those that were drawn are taken. Each row has a key, which
says of which output, which file, which row, and what stood there, so that a truth never gets to another row.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import InputError
from pipeline.report.counts import Block, Values, cell_of, label_name, unsure_in_words
from pipeline.report.estimates import Ids, Judged, estimate
from pipeline.report.strata import BANDS, Strata, bands_of, strata_of
from pipeline.scores import Floats
from pipeline.streams import storable

LONGEST_TEXT = 32_000  # characters; a cell of a spreadsheet holds 32,767
COMPARED = 1000  # characters of a text that is still the one of its row
TOO_SHORT = 20  # characters: a spreadsheet may make something else of a date or a number
SHOWN = 10  # rows of a value that is no label, in a message
SHORT_NAME = 3  # characters
ALIKE = 0.75  # from this ratio of equal characters on a value may be a typo
KEY = re.compile(r"r(\d+)-(\d+)-([0-9a-f]{8})-([0-9a-f]{8})(?:-(\d+))?")


class Row(NamedTuple):
    """One row of a sample."""

    key: str
    row: int  # from 1 on, in its file
    file: str  # "" if there is only one
    text: str
    label: str
    score: float | None
    stratum: str
    weight: float  # rows of the output that it stands for
    truth: str | None = None  # what a person has filled in


def key_of(digest: str, number: int, row: int, block: Block, at: int) -> str:
    """Return the key of a row: the number of its file, its own, and eight digits each of the output and of the row.

    In a sample the number of its rows follows: it says which strata they were drawn from.
    """
    content = "\0".join((cell_of(block.labels, at) or "", repr(float(block.scores[at])), text_of(block, at)))
    return f"r{number}-{row}-{_eight_digits(digest)}-{_eight_digits(content)}"


def text_of(block: Block, at: int) -> str:
    """Return the text of a row as a person gets to see it."""
    text = storable(("" if block.text is None else cell_of(block.text, at)) or "").replace("\0", " ")
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


class Population:
    """The rows of an output that a sample can stand for, those with a label of the model, by label and band."""

    def __init__(self) -> None:
        self._values = Values({})
        self._cells = np.zeros((64, BANDS), np.int64)
        self.is_score = True  # and no raw logit: those have no bands
        self.unsure = 0  # rows that have `writer.unsure_label` in the place of a label that is gone: left out

    @property
    def ids(self) -> dict[str, int]:
        """The number of each label."""
        return self._values.ids

    @property
    def cells(self) -> Ids:
        """Rows by label and band; raw logits have one band."""
        return self._cells if self.is_score else np.asarray(self._cells.sum(1, keepdims=True))

    def count(self, block: Block) -> tuple[Ids, Ids]:
        """Count the rows of a block; return their `cells_of`."""
        labels, bands = self.cells_of(block)
        if self.ids and (need := max(self.ids.values()) + 1) > len(self._cells):
            wider = np.zeros((max(need, 2 * len(self._cells)), BANDS), np.int64)
            wider[: len(self._cells)] = self._cells
            self._cells = wider
        np.add.at(self._cells, (labels[labels >= 0], bands[labels >= 0]), 1)
        self.is_score &= are_scores(block.scores[labels >= 0])
        self.unsure += 0 if block.unjudged is None else int(np.count_nonzero(block.unjudged))
        return labels, bands

    def cells_of(self, block: Block) -> tuple[Ids, Ids]:
        """Return the label of each row, -1 where it has none, and its band."""
        labels = self._values.of_labels(block.labels)
        return labels if block.unjudged is None else np.where(block.unjudged, -1, labels), bands_of(block.scores)

    def strata(self, rows: int) -> Strata:
        """Return the strata for a sample of so many rows."""
        cells, names = self.cells, {number: name for name, number in self.ids.items()}
        return strata_of(cells, [names.get(number, "") for number in range(len(cells))], rows)


class Draw:
    """Draws a sample: `count` all blocks, `draw`, then `take` all blocks again. The same seed gives the same rows."""

    def __init__(self) -> None:
        self.population = Population()

    def count(self, block: Block) -> None:
        """Count the rows of a block by label and band."""
        self.population.count(block)

    def draw(self, rows: int, seed: int) -> int:
        """Choose so many rows, or all if there are not so many; return how many rows have a label of the model."""
        self._strata = self.population.strata(rows)
        self._chance = np.random.default_rng(seed)
        self._places = [
            np.sort(self._chance.choice(int(size), int(taken), replace=False))
            for size, taken in zip(self._strata.rows, self._strata.taken, strict=True)
        ]
        self._passed = np.zeros(len(self._places), np.int64)
        self._rows: list[Row] = []
        return int(self.population.cells.sum())

    def take(self, block: Block, number: int, digest: str) -> None:
        """Take the rows of a block that were chosen; `number` is that of its file, `digest` that of all of them."""
        labels, bands = self.population.cells_of(block)
        strata = np.where(labels >= 0, self._strata.of[labels, bands if self.population.is_score else 0], -1)
        before, self._passed = (
            self._passed,
            self._passed + np.bincount(strata[strata >= 0], minlength=len(self._passed)),
        )
        for stratum in np.flatnonzero(self._passed > before).tolist():
            start, stop = np.searchsorted(self._places[stratum], (before[stratum], self._passed[stratum]))
            if start == stop:
                continue
            rows = np.flatnonzero(strata == stratum)[self._places[stratum][start:stop] - before[stratum]]
            self._rows += [self._row(block, at, stratum, number, digest) for at in rows.tolist()]

    def rows(self) -> list[Row]:
        """Return the rows in an order by chance: who labels only the first of them has a sample, too."""
        self._rows.sort(key=lambda row: (row.file, row.row))
        return [self._rows[at] for at in self._chance.permutation(len(self._rows)).tolist()]

    def _row(self, block: Block, at: int, stratum: int, number: int, digest: str) -> Row:
        row, score = block.first_row + at, float(block.scores[at])
        return Row(
            key=f"{key_of(digest, number, row, block, at)}-{int(self._strata.taken.sum())}",
            row=row,
            file=block.file,
            text=text_of(block, at),
            label=cell_of(block.labels, at) or "",
            score=None if np.isnan(score) else score,
            stratum=self._strata.names[stratum],
            weight=float(self._strata.rows[stratum] / self._strata.taken[stratum]),
        )


def are_scores(scores: Floats) -> bool:
    """Return whether these are probabilities, and not raw logits or missing."""
    return bool(((scores >= 0) & (scores <= 1)).all())


class _Found(NamedTuple):
    """A row of the output that a person has judged."""

    label: str
    truth: str
    line: int  # of the label in the cells of the output
    band: int
    file: str  # "" if there is only one
    row: int


class Filled:
    """A sample that a person has filled in: give it all blocks of the output that it is of, then `estimate`.

    `path` is what messages call it.
    """

    def __init__(self, path: str, rows: Sequence[Row], digest: str) -> None:
        """See that it is a sample of the output with this digest.

        Raises:
            InputError: it is one of another output, nothing is filled in, or a row is there twice.
        """
        self._path, self._digest, self._rows = path, digest, dict[tuple[int, int], Row]()
        self._drawn = 0  # rows of the sample when it was drawn, if the keys say it
        self._places: dict[int, list[int]] = {}  # rows of the sample, by the number of their file
        for row in rows:
            found = KEY.fullmatch(row.key)
            if found is None:
                raise InputError(f"{path}: {row.key!r} is no key of a sample; leave the keys as they were written")
            if found[3] != _eight_digits(digest):
                raise InputError(f"{path}: is a sample of another output, or of what this one was; draw a new one")
            place = int(found[1]), int(found[2])
            if self._rows and int(found[5] or 0) != self._drawn:
                raise InputError(f"{path}: has rows of two samples; give one of them")
            self._drawn = int(found[5] or 0)
            if place in self._rows:
                raise InputError(f"{path}: row {place[1]} is there twice; leave one of them")
            self._rows[place] = row._replace(key=row.key.removesuffix(f"-{found[5]}") if found[5] else row.key)
            self._places.setdefault(place[0], []).append(place[1])
        if not any(row.truth for row in rows):
            raise InputError(f"{path}: no row has a label yet; fill in human_label")
        for places in self._places.values():
            places.sort()
        self._population = Population()
        self._seen = self._unsure = 0
        self._found: list[_Found] = []

    def add(self, block: Block, number: int) -> None:
        """Look up the rows of the sample that are in a block of the file with this number.

        Raises:
            InputError: another text, label or score stands there now.
        """
        labels, bands = self._population.count(block)
        places = self._places.get(number, [])
        first, last = (bisect_left(places, block.first_row + rows) for rows in (0, len(block.scores)))
        for place in places[first:last]:
            row, at = self._rows[number, place], place - block.first_row
            if key_of(self._digest, number, place, block, at) != row.key:
                raise InputError(f"{self._path}: row {place} of the output has changed since; draw a new sample")
            text = _start(text_of(block, at))
            if len(text) > TOO_SHORT and _start(row.text) != text:
                raise InputError(
                    f"{self._path}: the text beside {row.key} is not that of row {place}; was one column sorted alone?"
                )
            if labels[at] < 0:
                self._unsure += 1
            elif row.truth:
                label = label_name(storable(cell_of(block.labels, at) or ""))
                self._found.append(_Found(label, row.truth, int(labels[at]), int(bands[at]), block.file, place))
        self._seen += last - first

    def estimate(self, known: Collection[str], named: Collection[str] = (), *, is_complete: bool) -> dict[str, Any]:
        """Return what the sample says of the whole output.

        Args:
            known: labels of its model.
            named: what a person says are labels of it; believed where the model has more than the known ones.
            is_complete: whether the model has none but the known labels.

        Raises:
            InputError: a row of the sample is not in the output, or has a truth that is no label.
        """
        if self._seen < len(self._rows):
            raise InputError(f"{self._path}: has rows that the output has not; draw a new sample")
        if not self._found:
            raise InputError(f"{self._path}: no row that is filled in has a label of the model; draw a new sample")
        notes = self._check_truths(known, named, is_complete=is_complete)
        cells, lines = self._population.cells, dict(self._population.ids)
        labels = np.array([each.line for each in self._found])
        truths = np.array([self._line_of(each, lines, len(cells)) for each in self._found])
        bands = np.array([each.band if self._population.is_score else 0 for each in self._found])
        whole = np.zeros((max(len(cells), *lines.values()) + 1, cells.shape[1]), np.int64)
        whole[: len(cells)] = cells
        names = {number: name for name, number in lines.items()}
        judged = Judged(labels, truths, bands, self._weights(labels, bands))
        found = estimate(whole, judged, [names.get(number, "") for number in range(len(whole))])
        rows = len(self._rows) - self._unsure
        numbers = {"rows": rows, "judged": len(labels), "not_filled_in": rows - len(labels)}
        unsure = self._population.unsure
        if unsure:
            notes.append(unsure_in_words(unsure))
        return {"file": self._path, **numbers, "labelled": int(cells.sum()), "notes": notes, **found}

    def _check_truths(self, known: Collection[str], named: Collection[str], *, is_complete: bool) -> list[str]:
        """See that truths are labels, or may be; return sentences about those that no row of the output has.

        Raises:
            InputError: some are none, or look like typos; all of them are named.
        """
        labels = {*self._population.ids, *known, *(() if is_complete else named)}
        rows: dict[str, list[str]] = {}
        for at, each in enumerate(self._found):
            if each.truth not in labels and f"'{each.truth}" in labels:  # the apostrophe was the label's own
                self._found[at] = each._replace(truth=f"'{each.truth}")
            elif each.truth not in labels:
                rows.setdefault(each.truth, []).append(f"{each.row} of {each.file}" if each.file else str(each.row))
        wrong, notes = [], []
        for truth, places in rows.items():
            more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
            where = f"(row {', '.join(places[:SHOWN])}{more})"
            near = get_close_matches(truth, labels, n=1) if is_complete else [*filter(None, [typo_of(truth, labels)])]
            if near or is_complete:
                hint = f", did you mean {near[0]!r}?" if near else ""
                wrong.append(f"{truth!r} is no label of the model{hint} {where}")
            else:
                notes.append(f"{truth!r} {where} is taken for a class that the model never predicted: no row has it")
        if wrong:
            class_of = "" if is_complete else ", and {'NAME' = 'NAME'} that it is a class of its own"
            hint = f"report.truth_map says what it is called by the model{class_of}"
            raise InputError(f"{self._path}: {'; '.join(wrong)}; {hint}")
        if all(each.truth != each.label for each in self._found):
            notes.append(
                "every label that is filled in is another than the predicted one; if right rows were left blank, "
                "fill them in, too: blank ones are not judged"
            )
        return notes

    def _line_of(self, found: _Found, lines: dict[str, int], labels: int) -> int:
        """Return the line of a truth, a new one for one that is no label of any row."""
        if found.truth == found.label:
            return found.line
        # Of labels that are not told apart, another one than that of the row.
        is_another = found.truth not in lines and found.label not in self._population.ids
        return lines.setdefault("(another)" if is_another else found.truth, max(labels, *lines.values()) + 1)

    def _weights(self, labels: Ids, bands: Ids) -> Floats:
        """Return how many rows of the output each judged one stands for.

        They are counted anew: the column `weight` of the file may have been edited, and rows that were not filled in
        make the others of their stratum stand for more.
        """
        strata = self._population.strata(self._drawn or len(self._rows))
        mine = strata.of[labels, bands]
        judged = np.bincount(mine, minlength=len(strata.rows))
        return np.asarray(strata.rows[mine] / judged[mine])


def typo_of(truth: str, labels: Collection[str]) -> str | None:
    """Return the label that a value seems to be a typo of, if any.

    Short names, like codes of languages, and those that differ in numbers alone are close without being typos.
    """
    folded = {label.casefold().strip(): label for label in sorted(labels)}
    name = truth.casefold().strip()
    if name in folded:
        return folded[name]
    if len(name) <= SHORT_NAME:
        return None
    near = get_close_matches(name, folded, n=1, cutoff=ALIKE)
    is_numbered = near and re.sub(r"\d+", "0", near[0]) == re.sub(r"\d+", "0", name)
    return folded[near[0]] if near and not is_numbered else None


def _eight_digits(text: str) -> str:
    return hashlib.sha256(storable(text).encode()).hexdigest()[:8]


def _start(text: str) -> str:
    """Return the beginning of a text, white space as one space: programs that edit tables change it."""
    return " ".join(text.split())[:COMPARED]
