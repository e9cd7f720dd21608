"""Arrow types: an output holds the values of a column, or is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command, complaint
from fake import FakeServer
from files import rows_of
from joining import joined
from pyarrow import ipc

from pipeline.config import Config, Loader, Run, Writer
from pipeline.errors import OutputError
from pipeline.loader import open_source
from pipeline.writer import check_types

TWO: list[tuple[pa.DataType, list[Any]]] = [  # types, each with two values
    *[(kind, [1, 2]) for kind in (pa.int8(), pa.uint64(), pa.float64())],
    *[(kind, ["a", "b"]) for kind in (pa.string(), pa.large_string(), pa.string_view())],
    *[(kind, [b"ab", b"cd"]) for kind in (pa.binary(), pa.large_binary(), pa.binary(2), pa.binary_view())],
    (pa.bool_(), [True, False]),
    (pa.bool8(), [1, 0]),
    *[(kind, [date(2020, 1, 1), date(2020, 1, 2)]) for kind in (pa.date32(), pa.date64())],
    *[(kind, [time(1, 2, 3), time(4, 5, 6)]) for kind in (pa.time32("s"), pa.time64("us"))],
    *[(kind, [Decimal("1.25"), Decimal("2.50")]) for kind in (pa.decimal32(5, 2), pa.decimal256(50, 2))],
    (pa.timestamp("us", "UTC"), [0, 1]),
    (pa.duration("s"), [timedelta(seconds=5), timedelta(seconds=6)]),
    (pa.month_day_nano_interval(), [pa.MonthDayNano([1, 2, 3]), pa.MonthDayNano([0, 0, 1])]),
    *[(kind, [[1], [2, None]]) for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64()))],
    (pa.list_(pa.int64(), 1), [[1], [None]]),
    *[(kind, [[1], [2, None]]) for kind in (pa.list_view(pa.int64()), pa.large_list_view(pa.int64()))],
    (pa.struct([("x", pa.int64())]), [{"x": 1}, {"x": None}]),
    (pa.struct([]), [{}, {}]),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [("b", None)]]),
]
KINDS = {
    **{str(kind): pa.array([one, None, two], kind) for kind, (one, two) in TWO},
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), ["a", None, "b"]),
    "sparse_union": pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    ),
}


def dictionary(values: Sequence[Any], kind: pa.DataType, index: pa.DataType | None = None) -> pa.Array:
    """Values as a dictionary that holds them in the order in which they come first."""
    distinct = [value for value in dict.fromkeys(values) if value is not None]
    indexes = pa.array([None if value is None else distinct.index(value) for value in values], index or pa.int8())
    return pa.DictionaryArray.from_arrays(indexes, pa.array(distinct, kind))


def in_list(values: pa.Array) -> pa.Array:
    """Each value as a list of it alone."""
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)


def in_struct(values: pa.Array) -> pa.Array:
    """Each value as the field of a struct."""
    return pa.StructArray.from_arrays([values], ["x"])


def stream_of(path: Path, *columns: pa.Array) -> None:
    """Write a stream of a batch for each array, which is the column `odd`."""
    schema = pa.schema([("text", pa.string()), ("odd", columns[0].type)])
    with ipc.new_stream(path, schema) as writer:
        for column in columns:
            writer.write_batch(pa.record_batch([pa.array(["t"] * len(column)), column], schema=schema))


def values_of(columns: Iterable[pa.Array]) -> list[Any]:
    """The values of all arrays."""
    return [value for column in columns for value in column.to_pylist()]


def table_of(path: Path) -> pa.Table:
    """Read a Parquet or Arrow file with pyarrow alone."""
    table = pq.read_table(path) if path.suffix == ".parquet" else ipc.open_file(path).read_all()
    table.validate(full=True)
    return table


def config_of(source: Path, out: Path, **run: Any) -> Config:
    """The settings that `check_types` looks at."""
    return Config(loader=Loader(input=str(source)), writer=Writer(output=str(out)), run=Run(**run))


@pytest.mark.parametrize("wrap", [None, in_list, in_struct, "dictionary"], ids=["plain", "list", "struct", "words"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_type_is_written_or_refused_before_the_run(kind: str, wrap: Any, tmp_path: Path) -> None:
    """Whatever `check_types` lets through can be written and read again; and what a refusal advises holds the type."""
    array = KINDS[kind]
    if wrap == "dictionary":
        if isinstance(array, pa.ExtensionArray):
            pytest.skip("Arrow can't read them")
        array = pa.DictionaryArray.from_arrays(pa.array([0, None, 2], pa.int8()), array)
    elif wrap:
        array = wrap(array)
    stream_of(tmp_path / "in.arrow", array, array)
    values = values_of([array, array])
    held, advised = set[str](), set[str]()
    for out in (tmp_path / f"out.{ending}" for ending in ("parquet", "arrow", "csv", "jsonl")):
        try:
            check_types(config := config_of(tmp_path / "in.arrow", out), open_source(config.loader))
        except OutputError as error:
            assert f"holds the column 'odd' of type {array.type}" in str(error)  # noqa: PT017
            advised |= {word for word in str(error).rpartition(";")[2].split() if word.startswith(".")}
            continue
        joined(tmp_path / "in.arrow", out)
        held.add(out.suffix)
        if out.suffix in (".parquet", ".arrow"):
            assert table_of(out)["odd"].to_pylist() == values
        else:
            assert len(rows_of(out)) == len(values)
    assert advised <= held | {".tsv", ".json"}
    assert ".arrow" in held


@pytest.mark.parametrize("out", ["out.parquet", "out.arrow"])
@pytest.mark.parametrize("wrap", [None, in_list], ids=["plain", "list"])
@pytest.mark.parametrize("kind", [kind for kind, _ in TWO[:19] if not isinstance(kind, pa.BaseExtensionType)], ids=str)
def test_a_first_dictionary_may_be_empty(kind: pa.DataType, wrap: Any, out: str, tmp_path: Path) -> None:
    """Values of any type come later; nobody sees what stands in the place of none."""
    one, two = dict(TWO)[kind]
    columns = [dictionary(each, kind) for each in ([None, None], [one], [two, None, one])]
    columns = [wrap(column) for column in columns] if wrap else columns
    stream_of(tmp_path / "in.arrow", *columns)
    try:
        check_types(config := config_of(tmp_path / "in.arrow", tmp_path / out), open_source(config.loader))
    except OutputError:
        assert wrap is not None
        assert "_view" in str(kind)
        assert out == "out.parquet"
        return
    joined(tmp_path / "in.arrow", tmp_path / out)
    assert table_of(tmp_path / out)["odd"].to_pylist() == values_of(columns)


@pytest.mark.parametrize("out", ["parquet", "arrow"])
@pytest.mark.parametrize("wrap", [None, in_list, in_struct])
@pytest.mark.parametrize("more", [26, 29])
def test_indexes_become_wider_where_they_have_to(more: int, wrap: Any, out: str, tmp_path: Path) -> None:
    """An index of 8 bits counts 128 values; where all batches together have more, the output has indexes of 32 bits."""
    columns = [
        dictionary([f"a{row}" for row in range(100)], pa.string()),
        dictionary([f"b{row}" for row in range(more)], pa.string()),
    ]
    columns = [wrap(column) for column in columns] if wrap else columns
    stream_of(tmp_path / "in.arrow", *columns)
    joined(tmp_path / "in.arrow", tmp_path / f"out.{out}")
    table = table_of(tmp_path / f"out.{out}")
    assert table["odd"].to_pylist() == values_of(columns)
    assert ("indices=int32" in str(table.schema.field("odd").type)) == (more == 29)
    assert ("indices=int8" in str(table.schema.field("odd").type)) == (more == 26)


def test_indexes_of_a_parquet_file_become_wider(tmp_path: Path) -> None:
    """Each row group has a dictionary of its own, and no two of them the same values."""
    table = pa.table({"text": [f"text {row}" for row in range(300)]})
    words = table.set_column(0, "text", pa.chunked_array([
        dictionary(table["text"].to_pylist()[start : start + 100], pa.string()) for start in (0, 100, 200)
    ]))  # fmt: skip
    pq.write_table(words, tmp_path / "in.parquet", row_group_size=100)
    for out in ("out.arrow", "out.parquet"):
        joined(tmp_path / "in.parquet", tmp_path / out, compression="zstd")
        found = table_of(tmp_path / out)
        assert found["text"].to_pylist() == table["text"].to_pylist()
        assert found.schema.field("text").type == pa.dictionary(pa.int32(), pa.string())
        assert len(found["text"].unify_dictionaries().chunk(0).dictionary) == 300


def test_dictionaries_of_polars_are_texts(tmp_path: Path) -> None:
    """It writes them with values of the type string view, of which Arrow can't take some."""
    words = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.uint32()), pa.array(["a", "b"], pa.string_view()))
    with ipc.new_file(tmp_path / "in.arrow", pa.schema([("text", words.type)])) as writer:
        writer.write_batch(pa.record_batch([words], ["text"]))
    for out in ("out.parquet", "out.arrow"):
        joined(tmp_path / "in.arrow", tmp_path / out)
        assert table_of(tmp_path / out)["text"].to_pylist() == ["b", None, "a"]
    for out in ("out.csv", "out.jsonl"):
        joined(tmp_path / "in.arrow", tmp_path / out)
        assert [row["text"] or None for row in rows_of(tmp_path / out)] == ["b", None, "a"]


