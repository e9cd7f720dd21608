"""`classify schedule`, whatever the scheduler: the config is checked, no secret is printed, retries end in time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from datetime import time
from importlib.resources import files
from pathlib import Path

import pytest
from commands import Command, complaint, fake_date
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.schedule import Scheduler, schedule
from pipeline.schedule.daily_run import read_daily_run

SCHEDULERS: tuple[Scheduler, ...] = ("cron", "systemd", "kubernetes")
NIGHTLY = Path(__file__).parents[2] / "configs" / "nightly.toml"
CONFIG = '[loader]\ninput = "in.csv"\n[writer]\noutput = "out.csv"\n[server]\nurl = "http://gpu:8000"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config with paths beside it."""
    path = tmp_path / "nightly.toml"
    path.write_text(CONFIG)
    (tmp_path / "in.csv").touch()
    return path


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_is_printed_names_absolute_paths(scheduler: str, config: Path, classify: Command) -> None:
    """A relative config becomes an absolute one in the command that is scheduled; stdout holds nothing but data."""
    done = classify("schedule", config.name, "--at", "02:30", "--as", scheduler)
    assert str(config) in done.stdout
    assert "run" in done.stdout
    assert ("placeholder" in done.stderr) == (scheduler == "kubernetes")
    assert len(done.stderr.splitlines()) == (scheduler == "kubernetes")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_nightly_sample_can_be_scheduled(scheduler: str, classify: Command) -> None:
    """configs/nightly.toml is one that every scheduler takes; its deadline ends the retries."""
    assert "until 06:00" in classify("schedule", NIGHTLY, "--at", "02:30", "--as", scheduler).stdout


@pytest.mark.parametrize("at", ["25:00", "02:60", "2", "02:30:00", "noon", "٠٢:٣٠", ""])
def test_a_time_that_is_none_is_refused(at: str, config: Path, classify: Command) -> None:
    """--at is HH:MM."""
    complaint(classify("schedule", config, "--at", at, "--as", "cron", expect=2), "HH:MM", "--help")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("[loader\n", "TOML"),
        ("[loader]\ninptu = 'x'\n", "loader.input"),
        ("[server]\nurl = 'http://gpu:8000'\n", "loader.input"),
        ("[loader]\ninput = '-'\n", "standard stream"),
        ("[loader]\ninput = 'x.csv'\n[writer]\noutput = '-'\n", "standard stream"),
    ],
)
def test_a_config_that_no_scheduler_can_run_is_refused(
    text: str | None, said: str, tmp_path: Path, classify: Command
) -> None:
    """The config is loaded first: what is wrong with it is said by day, and nothing is printed to install."""
    path = tmp_path / "daily.toml"
    if text is not None:
        path.write_text(text)
    done = classify("schedule", path, "--at", "02:30", "--as", "cron", expect=2)
    complaint(done, "daily.toml", said)


def test_a_config_must_end_in_toml(tmp_path: Path, classify: Command) -> None:
    """`run` would take anything else for the input."""
    (tmp_path / "daily.conf").write_text(CONFIG)
    complaint(classify("schedule", "daily.conf", "--at", "02:30", "--as", "cron", expect=2), ".toml")


@pytest.mark.parametrize("name", ["a\nb.toml", "a\\b.toml", "a\u200bb.toml", os.fsdecode(b"a\xffb.toml")])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_path_that_would_be_lost_on_the_way_is_refused(
    scheduler: str, name: str, tmp_path: Path, classify: Command
) -> None:
    """Line breaks, backslashes, invisible characters and bytes that are no text: exit 2, in one printable line."""
    (tmp_path / name).write_text(CONFIG)
    complaint(classify("schedule", name, "--at", "02:30", "--as", scheduler, expect=2), "rename")


