"""The house is built as its plan says: layers, names, sizes, and a package that holds no secrets of this machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake import FakeServer

from pipeline import errors

SMALL_BY_NATURE = {"__init__.py", "__main__.py", "_version.py"}
PACKAGE = Path(__file__).parent.parent / "pipeline"
# Each module may import only what stands before it (on one line: none of each other). A package is named with a dot
# where its modules stand apart.
LAYERS = [
    ["_version", "errors", "cancellation", "memory"],
    ["formats.registry"],
    ["streams", "loops", "texts", "scores"],
    ["answers", "config"],
    ["arguments"],
    ["thresholds"],
    ["storage"],
    ["formats", "monitoring.record", "monitoring.table"],
    ["loader", "monitoring.progress", "monitoring.summary", "monitoring.metrics", "monitoring.notification"],
    ["checkpoint"],
    ["engines", "reuse", "report", "writer", "servers"],
    ["batcher"],
    ["runs"],
    ["monitoring.status", "library", "schedule"],
    ["classifier"],
    ["cli"],
    ["__init__", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def layer_of(module: str) -> str:
    """The layer that a module of the package stands in: its own, or that of its top-level package."""
    return module if module in LEVEL else module.split(".", maxsplit=1)[0]


def imports_of(path: Path) -> set[str]:
    """The modules of this package that a file imports, at its top or inside a function; not those for types alone."""
    modules = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            modules |= {
                module_of(f"{node.module}.{alias.name}") or module_of(node.module) or "" for alias in node.names
            }
        elif isinstance(node, ast.Import):
            modules |= {module_of(alias.name) or "" for alias in node.names if alias.name.split(".")[0] == "pipeline"}
    return modules - {""}


def module_of(name: str) -> str | None:
    """The name of a module below the package, `config.__init__` for a package; None if it is no module."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    below = path.relative_to(PACKAGE).parts
    if path.with_suffix(".py").is_file():
        return ".".join(below)
    return ".".join([*below, "__init__"]) if (path / "__init__.py").is_file() else None


@cache
def graph() -> dict[str, set[str]]:
    """Each module of the package, and those that it imports."""
    names = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {module_of(name) or "": imports_of(path) for path, name in names.items()}


def test_every_module_imports_only_lower_layers() -> None:
    """A module knows what is below it and nothing else, so each can be read and tested without those above."""
    for module, imported in graph().items():
        here = layer_of(module)
        for there in {layer_of(name) for name in imported} - {here}:
            assert LEVEL[there] < LEVEL[here], f"{module} imports {there}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no cycle, inside packages either, nor among imports for types or inside functions."""
    done, way = set[str](), list[str]()

    def visit(module: str) -> None:
        assert module not in way, f"a cycle: {' -> '.join([*way[way.index(module) :], module])}"
        if module in done:
            return
        way.append(module)
        for imported in sorted(graph()[module]):
            visit(imported)
        done.add(way.pop())

    for module in sorted(graph()):
        visit(module)


def test_the_house_stays_small_enough_to_learn() -> None:
    """Modules are about subjects: none is a crumb, none holds two, and there are not too many of them."""
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert len(lines) <= 142
    assert sum(lines.values()) <= 26_600
    named = {name: count for name, count in lines.items() if Path(name).name not in SMALL_BY_NATURE}
    assert {name: count for name, count in named.items() if not 25 <= count <= 650} == {}


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
