"""Values between the formats: the table in pipeline/writer/values.py, line by line."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import answers_of
from commands import Command, complaint
from fake import FakeServer
from files import rows_of
from joining import ADDED, joined

NASTY = [
    "a\rb",
    "a\nb",
    "a\r\nb",
    '"',
    ",",
    "\t",
    "\x00",
    "\u2028",
    " a ",
    "",
    "007",
    "NA",
    "größe 😀",
    "\ufeffx",
    "'",
    "\\",
]


@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("source", ["csv", "jsonl", "parquet"])
def test_texts_are_the_same_in_every_format(source: str, out: str, tmp_path: Path) -> None:
    """Quotes, delimiters, line breaks of all kinds, NUL and blanks survive any conversion."""
    path = tmp_path / f"in.{source}"
    if source == "parquet":
        pq.write_table(pa.table({"text": NASTY}), path)
    elif source == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in NASTY))
    else:
        path.write_bytes(b"text\n" + b"".join(b'"' + text.replace('"', '""').encode() + b'"\n' for text in NASTY))
    joined(path, tmp_path / f"out.{out}")
    rows = rows_of(tmp_path / f"out.{out}", **({"delimiter": "\t"} if out == "tsv" else {}))
    assert [row["text"] for row in rows] == NASTY
    assert [row["predicted_label"] for row in rows] == ["no", "yes"] * (len(NASTY) // 2)


def test_csv_becomes_strings(tmp_path: Path) -> None:
    """Cells are text: `007`, `1e5`, `NA`, `true` and an empty cell stay what they are, in Parquet and in JSONL."""
    (tmp_path / "in.csv").write_text("text,n\n007,1e5\nNA,\ntrue,null\n")
    for out in ("out.parquet", "out.jsonl"):
        joined(tmp_path / "in.csv", tmp_path / out)
        rows = rows_of(tmp_path / out)
        assert [(row["text"], row["n"]) for row in rows] == [("007", "1e5"), ("NA", ""), ("true", "null")]
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert (schema.field("text").type, schema.field("n").type) == (pa.string(), pa.string())


def jsonl_column(tmp_path: Path, tokens: list[str | None]) -> tuple[pa.DataType, list[Any], list[str]]:
    """Convert a member with these JSON values; return its Parquet type and values, and its CSV cells."""
    lines = ['{"text": "a"}' if token is None else f'{{"text": "a", "x": {token}}}' for token in tokens]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    joined(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    joined(tmp_path / "in.jsonl", tmp_path / "out.csv")
    table = pq.read_table(tmp_path / "out.parquet")
    return table.field("x").type, table["x"].to_pylist(), [row["x"] for row in rows_of(tmp_path / "out.csv")]


@pytest.mark.parametrize(
    ("tokens", "kind", "values"),
    [
        (['"a"', "null", None, '"b"'], pa.string(), ["a", None, None, "b"]),
        (["true", "false", None], pa.bool_(), [True, False, None]),
        (["1", "-9223372036854775808", "9223372036854775807"], pa.int64(), [1, -(2**63), 2**63 - 1]),
        (["0", "18446744073709551615"], pa.uint64(), [0, 2**64 - 1]),
        (["1", "2.5", "null", "9007199254740992"], pa.float64(), [1.0, 2.5, None, 2.0**53]),
        (["0.1", "1e300", "-1E-7"], pa.float64(), [0.1, 1e300, -1e-7]),
    ],
)
def test_json_members_of_one_type_keep_it(
    tokens: list[str | None], kind: pa.DataType, values: list[Any], tmp_path: Path
) -> None:
    """Strings, booleans, integers of 64 bits and numbers have a column of their type; null and missing are null."""
    found, in_parquet, _ = jsonl_column(tmp_path, tokens)
    assert found == kind
    assert in_parquet == values


@pytest.mark.parametrize(
    "tokens",
    [
        ["1", '"a"', "true", None],
        ["18446744073709551616", "1"],
        ["-1", "18446744073709551615"],
        ["9" * 5_000, "1"],
        ["9007199254740993", "0.5"],
        ["1.5", "9" * 5_000],
        ['{"b": [1, null, "x"]}', "[]", "{}"],
        ["1", "[1]"],
        *([*["1"] * n, '"late"'] for n in (5_000, 9_000)),
    ],
    ids=lambda tokens: f"{tokens[0][:12]}-{str(tokens[-1])[:12]}-{len(tokens)}",
)
def test_json_members_of_no_single_type_are_json_text(tokens: list[str | None], tmp_path: Path) -> None:
    """A type that changes (late in the file, too), an integer beyond 64 bits, and nested values become JSON text."""
    kind, in_parquet, cells = jsonl_column(tmp_path, tokens)
    assert kind == pa.string()
    assert in_parquet == tokens
    assert cells == [token or "" for token in tokens]


def test_json_members_in_order_of_appearance(tmp_path: Path) -> None:
    """A member that appears late is a column, after the earlier ones and before ours."""
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n' * 5_000 + '{"late": 1, "text": "b", "a.b": "c"}\n')
    joined(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["text", "late", "a.b", *ADDED]
    assert table["late"].to_pylist()[-2:] == [None, 1]


def test_half_surrogates_become_writable(tmp_path: Path) -> None:
    """What only JSON can hold is spelled out in the other formats, and nothing else of the line is lost."""
    (tmp_path / "in.jsonl").write_text(r'{"text": "a", "s": "x\ud800y", "n": {"t": "\udfff"}}' + "\n")
    for out in ("out.csv", "out.parquet"):
        joined(tmp_path / "in.jsonl", tmp_path / out)
        (row,) = rows_of(tmp_path / out)
        assert row["s"] == r"x\ud800y"
        assert json.loads(row["n"]) == {"t": "\udfff"}


NESTED = {"b": b"\xff\x00", "d": Decimal("1.50"), "l": [1.5, nan, None], "t": "x"}
VALUES: list[tuple[str, pa.Array, Any, str | None]] = [  # name, column of one value, its JSON value, its CSV cell
    ("int8", pa.array([-128], pa.int8()), -128, "-128"),
    ("uint64", pa.array([2**64 - 1], pa.uint64()), 2**64 - 1, str(2**64 - 1)),
    ("bool", pa.array([True]), True, "true"),
    ("nan", pa.array([nan]), None, "nan"),
    ("inf", pa.array([-inf]), None, "-inf"),
    ("null", pa.array([None], pa.float64()), None, ""),
    ("nothing", pa.nulls(1), None, ""),
    ("binary", pa.array([b"\xff\x00"]), "/wA=", "/wA="),
    ("fixed", pa.array([b"ab"], pa.binary(2)), "YWI=", "YWI="),
    ("decimal", pa.array([Decimal("1.50")]), "1.50", "1.50"),
    ("wide", pa.array([Decimal("12345678901234567890.5")], pa.decimal256(40, 2)), "12345678901234567890.50", None),
    ("date", pa.array([date(2026, 11, 23)]), "2026-11-23", "2026-11-23"),
    ("time", pa.array([clock(6, 7, 8, 9)]), "06:07:08.000009", "06:07:08.000009"),
    ("duration", pa.array([1500], pa.duration("ms")), 1500, "1500"),
    ("dictionary", pa.array(["x"]).dictionary_encode(), "x", "x"),
    ("large", pa.array(["x"], pa.large_string()), "x", "x"),
    ("view", pa.array(["x"], pa.string_view()), "x", "x"),
    ("list", pa.array([[1, None]]), [1, None], "[1,null]"),
    ("large_list", pa.array([["x"]], pa.large_list(pa.string())), ["x"], '["x"]'),
    ("fixed_list", pa.array([[1, 2]], pa.list_(pa.int32(), 2)), [1, 2], "[1,2]"),
    ("map", pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [["k", 1]], '[["k",1]]'),
    ("struct", pa.array([NESTED]), {"b": "/wA=", "d": "1.50", "l": [1.5, None, None], "t": "x"}, None),
    ("deep", pa.array([[{"x": [date(2026, 11, 23)]}]]), [{"x": ["2026-11-23"]}], '[{"x":["2026-11-23"]}]'),
    ("dictionaries", pa.array([["x"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))), ["x"], '["x"]'),
    ("half", pa.array([0.5]).cast(pa.float16()), 0.5, "0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "column", "in_json", "in_csv"), VALUES, ids=[row[0] for row in VALUES])
def test_parquet_values_in_other_formats(
    name: str, column: pa.Array, in_json: Any, in_csv: str | None, tmp_path: Path
) -> None:
    """Nested to JSON text, binary to base64, decimal and times to text, NaN to null: the table, line by line."""
    rows = pa.table({"text": ["a", "b"], name: pa.chunked_array([column, pa.nulls(1, column.type)])})
    pq.write_table(rows, tmp_path / "in.parquet")
    joined(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    joined(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert [row[name] for row in rows_of(tmp_path / "out.jsonl")] == [in_json, None]
    cells = [row[name] for row in rows_of(tmp_path / "out.csv")]
    assert cells[1] == ""
    if in_csv is not None:
        assert cells[0] == in_csv
    elif isinstance(in_json, dict):
        assert json.loads(cells[0]) == in_json
    else:
        assert cells[0] == in_json


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Vienna", "+05:30"])
@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_timestamps_become_text_that_means_the_same(unit: str, zone: str | None, tmp_path: Path) -> None:
    """A timestamp's text leads back to it, to the nanosecond and with its offset."""
    whole = int(datetime(2026, 7, 1, 12, 30, tzinfo=UTC).timestamp())
    value = {"s": whole, "us": whole * 10**6 + 1, "ns": whole * 10**9 + 1}[unit]
    column = pa.array([value], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"text": ["a"], "when": column}), tmp_path / "in.parquet")
    for out in ("out.csv", "out.jsonl"):
        joined(tmp_path / "in.parquet", tmp_path / out)
        (row,) = rows_of(tmp_path / out)
        expected = pd.Timestamp(value, unit=unit, tz="UTC").tz_convert(zone) if zone else pd.Timestamp(value, unit=unit)
        assert pd.Timestamp(row["when"]) == expected


