"""Results as text: the summary of a run, the error that ended it, and the table of `classify text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.answers import Prediction
from pipeline.config import PIPE
from pipeline.errors import ClassifyError
from pipeline.monitoring.record import Outcome, RunRecord
from pipeline.monitoring.table import LabelRow, label_table, printable
from pipeline.scores import COARSE_EDGES, bands, quantiles
from pipeline.streams import has_blocks, one_line, storable

MOST_LABELS = 10
MARKS = {"pass": "ok  ", "warn": "WARN", "fail": "FAIL", "unsure": "?   "}  # of a check, by its state
MANY_UNSURE, ENOUGH_ROWS = 0.2, 100  # share of the scores that are below 0.5, of so many rows
WIDTH = 60  # characters of a text in a table


def summary(record: RunRecord) -> list[str]:
    """Return the closing lines of a run: its labels, empty and failed rows, and `closing_line` as the last."""
    if record.already_complete:
        return [*_report(record), closing_line(record)]
    lines = _labels(record)
    if record.shared_rows:
        lines.append(f"shared: {record.shared_rows:,} rows repeat the text of another row, which was sent once")
    if record.rows and record.empty == record.rows:
        lines.append(f"empty: {record.empty:,} rows have no text - ALL of them; is it the right column?")
    if record.skipped_lines:
        lines.append(f"skipped: {record.skipped_lines:,} bad lines of the input are not in the output")
    return [*lines, *_report(record), *_next_commands(record), closing_line(record)]


def _labels(record: RunRecord) -> list[str]:
    """Return the table of the labels, and a line about all scores."""
    if not record.labels:
        return []
    rows = []
    for label, count in record.labels.items():
        scores = record.scores.get(label)
        median = quantiles(scores, COARSE_EDGES, 0.5)[0] if scores else None
        shown = bands(scores, COARSE_EDGES) if scores else None
        rows.append(LabelRow(label, count, count / record.labelled, median, shown))
    lines = label_table(rows, MOST_LABELS, blocks=has_blocks())
    if record.scores:
        lines.append(
            scores_line(quantiles(_all_scores(record), COARSE_EDGES, 0.01, 0.1, 0.5), _share_below_half(record))
        )
    return lines


def _all_scores(record: RunRecord) -> list[int]:
    return [sum(each) for each in zip(*record.scores.values(), strict=True)]


def _share_below_half(record: RunRecord) -> float:
    return bands(_all_scores(record), COARSE_EDGES)[0] if record.scores else 0.0


def scores_line(quantiles: Sequence[float | None], below_half: float) -> str:
    """Say of all scores where 1 %, 10 % and half of them are below, and which share is below 0.5."""
    p01, p10, p50 = (each or 0.0 for each in quantiles)
    return f"scores: 1 % below {p01:.3f}, 10 % below {p10:.3f}, median {p50:.3f}; {100 * below_half:.1f} % below 0.5"


def check_lines(checks: Sequence[Mapping[str, Any]], *, blocks: bool) -> list[str]:
    """Return a line for each check of a report; of one that does not pass, with its limit, and if it is unsure, why."""
    lines = []
    for check in checks:
        told = {"pass": "", "unsure": f" (limit {check['limit']:g}; too few rows to be sure)"}
        more = told.get(check["state"], f" (limit {check['limit']:g})")
        lines.append(f"{MARKS[check['state']]} {check['title']}: {printable(check['text'])}{more}")
    return lines if blocks else [line.replace("→", "->") for line in lines]


def _report(record: RunRecord) -> list[str]:
    """Return the checks of the run's report that do not pass, and its files."""
    if record.report is None:
        return []
    checks = [check for check in record.report.checks if check["state"] != "pass"]
    files = [f"report: {printable(file)}" for file in record.report.files[:1]]
    return [*check_lines(checks, blocks=has_blocks()), *files]


def _next_commands(record: RunRecord) -> list[str]:
    """Return what can be typed next, and why."""
    lines = []
    if record.failed:
        codes = ", ".join(f"{code} {rows:,}" for code, rows in record.failed.items())
        lines.append(f"failed: {record.rows_failed:,} rows ({codes}); the error column says why; {_advice(record)}")
    low = _share_below_half(record)
    if record.output != PIPE and record.labelled >= ENOUGH_ROWS and low > MANY_UNSURE:
        command = f"classify report {printable(record.output)} --truth COLUMN"
        is_set = record.settings.get("writer", {}).get("min_score") is not None
        then = "" if is_set else ", and `--set writer.min_score=SCORE` marks the rows below it"
        says = f"`{command}` says from which score on labels are right"
        lines.append(f"{100 * low:.0f} % of the scores are below 0.5; {says}{then}")
    if not record.is_whole and not record.files and record.output != PIPE:
        lines.append("there are more rows; the same command without --limit-rows goes on from here")
    if record.settings.get("writer", {}).get("probs") == "columns" and not record.settings["writer"].get("labels"):
        names = [record.model.get("names", {}).get(str(index)) for index in range(record.model.get("num_classes") or 0)]
        if names and None not in names and len(names) <= MOST_LABELS:
            labels = msgspec.json.encode(names).decode()
            lines.append(f"all classes have names; --set writer.labels='{labels}' names the columns after them")
    return lines


