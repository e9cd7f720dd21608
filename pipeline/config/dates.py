"""The days that a run is for: what `--date` says, and what `{date}` in a path becomes."""

from __future__ import annotations

import re
from datetime import date, timedelta

MOST_DAYS = 10_000
_PLACEHOLDER = re.compile(r"\{date(?::([^{}]*))?\}")


def days_of(text: str | None, today: date) -> list[date]:
    """The days that `text` names, in order: a day, FROM..TO (both included), or nothing, which is today.

    Raises:
        ValueError: it names no day, or ends before it begins.
    """
    first, dots, last = (text or "today").partition("..")
    start, end = _day(first, today), _day(last, today) if dots else _day(first, today)
    if end < start or (end - start).days >= MOST_DAYS:
        raise ValueError(f"run.date is a day or FROM..TO, from the earlier to the later, not {text!r}")
    return [start + timedelta(days=step) for step in range((end - start).days + 1)]


def _day(text: str, today: date) -> date:
    named = {"today": today, "yesterday": today - timedelta(days=today > date.min)}
    try:
        return named.get(text.strip().lower()) or date.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f'run.date: {text!r} is no day; it is "today", "yesterday" or like 2026-11-23') from None


def is_dated(place: str) -> bool:
    """Whether a day stands in a path."""
    return _PLACEHOLDER.search(place) is not None


def dated(place: str, day: date) -> str:
    """The path with `day` in it: `{date}` is 2026-11-23, `{date:%Y/%m}` whatever strftime makes of it."""
    return _PLACEHOLDER.sub(lambda found: day.strftime(found[1]) if found[1] else day.isoformat(), place)
