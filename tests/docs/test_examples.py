"""The documentation is true: its commands, its Python and its configs are executed as they stand there.

In a `console` block a line that begins with `$ ` is a command; what follows is what it prints, on both streams, where
`...` stands for anything. A command must end with 0, unless the next one is `echo $?`. A block below a comment
`<!-- not run: REASON -->` is left out. One below `<!-- needs: PACKAGE -->` is a program of its own, which runs with
`--all` where that package is installed: it is too large for every environment.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark import ParameterSet
from s3 import Bucket, environment_for

from pipeline.config import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *sorted((ROOT / "pipeline" / "docs").glob("*.md"))]
FENCED = re.compile(
    r"(?:^<!-- (?:not run: (?P<reason>.+)|needs: (?P<needs>\w+)) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MOST_NOT_RUN = 6
PROGRESS = re.compile(r'^(?:.* rows/s, .* in flight, .*|writing: .*|.*"event":"progress".*)\n', re.MULTILINE)
SEPARATOR = "\x1e"  # in what bash prints: before and after each exit code


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str
    reason: str | None  # why it is not run
    needs: str | None  # the package without which it is not run


class Example(NamedTuple):
    """A command and what it prints; no lines: whatever it likes."""

    command: str
    printed: str


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found = FENCED.finditer(page.read_text(encoding="utf-8"))
    return [Block(each["kind"], each["text"], each["reason"], each["needs"]) for each in found]


def examples_of(page: Path) -> list[Example]:
    """The commands of a page that are to be run, in order."""
    text = "".join(block.text for block in blocks_of(page) if block.kind == "console" and not block.reason)
    found = re.findall(r"^\$ (.*\n(?:^> .*\n)*)((?:^(?!\$ ).*\n)*)", text, re.MULTILINE)
    return [Example(command.replace("\n> ", "\n").strip(), printed.rstrip()) for command, printed in found]


def is_like(printed: str, shown: str) -> bool:
    """Whether what a command printed is what the page shows; a slow machine has progress to show as well."""
    pattern = re.escape(shown).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, PROGRESS.sub("", printed).rstrip(), re.DOTALL) is not None


def with_examples(kind: str) -> list[Path]:
    """The pages with blocks of one kind that are to be run."""
    return [
        page
        for page in PAGES
        if any(block.kind == kind and not block.reason and not block.needs for block in blocks_of(page))
    ]


def long_but_for_readme(page: Path) -> Path | ParameterSet:
    """Mark the pages of the reference: each starts some twenty commands."""
    return page if page.name == "README.md" else pytest.param(page, marks=pytest.mark.slow)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a reader has: the sample files, and the command, which was installed by `make demo`."""
    for name in ("data", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def environment(checkout: Path, embedded_url: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """An environment in which `classify` is the command, and a server answers where examples expect one."""
    command = checkout / ".venv" / "bin" / "classify"
    command.parent.mkdir(parents=True)
    # The server of the examples listens on a port of its own; flags win over --set, so examples may name another.
    command.write_text(
        "#!/bin/sh\n"
        f'case "$1" in run|check|text) one=$1; shift; set -- "$one" --set server.url={embedded_url} "$@";; esac\n'
        f'exec {sys.executable} -m pipeline "$@"\n'
    )
    command.chmod(stat.S_IRWXU)
    given = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VLLM_"))}
    given["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    given["PATH"] = f"{command.parent}{os.pathsep}{given['PATH']}"
    given["XDG_STATE_HOME"] = str(checkout / "state-home")
    if "s3" in request.node.callspec.id:
        port = request.getfixturevalue("s3_port")
        Bucket(port, "labelled")
        given |= environment_for(port)
    return given


def page_id(page: Path) -> str:
    """The name of a page in the name of a test; `s3` in it asks for an object store."""
    needs_store = any("s3://" in example.command for example in examples_of(page))
    return f"{page.stem}{'-with-s3' if needs_store else ''}"


@pytest.mark.parametrize("page", [long_but_for_readme(page) for page in with_examples("console")], ids=page_id)
def test_the_commands_of_a_page_print_what_it_shows(page: Path, checkout: Path, environment: dict[str, str]) -> None:
    """One shell for each page, as a reader has one terminal."""
    examples = examples_of(page)
    steps = [f"{each.command}\n_code=$?; printf '{SEPARATOR}%d{SEPARATOR}' $_code; (exit $_code)" for each in examples]
    done = subprocess.run(
        ["bash", "-c", "\n".join(["exec 2>&1", *steps])],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout.split(SEPARATOR)
    printed, codes = said[0::2], [int(code) for code in said[1::2]]
    assert len(codes) == len(examples), done.stdout
    for number, (example, text, code) in enumerate(zip(examples, printed, codes, strict=False)):
        is_asked_for = examples[number + 1 : number + 2] and examples[number + 1].command == "echo $?"
        assert code == 0 or is_asked_for, f"$ {example.command}\n{text}\nexit code {code}"
        assert not example.printed or is_like(text, example.printed), f"$ {example.command}\n{text}"


@pytest.mark.parametrize("page", with_examples("python"), ids=page_id)
def test_the_python_of_a_page_works(page: Path, checkout: Path, environment: dict[str, str], embedded_url: str) -> None:
    """All of it is one program, and what it asserts holds. One built-in server does for all that would be started."""
    blocks = [each for each in blocks_of(page) if each.kind == "python" and not each.reason and not each.needs]
    code = "\n".join(block.text for block in blocks)
    code = re.sub(r'url="embedded"(?!, api=)', f'url="{embedded_url}"', code)  # with `api` it is of another kind
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in blocks_of(page) if block.needs], ids=lambda block: block.needs
)
def test_the_python_that_needs_an_engine_works(block: Block, checkout: Path, environment: dict[str, str]) -> None:
    """Each is one program. Such engines start processes, which may take minutes on a busy machine."""
    pytest.importorskip(str(block.needs), reason=f"{block.needs} is not installed")
    if block.needs == "pyspark" and not shutil.which("java"):
        pytest.skip("there is no java")
    done = subprocess.run(
        [sys.executable, "-c", block.text], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", with_examples("toml"), ids=page_id)
def test_the_configs_of_a_page_are_valid(page: Path, tmp_path: Path) -> None:
    """Their keys exist, and their values are allowed."""
    for block in blocks_of(page):
        if block.kind == "toml":
            (tmp_path / "config.toml").write_text(block.text)
            load(str(tmp_path / "config.toml"), {})


def test_few_examples_are_not_run_and_none_can_hide() -> None:
    """Each block says what it is; a command stands nowhere else."""
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert {block.kind for block in blocks} == {"console", "python", "toml", "text"}
    assert sum(block.reason is not None for block in blocks) <= MOST_NOT_RUN
    for page in PAGES:
        prose = FENCED.sub("", page.read_text(encoding="utf-8"))
        assert not re.search(r"^(    |\t|```|~~~|\$ )", prose, re.MULTILINE), page.name
        assert "<!-- not run" not in prose, page.name
        assert "<!-- needs" not in prose, page.name
    for block in blocks:
        if block.kind == "text":
            assert not re.search(r"^\$ ", block.text, re.MULTILINE), block.text
