"""Runs a client as a process of its own and says what it cost; starts the server it talks to.

Nothing but the standard library is imported here and in run.py: what a child process is said to need at most in
memory is at least what its parent had when it started it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
BUILD = HERE / "build"
OUT = BUILD / "out"
CLASSIFY = str(Path(sys.executable).with_name("classify"))
PACKAGES = ("aiohttp", "msgspec", "numpy", "pandas", "pyarrow", "uvloop")


class Cost(NamedTuple):
    """What one process cost, from its start to its end."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    rss: float  # MiB at the most
    started: float  # on the monotonic clock


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; with what it said.
    """
    log = BUILD / "last.log"
    with log.open("wb") as file:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, started)


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs a script of this directory."""
    return [sys.executable, str(HERE / script), *arguments]


def corpus(rows: int, kind: str) -> str:
    """The corpus of so many rows in a format, made if it is not there."""
    path = BUILD / f"corpus-{rows}.{kind}"
    if not path.exists():
        print(f"making a corpus of {rows:,} rows", file=sys.stderr)
        run(python("corpus.py", str(rows)))
    return str(path)


def fresh_output(kind: str) -> str:
    """Where the next client writes; nothing of an earlier one is left there."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    return str(OUT / f"output.{kind}")


def build_server() -> str:
    """Compile the server.

    Raises:
        SystemExit: 2 if there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("the benchmarks need a C compiler for their server; install one, as cc", file=sys.stderr)
        raise SystemExit(2)
    BUILD.mkdir(exist_ok=True)
    program = BUILD / "server"
    subprocess.run([compiler, "-O3", "-o", str(program), str(HERE / "server.c")], check=True)
    return str(program)


class Server:
    """The server, on a port of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        """The JSON at `path`, None if there is nothing."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:  # noqa: S310 - it is http
            return json.loads(answer.read() or b"null")


@contextmanager
def serving(*options: str, pinned: bool = True) -> Iterator[Server]:
    """The server; `pinned` to the last core, this process and its children to the first one."""
    cores = sorted(os.sched_getaffinity(0))
    with subprocess.Popen([build_server(), *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            if pinned:
                os.sched_setaffinity(process.pid, {cores[-1]})
                os.sched_setaffinity(0, {cores[0]})
            assert process.stdout is not None
            yield Server(process.stdout.readline().strip())
        finally:
            process.terminate()
            os.sched_setaffinity(0, cores)


def machine() -> list[str]:
    """What was measured on, a line each."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return [
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load average at the start {os.getloadavg()[0]:.1f}",
        f"- {model}, {os.cpu_count()} cores; Linux {platform.release()}",
        f"- Python {platform.python_version()}, {versions}",
    ]
