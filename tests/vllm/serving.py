"""Start and stop real vLLM servers, and ask a server something: what the wire's tests and record_samples.py share."""

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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

MAX_MODEL_LEN = 256
START_S = 300  # an idle machine needs some 25 s
STOP_S = 15


class Answer(NamedTuple):
    """What a server sent back. `body` is parsed JSON, or None where the body is empty."""

    status: int
    headers: Message
    body: Any


def version() -> str:
    """Return the version of vLLM that install.sh installs; it stands nowhere else."""
    match = re.search(r"^vllm=(\S+)", Path(__file__).with_name("install.sh").read_text(), re.MULTILINE)
    assert match, "install.sh no longer names a version"
    return match[1]


def home() -> Path:
    """Return where install.sh puts vLLM and the models."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLASSIFY_VLLM_HOME") or Path(cache) / "classify-tests" / f"vllm-{version()}")


def missing() -> str | None:
    """Say why no real vLLM can be started, or return None if one can."""
    absent = [mark for mark in (home() / "ready", home() / "models" / "ready") if not mark.is_file()]
    return f"no {absent[0]}: run tests/vllm/install.sh" if absent else None


def kill(url: str) -> None:
    """Kill the server behind a base URL as the out-of-memory killer would: vLLM is several processes."""
    os.killpg(_groups[url], signal.SIGKILL)


_groups: dict[str, int] = {}  # base URL -> process group of those that were started here


@contextlib.contextmanager
def started(model_name: str, port: int | None = None) -> Iterator[str]:
    """Serve a model of make_models.py with a real vLLM; yield its base URL once it is healthy."""
    port = port or _free_port()
    command = [
        *(str(home() / "venv" / "bin" / "vllm"), "serve", f"./{model_name}"),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", model_name),
        *("--dtype", "float32", "--max-model-len", str(MAX_MODEL_LEN)),
        "--enforce-eager",  # compiling the model takes longer than all that we ask of it
    ]
    settings = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            cwd=home() / "models",  # so that no answer contains a path of this machine
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # vLLM is several processes; they are stopped together
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _groups[url] = process.pid
            _wait_until_healthy(url, process, log)
            yield url
        finally:
            _stop(process)


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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError):  # refused: the port opens when the model is loaded
            if ask(f"{url}/health").status == 200:
                return
        time.sleep(0.5)
    log.seek(0)
    tail = "\n".join(log.read().decode(errors="replace").splitlines()[-40:])
    raise RuntimeError(f"vLLM did not start (exit code {process.poll()}). The end of its log:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, then whatever is left of its process group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
