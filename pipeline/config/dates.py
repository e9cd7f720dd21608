"""Days of a run: what `run.date` means, and `{date}` in the paths of a config."""

from __future__ import annotations

import re
from datetime import date, timedelta

MOST_DAYS = 10_000
_DATE = re.compile(r"\{date(?::([^{}]*))?\}")


def days_of(text: str | None, today: date) -> list[date]:
    """Return the days of a value of `run.date`, in order: one day, all of FROM..TO, or today without a value.

    Raises:
        ValueError: it is no day, or a range that ends before it begins or has more than `MOST_DAYS` days.
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


def is_dated(path: str) -> bool:
    """Return whether `{date}` is in a path."""
    return _DATE.search(path) is not None


def dated(path: str, day: date) -> str:
    """Replace `{date}` in a path by a day like 2026-11-23, and `{date:%Y/%m}` as strftime formats it."""
    return _DATE.sub(lambda found: day.strftime(found[1]) if found[1] else day.isoformat(), path)
