"""Each seeded bug can be seeded, and is noticed by the tests that it names."""

from __future__ import annotations

import ast
import compileall
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from bugs import BUGS, Bug
from changes import NoPlaceError, changed, changed_text
from warm import Warm

ROOT = Path(__file__).parents[2]
NEEDED = ("pipeline", "tests", "configs", "data", "pyproject.toml", "README.md")
TESTS_FAILED = 1  # pytest's exit code; any other but 0 says that it could not run them
# Always the same examples, in the same order, up to the first failure, and no verdict by a stray warning.
FLAGS = (
    *("-x", "-q", "-n", "0", "--all", "--hypothesis-profile=verdict", "--time-limit=60"),
    *("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:unraisableexception"),
    "--assert=plain",  # the verdict is enough, and the plugins need not be rewritten: they are imported before
)
# What pytest, the package and the tests import from elsewhere: each time it would take longer than most tests.
IMPORTED = (
    *("pytest", "pytest_asyncio.plugin", "xdist.plugin", "_hypothesis_pytestplugin", "hypothesis.strategies"),
    *("aiohttp.test_utils", "kubernetes_validate", "pandas", "pyarrow.fs", "pyarrow.parquet", "tqdm", "uvloop", "yaml"),
)
SOUND = (  # with and without the command, a server, a store, the shell and Hypothesis
    "cli/test_cli.py::test_a_few_rows_first",
    "formats/test_writer_appended.py::test_any_file_is_copied_and_widened",
    "library/test_library_frames.py",
    "schedule/test_schedule_cron.py::test_a_run_that_succeeds",
    "storage/test_places_runs.py::test_from_store_to_store_is_as_from_disk_to_disk",
)
LONGEST_S = 240  # a run of pytest, which ends each of its tests after 60 s


def file_of(bug: Bug) -> Path:
    """The file that a bug goes into, relative to the project."""
    if "/" in bug.where:
        return Path("pipeline", bug.where)
    path = Path("pipeline", *bug.where.partition(":")[0].split("."))
    return path / "__init__.py" if (ROOT / path / "__init__.py").is_file() else path.with_suffix(".py")


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


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, all of it compiled."""
    folder = tmp_path_factory.mktemp("compiled")
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    for name in ("pipeline", "tests"):
        compileall.compile_dir(folder / name, quiet=2)
    return folder


@pytest.fixture(scope="session")
def warm_pytest() -> Iterator[Warm]:
    """A process that has imported pytest and what tests need, but nothing of this project."""
    with Warm("pytest", IMPORTED) as process:
        yield process


def outcome(tests: Iterable[str], project: Path, warm_pytest: Warm) -> tuple[int, str]:
    """Run tests of a copy of the project: the exit code of pytest, and what it said."""
    done = warm_pytest.run(
        [*FLAGS, *(f"tests/{test}" for test in tests)],
        {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"},
        project,
        timeout=LONGEST_S,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_bug_all_is_well(compiled: Path, warm_pytest: Warm) -> None:
    """Tests of every kind pass in a copy: what fails with a bug does not fail because of the copy."""
    code, said = outcome(SOUND, compiled, warm_pytest)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_is_noticed(bug: Bug, tmp_path: Path, compiled: Path, warm_pytest: Warm) -> None:
    """In a copy of the project with the bug one of its tests fails."""
    project = tmp_path / "project"
    shutil.copytree(compiled, project)  # with the times of the files, so that what is compiled is still right
    (project / file_of(bug)).write_text(seeded(bug), encoding="utf-8")
    code, said = outcome(bug.tests, project, warm_pytest)
    shutil.rmtree(project)
    assert code == TESTS_FAILED, f"not noticed (exit code {code}):\n{said}"
