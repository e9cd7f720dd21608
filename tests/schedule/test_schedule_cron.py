"""The crontab line: cron's own tools take it, the shell runs it, and a real cron daemon labels a file with it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from commands import Command, complaint, fake_date
from fake import FakeServer, label_of
from files import rows_of, write

TEXTS = [f"text {n}" for n in range(20)]
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"  # of the printed line
ODD = 'it\'s 100% "odd" $HOME `x` #1; größe'


@pytest.fixture
def config(tmp_path: Path, fake: FakeServer) -> Path:
    """A config in a folder with an odd name, with an input beside it, of a server that wants a key."""
    folder = tmp_path / ODD
    folder.mkdir()
    fake.api_key = "s3cret"
    write(folder / "in.csv", TEXTS)
    path = folder / "ni%ght.toml"
    path.write_text(
        f'[loader]\ninput = "in.csv"\n[writer]\noutput = "out.csv"\n'
        f'[server]\nurl = "{fake.url}"\nstart_wait_s = 0\nheaders = {{ "X-Token" = "env:TOKEN" }}\n'
    )
    path.with_suffix(".env").write_text("VLLM_API_KEY=s3cret\nTOKEN=gate\n")
    return path


def now(in_s: float = 0) -> str:
    """The time of day, local as cron's."""
    return f"{datetime.now().astimezone() + timedelta(seconds=in_s):%H:%M}"


def printed(classify: Command, config: Path, at: str) -> str:
    """What is to be installed."""
    return classify("schedule", config, "--at", at, "--as", "cron").stdout


def command_of(text: str) -> str:
    """The command of the one entry, as cron hands it to the shell."""
    entry = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(entry) == 1
    fields = entry[0].split(" ", 5)
    assert fields[2:5] == ["*", "*", "*"]
    assert "%" not in fields[5].replace(r"\%", "")
    return fields[5].replace(r"\%", "%")


