"""A report on a terminal: the table of labels, the scores, and every check."""

from __future__ import annotations

from pipeline.monitoring.summary import check_lines, scores_line
from pipeline.monitoring.table import LabelRow, label_table, printable
from pipeline.report.checks import VERDICTS, percent
from pipeline.report.document import Document
from pipeline.scores import COARSE_EDGES, bands

ADVICE = {"unjudged": ": --truth COLUMN says how many are right, --against what changed"}


def as_lines(document: Document, most: int = 10, *, blocks: bool) -> list[str]:
    """Return a report in lines, the first `most` labels as a table; with `blocks`, with block characters."""
    rows = document["rows"]
    lines = label_table([*label_rows(document)], most, blocks=blocks)
    quantiles = document["scores"]["quantiles"]
    if rows["labelled"] and not document["scores"]["out_of_range"]:
        named = [quantiles["p01"], quantiles["p10"], quantiles["p50"]]
        lines.append(scores_line(named, document["scores"]["below_half"]))
    if errors := document["errors"]:
        lines.append("no label: " + ", ".join(f"{printable(each['code'])} {each['rows']:,}" for each in errors))
    truth = document["truth"]
    if truth and truth["rows"]:
        value, low, high = truth["accuracy"]
        interval = f"{percent(low)} to {percent(high)}"
        more = f"macro F1 {truth['macro_f1']:.3f}, {truth['rows']:,} rows with a truth"
        lines.append(f"right: {percent(value)} ({interval} with 95 % certainty), {more}")
    lines += check_lines(document["checks"], blocks=blocks)
    verdict = VERDICTS[document["verdict"]]
    said = f"{verdict[0].lower()}{verdict[1:]}{ADVICE.get(document['verdict'], '')}"
    return [*lines, f"{document['output']}: {rows['all']:,} rows; {said}"]


def label_rows(document: Document) -> list[LabelRow]:
    """Return the labels as rows of a table, the most frequent first."""
    drift = document.get("drift")
    changes = {change["label"]: change["change"] for change in drift["labels"]["changes"]} if drift else {}
    is_score = not document["scores"]["out_of_range"]
    found = []
    for entry in document["labels"]:
        truth = entry.get("truth")
        shown = bands(entry["scores"], COARSE_EDGES) if entry["scores"] and is_score else None
        median = entry["score"]["p50"] if is_score else None
        right = truth["precision"][0] if truth else None
        if entry["rows"] or (truth and truth["rows"]):
            change = changes.get(entry["label"])
            found.append(LabelRow(entry["label"], entry["rows"], entry["share"], median, shown, change, right))
    return found
