"""A report as one document: what the counts say, as a JSON object. Pages and tables are made of it alone.

Numbers are shares from 0 to 1, never per cent; an interval is `[value, low, high]`; there is no NaN. The keys are
stable within `version`; new ones may come. `docs/report.md` describes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipeline.errors import InputError
from pipeline.report.counts import LENGTHS, MISTAKES, RIGHT, WRONG, Counts
from pipeline.report.measures import GROUPS, agreement, calibration, mean_of, thresholds, wilson
from pipeline.scores import COARSE_EDGES, EDGES, MOST_LABELS, bands, coarse, quantiles
from pipeline.storage import Location

VERSION = 1
TARGETS = (0.90, 0.95, 0.98, 0.99)  # shares of right labels that people ask for
MOST_CONFUSED = 8
_OF_A_LABEL = {"label", "rows", "share", "score", "scores"}
Document = dict[str, Any]
Ids = Sequence[int]
# The groups of the calibration have edges of bins: where each begins.
_GROUP_STARTS = np.searchsorted(EDGES, np.array(GROUPS) - 1e-9)


class About(NamedTuple):
    """What a report is about, besides the counts."""

    output: str
    files: int
    digest: str  # of the outputs together: which night it is
    started: str | None  # of the run, ISO 8601
    seconds: float | None
    model: dict[str, Any]
    text: str | None  # the text columns
    truth: str | None  # the column


def document_of(counts: Counts, about: About) -> Document:
    """Make the document of what was counted; without comparison and checks."""
    names = {number: name for name, number in counts.values.ids.items()}
    by_label = counts.hist.sum((1, 2))
    order = sorted(names, key=lambda number: (-int(by_label[number]), names[number]))
    labelled = int(by_label.sum())
    labels = [
        _label(counts, number, names[number], labelled, in_detail=at < MOST_LABELS) for at, number in enumerate(order)
    ]
    document = {
        "version": VERSION,
        **about._asdict(),
        "model": {key: about.model.get(key) for key in ("id", "num_classes", "canary")},
        "rows": {
            "all": counts.rows,
            "labelled": labelled,
            "failed": sum(rows for code, rows in counts.errors.items() if code != "empty"),
            "empty": counts.errors["empty"],
        },
        "errors": [
            {"code": code, "rows": rows, "examples": counts.failed[code].rows()}
            for code, rows in counts.errors.most_common()
        ],
        "labels": labels,
        "scores": _scores(counts, labelled),
        "kept": _kept(counts, labelled),
        "lengths": _lengths(counts),
        "truth": None,
    }
    if about.truth is not None:
        document["truth"] = _truth(counts, about.truth, order, names, labels)
    return document


def _label(counts: Counts, number: int, name: str, labelled: int, *, in_detail: bool) -> dict[str, Any]:
    by_score = counts.hist[number].sum(0)
    rows = int(by_score.sum())
    p10, p50, p90 = _quantiles(counts, by_score, 0.1, 0.5, 0.9)
    mean = mean_of(counts.sums[number].sum(), rows)
    unsure = counts.unsure.get(number)
    return {
        "label": name,
        "rows": rows,
        "share": rows / max(1, labelled),
        "score": {"p10": p10, "p50": p50, "p90": p90, "mean": mean},
        "below_half": bands(by_score, EDGES)[0],
        "scores": coarse(by_score).tolist() if in_detail else None,
        "unsure": unsure.rows() if unsure and in_detail else [],
    }


def _quantiles(counts: Counts, by_score: Any, *shares: float) -> list[float | None]:
    """Return quantiles of the scores; None where they are no probabilities, which have no bins."""
    return [None for _ in shares] if counts.logits or counts.has_no_score else quantiles(by_score, EDGES, *shares)


def _scores(counts: Counts, labelled: int) -> dict[str, Any]:
    by_score = counts.hist.sum((0, 1))
    shares = {"p01": 0.01, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {
        "edges": COARSE_EDGES.tolist(),
        "counts": coarse(by_score).tolist(),
        "mean": mean_of(counts.sums.sum(), labelled),
        "quantiles": dict(zip(shares, _quantiles(counts, by_score, *shares.values()), strict=True)),
        "below_half": bands(by_score, EDGES)[0],
        "out_of_range": counts.logits,
    }


def _kept(counts: Counts, labelled: int) -> dict[str, Any] | None:
    """Say how many labels are sure by the thresholds of the output, and how many of these right; None without."""
    if counts.kept is None:
        return None
    rows, truths, right = counts.kept
    return {"rows": rows, "share": rows / max(1, labelled), "truths": truths, "accuracy": wilson(right, truths)}


def kept_in_words(document: Document) -> str:
    """Say the same in a line; empty for an output without thresholds, and for older reports."""
    kept = document.get("kept")
    if not kept:
        return ""
    value = kept["accuracy"][0]
    line = f"{100 * kept['share']:.1f} % of the labels are sure, {kept['rows']:,} rows"
    return line if value is None else f"{line}; of these right: {100 * value:.1f} %"


def _lengths(counts: Counts) -> list[dict[str, Any]]:
    steps = zip(LENGTHS[:-1].tolist(), LENGTHS[1:].tolist(), *counts.lengths.tolist(), strict=True)
    return [
        {
            "from": int(start),
            "to": None if math.isinf(stop) else int(stop),
            "rows": int(rows),
            "score": mean_of(score, rows - missing),
            "no_label": missing / rows,
        }
        for start, stop, rows, score, missing in steps
        if rows
    ]


def _truth(
    counts: Counts, column: str, order: Ids, names: dict[int, str], labels: list[dict[str, Any]]
) -> dict[str, Any]:
    """Say what a column of right answers says of the labels; each of `labels` gets what it says of that one."""
    matrix = counts.matrix[np.ix_(order, order)]
    hits, true, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    for entry, hit, is_true, is_said in zip(labels, hits.tolist(), true.tolist(), said.tolist(), strict=True):
        entry["truth"] = {
            "rows": is_true,
            "predicted": is_said,
            "precision": wilson(hit, is_said),
            "recall": wilson(hit, is_true),
            "f1": 2 * hit / (is_true + is_said) if is_true + is_said else None,
        }
    rows = int(matrix.sum())
    judged = {
        "column": column,
        "rows": rows,
        "without_label": counts.without_label,
        **agreement(matrix),
        "confusion": {
            "labels": [names[number] for number in order[:MOST_LABELS]],
            "counts": matrix[:MOST_LABELS, :MOST_LABELS].tolist(),
            "others": (true - matrix[:, :MOST_LABELS].sum(1))[:MOST_LABELS].tolist(),
        },
        "confused": _confused(matrix, [names[number] for number in order]),
        "calibration": None,
        "keep": None,
        "suspects": {"rows": 0, "share": 0.0},
        "mistakes": [],
    }
    if not rows or counts.logits or counts.has_no_score:  # raw logits promise nothing that could come true
        return judged
    right, wrong = counts.hist[:, RIGHT].sum(0), counts.hist[:, WRONG].sum(0)
    in_groups = [np.add.reduceat(each, _GROUP_STARTS) for each in (right + wrong, right)]
    suspects = _suspects(counts, order)
    mistakes = [row for top in counts.mistakes.values() for row in top.rows()]
    return judged | {
        "calibration": calibration(in_groups[0], in_groups[1], counts.groups),
        "keep": thresholds(EDGES, counts.hist.sum((0, 1)), right + wrong, right, TARGETS),
        "suspects": {"rows": suspects, "share": suspects / rows},
        "mistakes": sorted(mistakes, key=lambda row: -float(row["score"]))[: MISTAKES * counts.examples],
    }


def _confused(matrix: Any, names: list[str]) -> list[dict[str, Any]]:
    """Find the most frequent mistakes."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    true, width = matrix.sum(1), len(names)
    found = []
    for at in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED].tolist():
        truth, label = divmod(at, width)
        if rows := int(wrong[truth, label]):
            share = rows / int(true[truth])
            found.append({"truth": names[truth], "label": names[label], "rows": rows, "share": share})
    return found


