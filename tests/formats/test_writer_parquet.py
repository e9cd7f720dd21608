"""Parquet to Parquet: schema, types, metadata and values stay, three columns follow."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import answers_of, labels_of
from joining import ADDED, joined


def table_of_all_types() -> pa.Table:
    """Every type that Parquet can hold for Arrow, nulls included, with metadata on fields and table."""
    columns = {
        "text": pa.array(["a", None, "größe 😀"]),
        "large": pa.array(["a", "b", None], pa.large_string()),
        "view": pa.array(["a", "b", None], pa.string_view()),
        "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
        "small_dictionary": pa.array(["x", "y", None]).cast(pa.dictionary(pa.int8(), pa.string())),
        "int8": pa.array([1, None, -128], pa.int8()),
        "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
        "half": pa.array([1.5, None, 0.25]).cast(pa.float16()),
        "float": pa.array([0.1, None, float("nan")], pa.float32()),
        "decimal": pa.array([None, Decimal("1.5"), Decimal(2)], pa.decimal128(20, 3)),
        "wide_decimal": pa.array([None, Decimal("1.5"), Decimal(2)], pa.decimal256(50, 3)),
        "bool": pa.array([True, None, False]),
        "binary": pa.array([b"\xff\x00", None, b""]),
        "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
        "zoned": pa.array([0, None, 10**15], pa.timestamp("us", "Europe/Vienna")),
        "nanos": pa.array([1, None, 10**18], pa.timestamp("ns")),
        "date": pa.array([1, None, 20_000], pa.date32()),
        "time": pa.array([1, None, 3], pa.time64("us")),
        "duration": pa.array([1, None, 3], pa.duration("ms")),
        "nothing": pa.nulls(3),
        "list": pa.array([[1, None], None, []], pa.list_(pa.int16())),
        "large_list": pa.array([["a"], None, []], pa.large_list(pa.string())),
        "pairs": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"x": {"y": [1]}, "z": "s"}, None, {"x": None, "z": None}]),
    }
    fields = [pa.field(name, column.type, metadata={"about": name}) for name, column in columns.items()]
    fields[0] = fields[0].with_metadata({"PARQUET:field_id": "7", "unit": "words"})
    fields.append(pa.field("needed", pa.int32(), nullable=False))
    schema = pa.schema(fields, metadata={"origin": "here", "größe": "\u0001"})
    return pa.table([*columns.values(), pa.array([1, 2, 3], pa.int32())], schema=schema)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_parquet_keeps_schema_types_and_metadata(compression: str | None, tmp_path: Path) -> None:
    """All original columns come back equal, with the metadata of file and fields; three columns follow.

    That holds for columns that are copied, and for those that are written anew.
    """
    pq.write_table(table_of_all_types(), tmp_path / "in.parquet", row_group_size=3)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", compression=compression)
    before, after = pq.read_table(tmp_path / "in.parquet"), pq.read_table(tmp_path / "out.parquet")
    names = before.column_names
    assert after.column_names == [*names, *ADDED]
    assert after.schema.metadata == before.schema.metadata
    for name in names:
        assert after.schema.field(name).equals(before.schema.field(name), check_metadata=True), name
        # NaN is unequal to itself; its text is not.
        assert after[name].equals(before[name]) or str(after[name]) == str(before[name]), name
    kinds = [pa.string(), pa.float64(), pa.string()]
    assert [after.schema.field(name).type for name in ADDED] == kinds
    physical = [pq.ParquetFile(tmp_path / file).schema for file in ("in.parquet", "out.parquet")]
    assert str(physical[1]).startswith(str(physical[0]).split("\n", 1)[0].partition("0x")[0])
    for index in range(len(physical[0].names)):
        assert physical[0].column(index).equals(physical[1].column(index)), physical[0].column(index)


def test_parquet_from_pandas_stays_that(tmp_path: Path) -> None:
    """A frame's index, categories, nullable integers and time zones come back through the output."""
    frame = pd.DataFrame(
        {
            "text": ["a", None, "c"],
            "category": pd.Categorical(["x", "y", "x"], ordered=True),
            "nullable": pd.array([1, None, 3], dtype="Int8"),
            "when": pd.date_range("2026-01-01", periods=3, tz="Europe/Vienna"),
        },
        index=pd.Index([30, 10, 20], name="key"),
    )
    frame.to_parquet(tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    before, after = pd.read_parquet(tmp_path / "in.parquet"), pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(after[before.columns.tolist()], before)
    assert after["predicted_label"].tolist() == ["no", "yes", "no"]


def test_parquet_dictionaries_that_differ_from_group_to_group(tmp_path: Path) -> None:
    """Each row group may have a dictionary of its own; the values and the type stay."""
    groups = [pa.table({"text": pa.array([f"{n}", "b", f"{n}"]).dictionary_encode()}) for n in range(5)]
    with pq.ParquetWriter(tmp_path / "in.parquet", groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    before, after = pq.read_table(tmp_path / "in.parquet"), pq.read_table(tmp_path / "out.parquet")
    assert after["text"].type == before["text"].type
    assert after["text"].to_pylist() == before["text"].to_pylist()


def test_parquet_of_many_rows(tmp_path: Path) -> None:
    """Rows beyond one row group keep their place, however the answers were cut."""
    rows = 70_000
    table = pa.table({"text": [f"{n}" for n in range(rows)], "list": [[n] for n in range(rows)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=30_000)
    predictions = answers_of(["no", "yes"] * (rows // 2), [0.5] * rows)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", predictions, chunk_rows=999)
    after = pq.read_table(tmp_path / "out.parquet")
    assert after.select(["text", "list"]).equals(table)
    assert after["predicted_label"].to_pylist() == labels_of(predictions)


@pytest.mark.parametrize("rows", [1024, 2000])
def test_columns_that_repeat_or_do_not_have_their_statistics(rows: int, tmp_path: Path) -> None:
    """Written with a dictionary or without: the smallest and the largest value, and how many are null."""
    texts = [f"{n % (rows * 9 // 10)}" for n in range(rows)]
    table = pa.table({"id": range(rows), "kind": [n % 3 for n in range(rows)], "text": texts})
    pq.write_table(table, tmp_path / "in.parquet")
    predictions = answers_of(["no", "yes"] * (rows // 2), [n / rows for n in range(rows)])
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", predictions, chunk_rows=100, compression="snappy")
    group = pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    found = {name: (each.statistics.min, each.statistics.max) for name, each in columns.items() if name != ADDED[2]}
    scores = (0.0, (rows - 1) / rows)
    assert found == {
        "id": (0, rows - 1),
        "kind": (0, 2),
        "text": (min(texts), max(texts)),
        ADDED[0]: ("no", "yes"),
        ADDED[1]: scores,
    }
    assert columns[ADDED[2]].statistics.null_count == rows
    assert pq.read_table(tmp_path / "out.parquet").select(["id", "kind", "text"]).equals(table)


def test_parquet_types_that_arrow_writes_in_small_groups_only(tmp_path: Path) -> None:
    """Arrow can't cut string views inside structs while it writes; what it could read is written all the same."""
    views = [
        pa.array([f"{n}" for n in range(start, start + 1_000)], pa.string_view()) for start in range(0, 3_000, 1_000)
    ]
    groups = [pa.table({"text": view, "s": pa.StructArray.from_arrays([view], ["x"])}) for view in views]
    with pq.ParquetWriter(tmp_path / "in.parquet", groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", chunk_rows=999)
    assert pq.read_table(tmp_path / "out.parquet").select(["text", "s"]).equals(pa.concat_tables(groups))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_the_compression_inside_parquet_is_chosen(compression: str, tmp_path: Path) -> None:
    """`writer.compression` is the codec of every column."""
    pq.write_table(pa.table({"text": ["a"] * 50}), tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", compression=compression)
    group = pq.ParquetFile(tmp_path / "out.parquet").metadata.row_group(0)
    expected = "uncompressed" if compression == "none" else compression
    assert {group.column(index).compression.lower() for index in range(4)} == {expected}
