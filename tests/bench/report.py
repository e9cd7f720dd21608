"""What a report costs: rows counted in a second of CPU, memory by rows, two files in step, a page of a million rows.

    python tests/bench/report.py [ROWS]     default: 10,000,000

Each step is a process of its own. What the counting in a run costs is the time of `Tally.count` in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LABELS = ("billing", "delivery", "refund", "login", "cancel", "praise", "product question", "spam")
BLOCK = 250_000
COUNT = """
import resource, sys, time
from pipeline.config import load
from pipeline.report.counts import Counts
from pipeline.report.reading import open_labelled
from pipeline.storage import locate
path, with_text = sys.argv[1], sys.argv[2] == "text"
columns = {"loader.text_column": "text", "report.truth": "truth"} if with_text else {"loader.text_column": "none"}
config = load(None, columns)
counts, began = Counts(3), time.process_time()
for block in open_labelled(config, locate(path), needs_truth=True).blocks(""):
    counts.add(block)
spent = time.process_time() - began
print(f"{counts.rows / spent / 1e6:.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
"""
STEP = """
import resource, sys, time
from pipeline.config import load
from pipeline.report.changes import Changes, in_step
from pipeline.report.reading import open_labelled
from pipeline.storage import locate
truth = {"report.truth": "truth"} if sys.argv[3] == "truth" else {}
config = load(None, {"loader.text_column": "text" if truth else "none"} | truth)
now, then = (open_labelled(config, locate(path), needs_truth=True).blocks("") for path in sys.argv[1:3])
changes, began = Changes(3 if truth else 0, {}), time.process_time()
for here, there in in_step(now, then):
    changes.add(here, there)
spent = time.process_time() - began
rows = changes.as_member()["rows"]
print(f"{rows / spent / 1e6:.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
"""
TALLY = """
import sys, time
import numpy as np
from pipeline.answers import Answers, Labels
from pipeline.formats.appended_columns import Tally
chance = np.random.default_rng(1)
labels = Labels([f"label {number}" for number in range(8)])
answers = Answers(labels, chance.integers(0, 8, 4096).astype(np.int32), 1 - chance.beta(0.3, 3, 4096))
tally, began = Tally(labels.names), time.process_time()
for _ in range(250):
    tally.count(answers)
print(f"{(time.process_time() - began) / 250 / 4096 * 1e9:.0f}")
"""


def output_of(rows: int, seed: int) -> str:
    """A labelled file of so many rows, made if it is not there."""
    path = measuring.BUILD / f"labelled-{rows}-{seed}.parquet"
    if path.exists():
        return str(path)
    chance, writer = np.random.default_rng(seed), None
    names = np.array(LABELS, object)
    for start in range(0, rows, BLOCK):
        size = min(BLOCK, rows - start)
        truth = chance.choice(8, size, p=np.array([15, 14, 12, 11, 8, 14, 21, 5]) / 100)
        score = 1 - chance.beta(0.3, 3, size)
        label = np.where(chance.random(size) < score, truth, chance.integers(0, 8, size))
        failed = chance.random(size) < 0.003
        table = pa.table(
            {
                "text": [f"a ticket about {each} with the number {start + at}" for at, each in enumerate(names[truth])],
                "truth": pa.array(names[truth], pa.string(), mask=chance.random(size) < 0.5),
                "predicted_label": pa.array(names[label], pa.string(), mask=failed),
                "predicted_score": pa.array(score, mask=failed),
                "predicted_error": pa.array(["too_long: 900 tokens"] * size, pa.string(), mask=~failed),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=65_536)
    assert writer is not None
    writer.close()
    return str(path)


def said(code: str, *arguments: str) -> list[float]:
    """The numbers that a process prints."""
    command = [sys.executable, "-c", code, *arguments]
    return [float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def main(rows: int) -> None:
    """Print the table."""
    measuring.BUILD.mkdir(exist_ok=True)
    print("\n".join(measuring.machine()), "\n")
    print("| rows of Parquet | read | million rows a CPU-second | peak MiB |\n|--:|---|--:|--:|", flush=True)
    for size in (1_000_000, rows):
        path = output_of(size, 1)
        for kind, words in (("plain", "labels, scores, errors"), ("text", "and text and truth")):
            rate, memory = max(said(COUNT, path, kind) for _ in range(3))
            print(f"| {size:,} | {words} | {rate:.2f} | {memory:.0f} |", flush=True)
    now, then = output_of(1_000_000, 1), output_of(1_000_000, 2)
    for kind, what in (("plain", "labels and scores"), ("truth", "and text and truth")):
        rate, memory = max(said(STEP, now, then, kind) for _ in range(3))
        print(f"| 1,000,000 of two files in step | {what} | {rate:.2f} | {memory:.0f} |", flush=True)
    page = measuring.BUILD / "report.html"
    command = [measuring.CLASSIFY, "report", now, "--truth", "truth", "--against", then, "-o", str(page), "-t", "text"]
    both = min(measuring.run(command).cpu for _ in range(3))
    known = measuring.BUILD / "then.json"
    measuring.run([measuring.CLASSIFY, "report", then, "--truth", "truth", "-o", str(known), "-t", "text"])
    command[command.index(then)] = str(known)
    one = min(measuring.run(command).cpu for _ in range(3))
    size, numbers = page.stat().st_size, len(json.dumps(json.loads(Path(page).with_suffix(".json").read_text())))
    print(f"\nA page of two outputs of 1,000,000 rows: {both:.1f} s of CPU; against a report's JSON {one:.1f} s.")
    print(f"The page has {size / 1000:.0f} kB, the JSON {numbers / 1000:.0f} kB.")
    (tally,) = min(said(TALLY) for _ in range(5))
    print(f"Counting by label and score in a run: {tally:.0f} ns a row.")


if __name__ == "__main__":
    began = time.monotonic()
    main(int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 10_000_000)
    print(f"\nmade in {time.monotonic() - began:.0f} s", file=sys.stderr)
