"""What a person is told in the end: the summary of a run, a table of a few texts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.predictions import Prediction
from pipeline.record import RunRecord
from pipeline.text import storable

MOST_LABELS = 10
WIDTH = 60  # characters of a text in a table


def summary(record: RunRecord) -> list[str]:
    """The closing lines of a run."""
    speed = f"{record.rows:,} rows in {record.seconds:,.1f} s ({record.rows_per_s:,.0f} rows/s)"
    lines = [f"{record.output}: {speed}, {record.requests:,} requests, {record.retries:,} retries"]
    if record.resumed_rows:
        lines.append(f"resumed: {record.resumed_rows:,} rows were answered before")
    if record.shared_rows:
        lines.append(f"shared: {record.shared_rows:,} rows have the text of another one; it was sent once")
    if record.reused_rows:
        lines.append(f"reused: {record.reused_rows:,} rows have an answer of an earlier run; they were not sent")
    if record.labels:
        shown = [f"{_printable(label)} {rows:,}" for label, rows in list(record.labels.items())[:MOST_LABELS]]
        more = len(record.labels) - MOST_LABELS
        lines.append(f"labels: {', '.join(shown)}" + (f", and {more} more" if more > 0 else ""))
    if record.empty:
        everything = " - ALL of them; is it the right column?" if record.empty == record.rows else ""
        lines.append(f"empty: {record.empty:,} rows have no text{everything}")
    if record.skipped_lines:
        lines.append(f"skipped: {record.skipped_lines:,} bad lines of the input are not in the output")
    if record.failed:
        codes = ", ".join(f"{code} {rows:,}" for code, rows in record.failed.items())
        lines.append(f"failed: {record.rows_failed:,} rows ({codes}); the error column says why")
    return lines


def as_table(texts: Sequence[str], predictions: Sequence[Prediction]) -> list[str]:
    """Label, score and all probabilities of each text; only the top label is named in an answer."""
    lines = []
    for text, prediction in zip(texts, predictions, strict=True):
        shown = _printable(" ".join(text.split()))
        shown = shown if len(shown) <= WIDTH else shown[: WIDTH - 1] + "…"
        if prediction.error is not None:
            lines.append(f"{'-':<20} {'':>8}  {shown}\n    {prediction.error}")
            continue
        ranked = sorted(enumerate(prediction.probs or ()), key=lambda pair: -pair[1])
        values = "  ".join(f"{index}:{value:.4f}" for index, value in ranked[:MOST_LABELS])
        more = f"  … {len(ranked)} classes" if len(ranked) > MOST_LABELS else ""
        lines.append(f"{_printable(prediction.label or ''):<20} {prediction.score:>8.4f}  {shown}\n    {values}{more}")
    return [f"{'label':<20} {'score':>8}  text, and the value of each class by its index", *lines]


def as_json_lines(texts: Sequence[str], predictions: Sequence[Prediction]) -> list[str]:
    """One JSON object a text."""
    return [
        msgspec.json.encode(
            {
                "text": storable(text),
                "label": prediction.label,
                "score": prediction.score,
                "probs": prediction.probs,
                "error": prediction.error,
            }
        ).decode()
        for text, prediction in zip(texts, predictions, strict=True)
    ]


def _printable(text: str) -> str:
    """What a terminal would obey, or could not show, as its escape."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return storable(shown)
