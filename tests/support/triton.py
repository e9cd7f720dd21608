"""A real Triton with small models of three classes, whose values are made of the bytes of a text as the fake's are."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parents[1] / "triton"
NAMES = ("negative", "neutral: a bit", "positive")  # a colon, which its own answers divide names by
MOST_TEXTS = 24
START_S = 120
CONFIG = """backend: "python"
max_batch_size: {most}
input [ {{ name: "text" data_type: TYPE_STRING dims: [ {text} ] }} ]
output [ {{ name: "probs" data_type: TYPE_FP32 dims: [ {values} ] {labels} }} ]
"""


def home() -> Path:
    """Return where install.sh puts Triton."""
    version = re.search(r"^pytriton=(\S+)", (HERE / "install.sh").read_text(), re.MULTILINE)
    assert version
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLASSIFY_TRITON_HOME") or Path(cache) / "classify-tests" / f"pytriton-{version[1]}")


def missing() -> str | None:
    """Say why no Triton can be started, or return None if one can."""
    return None if (home() / "ready").is_file() else f"no {home() / 'ready'}: run tests/triton/install.sh"


def write_models(repository: Path) -> None:
    """Write two models: "clf" batches and has names, "bare" does neither."""
    for name, values in {
        "clf": {"most": MOST_TEXTS, "text": "1", "values": "3", "labels": 'label_filename: "labels.txt"'},
        "bare": {"most": 0, "text": "-1", "values": "-1, 3", "labels": ""},
    }.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG.format(**values))
        (repository / name / "labels.txt").write_text("".join(f"{label}\n" for label in NAMES))
        shutil.copy(HERE / "model.py", repository / name / "1" / "model.py")


@contextlib.contextmanager
def started(folder: Path, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the models from `folder`; yield the base URL and the process, once it answers."""
    if not (folder / "models").is_dir():
        write_models(folder / "models")
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    site = (home() / "site").resolve()
    command = [
        *(str(site / "pytriton/tritonserver/bin/tritonserver"), f"--model-repository={folder / 'models'}"),
        *(f"--backend-directory={home() / 'backends'}", "--http-address=127.0.0.1", f"--http-port={port}"),
        *("--allow-grpc=false", "--allow-metrics=false"),
    ]
    settings = {"CLASSIFY_SITE": str(site), "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs")}
    url = f"http://127.0.0.1:{port}"
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            give_up = time.monotonic() + START_S
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"Triton did not start:\n{(folder / 'log').read_text()[-4000:]}")
                time.sleep(0.2)
            yield url, process
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5) as answer:  # noqa: S310 - http
            return bool(answer.status == 200)
    except OSError:
        return False
