"""Fill the templates in. Each value is quoted for the language that it stands in, or refused.

A template is a file of `templates/` with `@{name}` where a value goes. A line that is only `@{name}` may become any
number of lines, and a line that starts with `@#` is a comment on the template itself.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex
import string
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.schedule.daily_run import DailyRun, printable

LONGEST_COMMAND = 999  # bytes; Debian's cron refuses the whole crontab for a longer one


@dataclass(frozen=True, slots=True)
class Printed:
    """The lines for standard output, and notices for whoever installs them."""

    lines: list[str]
    notices: list[str] = field(default_factory=list)


class _Template(string.Template):
    delimiter = "@"  # shell, systemd and Kubernetes have uses of their own for a $


def fill(template: str, run: DailyRun, /, **given: str | int | list[str]) -> list[str]:
    """Return the lines of a template, filled in with what is known of `run` and with what is given.

    A value that is a list stands for whole lines, in the place of the line `@{its name}`. Raises ConfigError if another
    value has a character that would end its line.
    """
    values: dict[str, object] = {
        "name": run.name,
        "config": str(run.path),
        "config_word": shlex.quote(str(run.path)),
        "env_file": run.beside(".env"),
        "variables": ", ".join(run.variables),
        "hour": run.at.hour,
        "minute": run.at.minute,
        "at": f"{run.at:%H:%M}",
        "until": f"{run.until:%H:%M}",
        "at_hhmm": f"{run.at:%H%M}",
        "until_hhmm": f"{run.until:%H%M}",
        "and_or": "&&" if run.at < run.until else "||",  # a time is from `at` on, and before `until`; over midnight: or
        **given,
    }
    for value in values.values():
        if isinstance(value, str) and not value.isprintable():
            raise ConfigError(f"{value!a}: a line break or the like can't be scheduled safely; change it")
    lines: list[str] = []
    for line in files(__package__).joinpath("templates", template).read_text(encoding="utf-8").splitlines():
        block = values.get(line.removeprefix("@{").removesuffix("}"))
        if isinstance(block, list):
            lines += block
        elif not line.lstrip().startswith("@#"):
            lines.append(_Template(line).substitute(values))
    return lines


def render_cron(run: DailyRun) -> Printed:
    """Return a crontab line under comments that say what it does; raises ConfigError if it is too long for cron."""
    shell = fill("cron.sh", run, stem=shlex.quote(run.beside("")), run=shlex.join(_command(run)))
    command = " ".join(line.strip() for line in shell).replace("%", r"\%")  # cron makes a line break of a bare one
    if (size := len(os.fsencode(command))) > LONGEST_COMMAND:
        raise ConfigError(
            f"{run.path}: its crontab line would have {size} bytes, and cron takes {LONGEST_COMMAND}; "
            f"put the config where its path is shorter"
        )
    printed = Printed(fill("cron.crontab", run, log=run.beside(".log"), lock=run.beside(".lock"), command=command))
    if not os.access(folder := run.path.parent, os.W_OK):
        why = "you can't write there, and the log and the lock go there; let the user of the crontab do so"
        printed.notices.append(f"{folder}: {why}")
    return printed


def render_systemd(run: DailyRun) -> Printed:
    """Return a service and its timer, each under the path it is to be installed at, as `systemctl cat` shows units."""
    program, *words = _command(run)
    # Of the program's path systemd allows no quotes, and takes $ for itself, where in other words $$ stands for it.
    if set("$\"'") & set(program):
        raise ConfigError(f"{program}: systemd starts no program with a $ or a quote in its path; install it elsewhere")
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a number without a name is as good
        user = str(os.geteuid())
    values = {
        "user": _doubled(user, "%"),
        "config_text": _doubled(str(run.path), "%"),
        "env_pattern": _doubled(glob.escape(run.beside(".env")), "%"),
        "run": " ".join(map(unit_word, (program, *words))),
        # After its deadline a run that was missed must not start: it would go on until the next one.
        "persistent": "true" if run.config.run.deadline is None else "false",
    }
    service, timer = fill("systemd.service", run, **values), fill("systemd.timer", run, **values)
    return Printed([*fill("systemd.txt", run), "", *service, "", *timer])


def _command(run: DailyRun) -> list[str]:
    """Return the words that run the config without a search path: the installed command's, or this Python's."""
    started = Path(sys.argv[0])
    program = [str(started.absolute())] if started.name == "classify" else [sys.executable, "-m", "pipeline"]
    return [printable(word) for word in [*program, "run", str(run.path), "--quiet"]]


def unit_word(word: str) -> str:
    """Return a word of a command by systemd's rules: % begins a specifier, and $ a variable, also in quotes."""
    if re.fullmatch(r"[\w/.,:=+@-]+", word):
        return word
    return '"' + _doubled(word, "%$").replace('"', '\\"') + '"'


def _doubled(text: str, characters: str) -> str:
    return re.sub(f"[{characters}]", r"\g<0>\g<0>", text)
