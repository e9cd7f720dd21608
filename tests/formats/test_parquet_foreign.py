"""Parquet files as other programs write them: types, names and metadata that pyarrow itself would not write."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command, complaint
from fake import FakeServer
from files import rows_of
from joining import blocks_of, joined, sent

from pipeline.errors import InputError, RowError
from pipeline.texts import EMPTY

SENTINELS = [datetime(9999, 12, 31, 23, 59, 59), datetime(2024, 5, 6, 7, 8, 9, 123456), None, datetime(1600, 1, 1)]  # noqa: DTZ001


def int96(path: Path, values: list[Any], kind: pa.DataType, **columns: list[Any]) -> Path:
    """Write a file whose column `at` is INT96, as Spark, Hive and Impala write timestamps."""
    table = pa.table({"text": [f"text {n}" for n in range(len(values))], "at": pa.array(values, kind), **columns})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, row_group_size=3)
    return path


@pytest.mark.parametrize("way", [{}, {"rows": 3}, {"compression": "zstd"}], ids=str)
def test_int96_timestamps_of_any_year_are_the_same_instants(way: dict[str, Any], tmp_path: Path) -> None:
    """Arrow reads INT96 as nanoseconds, which wrap around outside of 1677 to 2262; in a struct, too."""
    inside = [{"at": value} for value in SENTINELS]
    source = int96(tmp_path / "in.parquet", SENTINELS, pa.timestamp("us"), nested=inside)
    joined(source, tmp_path / "out.parquet", **way)
    read = pq.ParquetFile(tmp_path / "out.parquet", coerce_int96_timestamp_unit="us").read().to_pylist()
    rows = way.get("rows", len(SENTINELS))
    assert [row["at"] for row in read] == SENTINELS[:rows]
    assert [row["nested"] for row in read] == inside[:rows]


def test_int96_timestamps_of_any_year_become_text(tmp_path: Path) -> None:
    """In CSV and JSON Lines they are the instants of the file."""
    source = int96(tmp_path / "in.parquet", SENTINELS, pa.timestamp("us"))
    for out, nothing in (("out.csv", ""), ("out.jsonl", None)):
        joined(source, tmp_path / out)
        first, second, none, last = (row["at"] for row in rows_of(tmp_path / out))
        assert (first, second) == ("9999-12-31 23:59:59.000000", "2024-05-06 07:08:09.123456")
        assert (none, last) == (nothing, "1600-01-01 00:00:00.000000")


def test_int96_timestamps_keep_their_nanoseconds(tmp_path: Path) -> None:
    """Where all are within the years of nanoseconds, none is cut."""
    source = int96(tmp_path / "in.parquet", [1_714_979_289_123_456_789], pa.timestamp("ns"))
    joined(source, tmp_path / "out.csv")
    assert [row["at"] for row in rows_of(tmp_path / "out.csv")] == ["2024-05-06 07:08:09.123456789"]


def test_int96_timestamps_that_no_unit_holds_are_refused(tmp_path: Path) -> None:
    """Nanoseconds and the year 9999 in one file: copied to Parquet, refused where they must be decoded."""
    path = int96(tmp_path / "ns.parquet", [1_714_979_289_123_456_789], pa.timestamp("ns"))
    far = int96(tmp_path / "us.parquet", SENTINELS[:1], pa.timestamp("us"))
    fine, wide = pq.ParquetFile(path), pq.ParquetFile(far, coerce_int96_timestamp_unit="us")
    table = pa.table({"text": ["a"], "fine": fine.read()["at"], "wide": wide.read()["at"]})
    pq.write_table(table, tmp_path / "in.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(InputError, match="fine, wide: INT96 timestamps outside of the years 1677 to 2262"):
        joined(tmp_path / "in.parquet", tmp_path / "out.csv")
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_columns == 6


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pa.timestamp("us"), 10**18),
        (pa.timestamp("us", "Europe/Vienna"), 10**18),
        (pa.timestamp("us", "Europe/Vienna"), -(2**63)),
        (pa.timestamp("ns", "Europe/Vienna"), 2**63 - 1),
        (pa.date32(), 2**31 - 1),
        (pa.time64("us"), 90_000 * 10**6),
        (pa.time64("us"), -1),
    ],
    ids=str,
)
def test_times_that_can_not_be_printed_are_integers(kind: pa.DataType, stored: int, tmp_path: Path) -> None:
    """Neither Arrow's remark in the place of a value, nor a local time that has wrapped around."""
    column = pa.array([stored, None], pa.int32() if kind == pa.date32() else pa.int64()).view(kind)
    pq.write_table(pa.table({"text": ["a", "b"], "at": column}), tmp_path / "in.parquet")
    for out, nothing in (("out.csv", ""), ("out.jsonl", None)):
        joined(tmp_path / "in.parquet", tmp_path / out)
        assert [row["at"] for row in rows_of(tmp_path / out)] == [str(stored), nothing]


