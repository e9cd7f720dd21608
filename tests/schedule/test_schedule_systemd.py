"""The two units: systemd's own parser takes them, and reads in them what was meant."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command, complaint, fake_date

from pipeline.schedule.render import unit_word

ODD = 'it\'s 100% "odd" ${HOME} $x [a]; größe %n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config in a folder with an odd name, with a deadline."""
    folder = tmp_path / ODD
    folder.mkdir()
    path = folder / "nightly.toml"
    path.write_text(
        '[loader]\ninput = "in.csv"\n[server]\nheaders = { "X-Token" = "env:TOKEN" }\n[run]\ndeadline = "06:00"\n'
    )
    return path


def units(classify: Command, config: Path, folder: Path) -> list[Path]:
    """The files that the command in the output's own advice makes of it, here below `folder`."""
    text = classify("schedule", config, "--at", "02:30", "--as", "systemd").stdout
    advice = re.search(r"\| sudo (awk '.*')$", text, re.MULTILINE)
    assert advice
    assert "/etc/systemd/system/" in text
    folder.mkdir()
    split = advice[1].replace("print > file", f'sub(".*/", "", file); print > ("{folder}/" file)')
    subprocess.run(["sh", "-c", split], input=text, text=True, check=True)
    return sorted(folder.iterdir())


def verify(*files: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of some units."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here; apt-get install systemd")
    command = [program, "verify", "--man=no", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_takes_both_units(config: Path, tmp_path: Path, classify: Command) -> None:
    """`systemd-analyze verify` has nothing to say of them; the advice splits the output into exactly these two."""
    files = units(classify, config, tmp_path / "units")
    assert [path.name for path in files] == ["classify-nightly.service", "classify-nightly.timer"]
    done = verify(*files)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_time_that_systemd_reads_as_it_was_meant(config: Path, tmp_path: Path, classify: Command) -> None:
    """OnCalendar is every day at that time."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here; apt-get install systemd")
    timer = units(classify, config, tmp_path / "units")[1].read_text()
    [when] = re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE)
    shown = subprocess.run([program, "calendar", "--iterations=2", when], capture_output=True, text=True, check=True)
    assert len(re.findall(r"\d{4}-\d\d-\d\d 02:30:00", shown.stdout)) >= 2


@pytest.mark.parametrize(
    "word", ["plain.toml", "two words", 'a "b" c', "100% %n", "it's", "größe; x", "a[b]*?", "-x #1"]
)
def test_systemd_reads_a_word_as_it_was_meant(word: str, tmp_path: Path) -> None:
    """Our quoting read by systemd's parser: it complains of a program that it can't start by the name it read."""
    unit = tmp_path / "probe.service"
    unit.write_text(f"[Service]\nExecStart={unit_word(f'/nowhere/{word}')}\n")
    done = verify(unit)
    assert re.search(rf"/nowhere/{re.escape(word)}( is not executable|$)", done.stderr, re.MULTILINE), done.stderr


def test_only_75_is_tried_again(config: Path, tmp_path: Path, classify: Command) -> None:
    """Restarted on 75 alone, after a minute, however often; the deadline's 4 is no failure."""
    service = units(classify, config, tmp_path / "units")[0].read_text().splitlines()
    settings = dict(line.split("=", 1) for line in service if "=" in line and not line.startswith("#"))
    assert settings["RestartForceExitStatus"] == "75"
    assert settings["RestartSec"] == "60"
    assert settings["SuccessExitStatus"] == "4"
    assert settings["StartLimitIntervalSec"] == "0"
    assert "Restart" not in settings


def test_dollars_are_not_expanded(config: Path, tmp_path: Path, classify: Command) -> None:
    """A $ or % of a path is doubled, as systemd wants it; the file of secrets is named as a pattern for itself."""
    service = units(classify, config, tmp_path / "units")[0].read_text()
    [start] = re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE)
    assert "$${HOME} $$x" in start
    assert "%%n" in start
    [secrets] = re.findall(r"^EnvironmentFile=-(.*)$", service, re.MULTILINE)
    assert "[[]a]" in secrets
    assert "%%n" in secrets
    assert secrets.endswith("/nightly.env")


@pytest.mark.parametrize(("start", "code"), [("first 0900", 0), ("again 0559", 0), ("again 0600", 1)])
def test_a_retry_after_the_deadline_is_the_last(
    start: str, code: int, config: Path, tmp_path: Path, classify: Command
) -> None:
    """The first start always goes ahead, also by hand by day; a retry only before the deadline."""
    service = units(classify, config, tmp_path / "units")[0].read_text()
    [before] = re.findall(r"^ExecStartPre=/bin/sh -c '(.*)'$", service, re.MULTILINE)
    run = tmp_path / "run"
    (run / "classify-nightly").mkdir(parents=True)
    which, now = start.split()
    if which == "again":
        (run / "classify-nightly" / "again").touch()
    fake_date(tmp_path, now)
    shell = before.replace("%%", "\0").replace("%t", str(run)).replace("\0", "%").replace("$$", "$")
    done = subprocess.run(["/bin/sh", "-c", shell], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    assert done.returncode == code
    assert (run / "classify-nightly" / "again").exists()


def test_shellcheck_has_no_complaint(config: Path, tmp_path: Path, classify: Command) -> None:
    """Of the command that is run before each start."""
    service = units(classify, config, tmp_path / "units")[0].read_text()
    [before] = re.findall(r"^ExecStartPre=/bin/sh -c '(.*)'$", service, re.MULTILINE)
    text = before.replace("%%", "%").replace("%t", "/run").replace("$$", "$")
    command = [str(Path(sys.executable).with_name("shellcheck")), "--shell=sh", "-"]
    done = subprocess.run(command, input=f"{text}\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("deadline", "missed"), [("06:00", "false"), ("4h", "false"), (None, "true")])
def test_a_missed_run_is_made_up_for_unless_it_had_a_deadline(
    deadline: str | None, missed: str, config: Path, tmp_path: Path, classify: Command
) -> None:
    """A start after the deadline would run until the next one."""
    config.write_text('[loader]\ninput = "in.csv"\n' + (f'[run]\ndeadline = "{deadline}"\n' if deadline else ""))
    assert f"Persistent={missed}\n" in units(classify, config, tmp_path / "units")[1].read_text()


@pytest.mark.parametrize("name", ["a$b", "it's", 'a"b'])
def test_a_program_that_systemd_cannot_name_is_refused(name: str, config: Path, tmp_path: Path) -> None:
    """A $ or a quote in the path of the program itself: systemd takes neither."""
    program = tmp_path / name / "classify"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom pipeline.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    command = [str(program), "schedule", str(config), "--at", "2:30", "--as", "systemd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    complaint(done, name, "elsewhere")
