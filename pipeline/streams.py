"""Standard output and standard error, and text that can be written there.

Data goes to standard output and messages to standard error. Neither is sure to be open, or to be read by anybody.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from pipeline.errors import DiskTrouble

# Control characters but tab and line feed, separators of lines, and what changes the direction of writing.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


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


def ignore_warnings() -> None:
    """Keep warnings of libraries, which are for programmers, from standard error, unless Python was told otherwise."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def has_working_directory() -> bool:
    """Return whether the working directory still exists, without which no relative path can be resolved."""
    try:
        os.getcwd()  # noqa: PTH109 - a Path does the same
    except FileNotFoundError:
        return False
    return True


def without_control(text: str) -> str:
    r"""Return `text` with control characters as JSON escapes, like `\u001b`: a terminal would obey them."""
    return _CONTROL.sub(lambda found: _escaped(found[0]), text)


def _escape_unknown(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _escaped(error.object[error.start : error.end]), error.end


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


codecs.register_error("json_escapes", _escape_unknown)  # what an encoding lacks; in JSON it then means the same


def write_lines(lines: Iterable[str], encoding: str = "") -> None:
    """Write data to standard output, in its encoding by default. A reader that has closed it, like `head`, is no error.

    Raises:
        DiskTrouble: it can't be written.
    """
    try:
        shown = "".join(f"{without_control(line)}\n" for line in lines)
        sys.stdout.buffer.write(shown.encode(encoding or sys.stdout.encoding, "json_escapes"))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            raise DiskTrouble(f"standard output can't be written: {error.strerror}") from None


def say(message: str) -> None:
    """Write a message to standard error. If that fails, no later one is written: the exit code says the same."""
    try:
        sys.stderr.write(f"{without_control(message)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def say_event(name: str, level: str, **values: Any) -> None:
    """Write a message to standard error as one JSON object; `level` is "info", "warning" or "error"."""
    import msgspec

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {key: storable(value) if isinstance(value, str) else value for key, value in values.items()}
    say(msgspec.json.encode({"time": now, "level": level, "event": name, **shown}).decode())


def has_blocks(stream: TextIO | None = None) -> bool:
    """Return whether a stream, by default standard error, can show block characters like those of a bar."""
    try:
        "█▏░…≥".encode((stream or sys.stderr).encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def storable(text: str) -> str:
    r"""Return `text` as UTF-8 can hold it: half a surrogate pair becomes its escape, like `\ud800`.

    Strings of JSON may have one, and so may file names and arguments whose bytes are no UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Return `text` with every run of white space as one space."""
    return " ".join(text.split())
