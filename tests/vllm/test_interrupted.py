"""A real vLLM and a real kill: of the client, and of the server, in the middle of a file."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving
from commands import Command
from killing import finish, kill_group, start

from pipeline.checkpoint import Checkpoint

pytestmark = [pytest.mark.vllm, pytest.mark.time_limit(2 * serving.START_S)]
ROWS = 6000


def write(path: Path) -> None:
    """Distinct short texts."""
    texts = [f"number {n} of many, {'good' if n % 3 else 'bad'} and {n * 7919 % 101}" for n in range(ROWS)]
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


def same(one: Path, other: Path) -> None:
    """Equal labels, scores within what batching does to float32."""
    left, right = pq.read_table(one), pq.read_table(other)
    assert left["predicted_label"].equals(right["predicted_label"])
    assert left["predicted_error"].null_count == ROWS
    scores = zip(left["predicted_score"].to_pylist(), right["predicted_score"].to_pylist(), strict=True)
    assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in scores)


def test_the_client_is_killed_and_resumed(bert_url: str, tmp_path: Path) -> None:
    """Kill -9 in the middle of the first pass; the same command ends with the same labels."""
    write(tmp_path / "in.parquet")
    assert finish(arguments(tmp_path, "whole.parquet", bert_url))[0] == 0
    output = tmp_path / "out.parquet"
    process = start(arguments(tmp_path, "out.parquet", bert_url))
    while rows_done(output) < ROWS / 4 and process.poll() is None:
        pass
    assert process.poll() is None
    kill_group(process)
    done = rows_done(output)
    assert ROWS / 4 <= done < ROWS
    code, errors = finish(arguments(tmp_path, "out.parquet", bert_url))
    assert (code, f"{done:,} resumed" in errors) == (0, True)
    same(output, tmp_path / "whole.parquet")


def test_the_server_is_killed_and_started_again(tmp_path: Path, classify: Command) -> None:
    """The engine dies in the middle: exit 75 and everything kept; the same model finishes the job, another may not."""
    if reason := serving.missing():
        pytest.skip(reason)
    write(tmp_path / "in.parquet")
    output = tmp_path / "out.parquet"
    with serving.started("tiny-bert") as url:
        assert finish(arguments(tmp_path, "whole.parquet", url))[0] == 0
        process = start([*arguments(tmp_path, "out.parquet", url), "--set", "server.wait_s=2"])
        while rows_done(output) < ROWS / 4 and process.poll() is None:
            pass
        serving.kill(url)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 75, errors.decode()
        assert b"no server answered" in errors
    done = rows_done(output)
    assert ROWS / 4 <= done < ROWS
    assert classify(*arguments(tmp_path, "out.parquet", url), expect=75).stderr.count("refused") == 2
    with serving.started("tiny-bert", urlsplit(url).port) as again:
        assert again == url
        code, errors_again = finish(arguments(tmp_path, "out.parquet", url))
        assert (code, f"{done:,} resumed" in errors_again) == (0, True)
    same(output, tmp_path / "whole.parquet")
