"""A config that is run every day, as any scheduler has to know it: its name, hours and secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from pipeline.config import Config, is_dated, load
from pipeline.config.masking import FROM_ENVIRONMENT
from pipeline.errors import ConfigError
from pipeline.storage.listing import is_pattern

LONGEST_S = 23 * 3600  # of a run without a deadline: no retry may reach the next start
LONGEST_NAME = 40  # characters; a CronJob's name may have 52, of which "classify-" takes 9


@dataclass(frozen=True, slots=True)
class DailyRun:
    """A config that is started every day at `at`, and again after exit code 75 until `until`."""

    path: Path  # absolute
    config: Config
    name: str  # of units and objects: lower-case letters, digits and dashes
    at: time
    length_s: int  # from `at` to the deadline, at least a minute
    retry_s: int  # from `at` to `until`: not past midnight if {date} is in the config, since a retry means the same day

    @property
    def until(self) -> time:
        """The time of day after which nothing is tried again."""
        return (datetime.combine(date.min, self.at) + timedelta(seconds=self.retry_s)).time()

    @property
    def variables(self) -> list[str]:
        """The environment variables that hold the config's secrets: the server's key, and every `env:NAME`."""
        values = [*self.config.server.headers.values(), self.config.run.notify_url or ""]
        named = [value.removeprefix(FROM_ENVIRONMENT) for value in values if value.startswith(FROM_ENVIRONMENT)]
        return list(dict.fromkeys(filter(None, [self.config.server.api_key_env, *named])))

    def beside(self, ending: str) -> str:
        """Return the path beside the config that has its name and this ending."""
        return str(self.path.with_suffix(ending))


def read_daily_run(path: str, at: time) -> DailyRun:
    """Load the config and check that a scheduler can run it; raises ConfigError."""
    if not path.endswith(".toml"):  # `run` would take it for the input
        raise ConfigError(f"{path}: a config file ends in .toml")
    config, absolute = load(path, {}), Path(printable(str(Path(path).absolute())))
    if not config.loader.inputs:
        raise ConfigError(f"{path}: loader.input names no input, and a scheduled run has no command line that could")
    if "-" in (*config.loader.inputs, config.writer.output):
        raise ConfigError(f'{path}: "-" is a standard stream, and a scheduled run has none; name files in the config')
    seconds_left = config.run.seconds_left(datetime.combine(date(2000, 1, 1), at))
    length_s = max(60, int(min(LONGEST_S, LONGEST_S if seconds_left is None else seconds_left)))
    to_midnight_s = 86_400 - 3600 * at.hour - 60 * at.minute
    has_date = any(map(is_dated, (*config.loader.inputs, config.writer.output)))
    stem = re.sub(r"[^a-z0-9]+", "-", absolute.stem.lower())[:LONGEST_NAME].strip("-")
    return DailyRun(
        path=absolute,
        config=config,
        name=f"classify-{stem}" if stem else "classify",
        at=at,
        length_s=length_s,
        retry_s=min(length_s, to_midnight_s) if has_date else length_s,
    )


def printable(path: str) -> str:
    """Return `path`; raises ConfigError for a character that would end a line, or that a scheduler reads as another."""
    if not path.isprintable() or "\\" in path:
        shown = os.fsencode(path).decode("ascii", "backslashreplace")
        raise ConfigError(f"{shown}: a backslash or an invisible character can't be scheduled safely; rename it")
    return path


def missing_files(config: Config) -> Iterator[str]:
    """Say which local files and directories a run would need that are not there now: it would end with exit code 2."""
    for path in config.loader.inputs:
        is_plain = not is_dated(path) and not is_pattern(path)
        there = path if is_plain else folder_of(path)
        if "://" not in path and not os.path.exists(there):  # noqa: PTH110 - a Path raises where it may not look
            yield f"{there}: is not there, and the run reads it; see that it is by then, or correct loader.input"
    output = config.writer.output
    if output and "://" not in output and not output.endswith("/") and not is_dated(output):  # else it is made
        folder = folder_of(output)
        if not os.path.isdir(folder):  # noqa: PTH112
            yield f"{folder}: is no directory, and the output goes there; make it, or correct writer.output"


def folder_of(path: str) -> str:
    """Return the folder of a file, a glob or a path with {date} in it, as far as it is the same every day."""
    absolute = os.path.normpath(Path(path).absolute()) + ("/" if path.endswith("/") else "")
    return re.split(r"[*?\[{]", absolute)[0].rpartition("/")[0] or "/"
