"""The engine `ray`: the output is that of one process, whatever is killed; secrets stay out of Ray's logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command, complaint
from fake import FakeServer, refuse
from ray_cluster import CORES, RayCluster
from workers import wait_until_gone

import pipeline.engines.channel
from pipeline import errors
from pipeline.config import load
from pipeline.monitoring.progress import Progress
from pipeline.runs import run
from pipeline.servers.model import CANARY

pytestmark = pytest.mark.real  # one cluster for all, so in one process
ROWS, IN_REQUEST, SLOTS = 6000, 32, 8
NAMES = ("in.parquet", "in.csv", "in.jsonl")
LATENCY_S = 0.2
A_SECOND = SLOTS * IN_REQUEST + int(SLOTS * IN_REQUEST / LATENCY_S)  # texts: in flight, and answered in a second
KEY = "a-key-that-nobody-may-read"
# Text files are cut where a buffer ends: with small ones a small file has many shards. A small file is not kept back.
SMALL = (
    "import pipeline.formats.textfile as t, pipeline.runs.walk as w, pipeline.cli as cli, sys; "
    "t.READ_BYTES = 4096; w.SOON_DONE = 0; sys.exit(cli.main())"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Two nodes."""
    with RayCluster() as started:
        yield started


def arguments_for(source: Path, output: Path, server: FakeServer, cluster: RayCluster, *settings: str) -> list[str]:
    """The command line of a run on two workers, with small requests."""
    given = (f"engine.address={cluster.address}", f"request.rows={IN_REQUEST}", f"request.concurrency={SLOTS}")
    words = [word for each in (*given, *settings) for word in ("--set", each)]
    return ["run", str(source), "-o", str(output), "--url", server.url, "--engine", "ray", "--workers", "2", *words]


def start(arguments: list[str], **more: str) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    command = [sys.executable, "-c", SMALL, *arguments]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | more
    )


def finish(process: subprocess.Popen[bytes], code: int = 0) -> str:
    """Wait for the end, with this exit code and nothing on standard output: standard error."""
    output, errors = process.communicate(timeout=100)
    assert process.returncode == code, errors.decode()
    assert output == b""
    return errors.decode()


def write_input(path: Path) -> None:
    """Distinct texts, some with a line feed."""
    texts = [f"row {n} says\nsomething" if n % 3 else f"row {n}" for n in range(ROWS)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(ROWS), "text": texts}), path, row_group_size=70)
    elif path.suffix == ".csv":
        path.write_text("id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts)))
    else:
        path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))


def prepared(folder: Path, name: str, server: FakeServer) -> tuple[Path, Path, bytes]:
    """An input of that name, where its output will be, and what one process makes of it; nothing is answered then."""
    source, output = folder / name, folder / f"out{Path(name).suffix}"
    write_input(source)
    of_one = source.with_name(f"one_{source.name}")
    finish(start(["run", str(source), "-o", str(of_one), "--url", server.url]))
    server.answered.clear()
    server.requests.clear()
    return source, output, of_one.read_bytes()


def wait_until_answered(server: FakeServer, texts: int) -> None:
    """Wait for so many answers, canaries included."""
    while sum(server.answered.values()) < texts:
        time.sleep(0.01)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shards", [1, 7, 40])
def test_the_output_is_that_of_one_process(
    name: str, shards: int, tmp_path: Path, fake: FakeServer, cluster: RayCluster
) -> None:
    """Byte for byte, however many shards there are, and each row is asked for once."""
    source, output, wanted = prepared(tmp_path, name, fake)
    fake.latency_s = 0.02
    finish(start(arguments_for(source, output, fake, cluster, f"engine.shard_rows={ROWS // shards}")))
    assert output.read_bytes() == wanted
    canaries = sum(seen.texts == [*CANARY] for seen in fake.requests)
    assert 1 <= canaries <= 2  # workers that have begun
    assert sum(fake.answered.values()) - len(CANARY) * canaries == ROWS


