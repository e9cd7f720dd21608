"""Google's store, on loopback (an emulator): reading, writing, and no half objects."""

from __future__ import annotations

import gc
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from fake import FakeServer

from pipeline.checkpoint import digest_file
from pipeline.errors import StoreRefused
from pipeline.storage import Kind, list_files, locate

MIB = 1 << 20
# It can't say which port it has found, so it is given one.
SERVE = """
import sys
from gcp_storage_emulator.server import create_server

with create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket"):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def options() -> Iterator[str]:
    """What leads to the emulator, at the end of a URI."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        process.stdout.readline()
        yield f"?endpoint_override=127.0.0.1:{port}&scheme=http"
        process.kill()


def test_a_run_from_and_to_google_is_as_on_a_disk(
    tmp_path: Path, options: str, fake: FakeServer, classify: Command
) -> None:
    """The same bytes; then it is known as complete; a bucket that is not there is named."""
    content = b"id,text\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(500))
    (tmp_path / "in.csv").write_bytes(content)
    base = "gs://anonymous@bucket"
    locate(f"{base}/in.csv{options}").put(iter([content]))
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    arguments = ("run", f"{base}/in.csv{options}", "-o", f"{base}/out.csv{options}")
    classify(*arguments, "--url", fake.url)
    assert locate(f"{base}/out.csv{options}").read() == (tmp_path / "out.csv").read_bytes()
    assert "gs://bucket/out.csv: complete already" in classify(*arguments).stderr
    nowhere = classify("run", f"gs://anonymous@nobody/in.csv{options}", expect=2)
    assert "gs://nobody/in.csv: there is no bucket nobody" in nowhere.stderr


def test_google_is_read_and_listed_as_any_place(tmp_path: Path, options: str) -> None:
    """Sizes, kinds, digests and lists are those of the same files on a disk."""
    content = random.Random(1).randbytes(2 * MIB)
    (tmp_path / "a").write_bytes(content)
    top = locate(f"gs://anonymous@bucket/top{options}")
    top.within("x/a").put(iter([content]))
    top.within("b %.csv").put(iter([b"12"]))
    assert list_files(top) == ["b %.csv", "x/a"]
    assert top.look()[0] is Kind.DIRECTORY
    assert top.within("gone").look() == (Kind.NOTHING, 0)
    assert digest_file(top.within("x/a")) == digest_file(tmp_path / "a")
    with pytest.raises(StoreRefused, match="no bucket nobody"):
        locate(f"gs://anonymous@nobody/a{options}").look()


@pytest.mark.slow
def test_half_an_upload_to_google_is_no_object(options: str) -> None:
    """What was begun and given up never appears."""

    def parts() -> Iterator[bytes]:
        yield b"x" * (10 * MIB)
        yield b"x" * (10 * MIB)
        raise KeyError("stop")

    base = locate(f"gs://anonymous@bucket/half{options}")
    with pytest.raises(KeyError):
        base.put(parts())
    gc.collect()
    assert base.look() == (Kind.NOTHING, 0)