@pytest.mark.parametrize("value", [0.1, 1e-7, 1e22, 123456789.123456789, -0.0, 5e-324, 1.7976931348623157e308])
def test_doubles_keep_every_bit(value: float, tmp_path: Path) -> None:
    """A double is written with as many digits as lead back to it."""
    pq.write_table(pa.table({"text": ["a"], "x": [value]}), tmp_path / "in.parquet")
    for out in ("out.csv", "out.jsonl"):
        predictions = answers_of(["no"], [value])
        joined(tmp_path / "in.parquet", tmp_path / out, predictions)
        (row,) = rows_of(tmp_path / out)
        assert repr(float(row["x"])) == repr(value)
        assert repr(float(row["predicted_score"])) == repr(value)


@pytest.mark.parametrize("number", ["1e400", "-1E+400", "9" * 400 + ".0"])
def test_a_number_beyond_doubles_keeps_its_digits(number: str, tmp_path: Path) -> None:
    """Also beside half a surrogate pair, which another parser reads; NaN and Infinity are what they were."""
    (tmp_path / "in.jsonl").write_text(
        f'{{"text": "a", "n": {number}}}\n{{"text": "b", "n": 0.5}}\n{{"text": "\\ud800", "n": {number}}}\n'
    )
    for out in ("out.csv", "out.parquet"):
        joined(tmp_path / "in.jsonl", tmp_path / out)
        assert [row["n"] for row in rows_of(tmp_path / out)] == [number, "0.5", number]
    (tmp_path / "in.jsonl").write_text('{"text": "a", "n": Infinity}\n{"text": "b", "n": -Infinity}\n')
    joined(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    assert [row["n"] for row in rows_of(tmp_path / "out.parquet")] == [inf, -inf]


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_a_row_with_half_a_surrogate_pair_keeps_its_spelling(space: str, tmp_path: Path) -> None:
    """Of its other members, wherever white space stands."""
    pairs = [
        ('"text"', '"\\ud800"'),
        ('"n"', "1.10"),
        ('"o"', '{"x": [1.0, "}"]}'),
        ('"e"', '"é"'),
        ('"\\u00fc"', "null"),
    ]
    members = [space.join(["", name, ":", value, ""]) for name, value in pairs]
    (tmp_path / "in.json").write_text(f"[{{{','.join(members)}}}{space}]")
    joined(tmp_path / "in.json", tmp_path / "out.csv")
    row = rows_of(tmp_path / "out.csv")[0]
    assert [row[name] for name in ("text", "n", "o", "e", "ü")] == ["\\ud800", "1.1", '{"x": [1.0, "}"]}', "é", ""]


def test_a_struct_with_two_fields_of_one_name_is_refused_before_the_run(
    fake: FakeServer, classify: Command, tmp_path: Path
) -> None:
    """JSON has no such object; a copy has. Also inside a list."""
    inside = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), inside)
    pq.write_table(pa.table({"text": ["x"], "odd": lists}), tmp_path / "in.parquet")
    for command, out in (("check", "out.jsonl"), ("run", "out.jsonl"), ("run", "out.csv")):
        done = classify(command, "-i", "in.parquet", "-o", out, "--url", fake.url, "--quiet", expect=2)
        complaint(
            done,
            "'odd'",
            "two fields of a struct have the same name",
            "choose an output that ends in .parquet or .arrow",
        )
    assert not fake.answered
    classify("run", "-i", "in.parquet", "-o", "out.parquet", "--url", fake.url, "--quiet")