@pytest.mark.parametrize("flag", [("--image", "x"), ("--timezone", "Europe/Berlin")])
@pytest.mark.parametrize("scheduler", ["cron", "systemd"])
def test_flags_of_kubernetes_are_refused_elsewhere(
    scheduler: str, flag: tuple[str, str], config: Path, classify: Command
) -> None:
    """An option that would change nothing is a mistake."""
    complaint(classify("schedule", config, "--at", "02:30", "--as", scheduler, *flag, expect=2), flag[0], "kubernetes")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_secrets_are_named_and_never_printed(scheduler: str, config: Path, classify: Command) -> None:
    """The variables that the config reads are listed; their values, though they are set here, appear nowhere."""
    config.write_text(CONFIG + 'api_key_env = "MY_KEY"\nheaders = { "X-Token" = "env:GATEWAY_TOKEN" }\n')
    environment = {"MY_KEY": "s3cret-key", "GATEWAY_TOKEN": "s3cret-token"}
    done = classify("schedule", config, "--at", "02:30", "--as", scheduler, env=environment)
    assert "MY_KEY, GATEWAY_TOKEN" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["A\\n* * * * * root id", "A B", "A$B", "1A", "sk-a-key-itself", "Ä"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_variable_that_is_no_name_is_refused(scheduler: Scheduler, name: str, config: Path) -> None:
    """A variable's name is letters, digits and _: nothing else is put into a crontab, a unit or YAML, or repeated."""
    for line, key in (
        (f'api_key_env = "{name}"', "server.api_key_env"),
        (f'headers = {{ "X-Token" = "env:{name}" }}', "server.headers.X-Token"),
        (f'[run]\nnotify_url = "env:{name}"', "run.notify_url"),
    ):
        config.write_text(f"{CONFIG}{line}\n")
        with pytest.raises(ConfigError, match=key) as caught:
            schedule(str(config), time(2, 30), scheduler)
        assert "key-itself" not in str(caught.value)


@given(st.text(st.characters(exclude_characters="/")), st.text(), st.sampled_from(SCHEDULERS))
@example("", "\n- a: line", "kubernetes")
@example("\n* * * * * root id", "", "cron")
def test_no_value_adds_a_line(folder: str, image: str, scheduler: Scheduler) -> None:
    """Whatever a path or an image holds: it is refused, or there are as many lines as for a plain one."""

    def lines_of(folder: str, image: str) -> list[str]:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, folder, "nightly.toml")
            path.parent.mkdir()
            path.write_text(CONFIG)
            flags = {"image": image, "timezone": "UTC"} if scheduler == "kubernetes" else {}
            return schedule(str(path), time(2, 30), scheduler, **flags).lines

    try:
        lines = lines_of(f"x{folder}", f"x{image}")
    except (ConfigError, OSError, ValueError):  # the last two: no file can have such a name
        return
    assert len(lines) == len(lines_of("x", "x"))
    assert [line for line in lines if len(line.splitlines()) > 1] == []


def test_the_templates_are_part_of_the_package() -> None:
    """Each template is found as a resource, and used."""
    folder = files("pipeline.schedule")
    templates = {each.name for each in folder.joinpath("templates").iterdir()}
    code = "".join(each.read_text() for each in folder.iterdir() if each.name.endswith(".py"))
    assert templates == set(re.findall(r'fill\(\s*"([^"]+)"', code))


@pytest.mark.parametrize(
    ("at", "deadline", "until"),
    [
        ("02:30", "06:00", "06:00"),
        ("22:00", "06:00", "06:00"),
        ("02:30", "4h", "06:30"),
        ("02:30", "30s", "02:31"),
        ("02:30", "72h", "01:30"),
        ("06:00", "06:00", "05:00"),
        ("02:30", None, "01:30"),
    ],
)
def test_retries_end_at_the_deadline(at: str, deadline: str | None, until: str, config: Path) -> None:
    """Retries end with run.deadline, and an hour before the next start in any case."""
    config.write_text(CONFIG + (f'[run]\ndeadline = "{deadline}"\n' if deadline else ""))
    assert f"{read_daily_run(str(config), time.fromisoformat(at)).until:%H:%M}" == until


