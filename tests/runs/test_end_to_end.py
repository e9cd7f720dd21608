"""The command on real files, against a real server: every format to every other, and what a run leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from fake import FakeServer, label_of, score_of

TEXTS = [f'text number {n}, «größe» 😀 "{n % 7}"\nsecond line' for n in range(700)] + ["same"] * 50


def write(path: Path, texts: list[str]) -> None:
    """One file of ids and texts, in the format of its ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "text"], *enumerate(texts)])


def read(path: Path) -> list[dict[str, object]]:
    """The rows of a file, whatever its format."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("out", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("source", ["csv", "parquet", "jsonl"])
def test_every_format_becomes_every_other(
    source: str, out: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Each row is there once, in order, with its own text's label and score."""
    write(tmp_path / f"in.{source}", TEXTS)
    classify("run", "-i", f"in.{source}", "-o", f"out.{out}", "--url", fake.url)
    rows = read(tmp_path / f"out.{out}")
    assert [int(str(row["id"])) for row in rows] == list(range(len(TEXTS)))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["predicted_label"] for row in rows] == [label_of(text) for text in TEXTS]
    assert [float(str(row["predicted_score"])) for row in rows] == [score_of(text) for text in TEXTS]
    assert {row["predicted_error"] or None for row in rows} == {None}
