"""How the records of a CSV file are written, and whether its first rows look as if they were written otherwise."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from pipeline.config import Loader
from pipeline.errors import OutputError

LOOK_BYTES = 64 << 10  # of the beginning of a file, in which doubts are looked for
_LOOK_RECORDS = 100
_OTHER_DELIMITERS = ";\t|,"
_QUOTES_ARE_PLAIN = "if quotes are plain characters in this file, --set loader.quoting=none"


class Dialect(NamedTuple):
    """How the records of a CSV file are written."""

    delimiter: str
    has_quotes: bool = True  # whether quotes around a cell are no part of it
    escape: str | None = None  # makes the special character after it a plain one

    @classmethod
    def of(cls, loader: Loader, delimiter: str) -> Dialect:
        """Make the dialect that the config names, with `delimiter` if it names none."""
        return cls(loader.delimiter or delimiter, loader.quoting == "double", loader.escape)

    def reader(self, lines: Iterable[str]) -> Any:
        """Make a reader of the csv module for lines with their line ends."""
        settings: Any = {
            "delimiter": self.delimiter,
            "quoting": csv.QUOTE_MINIMAL if self.has_quotes else csv.QUOTE_NONE,
            "escapechar": self.escape,
        }
        if (escape := self.escape) is None:
            return csv.reader(lines, **settings)

        # The csv module would drop an escape before any character, also that of `C:\new`, and after a line end that is
        # escaped it takes the end of the file for no end of the record.
        special = {'"', self.delimiter, escape, "\r", "\n"}
        find = re.compile(rf"{re.escape(escape)}(\r\n|.|\Z)", re.DOTALL)

        def kept(found: re.Match[str]) -> str:
            if found[1] == "\r\n":
                return f"{escape}\r{escape}\n"
            return found[0] if found[1] in special else escape + found[0]

        lines = (find.sub(kept, line) if escape in line else line for line in lines)
        return csv.reader((line if line.endswith(("\n", "\r")) else f"{line}\n" for line in lines), **settings)

    @functools.lru_cache(maxsize=16)  # noqa: B019 - of immutable values
    def cell_writer(self) -> Callable[[str], str]:
        """Make a function that writes a text as a cell.

        The function raises an OutputError where a cell can't hold the text: the dialect has neither quotes nor escape.
        """
        delimiter, escape = self.delimiter, self.escape

        def quoted(text: str) -> str:
            if delimiter in text or '"' in text or "\n" in text or "\r" in text:
                return '"' + text.replace('"', '""') + '"'
            return text

        def quoted_with_escapes(text: str) -> str:
            special = re.sub(rf'[{re.escape(str(escape))}"]', lambda found: f"{escape}{found[0]}", text)
            return f'"{special}"' if special != text or quoted(text) != text else text

        def escaped(text: str) -> str:
            return self._special().sub(lambda found: f"{escape}{found[0]}", text)

        def plain(text: str) -> str:
            if self._special().search(text):
                raise OutputError(
                    f"{text!r} can't be written as a cell without quotes; set loader.escape, or choose another format"
                )
            return text

        if self.has_quotes:
            return quoted_with_escapes if escape else quoted
        return escaped if escape else plain

    def can_hold(self, text: str) -> bool:
        """Whether a cell can hold a text."""
        return self.has_quotes or self.escape is not None or not self._special().search(text)

    def softened(self, text: str) -> str:
        """Put spaces in the place of what a cell can't hold."""
        return text if self.can_hold(text) else self._special().sub(" ", text)

    def _special(self) -> re.Pattern[str]:
        """Find the characters that have a meaning outside quotes."""
        return re.compile(f"[{re.escape(self.delimiter + (self.escape or ''))}\r\n]")

    def in_words(self) -> str:
        """Say what it is, as `check` shows it."""
        quoting, escape = "double" if self.has_quotes else "none", repr(self.escape) if self.escape else "none"
        return f"delimiter {self.delimiter!r}, quoting {quoting}, escape {escape}"


def doubts(head: str, dialect: Dialect, columns: int, *, is_whole: bool) -> list[str]:
    """Say which other dialect would fit the first rows of a file better, each with the setting to type.

    Each is what follows the path of the file in a message.

    Args:
        head: the beginning of the file, its header included.
        dialect: the one it is read in.
        columns: how many it has in that dialect.
        is_whole: whether `head` is all of the file.
    """
    found = []
    if columns == 1 and (other := _other_delimiter(head, dialect)):
        found.append(
            f": the first rows look as if the delimiter were {other!r}; if so, --set 'loader.delimiter={_typed(other)}'"
        )
    if dialect.has_quotes and '"' in head:
        if dialect.escape is None and (line := _line_with_backslash(head, dialect)):
            found.append(f":{line}: a backslash stands before a quote; if it escapes it, --set 'loader.escape=\\'")
        elif any(line.count('"') % 2 for line in head.split("\n")):
            found += _doubt_about_quotes(head, dialect, columns, is_whole=is_whole)
    return found


def _typed(delimiter: str) -> str:
    return '"\\t"' if delimiter == "\t" else f'"{delimiter}"'


def _other_delimiter(head: str, dialect: Dialect) -> str | None:
    """Find the delimiter that would cut the first records into as many cells each, and more than one."""
    header = next((line for line in io.StringIO(head, newline="") if line.strip("\r\n")), "")
    for other in _OTHER_DELIMITERS.replace(dialect.delimiter, ""):
        records = dialect._replace(delimiter=other).reader(io.StringIO(head, newline=""))
        try:
            widths = [len(cells) for cells in itertools.islice(records, _LOOK_RECORDS) if cells]
        except csv.Error:
            continue
        widths = widths[:-1] or widths  # the last may be cut
        if other in header and len(set(widths)) == 1 and widths[0] > 1:
            return other
    return None


def _line_with_backslash(head: str, dialect: Dialect) -> int | None:
    """Find the first line in which a quoted cell has a backslash before a quote that does not end the cell."""
    delimiter = re.escape(dialect.delimiter)
    pattern = rf'(?:^|{delimiter})"(?:[^"\\]|\\[^"]|"")*+\\"(?![{delimiter}\r\n"]|\Z)'
    found = re.search(pattern, head, re.MULTILINE) if '\\"' in head else None
    return head.count("\n", 0, found.end()) + 1 if found else None


def _doubt_about_quotes(head: str, dialect: Dialect, columns: int, *, is_whole: bool) -> list[str]:
    """Say where a quote takes in what look like rows of their own; one that is never closed is the reader's error."""
    # Not a delimiter before a space: that is a comma of a sentence, also where it is as frequent as in a row.
    delimiter = re.compile(rf"{re.escape(dialect.delimiter)}(?! )")
    for line, record, is_last in _records_of_lines(head, dialect):
        lines = record[:-1] if is_last and not is_whole else record
        if columns > 1 and len(lines) > 1 and all(len(delimiter.findall(each)) == columns - 1 for each in lines):
            what = "a record holds line ends, and as many delimiters in each of its lines as a row"
            return [f":{line}: {what}; {_QUOTES_ARE_PLAIN}"]
    return []


def _records_of_lines(head: str, dialect: Dialect) -> Iterator[tuple[int, list[str], bool]]:
    """Cut text into the lines of each record; with the number of the first one, and whether the record is the last."""
    lines = list(io.StringIO(head, newline=""))
    reader, before = dialect.reader(lines), 0
    with suppress(csv.Error):
        for _ in reader:
            yield before + 1, lines[before : reader.line_num], reader.line_num == len(lines)
            before = reader.line_num