@pytest.mark.parametrize(
    ("killed", "name"),
    [
        *(("a worker", name) for name in NAMES),
        ("a node", "in.parquet"),
        ("Ray's process", "in.jsonl"),
        ("the run", "in.csv"),
    ],
)
def test_what_is_killed_costs_what_was_in_flight(
    name: str, killed: str, tmp_path: Path, fake: FakeServer, cluster: RayCluster
) -> None:
    """The output is the same; a run that was killed goes on, on one machine if it is told so."""
    source, output, wanted = prepared(tmp_path, name, fake)
    fake.latency_s = LATENCY_S
    arguments = arguments_for(source, output, fake, cluster, "engine.shard_rows=400")
    process = start(arguments)
    wait_until_answered(fake, 2000)
    workers = cluster.wait_for_workers(2)
    if killed == "a worker":
        os.kill(workers[0], signal.SIGKILL)
        assert "was killed; what it had not answered goes to another one" in finish(process)
    elif killed == "a node":
        os.kill(cluster.raylets.pop(0), signal.SIGKILL)
        finish(process)
        cluster.add_node()
    elif killed == "Ray's process":
        [ray] = [pid for pid in children_of(process.pid) if b"ray_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(ray, signal.SIGKILL)
        finish(process, code=75)
        assert wait_until_gone(workers, within_s=30) == []
        finish(start(arguments))
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert wait_until_gone(workers, within_s=30) == []
        alone = ["--engine", "local", "--workers", "1"]
        finish(start([*arguments, *alone]))
    assert output.read_bytes() == wanted
    again = sum(fake.answered.values()) - len(set(fake.answered))
    print(f"{name}: {killed} killed, {again} of {ROWS} texts sent again")
    assert again <= A_SECOND + 50


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_its_workers(
    number: int, code: int, tmp_path: Path, fake: FakeServer, cluster: RayCluster
) -> None:
    """What is answered is kept, and nobody asks any more."""
    source, output, wanted = prepared(tmp_path, "in.csv", fake)
    fake.latency_s = LATENCY_S
    arguments = arguments_for(source, output, fake, cluster, "engine.shard_rows=400")
    process = start(arguments)
    wait_until_answered(fake, 1000)
    workers = cluster.wait_for_workers(2)
    process.send_signal(number)
    assert "the same command goes on from there" in finish(process, code)
    assert wait_until_gone(workers, within_s=30) == []
    fake.latency_s = 0.0
    finish(start(arguments))
    assert output.read_bytes() == wanted


def test_secrets_are_in_no_file_of_ray(tmp_path: Path, fake: FakeServer, cluster: RayCluster) -> None:
    """A key that the run passes on reaches the server, and nothing that Ray keeps; so it does when a worker fails."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    arguments, passed = arguments_for(source, output, fake, cluster), ["--set", 'engine.pass_env=["VLLM_API_KEY"]']
    finish(start(arguments, VLLM_API_KEY=KEY))
    assert not any("Authorization" in seen.headers for seen in fake.requests)  # the nodes do not have it
    fake.requests.clear()
    finish(start([*arguments, *passed, "--restart"], VLLM_API_KEY=KEY))
    assert all(seen.headers["Authorization"] == f"Bearer {KEY}" for seen in fake.requests)
    fake.each = lambda _: refuse(401, "not this key")
    errors = finish(start([*arguments, *passed, "--restart"], VLLM_API_KEY=KEY), code=2)
    assert "node " in errors
    assert KEY not in errors
    kept = [path for path in cluster.directory.rglob("*") if path.is_file()]
    assert len(kept) > 10
    assert [path for path in kept if KEY.encode() in path.read_bytes()] == []


def test_more_workers_than_the_cluster_has_room_for(tmp_path: Path, fake: FakeServer, cluster: RayCluster) -> None:
    """Those that are there do it, and those that wait for room are taken back."""
    source, output, wanted = prepared(tmp_path, "in.csv", fake)
    more = ["--set", "engine.shard_rows=400", "--workers", str(3 * CORES), "--set", "request.concurrency=64"]
    finish(start([*arguments_for(source, output, fake, cluster), *more]))
    assert output.read_bytes() == wanted
    assert cluster.workers == []


async def test_a_worker_of_another_version_is_refused(
    tmp_path: Path, fake: FakeServer, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the node and what to do, before a text is sent."""
    source = tmp_path / "in.csv"
    write_input(source)
    monkeypatch.setattr(pipeline.engines.channel, "__version__", "9.9.9")
    monkeypatch.setattr("pipeline.runs.walk.SOON_DONE", 0)
    settings = {"loader.input": str(source), "server.url": fake.url, "engine.name": "ray"}
    config = load(None, settings | {"writer.output": str(tmp_path / "out.csv"), "engine.address": cluster.address})
    with pytest.raises(
        errors.ConfigError, match=r"^node \S+ has classify-pipeline .* this machine 9\.9\.9 on .* install"
    ):
        await run(config, Progress("quiet"))
    assert fake.requests == []


def test_a_node_that_does_not_see_the_input_is_named(tmp_path: Path, fake: FakeServer, cluster: RayCluster) -> None:
    """An open file of the command stands for a path that only its machine has."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    arguments = arguments_for(source, output, fake, cluster, "loader.format=csv")
    with source.open() as opened:
        arguments[1] = f"/dev/fd/{opened.fileno()}"
        for verb in ("check", "run"):
            arguments[0] = verb
            command = [sys.executable, "-c", SMALL, *arguments]
            done = subprocess.run(
                command, pass_fds=[opened.fileno()], capture_output=True, text=True, check=False, timeout=100
            )
            assert done.returncode == 2, done.stderr
            assert "node " in done.stderr
            assert arguments[1] in done.stderr


def test_check_asks_every_node(tmp_path: Path, fake: FakeServer, cluster: RayCluster) -> None:
    """Each reads the input and meets the server; nothing is sent but canaries."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    arguments = arguments_for(source, output, fake, cluster)
    process = start(["check", *arguments[1:]])
    shown, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors.decode()
    nodes = shown.decode().partition("\nnodes\n")[2].splitlines()
    assert [("reads the input, meets model fake" in line) for line in nodes[:3]] == [True, True, False]
    assert nodes[2] == "  2 workers"
    assert all(seen.texts == [*CANARY] for seen in fake.requests)


def test_what_is_on_one_machine_only_is_refused(classify: Command, tmp_path: Path) -> None:
    """With what to use instead."""
    (tmp_path / "in.csv").write_text("text\na\n")
    for words in (("--set", "run.reuse=answers"), ("--url", "embedded"), ("-i", "-")):
        given = () if "-i" in words else ("in.csv",)
        done = classify("run", *given, "--engine", "ray", *words, expect=2)
        complaint(done, 'engine.name = "ray"', 'use "local"')


def test_without_ray_it_says_what_to_install(tmp_path: Path, fake: FakeServer) -> None:
    """Everything else goes on without it."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    (tmp_path / "without").mkdir()
    (tmp_path / "without/ray.py").write_text("raise ImportError\n")
    arguments = ["run", str(source), "-o", str(output), "--url", fake.url]
    path = {"PYTHONPATH": f"{tmp_path / 'without'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    errors = finish(start([*arguments, "--engine", "ray"], **path), code=2)
    assert 'pip install "classify-pipeline[ray]"' in errors
    finish(start([*arguments, "--engine", "local"], **path))


def test_a_cluster_that_does_not_answer_is_gone(tmp_path: Path, fake: FakeServer) -> None:
    """Ray itself would try for ever; and a client's address is refused."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    write_input(source)
    arguments = ["run", str(source), "-o", str(output), "--url", fake.url, "--engine", "ray", "--set"]
    soon = [sys.executable, "-c", f"import pipeline.engines.ray as r; r.CONNECT_S = 4; {SMALL}"]
    done = subprocess.run(
        [*soon, *arguments, "engine.address=127.0.0.1:1"], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 75, done.stderr
    assert "the Ray cluster at 127.0.0.1:1 does not answer within 4 s" in done.stderr
    assert "use HOST:PORT" in finish(start([*arguments, "engine.address=ray://head:10001"]), code=2)
