"""How far an output is from what it is compared with: another output, an earlier report, or several nights together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.report.document import Document
from pipeline.report.measures import difference_by_chance, distance, largest_gap, rise_by_chance

MANY = 20  # rows of a label, from which on it is worth saying that it is new or gone


class Then(msgspec.Struct, kw_only=True):
    """What the labels are compared with."""

    output: str
    started: str | None
    nights: int
    rows: dict[str, int]
    labels: dict[str, int]
    scores: list[int]  # rows by score, in the coarse bins
    mean: float | None  # score
    model: dict[str, Any]
    truths: int = 0  # rows with a truth
    right: int = 0  # of these


def then_of(documents: Sequence[Document]) -> Then:
    """Sum reports, the latest one first, whose output, day and model are told."""
    latest = documents[0]
    rows, labels = Counter[str](), Counter[str]()
    truths = right = 0
    for each in documents:
        rows.update(each["rows"])
        labels.update({entry["label"]: entry["rows"] for entry in each["labels"]})
        if each["truth"] and each["truth"]["rows"]:
            truths += each["truth"]["rows"]
            right += round(each["truth"]["accuracy"][0] * each["truth"]["rows"])
    means = [
        (each["scores"]["mean"], each["rows"]["labelled"]) for each in documents if each["scores"]["mean"] is not None
    ]
    weight = sum(count for _, count in means)
    return Then(
        output=latest["output"],
        started=latest["started"],
        nights=len(documents),
        rows=dict(rows),
        labels=dict(labels),
        scores=[*map(sum, zip(*(each["scores"]["counts"] for each in documents), strict=True))],
        mean=sum(mean * count for mean, count in means) / weight if weight else None,
        model=latest["model"],
        truths=truths,
        right=right,
    )


def compare(now: Document, then: Then) -> dict[str, Any]:
    """Return how far a report is from what it is compared with: the member `drift` of its document."""
    labels = {entry["label"]: int(entry["rows"]) for entry in now["labels"]}
    names = sorted(
        {*labels, *then.labels}, key=lambda name: (-max(labels.get(name, 0), then.labels.get(name, 0)), name)
    )
    before = {name: then.labels.get(name, 0) for name in names}
    n, m = max(1, sum(labels.values())), max(1, sum(before.values()))
    changes = [
        {"label": name, "now": here / n, "then": there / m, "change": here / n - there / m}
        for name, here, there in ((name, labels.get(name, 0), before[name]) for name in names)
    ]
    gap, gap_by_chance = largest_gap(now["scores"]["counts"], then.scores)
    mean = now["scores"]["mean"]
    return {
        "against": {
            "output": then.output,
            "started": then.started,
            "nights": then.nights,
            "rows": then.rows,
            "model": then.model,
            "score": then.mean,
        },
        "labels": distance([labels.get(name, 0) for name in names], [*before.values()])._asdict()
        | {"changes": changes},
        "scores": distance(now["scores"]["counts"], then.scores)._asdict()
        | {
            "largest_gap": gap,
            "gap_by_chance": gap_by_chance,
            "counts": then.scores,
            "mean_change": None if mean is None or then.mean is None else mean - then.mean,
        },
        "new": [name for name in names if labels.get(name, 0) >= MANY and not before[name]],
        "gone": [name for name in names if before[name] >= MANY and not labels.get(name, 0)],
        **_failures(now["rows"], then.rows),
        **_accuracy(now["truth"], then),
        "canary": _canary(now["model"], then.model),
    }


def _failures(now: dict[str, int], then: dict[str, int]) -> dict[str, float]:
    rise = now["failed"] / max(1, now["all"]) - then["failed"] / max(1, then["all"])
    return {
        "failed_rise": rise,
        "failed_by_chance": rise_by_chance(now["failed"], now["all"], then["failed"], then["all"]),
    }


def _accuracy(truth: dict[str, Any] | None, then: Then) -> dict[str, float | None]:
    """Compare how many are right, where both have a truth."""
    if not truth or not truth["rows"] or not then.truths:
        return {"accuracy_drop": None, "accuracy_then": None, "accuracy_by_chance": None}
    rows, accuracy = truth["rows"], truth["accuracy"][0]
    return {
        "accuracy_drop": then.right / then.truths - accuracy,
        "accuracy_then": then.right / then.truths,
        "accuracy_by_chance": difference_by_chance(round(accuracy * rows), rows, then.right, then.truths),
    }


def _canary(now: dict[str, Any], then: dict[str, Any]) -> float | None:
    """Return how far the answers to the canary are apart; None if the models have other names, or one is not known."""
    pairs = list(zip(now.get("canary") or [], then.get("canary") or [], strict=False))
    if not pairs or now.get("id") != then.get("id"):
        return None
    if any(len(here) != len(there) for here, there in pairs):  # another number of classes
        return 1.0
    return max(abs(float(x) - float(y)) for here, there in pairs for x, y in zip(here, there, strict=True))
