"""The house is built as its plan says: layers, names, sizes, and a package that holds no secrets of this machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake import FakeServer

from pipeline import errors

PACKAGE = Path(__file__).parent.parent / "pipeline"
# Each module may import only what stands before it (modules of one line: none of each other).
LAYERS = [
    ["_version", "errors"],
    ["streams", "loops", "memory", "texts", "cancellation"],
    ["answers"],
    ["config"],
    ["storage"],
    ["monitoring.record"],
    ["monitoring.progress", "monitoring.summary", "monitoring.metrics", "monitoring.notification"],
    ["checkpoint"],
    ["formats"],
    ["reuse", "loader"],
    ["writer"],
    ["servers"],
    ["batcher"],
    ["runs"],
    ["monitoring.status", "library", "schedule"],
    ["cli"],
    ["__init__", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports_of(path: Path) -> set[str]:
    """The modules of this package that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("pipeline.")}
    return found


def test_every_module_imports_only_lower_layers() -> None:
    """A module knows what is below it and nothing else, so each can be read and tested without those above."""
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for imported in imports_of(path) - {module}:
            assert LEVEL[imported] < LEVEL[module], f"{path.name} of {module} imports {imported}"


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    """Each class stands in the docstring, as deep as it is derived."""
    drawn, above = {}, [""]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z]\w+)(?:  |$)", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    classes = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in classes}


def test_the_picture_in_the_architecture_names_every_module() -> None:
    """ARCHITECTURE.md describes the tree that is there."""
    text = (PACKAGE / "ARCHITECTURE.md").read_text()
    for path in PACKAGE.iterdir():
        if path.name not in {"__pycache__", "ARCHITECTURE.md"}:
            assert path.name in text, f"{path.name} is missing in ARCHITECTURE.md"


def test_what_is_public_is_what_is_promised() -> None:
    """`from pipeline import ...` gives the names of the documentation, all of them importable."""
    import pipeline

    assert {"Config", "run", "classify_texts", "classify_frame"} <= set(pipeline.__all__)
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None


def test_importing_the_command_stays_light() -> None:
    """`classify --help` pays for none of the heavy packages."""
    heavy = {"aiohttp", "asyncio", "msgspec", "numpy", "pandas", "pyarrow"}
    code = f"import sys, pipeline.cli; print({heavy} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_run_does_not_wait_for_pandas(kind: str, tmp_path: Path, fake: FakeServer) -> None:
    """On many ways pyarrow imports it where it is installed, half a second for nothing: a run takes none of them."""
    source = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": ["a", "b"]}), source)
    else:
        source.write_text("text\na\nb\n" if kind == "csv" else '{"text": "a"}\n{"text": "b"}\n')
    code = f"""if True:
        import sys, pipeline.cli
        status = pipeline.cli.main(["run", {str(source)!r}, "--url", {fake.url!r}, "--quiet"])
        print(status, "pandas" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"