NAMES = [
    ([0, 1], [0, 1]),
    ([0.5, 1.5], [0.5, 1.5]),
    ([True, False], ["True", "False"]),
    (pd.to_datetime(["2024-01-01", "2024-01-02"]), ["2024-01-01 00:00:00", "2024-01-02 00:00:00"]),
    ([date(2024, 1, 1), date(2024, 1, 2)], ["2024-01-01", "2024-01-02"]),
    ([("a", 1), ("b", 2)], [("a", 1), ("b", 2)]),
    (["a", "b"], ["a", "b"]),
]


@pytest.mark.parametrize("way", [{}, {"compression": "zstd"}], ids=str)
@pytest.mark.parametrize(("names", "expected"), NAMES, ids=str)
def test_pandas_reads_columns_whose_names_are_no_strings(
    names: Any, expected: list[Any], way: dict[str, Any], tmp_path: Path
) -> None:
    """Numbers and tuples stay what they are; of other names, which JSON has no type for, the text is kept."""
    is_nested = isinstance(names[0], tuple)
    frame = pd.DataFrame([["x", 1], ["y", 2]], columns=pd.MultiIndex.from_tuples(names) if is_nested else names)
    frame.index = pd.Index([5, 7], name="at")
    frame.to_parquet(tmp_path / "in.parquet")
    first = pq.read_schema(tmp_path / "in.parquet").names[0]
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", loader={"text_column": first}, **way)
    read = pd.read_parquet(tmp_path / "out.parquet")
    added: list[Any] = ["predicted_label", "predicted_score", "predicted_error"]
    assert list(read.columns) == [*expected, *([(name, "") for name in added] if is_nested else added)]
    assert (list(read.index), read.index.name) == ([5, 7], "at")
    assert read.iloc[:, :3].to_numpy().tolist() == [["x", 1, "no"], ["y", 2, "yes"]]


SPARK = {"type": "struct", "fields": [{"name": "text", "type": "string", "nullable": True, "metadata": {}}]}
AVRO = {"type": "record", "name": "row", "fields": [{"name": "text", "type": ["null", "string"], "default": None}]}
DATASETS = {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}}}}
LISTS = {"org.apache.spark.sql.parquet.row.metadata": SPARK, "parquet.avro.schema": AVRO, "huggingface": DATASETS}


