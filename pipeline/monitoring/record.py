"""The record of a run, `.NAME.run.json`: its input, its settings, and its result."""

from __future__ import annotations

import platform
import re
import sys
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from pipeline._version import __version__
from pipeline.config import Config, public_settings
from pipeline.storage import Location

_PACKAGES = ("aiohttp", "msgspec", "numpy", "pandas", "pyarrow", "uvloop")  # told where they are imported


class FailedFile(msgspec.Struct):
    """A file of several that could not be classified, or in which too many rows failed."""

    input: str
    exit_code: int
    error: str

    @property
    def told(self) -> str:
        """The file and its error, for messages."""
        return self.error if self.input in self.error else f"{self.input}: {self.error}"


class Held(msgspec.Struct, kw_only=True):
    """A new output that waits for `classify accept`, because its report failed. Paths are absolute, or URIs."""

    output: str  # where it waits
    command: str  # what puts it in its place
    look: str = ""  # the command that shows why, if no report was written
    digest: str  # of the outputs that the report is about, together
    files: dict[str, str] = {}  # its reports -> their names when it is accepted
    history: str | None = None
    is_discarded: bool = False  # `accept --discard` has begun with the files of a directory; the rest follows

    @property
    def advice(self) -> str:
        """What to do before it is accepted."""
        return f"look at `{self.look}`" if self.look else "look at the report"


class ReportOutcome(msgspec.Struct, kw_only=True):
    """The report of a run, without a text of a row."""

    verdict: str  # pass, warn, fail, or unjudged: see report.checks.verdict_of; "" if it could not be made
    checks: list[dict[str, Any]] = []  # see docs/report.md
    files: list[str] = []  # that were written
    error: str | None = None  # why it could not be made


class Outcome(msgspec.Struct, kw_only=True):
    """The end of a command; of a run that failed, all that is known."""

    version: int = 1  # of these fields
    exit_code: int  # 3: the output is complete, but more rows failed than allowed; 5: its report failed
    error: str | None = None  # unless the code is 0: the message, in one line
    input: str
    output: str
    rows: int = 0  # in the output; of a run that failed, those answered and kept
    rows_total: int | None = None  # None: not known yet
    rows_total_is_exact: bool = True  # False: it is estimated
    labelled: int = 0  # rows
    labels: dict[str, int] = {}  # label -> rows; known when the output is written
    scores: dict[str, list[int]] = {}  # label -> rows by score, in the bins of `scores.COARSE_EDGES`; not of raw logits
    failed: dict[str, int] = {}  # error code -> rows
    empty: int = 0  # rows without a text
    truncated: int = 0  # rows whose text the server cut; known when the output is written
    in_parts: int = 0  # rows whose text was answered in parts; the same
    unsure: int = 0  # rows whose score is below `writer.min_score`; known when the output is written
    resumed_rows: int = 0  # answered by an earlier, interrupted run
    reused_rows: int = 0  # with a stored answer of another run, see run.reuse
    skipped_lines: int = 0  # bad lines, which are in no row
    shared_rows: int = 0  # answered by this run with the text of another row, sent only once
    requests: int = 0
    texts_sent: int = 0
    retries: int = 0
    files: dict[str, int] = {}  # of a command with several: all, done (also failed), complete already, failed
    failed_files: list[FailedFile] = []
    report: ReportOutcome | None = None  # if one was made
    held: Held | None = None  # the output waits beside the last one, see `report.on_fail`
    accepted: str | None = None  # by a person, although its report had failed: the digest of what was accepted
    started: str  # this and the next: ISO 8601, UTC
    finished: str = ""
    seconds: float = 0.0  # between these
    rows_per_s: float = 0.0  # answered by this run
    already_complete: bool = False  # there was nothing to classify
    put_in_place: bool = False  # an output that an earlier run had held
    host: str = ""
    settings: dict[str, dict[str, Any]] = {}  # secrets masked
    versions: dict[str, str] = {}

    @property
    def is_held(self) -> bool:
        """Whether the output waits for `classify accept`."""
        return self.held is not None

    @property
    def rows_failed(self) -> int:
        """The number of rows that failed, of all error codes."""
        return sum(self.failed.values())


class RunRecord(Outcome, kw_only=True):
    """The end of a run with a complete output: what `run` returns, and the file beside the output."""

    input_digest: str
    output_digest: str
    is_whole: bool  # all rows of the input, not only the first of them
    seconds_writing: float = 0.0  # of `seconds`: the second pass
    model: dict[str, Any]  # id, number and names of classes as learned, answers to the canary
    identity: dict[str, Any]


Recorded = TypeVar("Recorded", bound=Outcome)


def nothing_to_do(record: RunRecord, started: datetime, seconds: float) -> RunRecord:
    """Return the record of a run that found its output complete, from that of the run that made it."""
    spent = ("resumed_rows", "reused_rows", "shared_rows", "requests", "texts_sent", "retries")
    return msgspec.structs.replace(
        record,
        already_complete=True,
        labelled=sum(record.labels.values()),  # older records do not say
        rows_total=record.rows,
        rows_per_s=0.0,
        seconds_writing=0.0,
        **dict.fromkeys(spent, 0),
        **_fields_of_time(started, seconds),
    )


def fields_of_run(config: Config, started: datetime, seconds: float, rows_answered: int) -> dict[str, Any]:
    """Return the fields of time, rate, settings and versions for a run that ends now and answered so many rows."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in _PACKAGES}
    known = {name: version for name, version in found.items() if version}  # another thread may be importing it
    return {
        "rows_per_s": round(rows_answered / max(seconds, 1e-9), 1),
        "settings": public_settings(config),
        "versions": {"python": platform.python_version(), "classify-pipeline": __version__, **known},
        **_fields_of_time(started, seconds),
    }


def _fields_of_time(started: datetime, seconds: float) -> dict[str, Any]:
    return {
        "started": started.isoformat(timespec="milliseconds"),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seconds": round(seconds, 3),
        "host": platform.node(),
    }


def read_record(location: Location, kind: type[Recorded]) -> Recorded | None:
    """Read the record of a kind at a location; None if there is none, or it can't be decoded.

    Raises:
        StoreRefused, StoreGone: see `Store`.
    """
    try:
        return msgspec.json.decode(location.read() or b"", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_NUMBERS = re.compile(rb"\[\n\s+([-+.\deE,\s]+?)\n\s*\]")


def encode_record(record: Outcome) -> bytes:
    """Encode a record as indented JSON, each list of numbers on one line."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    return _NUMBERS.sub(lambda found: b"[" + b" ".join(found[1].split()) + b"]", text) + b"\n"