def test_a_dictionary_may_hold_null(tmp_path: Path) -> None:
    """As one that Arrow makes of values with `null_encoding`; Parquet has none in a dictionary."""
    values = pa.array(["a", None, "b", None]).dictionary_encode("encode")
    stream_of(tmp_path / "in.arrow", values, values.slice(1))
    for out in ("out.parquet", "out.arrow"):
        joined(tmp_path / "in.arrow", tmp_path / out)
        assert table_of(tmp_path / out)["odd"].to_pylist() == ["a", None, "b", None, None, "b", None]


def test_dates_in_dictionaries_that_can_not_be_printed_are_integers(tmp_path: Path) -> None:
    """As those in plain columns are."""
    stream_of(tmp_path / "in.arrow", dictionary([0, 20_000_000], pa.date32()))
    joined(tmp_path / "in.arrow", tmp_path / "out.csv")
    assert [row["odd"] for row in rows_of(tmp_path / "out.csv")] == ["1970-01-01", "20000000"]


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("month_day_nano_interval", ("out.parquet", ".arrow")),
        ("sparse_union", ("out.csv", ".arrow")),
        ("run_end_encoded", ("out.jsonl", ".arrow")),
        (str(pa.list_view(pa.int64())), ("out.json", ".parquet or .arrow")),
        ("struct<>", ("out.parquet", ".csv or .tsv or .jsonl or .json or .arrow")),
    ],
)
def test_a_refusal_names_what_holds_the_column(
    kind: str, refused: tuple[str, str], fake: FakeServer, classify: Command, tmp_path: Path
) -> None:
    """Before the first request, by `check`, too."""
    out, advice = refused
    stream_of(tmp_path / "in.arrow", KINDS[kind])
    for command in ("check", "run"):
        done = classify(command, "-i", "in.arrow", "-o", out, "--url", fake.url, "--quiet", expect=2)
        complaint(done, "'odd'", str(KINDS[kind].type), f"choose an output that ends in {advice}")
    assert not fake.answered


def test_a_refusal_advises_what_holds_all_columns(tmp_path: Path) -> None:
    """Not what the next column would be refused for."""
    table = pa.table({"text": ["a"], "views": pa.array([[1]], pa.list_view(pa.int8())), "none": pa.array([{}])})
    with ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    config = config_of(tmp_path / "in.arrow", tmp_path / "out.csv")
    with pytest.raises(OutputError, match=r"'views' .*; choose an output that ends in \.arrow$"):
        check_types(config, open_source(config.loader))