@pytest.mark.parametrize("way", [{}, {"compression": "zstd"}], ids=str)
def test_metadata_that_lists_the_columns_lists_the_new_ones(way: dict[str, Any], tmp_path: Path) -> None:
    """Spark, Avro and Hugging Face read the columns that are listed for them, and no others."""
    metadata = {**{key: json.dumps(value) for key, value in LISTS.items()}, "other": '{"fields": []}'}
    table = pa.table({"text": ["a", "b"]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", probs="list", request={"too_long": "truncate"}, **way)
    schema = pq.read_schema(tmp_path / "out.parquet")
    spark, avro, datasets = (json.loads(schema.metadata[key.encode()]) for key in LISTS)
    assert [field["name"] for field in spark["fields"]] == schema.names
    assert [field["name"] for field in avro["fields"]] == schema.names
    assert [*datasets["info"]["features"]] == schema.names
    doubles = {"type": "array", "elementType": "double", "containsNull": True}
    assert [field["type"] for field in spark["fields"]] == ["string", "string", "double", "string", doubles, "boolean"]
    assert avro["fields"][4]["type"] == ["null", {"type": "array", "items": ["null", "double"]}]
    kinds = [feature.get("dtype") for feature in datasets["info"]["features"].values()]
    assert kinds == ["string", "string", "float64", "string", None, "bool"]
    assert schema.metadata[b"other"] == b'{"fields": []}'


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"fields": 1}', '{"column_indexes": [1]}', "\x00"])
def test_metadata_that_is_not_what_it_should_be_stays(value: str, tmp_path: Path) -> None:
    """Whatever stands under the key of another program is no reason to fail."""
    metadata = dict.fromkeys([*LISTS, "pandas"], value)
    pq.write_table(pa.table({"text": ["a"]}).replace_schema_metadata(metadata), tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_schema(tmp_path / "out.parquet").metadata
    assert {key.decode(): each.decode() for key, each in found.items()} == metadata


def test_nested_strings_that_are_no_utf8_become_escapes(tmp_path: Path) -> None:
    """As strings that are not nested: Parquet does not check what it calls a string. Binary stays base64."""
    raw = pa.array([b"\xffa", b"b"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    items = pa.StructArray.from_arrays([broken, raw], ["s", "b"])
    ends = pa.array([0, None, 2, 2], pa.int32())
    lists = pa.ListArray.from_arrays(ends, items)
    maps = pa.MapArray.from_arrays(ends, pa.array(["k", "l"]), broken)
    pq.write_table(pa.table({"text": ["a", "b", "c"], "x": lists, "m": maps}), tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    joined(tmp_path / "in.parquet", tmp_path / "out.csv")
    expected = [{"s": "\\xffa", "b": "/2E="}, {"s": "b", "b": "Yg=="}]
    in_json, in_csv = rows_of(tmp_path / "out.jsonl"), rows_of(tmp_path / "out.csv")
    assert [row["x"] for row in in_json] == [expected, None, []]
    assert [row["m"] for row in in_json] == [[["k", "\\xffa"], ["l", "b"]], None, []]
    assert [json.loads(row["x"] or "null") for row in in_csv] == [expected, None, []]


def test_a_name_that_is_no_utf8_is_named(fake: FakeServer, classify: Command, tmp_path: Path) -> None:
    """Exit 2 and the name with escapes."""
    pq.write_table(pa.table({"text": ["a"], "name": [1]}), tmp_path / "in.parquet", store_schema=False)
    (tmp_path / "in.parquet").write_bytes((tmp_path / "in.parquet").read_bytes().replace(b"name", b"n\xffme"))
    done = classify("run", "-i", "in.parquet", "-o", "out.csv", "--url", fake.url, "--quiet", expect=2)
    complaint(done, "in.parquet: the name of the column 'n\\xffme' is no UTF-8")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())], ids=str)
@pytest.mark.parametrize("name", ["text", "in.text"])
def test_bytes_without_annotation_are_text(kind: pa.DataType, name: str, tmp_path: Path) -> None:
    """Impala and Hive do not say which bytes are strings: those in UTF-8 are, the others are `not_text`."""
    column = pa.array(["größe".encode(), b"\xff", None, b"b"], pa.binary()).cast(kind)
    inside = pa.StructArray.from_arrays([column], ["text"])
    pq.write_table(pa.table({"text": column, "in": inside}), tmp_path / "in.parquet", store_schema=False)
    (block,) = blocks_of(tmp_path / "in.parquet", text_column=name)
    assert sent(block) == ["größe", None, None, "b"]
    assert block.errors == {1: RowError("not_text", "no valid UTF-8"), 2: EMPTY}


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_other_columns_may_have_the_same_name(compression: str | None, tmp_path: Path) -> None:
    """They are copied, or written anew; more than a thousand rows are looked at for what repeats."""
    rows = 1100
    columns = [pa.array([f"text {n}" for n in range(rows)]), pa.array(range(rows)), pa.array([1] * rows)]
    table = pa.Table.from_arrays(columns, ["text", "v", "v"])
    pq.write_table(table, tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", compression=compression)
    read = pq.ParquetFile(tmp_path / "out.parquet").read()
    assert read.column_names[:3] == table.column_names
    assert read.columns[:3] == table.columns


def test_csv_headers_may_have_the_same_name(tmp_path: Path) -> None:
    """As Excel writes them: empty names at the end. The bytes are copied."""
    (tmp_path / "in.csv").write_text("id,text,,,v,v\n1,a,,,2,3\n")
    joined(tmp_path / "in.csv", tmp_path / "out.csv")
    header, row = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "id,text,,,v,v,predicted_label,predicted_score,predicted_error"
    assert row.startswith("1,a,,,2,3,no,")


@pytest.mark.parametrize(
    ("out", "option", "message"),
    [
        ("out.parquet", "text", "the column '' is there twice"),
        ("out.jsonl", "text", "the column '' is there twice"),
        ("out.csv", "v", "the column 'v' is there twice"),
    ],
)
def test_names_must_tell_which_column_is_meant(  # noqa: PLR0917 - three are fixtures
    out: str, option: str, message: str, fake: FakeServer, classify: Command, tmp_path: Path
) -> None:
    """In another format each column needs a name of its own, and so does the text: exit 2 before the first request."""
    (tmp_path / "in.csv").write_text("id,text,,,v,v\n1,a,,,2,3\n")
    for command in ("check", "run"):
        done = classify(command, "-i", "in.csv", "-o", out, "-t", option, "--url", fake.url, "--quiet", expect=2)
        complaint(done, "in.csv", message)
    assert not fake.answered


def test_feather_files_of_pandas_stay_that(tmp_path: Path) -> None:
    """Arrow files carry the same metadata, and names that are no strings are as they were."""
    table = pa.Table.from_pandas(pd.DataFrame([["x", 1], ["y", 2]]))
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as file:
        file.write_table(table)
    joined(tmp_path / "in.arrow", tmp_path / "out.arrow", loader={"text_column": "0"})
    read = pa.ipc.open_file(tmp_path / "out.arrow").read_pandas()
    assert list(read.columns) == [0, 1, "predicted_label", "predicted_score", "predicted_error"]
