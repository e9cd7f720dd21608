"""The file of `run.reuse` by itself, and the next night's input for whole runs with it.

python reuse.py store FILE ANSWERS            fill a new FILE, look into it; prints one JSON object
python reuse.py tomorrow INPUT OUTPUT         every 100th row of a Parquet file gets another text

CPU time of this process, all threads and the kernel's work included; texts of 250 characters, three classes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from answers import answers_of

from pipeline.answers import Labels
from pipeline.reuse import Reuse
from pipeline.texts import Texts, escape_all

BLOCK, CHUNK = 4096, 256  # rows that are looked up at once, texts that are answered at once; as in a run
LOOKUPS = 300_000
CHANGED_EVERY = 100
NAMES = {0: "negative", 1: "neutral", 2: "positive"}
IDENTITY = {"model.id": "bench", "model.num_classes": 3}
BOUND = 10**10  # bytes
FILLING = "x" * 220


def texts_of(numbers: Iterable[int]) -> Texts:
    """The texts with these numbers."""
    return escape_all([f"{FILLING} text {number}" for number in numbers])


def blocks(texts: int) -> Iterator[Texts]:
    """So many texts, block by block."""
    for first in range(0, texts, BLOCK):
        yield texts_of(range(first, min(texts, first + BLOCK)))


def opened(path: Path) -> Reuse:
    """The file, ready to be asked."""
    store = Reuse(path, max_bytes=BOUND)
    store.bind(IDENTITY, len(NAMES), keep_probs=False)
    return store


def fill(path: Path, answers: int) -> float:
    """What it takes to keep so many answers, in microseconds of CPU each: as it is after every chunk, and committed."""
    store, spent = opened(path), 0.0
    for texts in blocks(answers):
        keys = store.find(texts).keys
        for first in range(0, len(keys), CHUNK):
            some = keys[first : first + CHUNK]
            given = answers_of(["positive"] * len(some), [0.7] * len(some), [[0.1, 0.2, 0.7]] * len(some))
            began = time.process_time()
            store.remember(some, given, NAMES)
            spent += time.process_time() - began
        began = time.process_time()
        store.flush()
        spent += time.process_time() - began
    began = time.process_time()
    store.close()
    return (spent + time.process_time() - began) / answers * 1e6


def look_up(path: Path, answers: int, at_once: int, *, of_file: bool) -> float:
    """Texts a second, hashing and labels included; from all over the file, or such as are not in it."""
    store, spent, done, vocabulary = opened(path), 0.0, 0, Labels()
    random = np.random.default_rng(7)
    while done < LOOKUPS:
        numbers = random.integers(0, answers, at_once) + (0 if of_file else answers)
        texts = texts_of(numbers.tolist())
        began = time.process_time()
        found = store.find(texts)
        known = found.answers(NAMES, vocabulary)
        spent += time.process_time() - began
        assert known.has_label.all() if of_file else not known.has_label.any()
        done += at_once
    store.close()
    return done / spent


def store(path: Path, answers: int) -> None:
    """Measure and print."""
    cost = fill(path, answers)
    found = {
        "microseconds an answer": cost,
        "bytes an answer": path.stat().st_size / answers,
        f"found, {CHUNK} at once": look_up(path, answers, CHUNK, of_file=True),
        f"found, {BLOCK} at once": look_up(path, answers, BLOCK, of_file=True),
        f"not found, {BLOCK} at once": look_up(path, answers, BLOCK, of_file=False),
    }
    found["peak RSS, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def tomorrow(source: str, target: str) -> None:
    """The input of the next night: the same rows, 1 % of them with a text that was never seen."""
    file = pq.ParquetFile(source, pre_buffer=False)
    with pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer:
        for batch in file.iter_batches(65_536):
            is_new = pa.array([number % CHANGED_EVERY == 0 for number in batch["id"].to_pylist()])
            texts = pc.if_else(is_new, pc.binary_join_element_wise(batch["text"], "tonight", " "), batch["text"])
            at = batch.schema.get_field_index("text")
            writer.write_batch(batch.set_column(at, "text", texts), row_group_size=65_536)


if __name__ == "__main__":
    if sys.argv[1] == "store":
        store(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        tomorrow(*sys.argv[2:])
