"""The table of labels on a terminal: rows, share, change, median score, bands of the score, and how many are right.

It needs no colours, and no other characters than ASCII where a terminal has none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.streams import storable

LONGEST_LABEL = 24  # columns of the terminal
BAR, BANDS = 10, 10  # columns
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class LabelRow(NamedTuple):
    """One label in the table. What is None in all rows has no column."""

    label: str
    rows: int
    share: float  # of the labelled rows
    median: float | None = None  # of the scores
    bands: Sequence[float] | None = None  # shares of its rows, see `scores.bands`
    change: float | None = None  # of the share, since what it is compared with
    right: float | None = None  # share of its rows with a truth that are right


def label_table(labels: Sequence[LabelRow], most: int, *, blocks: bool) -> list[str]:
    """Return the first `most` labels as a table, and a line about the others; with `blocks`, with block characters."""
    shown = labels[:most]
    columns = [_texts(shown), _numbers("rows", [f"{row.rows:,}" for row in shown])]
    columns.append(_numbers("share", [f"{100 * row.share:.1f} %" for row in shown]))
    longest = max((row.share for row in shown), default=0) or 1
    columns.append(["", *(_bar(row.share / longest, blocks=blocks) for row in shown)])
    if any(row.change is not None for row in shown):
        points = ["" if row.change is None else f"{100 * row.change:+.1f}" for row in shown]
        columns.append(_numbers("change", points))
    if any(row.median is not None for row in shown):
        columns.append(_numbers("median", ["" if row.median is None else f"{row.median:.3f}" for row in shown]))
    if any(row.bands is not None for row in shown):
        shades = "░▒▓█" if blocks else ".-=#"
        title = "{}<.5 {} {} {}≥.99" if blocks else "{}<.5 {} {} {}>=.99"
        columns.append([title.format(*shades), *(_shaded(row.bands or (), shades) for row in shown)])
    if any(row.right is not None for row in shown):
        columns.append(_numbers("right", ["" if row.right is None else f"{100 * row.right:.0f} %" for row in shown]))
    widths = [max(map(_width, column)) for column in columns]
    lines = [
        "  ".join(_padded(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*columns, strict=True)
    ]
    if rest := labels[most:]:
        lines.append(f"and {len(rest):,} more labels: {sum(row.rows for row in rest):,} rows")
    return lines


def printable(text: str) -> str:
    """Escape control characters and what a terminal can't show."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return storable(shown)


def _texts(labels: Sequence[LabelRow]) -> list[str]:
    return ["label", *(_cut(printable(row.label)) for row in labels)]


def _numbers(title: str, values: Sequence[str]) -> list[str]:
    """Align a column to the right."""
    width = max(map(len, [title, *values]))
    return [each.rjust(width) for each in [title, *values]]


def _bar(share: float, *, blocks: bool) -> str:
    if not blocks:
        return "#" * round(share * BAR)
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _shaded(bands: Sequence[float], shades: str) -> str:
    """Draw the shares below 0.5, below 0.9, below 0.99 and above as lengths of four shades."""
    if not bands:
        return ""
    below_half, to_07, to_09, to_099, _ = bands
    ends = (below_half, below_half + to_07 + to_09, below_half + to_07 + to_09 + to_099)
    middles = [(cell + 0.5) / BANDS for cell in range(BANDS)]
    return "".join(shades[sum(middle > end for end in ends)] for middle in middles)


def _width(text: str) -> int:
    """Count the columns of a terminal that a text takes: characters of East Asia take two, accents none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _cut(text: str) -> str:
    if _width(text) <= LONGEST_LABEL:
        return text
    while _width(text) > LONGEST_LABEL - 1:
        text = text[:-1]
    return f"{text}…"
