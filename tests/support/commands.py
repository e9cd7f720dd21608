"""The `classify` command as a process: run to its end, running, and what it says of a mistake."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fake import FakeServer

SUPPORT = Path(__file__).parent


class Command(Protocol):
    """Runs `classify` with arguments in the test's directory."""

    def __call__(
        self, *arguments: object, expect: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Fail unless the exit code is `expect` (None: any)."""


@contextmanager
def running(tmp_path: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command as a process that can be sent signals."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_answered(fake: FakeServer, texts: int) -> None:
    """Until the server has answered so many texts."""
    until = time.monotonic() + 20
    while sum(fake.answered.values()) < texts:
        assert time.monotonic() < until, "the run does not get on"
        time.sleep(0.02)


def run_arguments(fake: FakeServer) -> tuple[str, ...]:
    """A run of some twenty requests, one after the other."""
    settings = ("--set", "request.rows=20", "--set", "request.concurrency=1")
    return ("run", "-i", "in.csv", "-o", "out.csv", "--url", fake.url, *settings)


NOWHERE = ("--url", "http://127.0.0.1:1", "--set", "server.start_wait_s=0")


def complaint(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """The one line of a mistake, which must hold `words`; stdout stays empty."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    assert re.match(r"classify( \w+)?: ", lines[0])
    assert len(lines[0]) < 600
    for word in words:
        assert word in lines[0]
    return lines[0]


def fake_date(folder: Path, now: str) -> None:
    """A `date` that says that it is `now`, HHMM, when asked for the hour."""
    path = folder / "date"
    path.write_text(f'#!/bin/sh\n[ "$*" = "+%H%M" ] && echo {shlex.quote(now)} || echo some day\n')
    path.chmod(0o755)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter of its own that may die; it can import what stands in `tests/support`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=SUPPORT)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The line that says it all."""
    return done.stderr.splitlines()[-1]
