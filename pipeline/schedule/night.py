"""A run every night, and what every scheduler has to know of it: command, hours, files beside the config, secrets."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

import msgspec

from pipeline.config import Config, is_dated, load
from pipeline.errors import ConfigError

RETRY_AFTER_S = 60
LONGEST_S = 23 * 3600  # of a night without a deadline: no retry may run into the next one
LONGEST_NAME = 40  # a CronJob may have 52 characters, of which 9 are ours


@dataclass(frozen=True, slots=True)
class Printed:
    """What goes to standard output, and what a person is told besides."""

    lines: list[str]
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Night:
    """One config, every day at `at`; nothing is tried again after `until`, the deadline if the config has one."""

    path: Path  # absolute
    config: Config
    at: time
    length_s: int  # from `at` to the end, at least a minute
    retry_s: int  # from `at` to `until`: of a config with {date} no longer than the day that it began on

    @property
    def name(self) -> str:
        """What it is called wherever a name is needed: letters, digits and dashes."""
        stem = re.sub(r"[^a-z0-9]+", "-", self.path.stem.lower())[:LONGEST_NAME].strip("-")
        return f"classify-{stem}" if stem else "classify"

    @property
    def until(self) -> time:
        """When nothing is tried again any more."""
        return (datetime.combine(date.min, self.at) + timedelta(seconds=self.retry_s)).time()

    @property
    def has_deadline(self) -> bool:
        """Whether the config says when it must be done."""
        return self.config.run.deadline is not None

    @property
    def command(self) -> list[str]:
        """How this program is started here, without a search path: the installed command, or this Python."""
        started = Path(sys.argv[0])
        program = [str(started.absolute())] if started.name == "classify" else [sys.executable, "-m", "pipeline"]
        return [_printable(word) for word in [*program, "run", str(self.path), "--quiet"]]

    def beside(self, ending: str) -> str:
        """The file beside the config that has its name and this ending."""
        return str(self.path.with_suffix(ending))

    @property
    def shown(self) -> str:
        """The config as it is typed in a shell."""
        return shlex.quote(str(self.path))

    @property
    def variables(self) -> list[str]:
        """The environment variables that the config takes secrets from: the server's key, and every `env:NAME`."""
        names = [self.config.server.api_key_env, *_named(msgspec.to_builtins(self.config))]
        return list(dict.fromkeys(name for name in names if name))

    @property
    def secrets(self) -> str:
        """Where secrets come from on this machine, in words."""
        names = ", ".join(self.variables)
        return f"Secrets: {self.beside('.env')} (mode 600, read if it is there), a line NAME=value each: {names}"

    def still(self) -> str:
        """A test in shell: is it still this night? The 1 in front keeps 0830 from being read as octal."""
        now, at, until = '"1$(date +%H%M)"', f"1{self.at:%H%M}", f"1{self.until:%H%M}"
        both = "&&" if self.at < self.until else "||"
        return f"{{ [ {now} -ge {at} ] {both} [ {now} -lt {until} ]; }}"


def plan(path: str, at: time) -> Night:
    """Load the config and see that it can be run with nobody there.

    Raises:
        ConfigError: it is wrong, reads or writes a stream, or names no input.
    """
    if not path.endswith(".toml"):  # `run` would take it for the input
        raise ConfigError(f"{path}: a config file ends in .toml")
    config = load(path, {})
    if not config.loader.inputs:
        raise ConfigError(f"{path}: loader.input names no input; a night has no command line that could")
    if "-" in (*config.loader.inputs, config.writer.output):
        raise ConfigError(f'{path}: "-" is a standard stream, which nobody holds at night; name files in the config')
    seconds = config.run.seconds_left(datetime.combine(date(2000, 1, 1), at))
    length = int(min(LONGEST_S, LONGEST_S if seconds is None else seconds))
    length = max(60, length)
    has_day = any(is_dated(place) for place in (*config.loader.inputs, config.writer.output))
    to_midnight = 86_400 - 3600 * at.hour - 60 * at.minute
    retry = min(length, to_midnight) if has_day else length
    absolute = Path(_printable(str(Path(path).absolute())))
    return Night(path=absolute, config=config, at=at, length_s=length, retry_s=retry)


def places(value: str | list[str] | None) -> list[str]:
    """A key that names one place or several, as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def explain(night: Night, *, log: str, wait: str = "after a minute") -> list[str]:
    """What whoever installs it should know, whatever starts it: lines without a comment sign."""
    return [
        f"Try it first:  classify check {night.shown}",
        f"What it says, and how it ended: {log}.",
        "0: done. 4 (the deadline), 130, 143: the next night goes on. 1, 2, 3: a person should look.",
        f"75 (server gone, disk full) is tried again {wait}, until {night.until:%H:%M}; nothing else is.",
    ]


def _named(tree: object) -> list[str]:
    if isinstance(tree, dict):
        return [name for value in tree.values() for name in _named(value)]
    if isinstance(tree, list):
        return [name for value in tree for name in _named(value)]
    found = re.fullmatch(r"env:(\w+)", tree) if isinstance(tree, str) else None
    return [found[1]] if found else []


def _printable(path: str) -> str:
    """`path`, if every scheduler can be told it.

    Raises:
        ConfigError: it has a character that would end a line or be lost on the way.
    """
    if not path.isprintable() or "\\" in path:
        shown = os.fsencode(path).decode("ascii", "backslashreplace")
        raise ConfigError(f"{shown}: a backslash or an invisible character can't be scheduled safely; rename it")
    return path
