"""The run record, `.NAME.run.json`: what was run on what, with which settings, and what came of it."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline._version import __version__
from pipeline.storage import Location

VERSION = 1
_PACKAGES = ("aiohttp", "msgspec", "numpy", "pandas", "pyarrow", "uvloop")


class FailedFile(msgspec.Struct):
    """One of many files that could not be classified, or in which too many rows failed."""

    input: str
    exit_code: int
    error: str

    @property
    def told(self) -> str:
        """Which, and why."""
        return self.error if self.input in self.error else f"{self.input}: {self.error}"


class Outcome(msgspec.Struct, kw_only=True):
    """How a command ended, as far as it is known: of a run that failed, this much."""

    version: int = VERSION  # of this shape
    exit_code: int  # 3: the output is complete, but more rows failed than allowed
    error: str | None = None  # where the code is not 0: what a person was told, in one line
    input: str
    output: str
    rows: int = 0  # in the output; where the run failed, those that are answered and kept
    rows_total: int | None = None  # wanted; None: not known yet
    labelled: int = 0  # rows
    labels: dict[str, int] = {}  # label -> rows; known when the output is written
    failed: dict[str, int] = {}  # error code -> rows
    empty: int = 0  # rows without a text
    truncated: int = 0  # rows whose text the server cut; known when the output is written
    resumed_rows: int = 0  # answered by an earlier, interrupted run
    reused_rows: int = 0  # with an answer that another run got, see run.reuse
    skipped_lines: int = 0  # bad ones, which are in no row
    shared_rows: int = 0  # of this run: rows with the text of another one, which was sent for both
    requests: int = 0
    texts_sent: int = 0
    retries: int = 0
    files: dict[str, int] = {}  # of a command about many: all, done (well or not), complete already, failed
    failed_files: list[FailedFile] = []
    started: str  # this and the next: ISO 8601, UTC
    finished: str = ""
    seconds: float = 0.0  # from the one to the other
    rows_per_s: float = 0.0  # answered by this run
    already_complete: bool = False  # there was nothing to do
    host: str = ""
    settings: dict[str, dict[str, Any]] = {}  # secrets masked
    versions: dict[str, str] = {}

    @property
    def rows_failed(self) -> int:
        """Rows that should have got an answer and did not."""
        return sum(self.failed.values())


class RunRecord(Outcome, kw_only=True):
    """What `run` returns, and what stands beside the output."""

    input_digest: str
    output_digest: str
    is_whole: bool  # these are all rows of the input, not only the first of them
    seconds_writing: float = 0.0  # of `seconds`: the second pass
    model: dict[str, Any]  # id, number and names of classes as learned, answers to the canary
    identity: dict[str, Any]


def nothing_to_do(record: RunRecord, started: datetime, seconds: float) -> RunRecord:
    """The record of a run that found its output complete: the output is as it was, and cost nothing."""
    spent = ("resumed_rows", "reused_rows", "shared_rows", "requests", "texts_sent", "retries")
    return msgspec.structs.replace(
        record,
        already_complete=True,
        labelled=sum(record.labels.values()),  # older records do not say
        rows_total=record.rows,
        rows_per_s=0.0,
        seconds_writing=0.0,
        **dict.fromkeys(spent, 0),
        **when(started, seconds),
    )


def when(started: datetime, seconds: float) -> dict[str, Any]:
    """The fields that say when and where something that ends now was done; `seconds` by a clock that nobody sets."""
    finished = iso(datetime.now(UTC))
    return {"started": iso(started), "finished": finished, "seconds": round(seconds, 3), "host": platform.node()}


def iso(moment: datetime) -> str:
    """A moment as it stands in records and logs."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def read_record(location: Location) -> RunRecord | None:
    """The record at a location; None if there is none that can be understood.

    Raises:
        StoreRefused, StoreGone: its store.
    """
    try:
        return msgspec.json.decode(location.read() or b"", type=RunRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def encode_record(record: RunRecord) -> bytes:
    """The record as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def versions() -> dict[str, str]:
    """Python's version, ours, and those of the packages that take part."""
    found = {"python": platform.python_version(), "classify-pipeline": __version__}
    for name in _PACKAGES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:  # another thread may be importing it
            found[name] = version
    return found
