"""Labelled rows that tests make up, as a run would have written them, and reports of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.report.counts import Block, Counts
from pipeline.report.document import About, Document, document_of

LABELS = ("billing", "delivery", "refund", "spam")


class Labelled(NamedTuple):
    """One row."""

    label: str | None
    score: float | None
    error: str | None = None
    truth: str | None = None
    text: str = ""


def blocks_of(rows: Sequence[Labelled], size: int = 1000) -> Iterator[Block]:
    """The rows as blocks of any size, labels as a dictionary in every second one."""
    for number, start in enumerate(range(0, len(rows), size)):
        part = rows[start : start + size]
        labels = pa.array([row.label for row in part], pa.string())
        yield Block(
            "",
            start + 1,
            labels.dictionary_encode() if number % 2 else labels,
            np.array([np.nan if row.score is None else row.score for row in part], np.float64),
            pa.array([row.error for row in part], pa.string()),
            pa.array([row.truth for row in part], pa.string()),
            pa.array([row.text for row in part], pa.string()),
        )


def document(
    rows: Sequence[Labelled],
    *,
    truth: str | None = "truth",
    size: int = 1000,
    examples: int = 3,
    started: str = "2026-11-29T02:30:00.000+00:00",
    model: dict[str, Any] | None = None,
) -> Document:
    """The report of some rows, without comparison and checks."""
    counts = Counts(examples)
    for block in blocks_of(rows, size):
        counts.add(block if truth else block._replace(truths=None))
    about = About("out.parquet", 1, f"digest of {len(rows)}", started, 1.0, model or {"id": "m"}, "text", truth)
    return document_of(counts, about)


def made_up(rows: int, seed: int, weights: Sequence[float] = (4, 3, 2, 1), accuracy: float = 0.9) -> list[Labelled]:
    """Rows of a model that is right as often as said, and whose scores mean what they say."""
    chance = random.Random(seed)
    found = []
    for number in range(rows):
        truth = chance.choices(LABELS, weights)[0]
        score = chance.betavariate(10 * accuracy, 10 * (1 - accuracy))
        label = truth if chance.random() < score else chance.choice([each for each in LABELS if each != truth])
        found.append(Labelled(label, score, None, truth, f"text {number} of {truth}"))
    return found


def write_labelled(path: Path, rows: Sequence[Labelled]) -> Path:
    """A file like the output of a run, in the format of its ending."""
    import pyarrow.parquet as pq
    from pyarrow import csv as arrow_csv
    from pyarrow import ipc

    table = pa.table(
        {
            "text": [row.text for row in rows],
            "truth": pa.array([row.truth for row in rows], pa.string()),
            "predicted_label": pa.array([row.label for row in rows], pa.string()),
            "predicted_score": pa.array([row.score for row in rows], pa.float64()),
            "predicted_error": pa.array([row.error for row in rows], pa.string()),
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=700)
    elif path.suffix == ".csv":
        arrow_csv.write_csv(table, path)
    elif path.suffix == ".arrow":
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(table.to_pylist()))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path
