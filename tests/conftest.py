"""What all tests share: the servers (fake, embedded, real ones), and the installed command as a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from fake import FakeServer
from s3 import Bucket, Way
from s3 import serving as serving_s3
from serving import Real, need
from warm import Warm, is_for

pytest_plugins = ["time_limit", "left_out"]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A fake server that does everything right until it is told otherwise."""
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A process that has imported all that `classify` needs."""
    with Warm() as process:
        yield process


@pytest.fixture
def classify(tmp_path: Path, warm: Warm) -> Command:
    """The command as a user runs it: a process, its exit code, its two streams."""

    def run(
        *arguments: object, expect: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        variables = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_STATE_HOME": str(tmp_path / "state"),
            **(env or {}),
        }
        if is_for(env or {}):
            done = warm.run(words, variables, tmp_path, timeout=100)
        else:
            command = [sys.executable, "-m", "pipeline", *words]
            done = subprocess.run(
                command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=100, check=False
            )
        assert "Traceback" not in done.stderr or expect == 1, done.stderr
        if expect is not None:
            assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """The base URL of the embedded server, run as the process that `spawned` would start."""
    command = [sys.executable, "-m", "pipeline.servers.embedded"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real S3 server."""
    with serving_s3() as port:
        yield port


@pytest.fixture
def bucket(s3_port: int) -> Bucket:
    """An empty bucket."""
    return Bucket(s3_port)


@pytest.fixture
def way(s3_port: int) -> Iterator[Way]:
    """A way to the S3 server that can be made bad."""
    with Way(s3_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def bert() -> Iterator[Real]:
    """A real vLLM that serves tiny-bert: an encoder with 3 classes."""
    yield from _real("vllm", "tiny-bert")


@pytest.fixture(scope="session")
def qwen() -> Iterator[Real]:
    """A real vLLM that serves tiny-qwen: a decoder with 5 classes."""
    yield from _real("vllm", "tiny-qwen")


@pytest.fixture(scope="session")
def infinity() -> Iterator[Real]:
    """A real Infinity that serves tiny-bert."""
    yield from _real("infinity", "tiny-bert")


@pytest.fixture(scope="session")
def sglang() -> Iterator[Real]:
    """A real SGLang that serves tiny-bert."""
    yield from _real("sglang", "tiny-bert")


def _real(kind: str, model: str) -> Iterator[Real]:
    need(kind)
    with Real(kind, model) as server:
        yield server
