"""The README is true: its commands and its Python are executed as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (classify .*)$", README, re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the README's commands find around them."""
    for name in ("data", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "out").mkdir()
    return tmp_path


def test_the_commands_of_the_readme_work(checkout: Path) -> None:
    """Each command that the README shows with a prompt ends with 0 and says nothing of a bug."""
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        arguments = [sys.executable, "-m", "pipeline", *shlex.split(command)[1:]]
        done = subprocess.run(arguments, cwd=checkout, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_python_of_the_readme_works(checkout: Path) -> None:
    """The library's examples run, and what they assert holds."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_option_of_run_is_in_the_readme() -> None:
    """An option that nobody can read about does not exist."""
    command = [sys.executable, "-m", "pipeline", "run", "--help"]
    environment = {**os.environ, "COLUMNS": "200"}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    for option in set(re.findall(r"--[a-z-]+", text)) - {"--help"}:
        assert option in README, option
