"""The checks of a report, and what they come to: each question with its answer in words, and whether that passes.

A check fails, or warns, only if its value is beyond the limit, the difference is beyond chance, and there are enough
rows. Beyond the limit alone it is `unsure`, which never fails: few rows cry no wolf, and many do not whisper.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.report.document import Document
from pipeline.report.measures import is_beyond_chance, wilson_low
from pipeline.scores import OTHERS

ENOUGH_TO_CALIBRATE = 300  # rows with a truth
VERDICTS = {
    "pass": "These labels fail no check",
    "unjudged": "Too little to judge these labels by",
    "warn": "Look before you use these labels",
    "fail": "Do not use these labels without a look",
}
KINDS = {
    "min_accuracy": "regression",
    "accuracy_drop": "regression",
    "label_shift": "drift",
    "score_shift": "drift",
    "failed_rise": "drift",
    "canary": "drift",
    "one_label": "drift",
    "ece": "calibration",
}


class Answer(NamedTuple):
    """What a check found: a value, in words, and whether more rows and chance have been thought of."""

    id: str
    title: str
    value: float
    text: str
    is_sure: bool


def checks_of(document: Document, limits: Mapping[str, float], fail_on: Collection[str]) -> list[dict[str, Any]]:
    """Return the checks that there is something to ask of; `limits` by their ids, kinds in `fail_on` fail."""
    found = []
    for answer in (*_of_truth(document, limits), *_of_comparison(document), *_of_labels(document, limits)):
        limit, kind = limits[answer.id], KINDS[answer.id]
        is_beyond = answer.value < limit if answer.id == "min_accuracy" else answer.value > limit
        bad = "fail" if kind in fail_on else "warn"
        state = "pass" if not is_beyond else bad if answer.is_sure else "unsure"
        found.append(
            {
                "id": answer.id,
                "kind": kind,
                "title": answer.title,
                "value": answer.value,
                "limit": limit,
                "state": state,
                "text": answer.text,
            }
        )
    return found


def verdict_of(document: Document) -> str:
    """Return fail, warn or pass, by the worst check; unjudged if none with a truth or a comparison passes."""
    states = {check["state"] for check in document["checks"]}
    if "fail" in states or "warn" in states:
        return "fail" if "fail" in states else "warn"
    passed = {check["id"] for check in document["checks"] if check["state"] == "pass"}
    return "pass" if passed - {"one_label", "failed_rise"} else "unjudged"


def percent(share: float, digits: int = 1) -> str:
    """Write a share as per cent."""
    return f"{100 * share:.{digits}f} %"


def _of_truth(document: Document, limits: Mapping[str, float]) -> Iterator[Answer]:
    truth, sample = document["truth"], document.get("sample")
    if sample and limits["min_accuracy"]:
        accuracy, low, high = sample["accuracy"]
        text = f"{percent(accuracy)} of all rows are right, says a sample of {sample['judged']:,}"
        text += f" ({percent(low)} to {percent(high)} with 95 % certainty)"
        yield Answer("min_accuracy", "Accuracy", accuracy, text, high < limits["min_accuracy"])
    if truth and not truth["rows"] and limits["min_accuracy"]:
        yield Answer("min_accuracy", "Accuracy", 0.0, "no row has both a label and a truth", is_sure=True)
    if not truth or not truth["rows"]:
        return
    accuracy, _, high = truth["accuracy"]
    if limits["min_accuracy"]:
        text = f"{percent(accuracy)} of {truth['rows']:,} rows with a truth are right"
        yield Answer("min_accuracy", "Accuracy", accuracy, text, high < limits["min_accuracy"])
    if calibration := truth["calibration"]:
        points = 100 * calibration["ece"]
        sure = ", too sure of itself" if calibration["too_sure"] > 0.01 else ""  # noqa: PLR2004 - a point
        text = f"on average a score is {points:.1f} points off what comes true{sure}"
        is_sure = truth["rows"] >= ENOUGH_TO_CALIBRATE and calibration["ece"] > calibration["by_chance"]
        yield Answer("ece", "Scores mean what they say", calibration["ece"], text, is_sure)


def _of_comparison(document: Document) -> Iterator[Answer]:
    drift, truth = document.get("drift"), document["truth"]
    if not drift:
        return
    then, rows = drift["against"], document["rows"]
    if (drop := drift["accuracy_drop"]) is not None:
        change = f"{'lost' if drop > 0 else 'won'} {100 * abs(drop):.1f} points"
        text = f"{change}: {percent(drift['accuracy_then'])} → {percent(truth['accuracy'][0])}"
        is_sure = is_beyond_chance(drift["accuracy_by_chance"], truth["rows"])
        yield Answer("accuracy_drop", "Accuracy against then", drop, text, is_sure)
    labelled = min(rows["labelled"], then["rows"]["labelled"])
    labels, scores = drift["labels"], drift["scores"]
    if labelled:
        most = max(labels["changes"], key=lambda change: abs(change["change"]))
        moved = f"{percent(labels['moved'])} of the rows moved to another label"
        text = f"{moved}; most of all {most['label']}: {percent(most['then'])} → {percent(most['now'])}"
        is_sure = is_beyond_chance(labels["p"], labelled) and not labels["is_few"]
        yield Answer("label_shift", "Label shares", labels["moved"], text, is_sure)
        if not document["scores"]["out_of_range"]:
            mean = f"the mean score went from {then['score']:.3f} to {document['scores']['mean']:.3f}"
            text = f"{mean}, the curves are {100 * scores['largest_gap']:.1f} points apart"
            is_sure = is_beyond_chance(scores["gap_by_chance"], labelled)
            yield Answer("score_shift", "Scores", scores["largest_gap"], text, is_sure)
    share = percent(rows["failed"] / max(1, rows["all"]), 2)
    text = f"{share} of the rows have no label because of an error, {100 * drift['failed_rise']:+.2f} points"
    is_sure = is_beyond_chance(drift["failed_by_chance"], min(rows["all"], then["rows"]["all"]))
    yield Answer("failed_rise", "Failed rows", drift["failed_rise"], text, is_sure)
    if (canary := drift["canary"]) is not None:
        text = (
            f"four fixed texts get numbers that are at most {canary:.4f} from those of then, under the same model name"
        )
        yield Answer("canary", "The same model", canary, text, is_sure=True)


def _of_labels(document: Document, limits: Mapping[str, float]) -> Iterator[Answer]:
    labelled = document["rows"]["labelled"]
    top = next((entry for entry in document["labels"] if entry["label"] != OTHERS), None)
    if top and labelled:
        text = f"{top['label']} is the most frequent label with {percent(top['share'])}"
        is_sure = wilson_low(top["rows"], labelled) > limits["one_label"]
        yield Answer("one_label", "Not all one label", top["share"], text, is_sure)
