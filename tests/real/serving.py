"""Start, kill and stop real servers, and ask a server something: what their tests and record_samples.py share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

HERE = Path(__file__).parent
MAX_MODEL_LEN = 256  # of vLLM; the others take the model's own 512
MOST_QUEUED = 300  # texts: more than one request has, fewer than 12 have
START_S = 600  # an idle machine needs 5 to 40 s, a busy one minutes
STOP_S = 15
# Threads that wait for each other take most of a busy machine, and these models need one.
SETTINGS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
LOOPBACK = ("--host", "127.0.0.1", "--port")


class Answer(NamedTuple):
    """What a server sent back. `body` is parsed JSON, or None where the body is empty."""

    status: int
    headers: Message
    body: Any


class Start(NamedTuple):
    """How a server is started: below its home, with the path that tells that it has started, and its settings."""

    command: tuple[str, ...]
    ready: str
    environment: Mapping[str, str] = {}


def _vllm(model: str, port: str) -> Start:
    # Compiling the model takes longer than all that is asked of it.
    options = ("--dtype", "float32", "--max-model-len", str(MAX_MODEL_LEN), "--enforce-eager")
    command = ("venv/bin/vllm", "serve", f"./{model}", "--served-model-name", model, *options, *LOOPBACK, port)
    return Start(command, "/health", {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"})


def _infinity(model: str, port: str) -> Start:
    options = ("--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-compile", "--no-model-warmup")
    named = ("--model-id", f"./{model}", "--served-model-name", model)
    command = ("venv/bin/infinity_emb", "v2", *named, *options, *LOOPBACK, port)
    return Start(command, "/health", {"DO_NOT_TRACK": "1", "INFINITY_QUEUE_SIZE": str(MOST_QUEUED)})


def _sglang(model: str, port: str) -> Start:
    named = ("--model-path", f"./{model}", "--served-model-name", model, "--is-embedding")
    cpu = ("--device", "cpu", "--dtype", "float32", "--attention-backend", "torch_native", "--disable-cuda-graph")
    # An encoder sees a whole text or none of it: without these two, texts in a request change each other's values.
    whole = ("--disable-radix-cache", "--chunked-prefill-size", "-1")
    limits = ("--mem-fraction-static", "0.05", "--max-queued-requests", str(MOST_QUEUED))
    idle = ("--sleep-on-idle",)  # it would keep a core busy
    command = ("venv/bin/python", "-m", "sglang.launch_server", *named, *cpu, *whole, *limits, *idle, *LOOPBACK, port)
    return Start(command, "/v1/models")


def _triton(models: str, port: str) -> Start:
    site = home("triton") / "site"
    binary = "site/pytriton/tritonserver/bin/tritonserver"
    options = (f"--backend-directory={home('triton') / 'backends'}", "--allow-grpc=false", "--allow-metrics=false")
    command = (binary, f"--model-repository={models}", *options, "--http-address=127.0.0.1", f"--http-port={port}")
    # Its models import packages of its own environment, and those with weights torch from that of vLLM.
    sites = [str(site), *map(str, home().glob("venv/lib/python*/site-packages"))]
    libraries = str(site / "nvidia_pytriton.libs")
    # The libpython of its backend is the system's. It looks for a `python3` in PATH to find the standard library, and
    # that of another build ends in missing symbols.
    paths = {"LD_LIBRARY_PATH": libraries, "PATH": "/usr/bin:/bin"}
    return Start(command, "/v2/health/ready", {"CLASSIFY_SITES": ":".join(sites), **paths})


STARTS = {"vllm": _vllm, "infinity": _infinity, "sglang": _sglang, "triton": _triton}


def home(server: str = "vllm") -> Path:
    """Return the folder where the script of `install/` puts a server: its name and version stand nowhere else."""
    match = re.search(r"^name=(\S+) version=(\S+)", (HERE / "install" / f"{server}.sh").read_text(), re.MULTILINE)
    assert match, f"install/{server}.sh no longer names a version"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "classify-tests"
    return Path(os.environ.get("CLASSIFY_SERVERS_HOME") or caches) / f"{match[1]}-{match[2]}"


def missing(*servers: str) -> str | None:
    """Say why no real server of these kinds can be started, or return None if one can."""
    marks = [home(server) / "ready" for server in servers]
    absent = [mark for mark in [*marks, home() / "models" / "ready"] if not mark.is_file()]
    return f"no {absent[0]}: run `make {' '.join(servers)}`" if absent else None


def need(*servers: str) -> None:
    """Skip the test where one of them is missing; fail where all must be there, as in CI."""
    if reason := missing(*servers):
        (pytest.fail if os.environ.get("CLASSIFY_REQUIRE_REAL") == "1" else pytest.skip)(reason)


class Real:
    """A real server, on one port of this machine for as long as the context lasts.

    Args:
        kind: What it is: vllm, infinity, sglang or triton.
        model: The name of a model of make_models.py; of Triton, the path of a repository of models.
        options: More options of its command.
    """

    def __init__(self, kind: str, model: str, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.kind, self.url = kind, f"http://127.0.0.1:{port}"
        self._how = STARTS[kind](model, port)
        self._options = options
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the exit
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self.kill()
        self._log.close()

    def start(self) -> None:
        """Start it, also again on its port; return when it answers."""
        program, *arguments = self._how.command
        self._process = subprocess.Popen(
            [str(home(self.kind) / program), *arguments, *self._options],
            cwd=home() / "models",  # so that no answer contains a path of this machine
            env={**os.environ, **SETTINGS, **self._how.environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # most are several processes; they are killed together
        )
        give_up = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError):  # refused: the port opens when the model is loaded
                if ask(f"{self.url}{self._how.ready}").status == 200:
                    return
            time.sleep(0.2)
        tail = "\n".join(self.log().splitlines()[-40:])
        raise RuntimeError(f"{self.kind} did not start (exit code {self._process.poll()}):\n{tail}")

    def kill(self) -> None:
        """Kill what is left of its processes, as the out-of-memory killer would."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def log(self) -> str:
        """Return what it has printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")


def ask(url: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request as it is and return the answer, whatever its status."""
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))  # noqa: S310 - http
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return _answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, error.read())


def _answer(status: int, headers: Message, body: bytes) -> Answer:
    return Answer(status, headers, json.loads(body) if body else None)
