"""Days: what `--date` says, and what `{date}` in a path becomes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from commands import NOWHERE, Command, complaint
from fake import FakeServer
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import dated, days_of, is_dated, load, parse_setting
from pipeline.errors import ConfigError

TODAY = date(2026, 11, 24)
WRONG = [
    "tomorrow",
    "2026-13-01",
    "2026-11-31",
    "..",
    "2026-11-01..",
    "..2026-11-01",
    "2026-11-02..2026-11-01",
    "2026-11-01..x",
    "2026-11-01..2026-11-02..2026-11-03",
    "2026-11-23T10:00:00",
    "1000-01-01..2026-01-01",
    "{date}",
]


@given(st.dates())
def test_a_day_names_itself(day: date) -> None:
    """A day as it is written in ISO 8601 is that day, whatever day it is today."""
    assert days_of(day.isoformat(), TODAY) == [day]


@given(st.dates(min_value=date(1, 1, 2)))
def test_today_and_yesterday_are_counted_from_the_day_given(today: date) -> None:
    """Nothing and `today` are today, `yesterday` is the day before; in any case of letters."""
    assert days_of(None, today) == days_of("today", today) == days_of("TODAY", today) == [today]
    assert days_of("yesterday", today) == days_of(" Yesterday ", today) == [today - timedelta(days=1)]
    assert days_of("yesterday..today", today) == [today - timedelta(days=1), today]


@given(st.dates(max_value=date(9990, 1, 1)), st.integers(0, 800))
def test_a_range_is_every_day_from_the_first_to_the_last(first: date, more: int) -> None:
    """FROM..TO are all days in between, both ends included, in order, each once."""
    last = first + timedelta(days=more)
    days = days_of(f"{first}..{last}", TODAY)
    assert (days[0], days[-1], len(days)) == (first, last, more + 1)
    assert all(after - before == timedelta(days=1) for before, after in pairwise(days))


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_day_is_refused(text: str) -> None:
    """No day, half a range, or one that ends before it begins or is endless: the key is named."""
    with pytest.raises(ValueError, match=r"^run\.date"):
        days_of(text, TODAY)


@given(st.dates())
def test_a_place_without_a_format_gets_the_iso_day(day: date) -> None:
    """`{date}` is the day as it is written in ISO 8601: four, two and two digits."""
    assert dated("in/day={date}/{date}.csv", day) == f"in/day={day.isoformat()}/{day.isoformat()}.csv"


@given(st.dates(min_value=date(1000, 1, 1)))
def test_a_format_after_a_colon_is_that_of_strftime(day: date) -> None:
    """`{date:FORMAT}` is what strftime makes of FORMAT; several may stand in one path."""
    assert dated("{date:%Y/%m}/x-{date:%d}.csv", day) == f"{day.year}/{day.month:02}/x-{day.day:02}.csv"
    assert dated("{date:%j %% %G-W%V}", day) == day.strftime("%j %% %G-W%V")
    assert dated("{date:}", day) == day.isoformat()


@given(st.text(alphabet="{}date:%Y m!r[]*", max_size=20))
def test_only_the_placeholder_is_replaced(path: str) -> None:
    """A path in which no `{date}` or `{date:...}` stands is no dated one, and stays as it is."""
    has_day = any("}" in part and (part[0] == "}" or part[0] == ":") for part in path.split("{date")[1:] if part)
    if not has_day:
        assert not is_dated(path)
    if not is_dated(path):
        assert dated(path, TODAY) == path


@pytest.mark.parametrize("path", ["{Date}", "{ date }", "{dates}", "{date!r}", "{date", "date}", "{}", "{:%Y}", "date"])
def test_what_only_looks_like_the_placeholder_stays(path: str) -> None:
    """Other words in braces, blanks and half a pair of braces are part of the name."""
    assert not is_dated(path)
    assert dated(path, TODAY) == path


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-11-23", "2026-11-23"),
        ('"2026-11-23"', "2026-11-23"),
        ('"yesterday"', "yesterday"),
        ('"2026-11-01..2026-11-03"', "2026-11-01..2026-11-03"),
    ],
)
def test_a_config_file_may_name_the_day_with_quotes_or_without(written: str, expected: str, tmp_path: Path) -> None:
    """TOML's own date is as good as a string, in a file and with --set."""
    path = tmp_path / "c.toml"
    path.write_text(f"[run]\ndate = {written}\n")
    assert load(str(path), {}).run.date == expected
    assert load(None, dict([parse_setting(f"run.date={written}")])).run.date == expected
    assert load(None, dict([parse_setting(f"run.date={expected}")])).run.date == expected


@pytest.mark.parametrize(
    "written", ["2026-11-23T10:00:00", "10:00:00", "20261123", "true", "[2026-11-01, 2026-11-02]", '"2026-11-00"']
)
def test_a_config_file_with_another_value_is_refused(written: str, tmp_path: Path) -> None:
    """A time of day, a number, a list, no day at all: the message names the file and the key."""
    path = tmp_path / "c.toml"
    path.write_text(f"[run]\ndate = {written}\n")
    with pytest.raises(ConfigError, match=r"run\.date") as caught:
        load(str(path), {})
    assert "c.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_day_is_exit_2_in_one_line(classify: Command, tmp_path: Path) -> None:
    """By flag, by --set and in a file, before anything is looked at."""
    (tmp_path / "c.toml").write_text('[loader]\ninput = "{date}.csv"\n[run]\ndate = 2026-11-23T10:00:00\n')
    complaint(classify("run", "{date}.csv", "--date", "tomorrow", *NOWHERE, expect=2), "run.date", "tomorrow")
    complaint(classify("check", "{date}.csv", "--set", "run.date=2026-02-30", *NOWHERE, expect=2), "run.date")
    complaint(classify("run", "c.toml", *NOWHERE, expect=2), "run.date")


def test_a_day_that_stands_nowhere_is_refused(classify: Command, tmp_path: Path) -> None:
    """--date without {date} in input or output is a mistake: it would classify the same file whatever the day."""
    (tmp_path / "in.csv").write_text("text\na\n")
    for output in ((), ("-o", "out.csv")):
        done = classify("run", "in.csv", *output, "--date", "2026-11-23", *NOWHERE, expect=2)
        complaint(done, "run.date", "2026-11-23", "{date}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def piped(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in `folder`, with one row on its standard input."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "-i", "-", *arguments],
        input='{"text": "a"}\n',
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_output_of_a_pipe_has_its_day_too(tmp_path: Path, fake: FakeServer) -> None:
    """`{date}` in the output is the day also where the rows come through standard input."""
    done = piped(tmp_path, "-o", "out-{date}.jsonl", "--date", "2026-11-23", "--url", fake.url)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("out*")] == ["out-2026-11-23.jsonl"]


def test_a_day_that_stands_nowhere_is_refused_for_a_pipe_too(tmp_path: Path, fake: FakeServer) -> None:
    """--date with standard input and an output without {date} is the same mistake."""
    done = piped(tmp_path, "-o", "out.jsonl", "--date", "2026-11-23", "--url", fake.url)
    assert done.returncode == 2, done.stderr
    assert "run.date" in done.stderr
    assert fake.requests == []
