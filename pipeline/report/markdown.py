"""A report as Markdown: the verdict, the checks and the labels as tables, for chat rooms, mails and summaries of CI."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.report.checks import VERDICTS, percent
from pipeline.report.document import Document, kept_in_words
from pipeline.report.terminal import NO_LABEL, better_or_worse, filled_in, label_rows

MOST_LABELS = 20
STATES = {"pass": "✅", "warn": "⚠️", "fail": "❌", "unjudged": "", "unsure": "too few rows to be sure:"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#@&~!$])")


def as_markdown(document: Document) -> str:
    """Return a report as Markdown; what stands in it of files and models is escaped."""
    rows, truth = document["rows"], document["truth"]
    counts = f"{rows['all']:,} rows, {rows['labelled']:,} labelled, {rows['failed']:,} failed, {rows['empty']:,} empty"
    mean = document["scores"]["mean"]
    facts = counts + (f", mean score {mean:.3f}" if mean is not None else "")
    if truth and truth["rows"]:
        value, low, high = truth["accuracy"]
        facts += (
            f", **{percent(value)} right** ({percent(low)} to {percent(high)}, {truth['rows']:,} rows with a truth)"
        )
    if kept := kept_in_words(document):
        facts += f"; {kept}"
    verdict = f"{STATES[document['verdict']]} {VERDICTS[document['verdict']]}".strip()
    parts = [f"### {verdict}: {escaped(document['output'].rpartition('/')[2])}", f"{facts}."]
    if no_last := document.get("no_last"):
        parts.append(f"Not compared: {escaped(no_last)}.")
    if document["checks"]:
        checks = [
            [
                each["title"],
                f"{each['value']:.3f}",
                f"{each['limit']:.3f}",
                f"{STATES[each['state']]} {escaped(each['text'])}",
            ]
            for each in document["checks"]
        ]
        parts.append(_table(["check", "value", "limit", ""], checks))
    labels = label_rows(document)
    parts.append(_table(["label", "rows", "share", "change", "median score", "right"], [
        [
            escaped(row.label),
            f"{row.rows:,}",
            percent(row.share),
            "" if row.change is None else f"{100 * row.change:+.1f}",
            "" if row.median is None else f"{row.median:.3f}",
            "" if row.right is None else percent(row.right),
        ]
        for row in labels[:MOST_LABELS]
    ]))  # fmt: skip
    if rest := labels[MOST_LABELS:]:
        parts.append(f"and {len(rest):,} more labels with {sum(row.rows for row in rest):,} rows")
    return "\n\n".join([*parts, *_of_sample(document), *_of_changes(document)]) + "\n"


def _of_sample(document: Document) -> list[str]:
    """Return what a sample says of all rows, as a sentence and a table of the labels."""
    sample = document.get("sample")
    if not sample:
        return []
    value, low, high = sample["accuracy"]
    interval = f"{percent(low)} to {percent(high)} with 95 % certainty"
    said = f"By a sample, **{percent(value)}** of all rows are right ({interval})"
    rows = [
        [
            escaped(each["label"]),
            f"{each['judged']:,}",
            *(_interval(each[name]) for name in ("precision", "recall", "f1")),
        ]
        for each in sample["labels"][:MOST_LABELS]
    ]
    table = _table(["label", "judged", "precision", "recall", "F1"], rows)
    notes = [f"{escaped(note)}." for note in sample.get("notes", [])]
    return [f"{said}, macro F1 {_interval(sample['macro_f1'])}; {filled_in(sample)}.", *notes, table]


def _of_changes(document: Document) -> list[str]:
    """Return what has changed row by row, as a sentence and a table of the labels before and after."""
    changes = document.get("changes")
    if not changes:
        return []
    if changes["left_out"]:
        return [f"Row by row: left out, {changes['left_out']}."]
    said = f"Row by row, {changes['changed']:,} of {changes['rows']:,} rows have another label"
    if (truth := changes["truth"]) and truth["rows"]:
        said += f"; {better_or_worse(truth)} of {truth['rows']:,} rows with a truth"
    rows = [
        [
            escaped(each["then"] or NO_LABEL),
            escaped(each["now"] or NO_LABEL),
            f"{each['rows']:,}",
            percent(each["share"]),
        ]
        for each in changes["pairs"][:MOST_LABELS]
    ]
    notes = [f"{escaped(note)}." for note in changes.get("notes", [])]
    return [f"{said}.", *notes, *([_table(["then", "now", "rows", "share"], rows)] if rows else [])]


def _interval(interval: Sequence[float | None]) -> str:
    value, low, high = interval
    return "" if value is None or low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def escaped(text: str) -> str:
    """Return a text in one line in which nothing has a meaning in Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join("".join(c if c.isprintable() else " " for c in text).split()))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, numbers to the right, without the columns that are empty."""
    used = [at for at in range(len(titles)) if any(row[at] for row in rows)] or [0]
    rules = ["---" if at == 0 or not titles[at] else "--:" for at in used]
    lines = [[titles[at] for at in used], rules, *([row[at] for at in used] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
