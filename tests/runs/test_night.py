"""Three nights that nobody watches: files by day in a bucket, and everything that goes wrong in a week."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import LABELS, FakeServer, label_of
from s3 import Bucket

from pipeline.servers.model import CANARY

DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")
ROWS, FILES, IN_FLIGHT, SIZE = 200, ("a.parquet", "b.csv", "c.jsonl"), 4, 25
TRIES = 2  # starts of one night, at most: cron gives up at the deadline


def texts_of(day: int, file: int) -> list[str]:
    """The texts of a file: nine in ten stood in the same file the day before."""
    return [f"file {file} row {row} of day {day if row % 10 == 0 else 0}" for row in range(ROWS)]


def content_of(name: str, texts: list[str], folder: Path) -> bytes:
    """A file of these texts."""
    path = folder / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path)
    elif name.endswith("csv"):
        path.write_text("id,text\n" + "".join(f"{number},{text}\n" for number, text in enumerate(texts)))
    else:
        lines = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
        path.write_text("".join(f"{line}\n" for line in lines))
    return path.read_bytes()


def labels_in(name: str, content: bytes, folder: Path) -> list[tuple[str, str]]:
    """Text and label of each row of an output."""
    path = folder / f"read-{name}"
    path.write_bytes(content)
    if name.endswith("parquet"):
        rows = pq.read_table(path).to_pylist()
    elif name.endswith("csv"):
        head, *lines = path.read_text().splitlines()
        rows = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["text"], row["predicted_label"]) for row in rows]


@pytest.fixture
def config(tmp_path: Path, bucket: Bucket, fake: FakeServer) -> Path:
    """A night: yesterday's files of the bucket, with stored answers and a metrics file."""
    path = tmp_path / "night.toml"
    path.write_text(
        f"""
        [loader]
        input = "{bucket.uri("raw/day={date}/")}"
        [server]
        url = "{fake.url}"
        start_wait_s = 0
        [request]
        rows = {SIZE}
        concurrency = {IN_FLIGHT}
        [writer]
        output = "{bucket.uri("labelled/day={date}/")}"
        [run]
        reuse = "answers.sqlite"
        state_dir = "state"
        metrics_file = "night.prom"
        """
    )
    return path


class Cron:
    """What a scheduler does: starts the night, and starts it again by its exit code alone."""

    def __init__(self, config: Path, bucket: Bucket) -> None:
        self._command = [sys.executable, "-m", "pipeline", "run", str(config), "--quiet"]
        self._environment = {**os.environ, **bucket.environment}

    def start(self, day: str) -> subprocess.Popen[str]:
        """One start."""
        return subprocess.Popen(
            [*self._command, "--date", day],
            env=self._environment,
            start_new_session=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def night(self, day: str) -> tuple[list[int], str]:
        """All starts of one night: their codes, and what the last one said."""
        codes: list[int] = []
        said = ""
        while len(codes) < TRIES and (not codes or codes[-1] == 75):
            process = self.start(day)
            _, said = process.communicate(timeout=90)
            codes.append(process.returncode)
        return codes, said


def wait_until_answered(fake: FakeServer, count: int) -> None:
    """Until the server has answered so many texts."""
    until = time.monotonic() + 60
    while fake.answered.total() < count:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_three_nights(tmp_path: Path, bucket: Bucket, fake: FakeServer, config: Path) -> None:
    """Every good file is labelled once, the broken one named, no half file is seen, and no text is paid for twice."""
    for number, day in enumerate(DAYS):
        for file, name in enumerate(FILES):
            bucket.put(f"raw/day={day}/{name}", content_of(name, texts_of(number, file), tmp_path))
    bucket.put(f"raw/day={DAYS[1]}/broken.jsonl", b'{"text": "one"}\n{"text": \n')
    cron, fake.latency_s = Cron(config, bucket), 0.05

    # The first night: the server is not up at 02:30, and the machine is lost in the middle.
    fake.down()
    codes, said = cron.night(DAYS[0])
    assert set(codes) == {75}, said
    fake.up()
    lost = cron.start(DAYS[0])
    wait_until_answered(fake, 250)
    os.killpg(lost.pid, signal.SIGKILL)
    lost.communicate()
    assert cron.night(DAYS[0])[0] == [0]
    assert "classify_last_run_exit_code" in (tmp_path / "night.prom").read_text()

    # The second: one file is broken, and the server goes away for a while.
    restart = threading.Timer(1.0, fake.up)

    def go_away(_: list[str]) -> None:
        if restart.ident is None and len(fake.requests) > before + 1:
            threading.Thread(target=fake.down).start()
            restart.start()

    before, fake.each = len(fake.requests), go_away
    codes, said = cron.night(DAYS[1])
    restart.join()
    fake.each = lambda _: None
    assert codes == [2], said
    assert "broken.jsonl:2" in said.splitlines()[-1]

    # The third is a good one; and in the morning somebody looks at all three.
    assert cron.night(DAYS[2])[0] == [0]
    sent = len(fake.texts)
    codes, said = cron.night(f"{DAYS[0]}..{DAYS[2]}")
    assert codes == [2]
    assert "broken.jsonl:2" in said
    assert len(fake.texts) == sent, "what is complete is not asked again"

    for number, day in enumerate(DAYS):
        for file, name in enumerate(FILES):
            content = bucket.get(f"labelled/day={day}/{name}")
            assert content is not None, (day, name)
            wanted = [(text, label_of(text)) for text in texts_of(number, file)]
            assert labels_in(name, content, tmp_path) == wanted
    all_keys = bucket.keys()
    outputs = {key for key in all_keys if key.startswith("labelled/") and not Path(key).name.startswith(".")}
    assert outputs == {f"labelled/day={day}/{name}" for day in DAYS for name in FILES}
    # A kill while an object is sent leaves an unfinished upload, which no reader sees (docs/storage.md).
    assert all(key.startswith(f"labelled/day={DAYS[0]}/") for key in bucket.uploads())
    assert_paid_once(fake)


def assert_paid_once(fake: FakeServer) -> None:
    """The texts sent are the distinct ones, and what was in flight when the machine was lost and the server gone."""
    times = Counter(text for text in fake.texts if text not in CANARY)
    distinct = {text for day in range(len(DAYS)) for file in range(len(FILES)) for text in texts_of(day, file)}
    assert distinct <= set(times)
    again = times.total() - len(distinct)
    names = len(LABELS) * (TRIES + len(DAYS))  # a class that the canary does not show is asked for once a run
    second_of_answers = IN_FLIGHT * SIZE / 0.05
    assert again <= 2 * IN_FLIGHT * SIZE + second_of_answers + names + 1, f"{again} texts were sent again"


@pytest.mark.slow
def test_nights_that_overlap(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The second of two nights at once is told so (75), asks nothing, and finds all done when it comes again."""
    (tmp_path / "in").mkdir()
    for file in range(3):
        (tmp_path / "in" / f"{file}.jsonl").write_bytes(content_of("x.jsonl", texts_of(0, file), tmp_path))
    arguments = ["run", "in", "-o", "out/", "--url", fake.url, "--set", f"request.rows={SIZE}"]
    fake.latency_s = 4.0
    first = subprocess.Popen([sys.executable, "-m", "pipeline", *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until_answered(fake, len(CANARY) + 1)
    second = classify(*arguments, expect=75)
    assert f"pid {first.pid}" in second.stderr
    fake.latency_s = 0
    assert first.wait(60) == 0
    sent = len(fake.requests)
    classify(*arguments)
    assert len(fake.requests) == sent
