"""The three standard streams: words for people on one, data on another, and nobody may be at their ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import DiskTrouble

# -- Text that may hold what UTF-8 can't


def storable(text: str) -> str:
    r"""`text` with half surrogate pairs, which no file format but JSON can hold, spelled out as `\ud800`.

    JSON strings have them, and so do file names and arguments that were bytes of no UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())


# -- The three standard streams: words for people on one, data on another, and nobody may be at their ends


def open_missing() -> None:
    """Some schedulers start us with streams closed; the next file opened would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number: this one. Data on a closed standard output is an error, as it is for `cat`.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    # Python found them closed, too.
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def say(message: str) -> None:
    """Words on standard error. If they can't be written, the run goes on without: its exit code says the same."""
    try:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def say_event(name: str, level: str, **values: Any) -> None:
    """One JSON object on a line of standard error, for machines. `level` is info, warning or error."""
    import msgspec

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {key: storable(value) if isinstance(value, str) else value for key, value in values.items()}
    say(msgspec.json.encode({"time": now, "level": level, "event": name, **shown}).decode())


def write(lines: Iterable[str]) -> None:
    """Data on standard output.

    Raises:
        DiskTrouble: it can't be written. A reader that has seen enough (`| head`) is no trouble.
    """
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            raise DiskTrouble(f"standard output can't be written: {error.strerror}") from None