@contextmanager
def started(command: str, bin_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as cron starts it: a bare environment; `bin_folder` comes before the line's own search path."""
    command = command.replace(f"PATH={SEARCH_PATH}", f"PATH={shlex.quote(str(bin_folder))}:{SEARCH_PATH}", 1)
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        env={"HOME": "/", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:  # a test failed: no loop outlives it
                os.killpg(process.pid, signal.SIGKILL)


def finish(command: str, bin_folder: Path) -> int:
    """Run it to its end: its exit code. Whatever cron could mail is a failure."""
    with started(command, bin_folder) as process:
        mail, _ = process.communicate(timeout=30)
    assert mail == ""
    return process.returncode


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of commands that stand in for the machine's: a `sleep` that writes down how long, and takes no time.

    The third time it fails, so that a loop that should have ended does end.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    slept = shlex.quote(str(tmp_path / "slept"))
    (folder / "sleep").write_text(f'#!/bin/sh\necho "$@" >>{slept}\n[ "$(grep -c . {slept})" -lt 3 ]\n')
    (folder / "sleep").chmod(0o755)
    return folder


# -- what cron's tools say


@pytest.mark.parametrize("at", ["00:00", "02:30", "23:59"])
def test_crontab_takes_it(at: str, config: Path, tmp_path: Path, classify: Command) -> None:
    """`crontab` finds no mistake in what is printed, comments and all."""
    program = shutil.which("crontab")
    if program is None:
        pytest.skip("no crontab here; apt-get install cron")
    (tmp_path / "tab").write_text(printed(classify, config, at))
    known = subprocess.run([program, "-h"], capture_output=True, text=True, check=False)
    flag = "-T" if "-T" in known.stdout + known.stderr else "-n"  # cronie's name for it, Debian's name
    done = subprocess.run([program, flag, tmp_path / "tab"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_line_too_long_for_cron_is_refused(tmp_path: Path, classify: Command) -> None:
    """Debian's cron would refuse the whole crontab for it."""
    folder = tmp_path / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    (folder / "n.toml").write_text('[loader]\ninput = "in.csv"\n')
    complaint(classify("schedule", folder / "n.toml", "--at", "2:30", "--as", "cron", expect=2), "999", "shorter")


# -- what the shell does with it


def test_shellcheck_has_no_complaint(config: Path, classify: Command) -> None:
    """It takes `export "$e"`, which is NAME=value, for a slip (SC2163), and a $ in the path, too (SC2016)."""
    command = [str(Path(sys.executable).with_name("shellcheck")), "--shell=sh", "--exclude=SC2163,SC2016", "-"]
    text = command_of(printed(classify, config, "02:30"))
    done = subprocess.run(command, input=f"{text}\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_secret_is_what_it_is_whatever_a_shell_would_make_of_it(config: Path, classify: Command) -> None:
    """The lines of the env file: no part of a value is run, and none is left out."""
    values = {"KEY": "abc$def;SECRET `id`", "HOOK": "https://hook?token=A&sig=B", "LAST": "no line end='\""}
    lines = ["# a comment", "", "not a name=x", *(f"{name}={value}" for name, value in values.items())]
    config.with_suffix(".env").write_text("\n".join(lines))
    [read] = re.findall(r'\[ ! -r "\$n\.env" \] .* done <"\$n\.env"', command_of(printed(classify, config, "02:30")))
    show = f"{shlex.quote(sys.executable)} -c 'import os, json; print(json.dumps(dict(os.environ)))'"
    script = f"n={shlex.quote(str(config.with_suffix('')))}; {read}; {show}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout).items() >= values.items()


def test_a_run_that_succeeds(config: Path, tools: Path, tmp_path: Path, classify: Command, fake: FakeServer) -> None:
    """In a bare environment, from a folder with an odd name: labels, keys from the env file, all words in the log."""
    assert finish(command_of(printed(classify, config, now())), tools) == 0
    assert [row["predicted_label"] for row in rows_of(config.with_name("out.csv"))] == [
        label_of(text) for text in TEXTS
    ]
    assert {seen.headers["X-Token"] for seen in fake.requests} == {"gate"}
    log = config.with_suffix(".log").read_text()
    assert "20 rows" in log
    assert "exit code 0" in log
    assert "s3cret" not in log
    assert not (tmp_path / "slept").exists()


def test_75_is_tried_again_after_a_minute(
    config: Path, tools: Path, tmp_path: Path, classify: Command, fake: FakeServer
) -> None:
    """No server: wait 60 s, and again; once it is there the job is done."""
    (tools / "sleep").write_text(
        f'#!/bin/sh\necho "$@" >>{shlex.quote(str(tmp_path / "slept"))}\n'
        f"until [ -e {shlex.quote(str(tmp_path / 'up'))} ]; do /bin/sleep 0.05; done\n"
    )
    fake.down()
    with started(command_of(printed(classify, config, now())), tools) as process:
        while not (tmp_path / "slept").exists():
            assert process.poll() is None
            time.sleep(0.05)
        fake.up()
        (tmp_path / "up").touch()
        mail, _ = process.communicate(timeout=60)
    assert (process.returncode, mail) == (0, "")
    assert (tmp_path / "slept").read_text() == "60\n"
    log = config.with_suffix(".log").read_text()
    assert log.index("exit code 75") < log.index("exit code 0")
    assert len(rows_of(config.with_name("out.csv"))) == len(TEXTS)


def test_75_is_not_tried_again_after_the_deadline(
    config: Path, tools: Path, tmp_path: Path, classify: Command, fake: FakeServer
) -> None:
    """When the deadline is past the last 75 is the end: a retry would run until the deadline of the next day."""
    fake.down()
    config.write_text(config.read_text() + '[run]\ndeadline = "06:00"\n')
    fake_date(tools, "0600")
    assert finish(command_of(printed(classify, config, "02:30")), tools) == 75
    assert (tmp_path / "slept").read_text() == "60\n"
    assert config.with_suffix(".log").read_text().count("exit code 75") == 1
    fake.up()


def test_other_codes_are_not_tried_again(config: Path, tools: Path, tmp_path: Path, classify: Command) -> None:
    """A person's mistake is said in the log, with its exit code, and not tried again."""
    config.with_name("in.csv").unlink()
    assert finish(command_of(printed(classify, config, now())), tools) == 2
    log = config.with_suffix(".log").read_text()
    assert "classify: " in log
    assert "exit code 2" in log
    assert not (tmp_path / "slept").exists()


def test_two_runs_never_overlap(config: Path, tools: Path, classify: Command, fake: FakeServer) -> None:
    """While the lock is held the next run ends at once, and says why."""
    command = command_of(printed(classify, config, "02:30"))
    with config.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert finish(command, tools) == 75
    assert "the previous run" in config.with_suffix(".log").read_text()
    assert fake.requests == []


@pytest.mark.slow
def test_the_lock_is_held_as_long_as_the_run_lives(
    config: Path, tools: Path, classify: Command, fake: FakeServer
) -> None:
    """Also when the shell around it is killed: the run has inherited the lock."""
    fake.latency_s = 3
    command = command_of(printed(classify, config, "02:30"))
    with started(command, tools) as process:
        while not fake.requests:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.wait()
    assert finish(command, tools) == 75
    fake.latency_s = 0
    with config.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # comes when the run has ended
    assert len(rows_of(config.with_name("out.csv"))) == len(TEXTS)


# -- what cron does with it


@contextmanager
def cron_daemon(crontab: Path) -> Iterator[subprocess.Popen[str]]:
    """A real cron with this crontab for root and no other, where only it can see it: nothing of it stays."""
    hide = "for d in /var/spool/cron /etc/cron.d /run; do mount -t tmpfs tmpfs $d || exit 99; done"
    alone = "if [ -e /etc/crontab ]; then mount --bind /dev/null /etc/crontab || exit 99; fi"
    spool = "if grep -q ^crontab: /etc/group; then mkdir -m 1730 /var/spool/cron/crontabs; fi"
    install = f"crontab -u root {shlex.quote(str(crontab))} || exit 98"
    script = f"{hide}; {alone}; {spool}; {install}; exec cron -f"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def missing() -> str:
    """Why no cron can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "only root starts a cron daemon"
    if absent := [name for name in ("cron", "crontab", "flock", "unshare") if shutil.which(name) is None]:
        return f"no {', '.join(absent)} here; apt-get install cron util-linux"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "no mount namespace can be made here"


@pytest.mark.slow  # cron looks once a minute
def test_a_real_cron_runs_it(config: Path, tmp_path: Path, classify: Command, fake: FakeServer) -> None:
    """Installed as printed, the line labels the file, with the key from the env file and its words in the log."""
    if reason := missing():
        pytest.skip(reason)
    (tmp_path / "tab").write_text(printed(classify, config, now(in_s=70)))
    output, log = config.with_name("out.csv"), config.with_suffix(".log")
    with cron_daemon(tmp_path / "tab") as cron:
        while not (log.exists() and "exit code" in log.read_text()):
            assert cron.poll() is None, cron.stderr and cron.stderr.read()
            time.sleep(0.2)
    assert "exit code 0" in log.read_text()
    assert [row["predicted_label"] for row in rows_of(output)] == [label_of(text) for text in TEXTS]
    assert sum(text in TEXTS for text in fake.texts) == len(TEXTS)
