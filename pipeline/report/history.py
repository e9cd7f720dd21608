"""The history of an output: one report a run, without texts, as a line of JSON. "last" is looked up there."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.report.document import Document, decode, encode, without_texts
from pipeline.storage import Location, locate
from pipeline.storage.draft import write_whole

MOST_LINES = 1000  # the oldest are dropped


def history_of(config: Config, output: Location) -> Location | None:
    """Return where the history of an output is kept; None if nothing asks for one."""
    if config.report.history:
        return locate(config.report.history)
    return output.beside(f".{output.name}.history.jsonl") if config.report.nights else None


def read_history(location: Location) -> list[Document]:
    """Return the reports in a history, the oldest first; lines of another version or that are damaged are left out."""
    lines = (location.read() or b"").splitlines()
    found = [_decoded(line, location) for line in lines]
    return [each for each in found if each is not None]


def last_good(history: Sequence[Document], night: Document, most: int) -> list[Document]:
    """Return the last reports that did not fail, the latest first, at most so many, and not that of the same run."""
    others = [each for each in history if not _is_same_run(each, night) and each["verdict"] != "fail"]
    return others[::-1][:most]


def remember(location: Location, night: Document) -> None:
    """Add a report to a history, in the place of an earlier one of the same run.

    Raises:
        OutputError, DiskTrouble, StoreRefused, StoreGone: it can't be written.
    """
    kept = [each for each in read_history(location) if not _is_same_run(each, night)]
    lines = [encode(each) for each in [*kept, without_texts(night)][-MOST_LINES:]]
    write_whole(location, b"\n".join(lines) + b"\n")


def _is_same_run(one: Document, other: Document) -> bool:
    return all(one.get(key) == other[key] for key in ("output", "digest", "started"))


def _decoded(line: bytes, location: Location) -> Document | None:
    try:
        return decode(line, str(location))
    except InputError:
        return None
