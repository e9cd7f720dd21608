"""Makes the input of the benchmarks: N rows of 6 columns as Parquet, CSV and JSONL, the same rows in each.

python corpus.py ROWS   makes build/corpus-ROWS.parquet, .csv and .jsonl, unless they are there

A block's rows depend on its number alone, so a smaller corpus is the beginning of a larger one, and one block at a
time is held in memory.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BUILD = Path(__file__).parent / "build"
FORMATS = ("parquet", "csv", "jsonl")
BLOCK_ROWS = 65_536
POOL_WORDS = 300_000
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("category", pa.string()),
        ("price", pa.float64()),
        ("votes", pa.int64()),
        ("note", pa.string()),
    ]
)

PLAIN = """the of and to in is that it was for on are with as his they be at one have this from by hot but some what
    there we can out other were all your when up use word how said an each she which do their time if will way about
    many then them would write like so these her long make thing see him two has look more day could go come did my
    sound no most number who over know water than call first people may down side been now find any new work part take
    get place made live where after back little only round man year came show every good me give our under name very
    through just form much great think say help low line before turn cause same mean differ move right boy old too does
    tell sentence set three want air well also play small end put home read hand port large spell add even land here
    Excellent! Disappointing. Works. Broken? Returned, again; quickly: cheap"""
FOREIGN = """café naïve Zürich señor façade l’été привет отлично качество плохо 你好 世界 非常好 品質 とても 良い 좋아요
    감사합니다 مرحبا שלום 😀 👍🏽 ❤️ 🚀 — “quoted” … €19.99 ½"""  # noqa: RUF001 - such characters are what it is for
AWKWARD = ['"quoted"', "C:\\dir\\file", "a/b", "line\nbreak", "tab\there", "it's", "<b>bold</b>", "x,y,z", "?q=1&r=2"]
CATEGORIES = ["books", "toys", "électronique", "garden", "音楽", "auto"]
NOTES = [None, None, "ok", "", 'check "this"', "naïve, note", "多行\n注"]


def path_of(rows: int, kind: str) -> Path:
    """Where the corpus of so many rows is."""
    return BUILD / f"corpus-{rows}.{kind}"


def blocks(rows: int) -> Iterator[pa.RecordBatch]:
    """All rows, a block at a time. A text is a window of one long text, so making it costs a slice."""
    random = np.random.default_rng(7)
    pool = " ".join(random.choice(PLAIN.split() * 6 + FOREIGN.split() * 8 + AWKWARD * 3, POOL_WORDS).tolist())
    for first in range(0, rows, BLOCK_ROWS):
        yield _block(pool, first).slice(0, rows - first)


def _block(pool: str, first: int) -> pa.RecordBatch:
    random = np.random.default_rng(first)
    starts = random.integers(0, len(pool) - 400, BLOCK_ROWS)
    stops = starts + random.integers(100, 401, BLOCK_ROWS)
    votes = random.integers(0, 1000, BLOCK_ROWS)
    columns = [
        pa.array(range(first, first + BLOCK_ROWS)),
        pa.array([pool[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]),
        pa.array(random.choice(CATEGORIES, BLOCK_ROWS).tolist()),
        pa.array(random.integers(0, 10_000, BLOCK_ROWS) / 100),
        pa.array(votes, mask=votes < 100),
        pa.array([NOTES[index] for index in random.integers(0, len(NOTES), BLOCK_ROWS)], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def make(rows: int) -> None:
    """Write the three files. They get their names when they are complete."""
    drafts = {kind: path_of(rows, kind).with_suffix(".draft") for kind in FORMATS}
    drafts = {kind: draft.with_stem(f"{draft.stem}-{kind}") for kind, draft in drafts.items()}
    BUILD.mkdir(exist_ok=True)
    encode = msgspec.json.Encoder().encode_lines
    with (
        pq.ParquetWriter(drafts["parquet"], SCHEMA, compression="zstd") as parquet,
        drafts["csv"].open("w", encoding="utf-8", newline="") as csv_file,
        drafts["jsonl"].open("wb") as jsonl_file,
    ):
        csv_writer = csv.writer(csv_file, lineterminator="\n")
        csv_writer.writerow(SCHEMA.names)
        for block in blocks(rows):
            parquet.write_batch(block, row_group_size=BLOCK_ROWS)
            as_dicts: list[dict[str, Any]] = block.to_pylist()
            csv_writer.writerows([row.values() for row in as_dicts])
            jsonl_file.write(encode(as_dicts))
    for kind, draft in drafts.items():
        draft.rename(path_of(rows, kind))


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    if not all(path_of(wanted, kind).exists() for kind in FORMATS):
        make(wanted)
