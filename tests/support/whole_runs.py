"""Whole runs in the test's own process, and what their outputs must hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fake import FakeServer, label_of
from files import rows_of, write

from pipeline import RunRecord
from pipeline.config import Config, Loader, Retry, Server, Writer
from pipeline.monitoring.progress import Progress
from pipeline.runs import run

QUICK = Retry(base_delay_s=0.01, max_delay_s=0.05)


def classified(folder: Path, texts: list[Any], *servers: FakeServer, **sections: Any) -> RunRecord:
    """Write the texts and run, in this process, with short waits."""
    write(folder / "in.jsonl", texts)
    config = Config(
        loader=Loader(input=str(folder / "in.jsonl")),
        writer=Writer(output=str(folder / "out.jsonl")),
        server=sections.pop("server", None) or Server(url=[each.url for each in servers], timeout_s=2, wait_s=20),
        retry=sections.pop("retry", QUICK),
        **sections,
    )
    return asyncio.run(run(config, Progress("quiet")))


def assert_all_right(folder: Path, texts: list[Any]) -> None:
    """Every row has the label of its own text and no error."""
    rows = rows_of(folder / "out.jsonl")
    assert [row["text"] for row in rows] == texts
    assert [row["predicted_label"] for row in rows] == [label_of(text) for text in texts]
    assert {row["predicted_error"] for row in rows} == {None}


def alone(folder: Path, server: FakeServer, into: Path, **writer: Any) -> dict[str, bytes]:
    """What a run of each file below `folder` alone gives: relative path -> bytes."""
    outputs = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        output = into / path.relative_to(folder)
        output.parent.mkdir(parents=True, exist_ok=True)
        config = Config(
            loader=Loader(input=str(path)),
            writer=Writer(output=str(output), **writer),
            server=Server(url=server.url),
        )
        asyncio.run(run(config, Progress("quiet")))
        outputs[str(path.relative_to(folder))] = output.read_bytes()
    server.requests.clear()
    server.answered.clear()
    return outputs