@pytest.mark.parametrize(
    ("at", "until", "inside"),
    [
        ("02:30", "06:00", {"0230", "0231", "0559"}),
        ("22:00", "06:00", {"2200", "2359", "0000", "0009", "0230", "0231", "0229", "0559"}),
        ("00:00", "08:09", {"0000", "0009", "0229", "0230", "0231", "0559", "0600", "0601", "0808"}),
    ],
)
@pytest.mark.parametrize("scheduler", ["cron", "systemd"])
def test_the_shell_knows_when_retries_end(
    scheduler: Scheduler, at: str, until: str, inside: set[str], config: Path
) -> None:
    """The test that is asked before a retry holds from the start to the end of the retries, also over midnight."""
    times = [
        "0000",
        "0009",
        "0229",
        "0230",
        "0231",
        "0559",
        "0600",
        "0601",
        "0808",
        "0809",
        "0900",
        "2159",
        "2200",
        "2359",
    ]
    config.write_text(CONFIG + f'[run]\ndeadline = "{until}"\n')
    text = "\n".join(schedule(str(config), time.fromisoformat(at), scheduler).lines)
    [test] = re.findall(r"\{ \[ \"1\$.* \]; \}", text.replace(r"\%", "%").replace("%%", "%").replace("$$", "$"))
    for shell in filter(shutil.which, ("sh", "bash")):
        found = set()
        for now in times:
            fake_date(config.parent, now)
            path = f"{config.parent}:{os.environ['PATH']}"
            done = subprocess.run([shell, "-c", test], env={"PATH": path}, capture_output=True, text=True, check=False)
            assert done.stderr == ""
            found |= {now} if done.returncode == 0 else set()
        assert found == inside, shell


def test_names_are_such_that_every_scheduler_takes_them(tmp_path: Path) -> None:
    """Letters, digits and dashes, not too long, whatever the config is called."""
    names = {"Nightly Run (EU).toml": "classify-nightly-run-eu", "夜.toml": "classify", f"{'x' * 90}.toml": None}
    for name, expected in names.items():
        (tmp_path / name).write_text(CONFIG)
        given = read_daily_run(str(tmp_path / name), time(2, 30)).name
        assert expected in (None, given)
        assert len(given) <= 52


def test_the_installed_command_is_scheduled_as_it_was_called(config: Path) -> None:
    """Called as `classify`, that very file is what a scheduler starts."""
    script = Path(sys.executable).with_name("classify")
    command = [str(script), "schedule", str(config), "--at", "2:30", "--as", "cron"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{shlex.quote(str(script))} run {shlex.quote(str(config))} --quiet" in printed


def test_the_library_door_says_the_same(config: Path) -> None:
    """`schedule` returns the lines that the command prints."""
    assert schedule(str(config), time(2, 30), "cron").lines[-1].startswith("30 2 * * * ")


@pytest.mark.parametrize(
    ("source", "output", "missing"),
    [
        ("in.csv", "out.csv", []),
        ("gone.csv", "out.csv", ["gone.csv: is not there, and the run reads it"]),
        ("in.csv", "gone/out.csv", ["gone: is no directory, and the output goes there; make it"]),
        ("gone/{date}/*.csv", "out/", ["gone: is not there"]),
        ("{date}.csv", "{date}/out.csv", []),
        ("s3://bucket/x.csv", "s3://bucket/out.csv", []),
    ],
)
def test_what_is_missing_is_said_by_day(
    source: str, output: str, missing: list[str], config: Path, classify: Command
) -> None:
    """A missing input or directory would end the run at night; what is printed is the same."""
    config.write_text(f"[loader]\ninput = '{source}'\n[writer]\noutput = '{output}'\n")
    for scheduler in ("cron", "systemd"):
        done = classify("schedule", config.name, "--at", "02:30", "--as", scheduler)
        assert len(done.stderr.splitlines()) == len(missing)
        for words in missing:
            assert words in done.stderr


def test_paths_are_printed_as_they_are_in_any_encoding(tmp_path: Path, classify: Command) -> None:
    """A path is bytes: a scheduler finds no file under an escape."""
    (tmp_path / "nächtlich.toml").write_text(CONFIG)
    (tmp_path / "in.csv").touch()
    env = {"PYTHONIOENCODING": "ascii"}
    for scheduler in SCHEDULERS:
        assert f"{tmp_path}/nächtlich.toml" in classify(
            "schedule", "nächtlich.toml", "--at", "02:30", "--as", scheduler, env=env
        ).stdout  # fmt: skip
