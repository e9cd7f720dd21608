"""The metrics file: how the last run ended, in Prometheus' text format, for node_exporter's textfile collector.

All metrics are gauges: a file that each run replaces can't count over several runs.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.registry import Collector

from pipeline.monitoring.record import Outcome
from pipeline.scores import OTHERS
from pipeline.storage.draft import open_new
from pipeline.streams import storable

MOST_LABELS = 100  # series of labels; a model may have any number of classes
LONGEST_LABEL = 200  # characters
FIRST_BYTES = b"# HELP classify_"
LAST_SUCCESS = "classify_last_success_timestamp_seconds"
STATES = ("pass", "warn", "fail", "unsure")  # of a check
# Codes that did not occur are 0: a series that comes and goes is hard to watch.
FAILURE_CODES = ("not_text", "too_long", "rejected", "server_error", "timeout", "bad_answer")
# Name, help, and the field of the outcome.
PLAIN = (
    ("last_run_exit_code", "Exit code of the last run; 0 is a success.", "exit_code"),
    ("last_run_duration_seconds", "How long the last run took.", "seconds"),
    ("last_run_already_complete", "1 if the last run had nothing to do.", "already_complete"),
    ("output_held", "1 if the output of the last run is held, and the one before it stays.", "is_held"),
    ("rows", "Rows in the output; where the last run failed, rows answered so far.", "rows"),
    ("rows_empty", "Of these, rows without a text.", "empty"),
    ("rows_truncated", "Of these, rows whose text was cut.", "truncated"),
    ("rows_in_parts", "Of these, rows whose text was too long, and answered in parts.", "in_parts"),
    ("rows_unsure", "Of these, rows whose score is below writer.min_score.", "unsure"),
    ("rows_resumed", "Of these, rows answered by an earlier run that was interrupted.", "resumed_rows"),
    ("rows_reused", "Of these, rows whose answer was taken from the file of run.reuse.", "reused_rows"),
    ("rows_shared", "Of these, rows that another row's text was sent for.", "shared_rows"),
    ("lines_skipped", "Lines of the input that are in no row, because they are no record.", "skipped_lines"),
    ("requests", "Requests that the last run sent.", "requests"),
    ("requests_retried", "Requests that the last run tried again.", "retries"),
    ("texts_sent", "Texts that the last run sent.", "texts_sent"),
)


class _Snapshot(Collector):
    """A collector of fixed metrics; objects of the class Gauge keep theirs in files in multiprocess mode."""

    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[GaugeMetricFamily]:
        return iter(self._families)


def write_metrics(path: Path, job: str, outcome: Outcome) -> None:
    """Replace the metrics file at `path` in one step; `job` is the value of the label `output`.

    The time of the last success is carried over from the old file.

    Raises:
        OSError: it can't be written, or is no metrics file.
    """
    if not may_replace(path):
        raise OSError(errno.EEXIST, "it is there, and no metrics file of ours")
    ended = datetime.fromisoformat(outcome.finished).timestamp()
    succeeded = ended if outcome.exit_code == 0 else _last_success(path, job)
    snapshot = _Snapshot(_families(job, outcome, ended, succeeded))
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(open_new(draft), "wb") as file:
            file.write(generate_latest(snapshot))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def may_replace(path: Path) -> bool:
    """Return whether there is no file at `path`, an empty one, or a metrics file of this program."""
    if not path.exists():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(FIRST_BYTES)) in (FIRST_BYTES, b"")


def _families(job: str, outcome: Outcome, ended: float, succeeded: float) -> list[GaugeMetricFamily]:
    failed = dict.fromkeys(FAILURE_CODES, 0) | outcome.failed
    return [
        _family("classify_last_run_timestamp_seconds", "When the last run ended, well or not (Unix time).", job, ended),
        _family(LAST_SUCCESS, "When a run last ended with exit code 0 (Unix time), 0 if none did.", job, succeeded),
        *(_family(f"classify_{name}", help_, job, getattr(outcome, field)) for name, help_, field in PLAIN),
        *([_family("classify_files", "Of a command about many files, how many.", job, outcome.files, "state")]
          if outcome.files else []),
        _family("classify_rows_failed", "Of the rows, those that failed, by error code.", job, failed, "code"),
        _family("classify_rows_labelled", "Of the rows of the output, those with this label; the rarest as one.",
                job, _bounded(outcome.labels), "label"),
        *_of_report(job, outcome),
        _family("classify_labels", "How many different labels there are in the output.", job, len(outcome.labels)),
    ]  # fmt: skip


def _of_report(job: str, outcome: Outcome) -> list[GaugeMetricFamily]:
    """Return the checks of the run's report: each with its value, and 1 for its state; nothing without a report."""
    if outcome.report is None:
        return []
    state = GaugeMetricFamily(
        "classify_report_check", "1 for the state of each check of the report.", labels=["output", "check", "state"]
    )
    for check in outcome.report.checks:
        for each in STATES:
            state.add_metric([job, check["id"], each], float(check["state"] == each))
    values = {check["id"]: check["value"] for check in outcome.report.checks}
    return [state, _family("classify_report_value", "What each check of the report has found.", job, values, "check")]


def _family(name: str, help_: str, job: str, value: float | Mapping[str, float], by: str = "") -> GaugeMetricFamily:
    """Make a metric with a single value, or with one for each value of the label `by`."""
    family = GaugeMetricFamily(name, help_, labels=["output", by] if by else ["output"])
    values = value if isinstance(value, Mapping) else {"": value}
    for each, number in values.items():
        family.add_metric([job, each] if by else [job], number)
    return family


def _bounded(labels: Mapping[str, int]) -> dict[str, int]:
    """Return the rows of the `MOST_LABELS` most frequent labels, long ones cut, and of all others as `OTHERS`."""
    bounded: dict[str, int] = {}
    for label, rows in sorted(labels.items(), key=lambda pair: -pair[1]):
        name = storable(label)
        name = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
        if len(bounded) >= MOST_LABELS and name not in bounded:
            name = OTHERS
        bounded[name] = bounded.get(name, 0) + rows
    return bounded


def _last_success(path: Path, job: str) -> float:
    """Return the time of the last success of this job in the file that is there, 0 if it has none."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:  # a label may hold other line breaks
            for family in text_fd_to_metric_families(file):
                for sample in family.samples:
                    if sample.name == LAST_SUCCESS and sample.labels.get("output") == job:
                        return float(sample.value) if math.isfinite(sample.value) else 0.0
    except Exception:  # noqa: BLE001 - a file that can't be parsed is replaced
        return 0.0
    return 0.0
