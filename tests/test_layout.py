"""The tests lie as the package does, and what several of them need stands in `tests/support`."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "pipeline"
# Folders that mirror no package: shared code, recorded files, benchmarks, real servers, seeded bugs, the documentation.
EXTRAS = {"support", "samples", "bench", "real", "mutations", "docs", "fuzz"}


def imported(path: Path) -> set[str]:
    """The top-level names of all modules that a file imports, at its top or in a function or in code that it runs."""
    found = set()
    trees = [ast.parse(path.read_text(encoding="utf-8"))]
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.ImportFrom):
                found.add("." * node.level)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
                try:
                    trees.append(ast.parse(node.value))
                except SyntaxError:
                    continue
    return found


def test_no_test_imports_another() -> None:
    """What two test modules need stands in `tests/support`: neither moves when the other does."""
    modules = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest", "tests"}
    for path in TESTS.rglob("*.py"):
        names = imported(path)
        assert not names & modules, f"{path.relative_to(TESTS)} imports {names & modules}"
        assert not [name for name in names if name.startswith(".")], f"{path} imports a neighbour"


def test_every_folder_is_that_of_a_package() -> None:
    """The tests of `pipeline/X/` stand in `tests/X/`; those of a module in `tests/test_X.py`, if many in `tests/X/`."""
    subjects = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders - subjects - EXTRAS == set()
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} - folders == set()


def test_every_test_module_has_a_name_of_its_own() -> None:
    """`pytest` and `mypy` tell them apart by it, and so do those who look for one."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
