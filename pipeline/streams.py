"""Standard output and standard error, and text that can be written there.

Data goes to standard output and messages to standard error. Neither is sure to be open, or to be read by anybody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import DiskTrouble


def open_missing() -> None:
    """Open the null device in the place of each standard stream that is closed, as some schedulers start programs.

    The next file that is opened would take its place otherwise.
    """
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


def write_lines(lines: Iterable[str]) -> None:
    """Write data to standard output. A reader that has closed it, like `head`, is no error.

    Raises:
        DiskTrouble: it can't be written.
    """
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            raise DiskTrouble(f"standard output can't be written: {error.strerror}") from None


def say(message: str) -> None:
    """Write a message to standard error. If that fails, no later one is written: the exit code says the same."""
    try:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def say_event(name: str, level: str, **values: Any) -> None:
    """Write a message to standard error as one JSON object; `level` is "info", "warning" or "error"."""
    import msgspec

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {key: storable(value) if isinstance(value, str) else value for key, value in values.items()}
    say(msgspec.json.encode({"time": now, "level": level, "event": name, **shown}).decode())


def storable(text: str) -> str:
    r"""Return `text` as UTF-8 can hold it: half a surrogate pair becomes its escape, like `\ud800`.

    Strings of JSON may have one, and so may file names and arguments whose bytes are no UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Return `text` with every run of white space as one space."""
    return " ".join(text.split())
