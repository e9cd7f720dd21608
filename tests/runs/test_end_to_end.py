"""The command on real files, against a real server: every format to every other, and what a run leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command
from fake import FakeServer, label_of, score_of
from files import rows_of, write

TEXTS = [f'text number {n}, «größe» 😀 "{n % 7}"\nsecond line' for n in range(700)] + ["same"] * 50


@pytest.mark.parametrize("out", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("source", ["csv", "parquet", "jsonl"])
def test_every_format_becomes_every_other(
    source: str, out: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Each row is there once, in order, with its own text's label and score."""
    write(tmp_path / f"in.{source}", TEXTS)
    classify("run", "-i", f"in.{source}", "-o", f"out.{out}", "--url", fake.url)
    rows = rows_of(tmp_path / f"out.{out}")
    assert [int(str(row["id"])) for row in rows] == list(range(len(TEXTS)))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["predicted_label"] for row in rows] == [label_of(text) for text in TEXTS]
    assert [float(str(row["predicted_score"])) for row in rows] == [score_of(text) for text in TEXTS]
    assert {row["predicted_error"] or None for row in rows} == {None}
