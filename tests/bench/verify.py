"""Checks an output against its input: all rows, in order, with their columns unchanged, and every label and score.

python verify.py INPUT OUTPUT   both of the same format; prints what is wrong, exits 1 if anything is

The right answer to a text is computed anew from its CRC-32, as server.c does. Both files are read side by side, some
thousand rows at a time.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

ROWS = 65_536
LABELS = np.array(["negative", "neutral", "positive"])
WHOLE = 10**15


class Wrong(Exception):
    """An output that is not what it should be."""


def answers(texts: Iterable[bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The labels and scores of texts given as UTF-8; `put_item` in server.c is the same in C."""
    crc = np.fromiter(map(zlib.crc32, texts), np.uint64)
    weights = [(crc >> np.uint64(shift) & np.uint64(1023)) + np.uint64(1) for shift in (0, 10, 20)]
    total = weights[0] + weights[1] + weights[2]
    first, second = (weight * np.uint64(WHOLE) // total for weight in weights[:2])
    probs = np.stack([first, second, np.uint64(WHOLE) - first - second])
    return LABELS[probs.argmax(0)], probs.max(0) / WHOLE


def tables(path: str) -> Iterator[pa.Table]:
    """The rows of a file as tables of exactly `ROWS` rows, except for the last."""
    held: list[pa.RecordBatch] = []
    for batch in batches(path):
        held.append(batch)
        while sum(each.num_rows for each in held) >= ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, ROWS)
            held = table.slice(ROWS).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def batches(path: str) -> Iterator[pa.RecordBatch]:
    """The rows as the readers give them; in CSV all cells are strings."""
    if path.endswith(".parquet"):
        yield from pq.ParquetFile(path, pre_buffer=False).iter_batches(ROWS)
    elif path.endswith(".csv"):
        with open(path, "rb") as file:  # noqa: PTH123 - one line, whatever the path is
            names = file.readline().decode().strip().replace('"', "").split(",")
        yield from pacsv.open_csv(
            path,
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            read_options=pacsv.ReadOptions(block_size=8 << 20),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    else:
        with open(path, "rb") as file:  # noqa: PTH123
            while lines := list(itertools.islice(file, 8192)):
                yield pa.RecordBatch.from_pylist([msgspec.json.decode(line) for line in lines])


def compare(given: pa.Table, made: pa.Table) -> set[str]:
    """See that `made` is `given` with right answers; returns the columns that have another type now."""
    retyped = set()
    if made.num_rows != given.num_rows:
        raise Wrong(f"{given.num_rows - made.num_rows} rows are missing")
    if made.column_names[: given.num_columns] != given.column_names:
        raise Wrong(f"the columns are {made.column_names}")
    for name in given.column_names:
        column = made[name]
        if column.type != given[name].type:
            retyped.add(name)
            column = column.cast(given[name].type)
        if not column.equals(given[name]):
            raise Wrong(f"the column {name!r} has other values, or another order")
    labels, scores = answers(given["text"].cast(pa.binary()).to_pylist())
    if wrong := int((made["predicted_label"].to_numpy() != labels).sum()):
        raise Wrong(f"{wrong} wrong labels")
    if wrong := int((made["predicted_score"].cast(pa.float64()).to_numpy() != scores).sum()):
        raise Wrong(f"{wrong} wrong scores")
    return retyped


def verify(given: str, made: str) -> None:
    """Compare two files.

    Raises:
        Wrong: naming the first block that differs, and how.
    """
    rows, retyped = 0, set[str]()
    for before, after in itertools.zip_longest(tables(given), tables(made)):
        if before is None or after is None:
            raise Wrong(f"one file ends after {rows} rows, the other does not")
        try:
            retyped |= compare(before, after)
        except (Wrong, KeyError, pa.ArrowException) as error:
            raise Wrong(f"rows {rows} to {rows + before.num_rows}: {error}") from None
        rows += before.num_rows
    print(f"{rows} rows" + (f", other types: {', '.join(sorted(retyped))}" if retyped else ""))


if __name__ == "__main__":
    try:
        verify(sys.argv[1], sys.argv[2])
    except Wrong as problem:
        sys.exit(f"{sys.argv[2]}: {problem}")
