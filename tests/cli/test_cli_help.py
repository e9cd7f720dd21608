"""What `--help` shows, and what a shell completes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command, python

from pipeline.cli import make_parser

COMMANDS = ("run", "text", "check", "status", "serve", "schedule")


def test_help_names_every_command_in_its_group(classify: Command) -> None:
    """The commands under their titles, two examples, and the documentation that is installed with the package."""
    shown = classify("--help").stdout
    titles = re.split(r"^(\w+):$", shown, flags=re.MULTILINE)[1:]
    groups = dict(zip(titles[::2], titles[1::2], strict=True))
    listed = [re.findall(r"^  (\w+) ", groups[title], re.MULTILINE) for title in ("classify", "inspect", "operate")]
    assert listed == [["run", "text"], ["check", "status", "report", "sample"], ["accept", "serve", "schedule"]]
    assert len(re.findall(r"^  classify ", groups["examples"], re.MULTILINE)) == 2
    [docs] = re.findall(r"documentation: (.*)$", shown, re.MULTILINE)
    assert (Path(docs) / "README.md").is_file()


def test_help_of_run_is_grouped(classify: Command) -> None:
    """Each option stands under what it is about."""
    shown = classify("run", "--help").stdout
    groups = {
        "input and output": "--input --output --text-column --overwrite",
        "what to run": "--limit-rows --date --restart --retry-failed --engine --workers --dry-run",
        "server and config": "--url --api --model --set",
        "display": "--quiet --log-json",
    }
    for title, options in groups.items():
        [group] = re.findall(rf"^{title}:\n((?:  .*\n)+)", shown, re.MULTILINE)
        assert re.findall(r"^  (?:-\w[^,]*, )?(--[a-z-]+)", group, re.MULTILINE) == options.split()


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_each_help_ends_with_examples_that_can_be_typed(command: tuple[str, ...], classify: Command) -> None:
    """One or two, and the parser takes them."""
    examples = re.findall(r"^  (classify \w+ .*)$", classify(*command, "--help").stdout, re.MULTILINE)
    assert 1 <= len(examples) <= 2
    for example in examples:
        words = shlex.split(example)[1:]
        assert not command or words[0] == command[0]
        make_parser().parse_args(words)


def test_help_imports_nothing_heavy() -> None:
    """Nothing but argparse and the like: that is what makes it instant."""
    heavy = {"aiohttp", "argcomplete", "asyncio", "msgspec", "numpy", "pandas", "pyarrow", "pipeline.config"}
    done = python(f"""if True:
        import sys, pipeline.cli
        try:
            pipeline.cli.main(["--help"])
        except SystemExit:
            print({heavy} & {{*sys.modules}})""")
    assert done.stdout.endswith("\nset()\n"), done.stdout + done.stderr


# -- completion


def completed(line: str, folder: Path) -> list[str]:
    """What bash is answered when TAB is pressed at the end of `line`."""
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "answer"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
    }
    command = [sys.executable, "-m", "pipeline"]
    done = subprocess.run(command, env=os.environ | asked, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    return (folder / "answer").read_text().split("\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("classify s", ["status", "sample", "serve", "schedule"]),
        ("classify run --re", ["--restart", "--retry-failed"]),
        ("classify run --set loader.en", ["loader.encoding="]),
        ("classify status out.csv --set run.max", ["run.max_failed_rows="]),
        ("classify run --date ", ["today", "yesterday"]),
        ("classify schedule --as ", ["cron", "systemd", "kubernetes"]),
        ("classify check in", ["in.csv"]),
        ("classify text in", [""]),
    ],
)
def test_completion_knows_commands_options_keys_and_files(line: str, expected: list[str], tmp_path: Path) -> None:
    """TAB after the beginning of a word gives the words that may stand there."""
    (tmp_path / "in.csv").touch()
    assert completed(line, tmp_path) == expected


def test_every_command_is_completed(tmp_path: Path) -> None:
    """Before anything is typed, too."""
    assert set(completed("classify ", tmp_path)) > {*COMMANDS, "--help", "--version"}


def test_bash_completes_after_the_line_of_the_help(tmp_path: Path, classify: Command) -> None:
    """`eval "$(classify --completion bash)"`, typed as the help says, and a word that is begun."""
    (tmp_path / "classify").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pipeline "$@"\n')
    (tmp_path / "classify").chmod(0o755)
    shown = " ".join(classify("--help").stdout.split())
    [line] = re.findall(r'eval "\$\(classify --completion bash\)"', shown)
    press_tab = (
        "COMP_LINE='classify sch' COMP_POINT=12 COMP_TYPE=9; _python_argcomplete classify; echo \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", f"{line}; complete -p classify; {press_tab}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "-F _python_argcomplete classify" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "schedule"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_completion_too(shell: str, classify: Command) -> None:
    """What is printed for them names the command; a shell that is none of the three is a mistake."""
    assert "classify" in classify("--completion", shell).stdout
    assert "--completion" in classify("--completion", "cmd", expect=2).stderr
