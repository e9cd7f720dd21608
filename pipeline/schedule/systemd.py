"""For systemd: a service and the timer that starts it."""

from __future__ import annotations

import glob
import os
import pwd
import re

from pipeline.errors import ConfigError
from pipeline.schedule.night import RETRY_AFTER_S, Night, Printed, explain

FOLDER = "/etc/systemd/system"


def printed(night: Night) -> Printed:
    """Both units, each under the path it is to be installed at, as `systemctl cat` shows units.

    Raises:
        ConfigError: systemd can't be told how this program is started.
    """
    split = r"""'/^# \/etc.*\.(service|timer)$/ { file = $2 } file { print > file }'"""
    again = f"classify schedule {night.shown} --at {night.at:%H:%M} --as systemd"
    lines = [
        "Two units, each below the path that it belongs to. Install and start them with",
        f"  {again} | sudo awk {split}",
        f"  sudo systemctl daemon-reload && sudo systemctl enable --now {night.name}.timer",
        *explain(night, log=f"journalctl -u {night.name}"),
        "systemctl --failed shows what a person should look at; OnFailure= in the service may name a unit that alerts.",
        night.secrets,
    ]
    return Printed([*(f"# {line}" for line in lines), "", *_service(night), "", *_timer(night)])


def _service(night: Night) -> list[str]:
    flag = f"%t/{night.name}/again"
    # The directory lives from the first start to the end of the last retry: only a retry finds the flag.
    bound = f"[ ! -e {flag} ] || {night.still().replace('%', '%%').replace('$', '$$')} && : > {flag}"
    return [
        f"# {FOLDER}/{night.name}.service",
        "[Unit]",
        f"Description=classify run {str(night.path).replace('%', '%%')}",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"User={_user()}",
        f"EnvironmentFile=-{glob.escape(night.beside('.env')).replace('%', '%%')}",
        f"RuntimeDirectory={night.name}",
        "RuntimeDirectoryPreserve=restart",
        f"# A retry after {night.until:%H:%M} fails here, and is the last.",
        f"ExecStartPre=/bin/sh -c '{bound}'",
        f"ExecStart={_command(night)}",
        "RestartForceExitStatus=75",
        f"RestartSec={RETRY_AFTER_S}",
        "SuccessExitStatus=4",
    ]


def _timer(night: Night) -> list[str]:
    # After its deadline a night that was missed must not start: it would run until the next one.
    missed = "false" if night.has_deadline else "true"
    return [
        f"# {FOLDER}/{night.name}.timer",
        "[Unit]",
        f"Description=Every night at {night.at:%H:%M}: classify run {str(night.path).replace('%', '%%')}",
        "",
        "[Timer]",
        f"OnCalendar=*-*-* {night.at:%H:%M}:00",
        f"Persistent={missed}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]


def _command(night: Night) -> str:
    program = night.command[0]
    # Of the program's path systemd allows no quotes, and takes $ for itself, where in arguments $$ stands for it.
    if set("$\"'") & set(program):
        raise ConfigError(f"{program}: systemd starts no program with a $ or a quote in its path; install it elsewhere")
    return " ".join(_word(word) for word in night.command)


def _word(word: str) -> str:
    """`word` by systemd's rules, which are not the shell's: % begins a specifier, and $ a variable also in quotes."""
    if re.fullmatch(r"[\w/.,:=+@-]+", word):
        return word
    return '"' + word.replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a number without a name is as good
        return str(os.geteuid())
