"""Each seeded bug can be seeded, and is noticed by the tests that it names."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bugs import BUGS, Bug
from changes import NoPlaceError, changed, changed_text

ROOT = Path(__file__).parents[2]
NEEDED = ("pipeline", "tests", "configs", "data", "pyproject.toml", "README.md")
TESTS_FAILED = 1  # pytest's exit code; any other but 0 says that it could not run them
# Always the same examples, in the same order, up to the first failure, and no verdict by a stray warning.
FLAGS = (
    *("-x", "-q", "-n", "0", "--all", "--hypothesis-profile=ci", "--time-limit=60"),
    *("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:unraisableexception"),
)


def file_of(bug: Bug) -> Path:
    """The file that a bug goes into, relative to the project."""
    if "/" in bug.where:
        return Path("pipeline", bug.where)
    path = Path("pipeline", *bug.where.partition(":")[0].split("."))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


def seeded(bug: Bug) -> str:
    """What is in that file with the bug."""
    path = ROOT / file_of(bug)
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return changed_text(text, bug.change)
    return ast.unparse(changed(text, bug.where.partition(":")[2], bug.change))


def test_every_bug_can_be_seeded() -> None:
    """The function of each is there, and what is changed in it; and the tests are there that must notice."""
    problems = []
    for bug in BUGS:
        try:
            seeded(bug)
        except (NoPlaceError, OSError, SyntaxError) as error:
            problems.append(f"{bug.name} ({bug.where}): {error}")
        for test in bug.tests:
            file, _, name = test.partition("::")
            path = ROOT / "tests" / file
            if not path.exists() or f"def {name.partition('[')[0]}" not in path.read_text(encoding="utf-8"):
                problems.append(f"{bug.name}: no {test}")
    assert not problems, "\n".join(["", *problems])
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_is_noticed(bug: Bug, tmp_path: Path) -> None:
    """In a copy of the project with the bug one of its tests fails."""
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)  # with the times, so that what is compiled there is still right
    (tmp_path / file_of(bug)).write_text(seeded(bug), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *FLAGS, *(f"tests/{test}" for test in bug.tests)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    shutil.rmtree(tmp_path)
    assert done.returncode == TESTS_FAILED, f"not noticed (exit code {done.returncode}):\n{done.stdout}"
