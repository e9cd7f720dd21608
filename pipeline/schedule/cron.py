"""For cron: one line, with everything that cron's bare environment lacks."""

from __future__ import annotations

import os
import shlex

from pipeline.errors import ConfigError
from pipeline.schedule.night import RETRY_AFTER_S, Night, Printed, explain

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"  # of flock, date and sleep; ours is absolute
LONGEST_LINE = 999  # bytes of a command; Debian's cron refuses the whole crontab for a longer one
# Each line NAME=value, as systemd and Kubernetes read it: a value is what it is, whatever a shell would make of it.
_SET_ALL = (
    'while IFS= read -r e || [ "$e" ]; do case ${e%%=*} in ""|[0-9]*|*[!A-Za-z0-9_]*);; *) export "$e"; esac; done'
)


def printed(night: Night) -> Printed:
    """A crontab line under comments that say what it does.

    Raises:
        ConfigError: the line would be too long for cron.
    """
    command = _command(night).replace("%", r"\%")  # cron makes a line break of a bare one
    if (size := len(os.fsencode(command))) > LONGEST_LINE:
        raise ConfigError(
            f"{night.path}: its crontab line would have {size} bytes, and cron takes {LONGEST_LINE}; "
            f"put the config where its path is shorter"
        )
    lines = [
        f"{night.path}, every day at {night.at:%H:%M} in the local time of this machine. Install it with",
        f"  (crontab -l; classify schedule {night.shown} --at {night.at:%H:%M} --as cron) | crontab -",
        *explain(night, log=night.beside(".log")),
        night.secrets,
        f"While {night.beside('.lock')} is held (flock, of util-linux) no second night starts.",
    ]
    entry = f"{night.at.minute} {night.at.hour} * * * {command}"
    return Printed([*(f"# {line}" for line in lines), entry], _unwritable(night))


def _command(night: Night) -> str:
    """In the shell's words; what it prints goes into the log, so cron has nothing to mail."""
    steps = [
        f"export PATH={SEARCH_PATH}",
        'flock -n 9 || { echo "$(date): not started, the night before still runs"; exit 75; }',
        f'[ ! -r "$n.env" ] || {_SET_ALL} <"$n.env"',
        f'while :; do {shlex.join(night.command)}; code=$?; echo "$(date): exit code $code"',
        f"[ $code -eq 75 ] && sleep {RETRY_AFTER_S} && {night.still()} || exit $code; done",
    ]
    # The files beside the config are named through $n: a line is short of room, and paths are long.
    return f'n={shlex.quote(night.beside(""))}; {{ {"; ".join(steps)}; }} >>"$n.log" 2>&1 9>>"$n.lock"'


def _unwritable(night: Night) -> list[str]:
    folder = night.path.parent
    if os.access(folder, os.W_OK):
        return []
    return [f"{folder}: you can't write there, and the log and the lock go there; let the user of the crontab do so"]
