"""Parquet files of many kinds, and what must be true of one that was copied and given more columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from joining import ADDED, LABELS

from pipeline.answers import Answers
from pipeline.formats import thrift
from pipeline.formats.thrift import Struct

KINDS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["a", None, "größe 😀", ""]),
    (pa.large_string(), [None, "b" * 40]),
    (pa.dictionary(pa.int8(), pa.string()), ["x", None, "y"]),
    (pa.int64(), [1, -(2**63), None]),
    (pa.float32(), [0.5, None, -0.0]),
    (pa.bool_(), [True, None, False]),
    (pa.binary(), [b"\xff\x00", None]),
    (pa.timestamp("us", "Europe/Vienna"), [0, None, 10**15]),
    (pa.duration("ms"), [1, None]),
    (pa.list_(pa.int16()), [[1, None], None, []]),
    (pa.map_(pa.string(), pa.int64()), [[("k", 1)], None, []]),
    (pa.struct({"x": pa.list_(pa.string()), "y": pa.int32()}), [{"x": ["a"], "y": 1}, None, {"x": None, "y": None}]),
]


def table_of(kinds: Sequence[int], rows: int, metadata: dict[str, str] | None = None) -> pa.Table:
    """A column `text`, and one of each of these kinds."""
    columns = {"text": pa.array([f"{row}" for row in range(rows)], pa.string())}
    for number, kind in enumerate(kinds):
        values = itertools.islice(itertools.cycle(KINDS[kind][1]), number, number + rows)
        columns[f"c{number}"] = pa.array(list(values), KINDS[kind][0])
    return pa.table(columns).replace_schema_metadata(metadata)


def write_groups(path: Path, table: pa.Table, groups: Sequence[int], **way: Any) -> None:
    """Write a file with row groups of so many rows each."""
    sorting = [pq.SortingColumn(0)] if way.pop("sorted", False) else None
    with pq.ParquetWriter(path, table.schema, sorting_columns=sorting, **way) as writer:
        for start, rows in zip(itertools.accumulate([0, *groups]), groups, strict=False):
            writer.write_table(table.slice(start, rows))


def parts_of(path: Path) -> tuple[bytes, bytes]:
    """What stands before the footer, and the footer."""
    content = path.read_bytes()
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:end], content[end:-8]


def change_footer(path: Path, change: Callable[[Struct], bytes | None]) -> None:
    """Let `change` have the fields of the footer; it may give bytes to stand in place of them."""
    body, footer = parts_of(path)
    fields = thrift.decode(footer, {4: {1: {3: {}}}})
    changed = change(fields) or thrift.encode(fields)
    path.write_bytes(body + changed + len(changed).to_bytes(4, "little") + b"PAR1")


def compressed(path: Path) -> list[int]:
    """The compressed size of each row group, which pyarrow does not show."""
    return [thrift.decode_integer(group[6]) for group in thrift.decode(parts_of(path)[1], {4: {}})[4].structs]


def check_rows(output: Path, before: pa.Table, predictions: Answers) -> None:
    """All columns are there, and each row has the prediction that is its own."""
    after, found = pq.read_table(output), list(predictions[: before.num_rows])
    assert after.select(before.column_names).equals(before)
    for name, field in zip(ADDED, ("label", "score", "error"), strict=True):
        assert after[name].to_pylist() == [getattr(each, field) for each in found]
    probs = [None if each.probs is None else list(each.probs) for each in found]
    if "predicted_probs" in after.column_names:
        assert after["predicted_probs"].to_pylist() == probs
    for index, label in enumerate(LABELS if "predicted_prob_0" in after.column_names else ()):
        assert after[f"predicted_prob_{index}"].to_pylist() == [each and each[index] for each in probs], label
    yes = pq.read_table(output, filters=[(ADDED[0], "=", "yes")], columns=["text"])
    assert yes["text"].to_pylist() == [before["text"][n].as_py() for n, each in enumerate(found) if each.label == "yes"]


def check_copied(source: Path, output: Path) -> None:
    """Whatever the file said of itself and of its pages, it says still."""
    assert parts_of(output)[0].startswith(parts_of(source)[0])
    old, new = pq.read_schema(source), pq.read_schema(output)
    assert pa.schema(list(new)[: len(old)], new.metadata).equals(old, check_metadata=True)
    before, after = pq.read_metadata(source), pq.read_metadata(output)
    assert (after.num_rows, after.created_by) == (before.num_rows, before.created_by)
    assert (after.format_version, after.num_row_groups) == (before.format_version, before.num_row_groups)
    notes = [
        {key: text for key, text in (each.metadata or {}).items() if key != b"ARROW:schema"} for each in (before, after)
    ]
    assert notes[0] == notes[1]
    for number, sizes in enumerate(zip(compressed(source), compressed(output), strict=True)):
        group, wide = before.row_group(number), after.row_group(number)
        assert (wide.num_rows, wide.sorting_columns) == (group.num_rows, group.sorting_columns)
        for index in range(group.num_columns):
            chunk, same = group.column(index), wide.column(index)
            assert same.to_dict() == chunk.to_dict()
            assert (same.has_column_index, same.has_offset_index) == (chunk.has_column_index, chunk.has_offset_index)
        added = [wide.column(index) for index in range(group.num_columns, wide.num_columns)]
        assert wide.total_byte_size - group.total_byte_size == sum(each.total_uncompressed_size for each in added)
        assert sizes[1] - sizes[0] == sum(each.total_compressed_size for each in added)
        assert not group.num_rows or all(
            each.statistics.num_values + each.statistics.null_count >= group.num_rows for each in added
        )
