"""What another model, or another run, has made of the same rows: two outputs read in step, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.report.counts import (
    MISTAKES,
    MOST_LABELS,
    MOST_TRIED,
    Block,
    Ids,
    Mask,
    Top,
    Values,
    cell_of,
    row_of,
    unsure_in_words,
)
from pipeline.report.measures import mcnemar, mean_of
from pipeline.report.reading import Labelled
from pipeline.scores import Floats

MOST_PAIRS = 50  # labels before and after that are told apart in a report
CLEARLY = 0.05  # how far scores are apart that are called higher or lower


def why_not(now: Sequence[Labelled], then: Sequence[Labelled]) -> str | None:
    """Say why two outputs can't be compared row by row; None if they are of the same rows of the same input."""
    records, before = ([each.record for each in outputs] for outputs in (now, then))
    if None in records or None in before:
        return "there is not a run record beside each of the outputs, which says of which input it is"
    if [each and each.input_digest for each in records] != [each and each.input_digest for each in before]:
        return "the outputs are of different inputs"
    if [each and each.rows for each in records] != [each and each.rows for each in before]:
        return "one output has more rows of the input than the other"
    return None


def in_step(now: Iterator[Block], then: Iterator[Block]) -> Iterator[tuple[Block, Block]]:
    """Return blocks of the same rows of two files, until one of them ends; then the other is read to its end."""
    here, there = next(now, None), next(then, None)
    while here is not None and there is not None:
        rows = min(len(here.scores), len(there.scores))
        if rows:
            yield here.part(0, rows), there.part(0, rows)
        here = here.part(rows) if rows < len(here.scores) else next(now, None)
        there = there.part(rows) if rows < len(there.scores) else next(then, None)
    for rest in (now, then):
        for _ in rest:
            pass


class Changes:
    """Counts what has changed. `examples` rows of each kind are kept, `renamed` says what truths are called as labels.

    Memory grows with pairs of labels, of which at most 2,000 are told apart.
    """

    def __init__(self, examples: int, renamed: dict[str, str]) -> None:
        self._values = Values(renamed)
        self._pairs = Counter[tuple[int, int]]()  # labels then and now, -1: none
        self._truths = np.zeros((2, 2), np.int64)  # rows with a truth and both labels: right then, right now
        self._has_truth = False
        self._rows = self._same = self._higher = self._lower = 0
        self._unsure = 0  # rows that have `writer.unsure_label` in the place of a label that is gone: left out
        self._change = self._distance = 0.0  # of the scores of rows whose label is the same
        self._tops = {kind: Top(MISTAKES * examples) for kind in ("worse", "better", "changed")}

    def add(self, now: Block, then: Block) -> None:
        """Count the rows of two blocks of the same rows."""
        labels, before = self._values.of_labels(now.labels), self._values.of_labels(then.labels)
        is_known = np.ones(len(labels), bool)
        for unjudged in (now.unjudged, then.unjudged):
            is_known &= True if unjudged is None else ~unjudged
        has_changed = (labels != before) & is_known
        self._rows += int(np.count_nonzero(is_known))
        self._unsure += int(np.count_nonzero(~is_known))
        wide = MOST_LABELS + 2  # ids from -1 on, as digits of one number
        pairs, rows = np.unique((before[has_changed] + 1) * wide + labels[has_changed] + 1, return_counts=True)
        for pair, count in zip(pairs.tolist(), rows.tolist(), strict=True):
            self._pairs[pair // wide - 1, pair % wide - 1] += count
        self._count_scores(now.scores, then.scores, (labels == before) & is_known & (labels >= 0))
        both = is_known & (labels >= 0) & (before >= 0)
        if now.truths is not None:
            self._has_truth = True
            truths = self._values.of_truths(now.truths)
            judged = both & (truths >= 0) & (truths < MOST_LABELS) & (labels < MOST_LABELS) & (before < MOST_LABELS)
            was, is_right = before == truths, labels == truths
            np.add.at(self._truths, (was[judged].astype(int), is_right[judged].astype(int)), 1)
            self._keep("worse", now, then, judged & was & ~is_right, now.scores)
            self._keep("better", now, then, judged & ~was & is_right, now.scores)
            has_changed = has_changed & ~judged
        self._keep("changed", now, then, has_changed & both, np.minimum(now.scores, then.scores))

    def _count_scores(self, now: Floats, then: Floats, same: Mask) -> None:
        change = (now - then)[same]
        change = change[~np.isnan(change)]
        self._same += len(change)
        self._change += float(change.sum())
        self._distance += float(np.abs(change).sum())
        self._higher += int(np.count_nonzero(change > CLEARLY))
        self._lower += int(np.count_nonzero(change < -CLEARLY))

    def _keep(self, kind: str, now: Block, then: Block, mask: Mask, scores: Floats) -> None:
        """Keep the rows of a kind with the highest scores."""
        top = self._tops[kind]
        rows: Ids = np.flatnonzero(mask & (-scores < top.bound))
        for at in rows[np.argsort(-scores[rows], kind="stable")][:MOST_TRIED].tolist():
            if -scores[at] >= top.bound:
                break
            score = float(then.scores[at])
            was = {"then": cell_of(then.labels, at), "then_score": None if np.isnan(score) else score}
            top.offer(-float(scores[at]), row_of(now, at) | was)

    def as_member(self) -> dict[str, Any]:
        """Return what was counted: the member `changes` of a report."""
        names: dict[int, str | None] = {number: name for name, number in self._values.ids.items()}
        changed, rows = sum(self._pairs.values()), max(1, self._rows)
        order = sorted(
            self._pairs.items(), key=lambda each: (-each[1], str(names.get(each[0][0])), str(names.get(each[0][1])))
        )
        pairs: list[dict[str, Any]] = [
            {"then": names.get(old), "now": names.get(new), "rows": count, "share": count / rows}
            for (old, new), count in order[:MOST_PAIRS]
        ]
        (both_wrong, better), (worse, both_right) = self._truths.tolist()
        truth: dict[str, Any] = {"rows": int(self._truths.sum()), "better": better, "worse": worse}
        truth |= {"both_right": both_right, "both_wrong": both_wrong, **mcnemar(better, worse)}
        return {
            "left_out": None,
            "rows": self._rows,
            "notes": [unsure_in_words(self._unsure)] if self._unsure else [],
            "changed": changed,
            "share": changed / rows,
            "pairs": pairs,
            "other_pairs": changed - sum(pair["rows"] for pair in pairs),
            "scores": {
                "rows": self._same,
                "mean_change": mean_of(self._change, self._same),
                "mean_distance": mean_of(self._distance, self._same),
                "higher": self._higher,
                "lower": self._lower,
            },
            "truth": truth if self._has_truth else None,
            "examples": {kind: top.rows() for kind, top in self._tops.items()},
        }
