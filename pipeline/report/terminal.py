"""A report on a terminal: the table of labels, the scores, and every check."""

from __future__ import annotations

from pipeline.monitoring.summary import check_lines, scores_line
from pipeline.monitoring.table import LabelRow, label_table, printable
from pipeline.report.checks import VERDICTS, percent
from pipeline.report.document import Document, kept_in_words
from pipeline.report.measures import CHANCE
from pipeline.scores import COARSE_EDGES, bands

NO_LABEL = "(no label)"
PAIRS = 3  # labels before and after, in a line
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
    if kept := kept_in_words(document):
        lines.append(f"sure: {kept}")
    lines += [*_of_sample(document), *_of_changes(document, blocks=blocks)]
    if no_last := document.get("no_last"):
        lines.append(f"not compared: {printable(no_last)}")
    lines += check_lines(document["checks"], blocks=blocks)
    verdict = VERDICTS[document["verdict"]]
    advice = "" if "sample" in document else ADVICE.get(document["verdict"], "")
    said = f"{verdict[0].lower()}{verdict[1:]}{advice}"
    return [*lines, f"{document['output']}: {rows['all']:,} rows; {said}"]


def _of_sample(document: Document) -> list[str]:
    """Return what a sample says of all rows."""
    sample = document.get("sample")
    if not sample:
        return []
    value, low, high = sample["accuracy"]
    f1 = sample["macro_f1"]
    line = f"right, by a sample: {percent(value)} ({percent(low)} to {percent(high)} with 95 % certainty)"
    if f1[0] is not None:
        line += f", macro F1 {f1[0]:.3f} ({f1[1]:.3f} to {f1[2]:.3f})"
    return [f"{line}; {filled_in(sample)}", *map(printable, sample.get("notes", []))]


def filled_in(sample: Document) -> str:
    """Say how many rows of a sample are filled in."""
    left = f"; {sample['not_filled_in']:,} are not, and left out" if sample["not_filled_in"] else ""
    return f"{sample['judged']:,} of its {sample['rows']:,} rows are filled in{left}"


def _of_changes(document: Document, *, blocks: bool) -> list[str]:
    """Return what has changed row by row, in two lines at most."""
    changes = document.get("changes")
    if not changes:
        return []
    if changes["left_out"]:
        return [f"row by row: left out, {changes['left_out']}"]
    arrow = "→" if blocks else "->"
    pairs = [
        f"{printable(each['then'] or NO_LABEL)} {arrow} {printable(each['now'] or NO_LABEL)} {each['rows']:,}"
        for each in changes["pairs"][:PAIRS]
    ]
    more = f": {', '.join(pairs)}" if pairs else ""
    lines = [f"row by row: {changes['changed']:,} rows ({percent(changes['share'])}) have another label{more}"]
    if (truth := changes["truth"]) and truth["rows"]:
        lines.append(f"{better_or_worse(truth)} of {truth['rows']:,} rows with a truth")
    return [*lines, *map(printable, changes.get("notes", []))]


def better_or_worse(truth: Document) -> str:
    """Say how many rows are right now and were not, and the other way round, and whether that is chance."""
    chance = "less than once in 1,000" if truth["p"] < CHANCE else f"in {percent(truth['p'])} of cases"
    return f"better {truth['better']:,}, worse {truth['worse']:,} (McNemar: so unequal by chance {chance})"


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