def _suspects(counts: Counts, order: Ids) -> int:
    """Count the rows whose truth is worth a second look: surer than half of the right ones of that label, and wrong."""
    found = 0
    for number in order:
        (middle,) = quantiles(counts.hist[number, RIGHT], EDGES, 0.5)
        if middle is not None:
            found += int(counts.hist[number, WRONG, EDGES[:-1] >= middle].sum())
    return found


def without_texts(document: Document) -> Document:
    """Return a document without rows and without what takes much room: a line of the history."""
    labels = [{**entry, "scores": None, "unsure": []} for entry in document["labels"]]
    errors = [{**entry, "examples": []} for entry in document["errors"]]
    truth = document["truth"] and {**document["truth"], "mistakes": [], "confusion": None, "keep": None}
    found = {**document, "labels": labels, "errors": errors, "lengths": [], "truth": truth}
    if (changes := document.get("changes")) and "examples" in changes:
        found["changes"] = {**changes, "examples": {}}
    return found


def encode(document: Document) -> bytes:
    """Encode a document as one line of JSON."""
    return msgspec.json.encode(document)


def read_document(location: Location) -> Document | None:
    """Return the report at a location; None if that is something else, an output for instance.

    Raises:
        InputError: it is a report of another version. StoreRefused, StoreGone: its store.
    """
    if not location.name.endswith(".json"):
        return None
    content = location.read()
    return None if content is None else decode(content, str(location))


def decode(content: bytes, shown: str) -> Document | None:
    """Decode a report; None if it is none.

    Raises:
        InputError: it is one of another version; names it as `shown`.
    """
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(found, dict) or not {"version", "rows", "labels", "scores", "truth"} <= found.keys():
        return None
    if not all(isinstance(each, dict) and each.keys() >= _OF_A_LABEL for each in found["labels"]):
        raise InputError(f"{shown}: is a damaged report; make it anew")
    if found["version"] != VERSION:
        raise InputError(
            f"{shown}: is a report of version {found['version']}, this program reads {VERSION}; make it anew"
        )
    return found