def test_a_label_that_the_encoding_lacks_loses_no_answer(fake: FakeServer, classify: Command, tmp_path: Path) -> None:
    """The message says how to go on, and going on sends nothing."""
    fake.labels = ("是", "否")
    (tmp_path / "in.csv").write_bytes("text\ngröße\nb\n".encode("latin-1"))
    arguments = ("run", "-i", "in.csv", "-o", "out.csv", "--set", "loader.encoding=latin-1", "--url", fake.url)
    done = classify(*arguments, "--quiet", expect=2)
    complaint(done, "can't be written in", "what was answered is kept", "--set writer.format=jsonl")
    fake.answered.clear()
    classify(*arguments, "--quiet", "--set", "writer.format=jsonl")
    assert not {"größe", "b"} & {*fake.answered}
    rows = [json.loads(line) for line in (tmp_path / "out.csv").read_text().splitlines()]
    assert {row["predicted_label"] for row in rows} <= {"是", "否"}


@pytest.mark.parametrize(("setting", "name"), [("prefix=是_", "是_label"), ('labels=["是", "no", "maybe"]', "是")])
def test_a_name_that_the_encoding_lacks_is_refused_before_the_run(
    setting: str, name: str, fake: FakeServer, classify: Command, tmp_path: Path
) -> None:
    """Of a new column, or of a label that the config gives; another format takes it."""
    (tmp_path / "in.csv").write_bytes("text\ngröße\n".encode("latin-1"))
    settings = ("--set", "loader.encoding=latin-1", "--set", f"writer.{setting}", "--url", fake.url, "--quiet")
    for command in ("check", "run"):
        complaint(classify(command, "-i", "in.csv", "-o", "out.csv", *settings, expect=2), "out.csv", repr(name))
    assert not fake.answered
    if "prefix" in setting:
        classify("run", "-i", "in.csv", "-o", "out.jsonl", *settings)
