"""Real servers and a real kill: of the client, and of the server, in the middle of a file."""

from __future__ import annotations

import math
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from killing import finish, kill_group, start
from serving import START_S, Real

from pipeline.checkpoint import Checkpoint

pytestmark = [pytest.mark.real, pytest.mark.time_limit(2 * START_S)]
ROWS = {"vllm": 6000, "infinity": 2000}  # some seconds each


@pytest.fixture(params=["bert", "infinity"])
def server(request: pytest.FixtureRequest) -> Real:
    """Each kind of server in turn."""
    found: Real = request.getfixturevalue(request.param)
    return found


def write(path: Path, rows: int) -> None:
    """Distinct short texts."""
    texts = [f"number {n} of many, {'good' if n % 3 else 'bad'} and {n * 7919 % 101}" for n in range(rows)]
    pq.write_table(pa.table({"text": texts}), path)


def arguments(folder: Path, output: str, url: str) -> list[str]:
    """Small requests, so that there is a middle."""
    sizes = ["--set", "request.rows=16", "--set", "request.concurrency=4", "--set", "server.start_wait_s=1"]
    return ["run", str(folder / "in.parquet"), "-o", str(folder / output), "--url", url, "--quiet", *sizes]


def rows_done(output: Path) -> int:
    """Rows that are in the checkpoint so far."""
    path = output.with_name(f".{output.name}.checkpoint")
    if not path.exists():
        return 0
    checkpoint = Checkpoint(path, read_only=True)
    try:
        return checkpoint.counts()[0]
    finally:
        checkpoint.close()


def wait_for_rows(output: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    """Until so many are in the checkpoint."""
    while rows_done(output) < rows and process.poll() is None:
        time.sleep(0.01)


def same(one: Path, other: Path) -> None:
    """Equal labels, scores within what batching does to float32."""
    left, right = pq.read_table(one), pq.read_table(other)
    assert left["predicted_label"].equals(right["predicted_label"])
    assert left["predicted_error"].null_count == len(left)
    scores = zip(left["predicted_score"].to_pylist(), right["predicted_score"].to_pylist(), strict=True)
    assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in scores)


def test_killed_and_resumed(server: Real, tmp_path: Path, classify: Command) -> None:
    """The client, then the server (exit 75, and everything is kept): the same command ends with the same labels."""
    rows = ROWS[server.kind]
    write(tmp_path / "in.parquet", rows)
    assert finish(arguments(tmp_path, "whole.parquet", server.url))[0] == 0
    output = tmp_path / "out.parquet"
    process = start(arguments(tmp_path, "out.parquet", server.url))
    wait_for_rows(output, rows // 4, process)
    assert process.poll() is None
    kill_group(process)
    done = rows_done(output)
    assert rows // 4 <= done < rows
    code, errors = finish(arguments(tmp_path, "out.parquet", server.url))
    assert (code, f"{done:,} resumed" in errors) == (0, True)
    same(output, tmp_path / "whole.parquet")

    output = tmp_path / "again.parquet"
    process = start([*arguments(tmp_path, "again.parquet", server.url), "--set", "server.wait_s=2"])
    wait_for_rows(output, rows // 4, process)
    server.kill()
    try:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 75, said.decode()
        assert b"no server answered" in said
        done = rows_done(output)
        assert rows // 4 <= done < rows
        assert classify(*arguments(tmp_path, "again.parquet", server.url), expect=75).stderr.count("refused") == 2
    finally:
        server.start()
    code, errors = finish(arguments(tmp_path, "again.parquet", server.url))
    assert (code, f"{done:,} resumed" in errors) == (0, True)
    same(output, tmp_path / "whole.parquet")
