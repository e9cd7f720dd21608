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
    """Return the reports in a history, the oldest first; those of another version are left out.

    Raises:
        InputError: a line is no report. StoreRefused, StoreGone: its store.
    """
    found = []
    for number, line in enumerate((location.read() or b"").splitlines(), 1):
        try:
            night = decode(line, str(location))
        except InputError:  # of another version
            continue
        if night is None:
            raise InputError(f"{location}:{number}: is no line of a history; mend it, or remove the file to begin anew")
        found.append(night)
    return found


def last_good(history: Sequence[Document], night: Document, most: int) -> list[Document]:
    """Return the last reports that did not fail or were accepted, the latest first, at most so many.

    That of the same run is none of them.
    """
    others = [each for each in history if not _is_same_run(each, night)]
    return [each for each in others if each["verdict"] != "fail" or each.get("accepted")][::-1][:most]


def remember(location: Location, night: Document) -> None:
    """Add a report to a history, in the place of an earlier one of the same run.

    Raises:
        OutputError, DiskTrouble, StoreRefused, StoreGone: it can't be written.
    """
    history = read_history(location)
    kept = [each for each in history if not _is_same_run(each, night)]
    is_accepted = any(each.get("accepted") for each in history if _is_same_run(each, night))
    _write(location, [*kept, without_texts(night) | ({"accepted": True} if is_accepted else {})])


def accept_night(location: Location, digest: str) -> None:
    """Have the report of outputs of that digest count as one that did not fail.

    Raises:
        InputError, OutputError, DiskTrouble, StoreRefused, StoreGone: it can't be read, or written.
    """
    history = read_history(location)
    accepted = [night for night in history if night.get("digest") == digest and not night.get("accepted")]
    for night in accepted:
        night["accepted"] = True
    if accepted:
        _write(location, history)


def _write(location: Location, history: Sequence[Document]) -> None:
    write_whole(location, b"".join(encode(each) + b"\n" for each in history[-MOST_LINES:]))


def _is_same_run(one: Document, other: Document) -> bool:
    return all(one.get(key) == other[key] for key in ("output", "digest", "started"))