def _advice(record: RunRecord) -> str:
    """Return what helps rows that failed: the same again only if the server, and not the row, may be to blame."""
    codes = set(record.failed)
    ways = []
    if codes - {"not_text", "too_long"}:
        ways.append("the same command with --retry-failed classifies them again")
    if "too_long" in codes and record.settings["request"]["too_long"] == "error":
        ways.append(
            "--retry-failed --set request.too_long=truncate has long texts cut, --set request.too_long=split has them "
            "answered in parts"
        )
    if "not_text" in codes:
        ways.append("what is not_text stays so: make it text in the input, or choose another column with -t")
    return "; ".join(ways) or "the same again would not help"


def closing_line(record: RunRecord) -> str:
    """Return a complete output as one line: its name, the counts of its rows, the time, and an exit code but 0."""
    ways = {"unsure": record.unsure, "reused": record.reused_rows, "resumed": record.resumed_rows}
    ways |= {"shared": record.shared_rows, "truncated": record.truncated, "in parts": record.in_parts}
    ways |= {"lines skipped": record.skipped_lines}
    counts = [f"{record.labelled:,} labelled", f"{record.rows_failed:,} failed", f"{record.empty:,} empty"]
    counts += [f"{count:,} {way}" for way, count in ways.items() if count]
    line = f"{printable(record.output)}: {_files(record)}"
    if record.already_complete:
        done = "was held, is put in its place now" if record.put_in_place else "nothing to do"
        line += f"complete already, {done}: {record.rows:,} rows, {', '.join(counts)}"
    else:
        counts += [f"{record.requests:,} requests", f"{record.retries:,} retries"]
        answered = record.rows - record.resumed_rows
        some = f", {answered:,} of them" if record.resumed_rows else ""
        speed = f"in {record.seconds:,.1f} s ({record.rows_per_s:,.0f} rows/s)"
        line += f"{record.rows:,} rows{some} {speed}, {', '.join(counts)}"
    if record.exit_code:
        line += f"; exit {record.exit_code}: {record.error or 'more rows failed than allowed'}"
    if record.held is not None:
        line += (
            f"; held as {printable(record.held.output)}, the last output stays: {printable(record.held.advice)}, then "
            f"`{printable(record.held.command)}`, or run it again with --restart"
        )
    return line


def _files(record: RunRecord) -> str:
    if not record.files:
        return ""
    ways = {"complete already": record.files["complete already"], "failed": record.files["failed"]}
    counts = [f"{count:,} {way}" for way, count in ways.items() if count]
    return f"{record.files['all']:,} files" + (f" ({', '.join(counts)}), " if counts else ", ")


def failure_line(message: str, outcome: Outcome) -> str:
    """Return a failed run as one line: the message, the counts of its rows, and the exit code."""
    came = ""
    if outcome.rows_total is not None:
        about = "" if outcome.rows_total_is_exact else "about "
        came = f"{printable(outcome.output)}: {outcome.rows:,} of {about}{outcome.rows_total:,} rows answered, "
        came += f"{outcome.rows_failed:,} failed, in {outcome.seconds:,.1f} s; "
    return f"{message} ({came}exit {outcome.exit_code})"


def error_line(error: ClassifyError) -> str:
    """Return an error as one line; with the counts of the run that it ended, if it has an outcome."""
    message = one_line(str(error))
    return message if error.outcome is None else failure_line(message, error.outcome)


def as_table(texts: Sequence[str], predictions: Sequence[Prediction]) -> list[str]:
    """Return label, score and values of the classes of each text; an answer names only its own label."""
    lines = []
    for text, prediction in zip(texts, predictions, strict=True):
        shown = printable(" ".join(text.split()))
        shown = shown if len(shown) <= WIDTH else shown[: WIDTH - 1] + "…"
        if prediction.error is not None:
            lines.append(f"{'-':<20} {'':>8}  {shown}\n    {prediction.error}")
            continue
        ranked = sorted(enumerate(prediction.probs or ()), key=lambda pair: -pair[1])
        values = "  ".join(f"{index}:{value:.4f}" for index, value in ranked[:MOST_LABELS])
        more = f"  … {len(ranked)} classes" if len(ranked) > MOST_LABELS else ""
        lines.append(f"{printable(prediction.label or ''):<20} {prediction.score:>8.4f}  {shown}\n    {values}{more}")
    return [f"{'label':<20} {'score':>8}  text, and the value of each class by its index", *lines]


def as_json_lines(texts: Sequence[str], predictions: Sequence[Prediction]) -> list[str]:
    """Encode the prediction of each text as a JSON object."""
    return [
        msgspec.json.encode(
            {
                "text": storable(text),
                "label": prediction.label,
                "score": prediction.score,
                "probs": prediction.probs,
                "error": prediction.error,
            }
            | _of_thresholds(prediction)
        ).decode()
        for text, prediction in zip(texts, predictions, strict=True)
    ]


def _of_thresholds(prediction: Prediction) -> dict[str, Any]:
    """Return what the config asks for besides the label, as it stands in an output."""
    top = None if prediction.top is None else [{"label": label, "score": score} for label, score in prediction.top]
    found = {"unsure": prediction.unsure, "labels": prediction.labels, "top": top}
    return {name: value for name, value in found.items() if value is not None}
