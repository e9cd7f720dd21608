"""What each step of a run costs: the real functions of `pipeline`, one after the other, CPU time a row.

python stages.py INPUT URL   prints one JSON object, step -> microseconds of CPU a row

All threads count, and the kernel's work for this process; the server's work does not.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas  # noqa: ICN001, F401 - pyarrow imports it on its way where it is installed; not a cost of any row
import uvloop

from pipeline import Config
from pipeline.batcher.cutter import Chunk, Cutter
from pipeline.checkpoint import Checkpoint, digest_file
from pipeline.config import Loader, Request, Server, Writer
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import open_source
from pipeline.servers.client import Client
from pipeline.servers.dialects.vllm import Vllm
from pipeline.servers.limiter import BatchSize
from pipeline.servers.model import ModelFacts
from pipeline.storage import Draft
from pipeline.writer import join

CLASSES = 3  # of the server
TEXTS = 256  # a request, as in limit.py
CONCURRENCY = 16
ROWS_A_COMMIT = 50_000  # a commit each 0.25 s, at some 200,000 rows a second


class Stopwatch:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        before = time.process_time()
        yield
        self.steps[name] = self.steps.get(name, 0) + time.process_time() - before


def cut(source: str, config: Config, watch: Stopwatch) -> tuple[Source, list[Chunk]]:
    """The chunks of the whole file, and the file."""
    with watch.step("digest of the input"):
        digest_file(Path(source))
    spec = TextSpec(config.loader)
    opened = open_source(config.loader)
    with watch.step("read texts"):
        blocks = list(opened.texts(spec))
    cutter = Cutter(config.request, BatchSize(config.request.rows), 0, None)
    with watch.step("cut into chunks"):
        return opened, [*(chunk for block in blocks for chunk in cutter.cut(block)), *cutter.rest()]


async def ask(bodies: list[bytes], url: str, watch: Stopwatch) -> list[bytes]:
    """The answers to all bodies through the real client."""
    replies = [b""] * len(bodies)
    shared = iter(enumerate(bodies))

    async def worker(client: Client) -> None:
        for index, body in shared:
            replies[index] = (await client.post(Vllm.path, body, 1 << 24)).body

    async with Client(url, Server(), {}, Vllm.headers) as client:
        await client.post(Vllm.path, bodies[0], 1 << 24)
        with watch.step("HTTP (aiohttp)"):
            await asyncio.gather(*[worker(client) for _ in range(CONCURRENCY)])
    return replies


def measure(source: str, target: Path, url: str, watch: Stopwatch) -> int:
    """Walk through all steps; returns the number of rows."""
    config = Config(loader=Loader(input=source), request=Request(rows=TEXTS), writer=Writer(output=str(target)))
    opened, chunks = cut(source, config, watch)
    with watch.step("encode"):
        bodies = [Vllm().encode(chunk.texts, "bench", config.request) for chunk in chunks]
    replies = uvloop.run(ask(bodies, url, watch))
    facts = ModelFacts()
    with watch.step("decode and check"):
        pairs = zip(replies, chunks, strict=True)
        answers = [Vllm().decode(reply, len(chunk.texts), facts, probs=False) for reply, chunk in pairs]
    del bodies, replies
    # Rows with equal texts in one chunk share an answer; that is a matter of the batcher and hardly ever happens here.
    answers = [chunk.rows(answer) for answer, chunk in zip(answers, chunks, strict=True)]
    checkpoint = Checkpoint(target.with_name("checkpoint"))
    waiting = 0
    for chunk, answer in zip(chunks, answers, strict=True):
        with watch.step("checkpoint: add"):
            checkpoint.add(chunk.first_row, chunk.position, answer, 0)
        waiting += len(answer)
        if waiting > ROWS_A_COMMIT:
            waiting = 0
            with watch.step("checkpoint: commit"):
                checkpoint.flush()
    with watch.step("checkpoint: commit"):
        checkpoint.flush()
    rows = sum(map(len, answers))
    del chunks, answers
    write(config, opened, rows, checkpoint, watch)
    return rows


def write(config: Config, source: Source, rows: int, checkpoint: Checkpoint, watch: Stopwatch) -> None:
    """The second pass: the whole of it, but for the checkpoint, which is measured alone first."""
    with watch.step("checkpoint: read"):
        for _ in checkpoint.answers(CLASSES):
            pass
    with Draft(Path(config.writer.output)) as draft:
        with watch.step("read again, join and write"):
            layout = AppendedColumns(config, CLASSES)
            join(config, source, checkpoint, layout, draft, rows=rows, on_rows=lambda _: None)
        with watch.step("digest of the output"):
            digest_file(draft.path)
    watch.steps["read again, join and write"] -= watch.steps["checkpoint: read"]
    checkpoint.close()


def main(source: str, url: str) -> None:
    """Measure and print."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(dir=Path(source).parent) as place:
        rows = measure(source, Path(place) / f"output{Path(source).suffix}", url, watch)
    print(json.dumps({step: seconds / rows * 1e6 for step, seconds in watch.steps.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
