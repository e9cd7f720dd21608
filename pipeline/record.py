"""The run record, `.NAME.run.json`: what was run on what, with which settings, and what came of it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import msgspec

VERSION = 1
_PACKAGES = ("classify-pipeline", "aiohttp", "msgspec", "pyarrow", "pandas", "uvloop")


class RunRecord(msgspec.Struct, kw_only=True):
    """What `run` returns, and what stands beside the output."""

    version: int = VERSION
    exit_code: int  # 0, or 3 when more rows failed than allowed
    input: str
    input_digest: str
    output: str
    output_digest: str
    rows: int  # in the output
    is_whole: bool  # these are all rows of the input, not only the first of them
    labels: dict[str, int]  # label -> rows
    failed: dict[str, int]  # error code -> rows
    empty: int  # rows without a text
    skipped_lines: int
    resumed_rows: int  # answered by an earlier, interrupted run
    shared_rows: int  # of this run: rows with the text of another one, which was sent for both
    reused_rows: int = 0  # of this run: rows with an answer that another run got, see run.reuse
    requests: int
    texts_sent: int
    retries: int
    started: str
    seconds: float
    rows_per_s: float
    model: dict[str, Any]  # id, number and names of classes as learned, answers to the canary
    identity: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    versions: dict[str, str]

    @property
    def rows_failed(self) -> int:
        """Rows that should have got an answer and did not."""
        return sum(self.failed.values())


def read_record(path: Path) -> RunRecord | None:
    """The record at `path`; None if there is none that can be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except (OSError, msgspec.DecodeError):
        return None


def encode_record(record: RunRecord) -> bytes:
    """The record as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def versions() -> dict[str, str]:
    """Python's and our packages' versions."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
