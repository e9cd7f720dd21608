"""Arrow, ORC and Excel files: each row is read once, in order, from any row on, and joined with its answer."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from commands import Command, complaint
from fake import FakeServer
from files import rows_of
from hypothesis import given
from hypothesis import strategies as st
from joining import ADDED, joined, predictions_of, sent, texts_of
from openpyxl.chart import BarChart, Reference
from pyarrow import ipc, orc

from pipeline.config import Config, Loader, Writer
from pipeline.errors import ConfigError, InputError
from pipeline.formats import columnar
from pipeline.formats.source import TextSpec
from pipeline.loader import estimate_rows, open_source
from pipeline.runs.output import default_output, output_at
from pipeline.storage import local

Made = Callable[[pa.Table, Path], object]


def arrow_file(table: pa.Table, path: Path) -> None:
    """Write batches of three rows, compressed."""
    with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table, max_chunksize=3)


def arrow_stream(table: pa.Table, path: Path) -> None:
    """Write batches of three rows, without an index."""
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def orc_file(table: pa.Table, path: Path) -> None:
    """Write stripes that are as short as they can be."""
    orc.write_table(table, path, stripe_size=1, batch_size=1)


MADE = [
    pytest.param(arrow_file, "in.arrow", id="arrow"),
    pytest.param(arrow_stream, "in.arrow", id="stream"),
    pytest.param(pa.feather.write_feather, "in.feather", id="feather"),
    pytest.param(orc_file, "in.orc", id="orc"),
]
TABLE = pa.table(
    {
        "id": pa.array(range(20), pa.int32()),
        "text": [f"text {row}" if row % 7 else None for row in range(20)],
        "nested": [{"text": f"inner {row}", "n": row} for row in range(20)],
        "when": pa.array([datetime(2026, 1, 1 + row) for row in range(20)], pa.timestamp("ns")),  # noqa: DTZ001
    }
)


@pytest.mark.parametrize(("make", "name"), MADE)
@pytest.mark.parametrize("ending", ["parquet", "arrow", "jsonl", "csv"])
def test_rows_are_joined_with_their_answers(tmp_path: Path, make: Made, name: str, ending: str) -> None:
    """All columns are there with their types, and the answer of each row."""
    make(TABLE, tmp_path / name)
    output = tmp_path / f"out.{ending}"
    joined(tmp_path / name, output)
    rows = rows_of(output) if ending != "arrow" else ipc.open_file(output).read_all().to_pylist()
    assert [row["predicted_score"] for row in rows] == pytest.approx([0.5 + row / 1024 for row in range(20)]) or (
        ending == "csv" and [float(row["predicted_score"]) for row in rows] == [0.5 + row / 1024 for row in range(20)]
    )
    if ending in ("parquet", "arrow"):
        table = pq.read_table(output) if ending == "parquet" else ipc.open_file(output).read_all()
        assert table.drop_columns(list(ADDED)).equals(TABLE)
    else:
        assert [str(row["id"]) for row in rows] == [str(row) for row in range(20)]


@pytest.mark.parametrize(("make", "name"), MADE)
@pytest.mark.parametrize("column", ["text", "nested.text"])
def test_reading_starts_at_any_row(
    tmp_path: Path, make: Made, name: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the position of each block on come the texts from there on, whatever the size of blocks."""
    monkeypatch.setattr(columnar, "BLOCK_ROWS", 2)
    make(TABLE, tmp_path / name)
    loader = Loader(input=str(tmp_path / name), text_column=column)
    spec, source = TextSpec(loader), open_source(loader)
    source.check(spec, ADDED)
    assert source.total_rows == 20
    blocks = list(source.texts(spec))
    every = [text for block in blocks for text in sent(block)]
    wanted = TABLE["text"].to_pylist() if column == "text" else [f"inner {row}" for row in range(20)]
    assert every == wanted
    assert len(blocks) > 5
    for block in blocks:
        again = [text for each in source.texts(spec, block.position) for text in sent(each)]
        assert again == every[block.position.row :]


@pytest.mark.parametrize(("make", "name"), [*MADE, pytest.param(pq.write_table, "in.parquet", id="parquet")])
def test_a_name_with_a_dot_is_that_of_a_column_first(tmp_path: Path, make: Made, name: str) -> None:
    """Also where a struct has such a field."""
    make(pa.table({"a.b": ["column"], "a": [{"b": "field", "c": "other"}]}), tmp_path / name)
    assert texts_of(tmp_path / name, text_column="a.b") == ["column"]
    assert texts_of(tmp_path / name, text_column="a.c") == ["other"]


@pytest.mark.parametrize(("make", "name"), MADE)
def test_damage_is_said_in_a_sentence(tmp_path: Path, make: Made, name: str) -> None:
    """A file that is cut anywhere, or that holds something else, names itself; no other error appears."""
    make(TABLE, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for content in [b"", b"x", b"id,text\n1,a\n", *(whole[:size] for size in range(0, len(whole) - 1, 97))]:
        (tmp_path / f"cut-{name}").write_bytes(content)
        try:
            texts_of(tmp_path / f"cut-{name}")
        except InputError as error:
            assert f"cut-{name}" in str(error)  # noqa: PT017 - a stream may be cut between two batches


def test_feather_of_version_1_is_named(tmp_path: Path) -> None:
    """Nothing has written it since 2020; its first four bytes tell."""
    (tmp_path / "old.feather").write_bytes(b"FEA1\0\0\0\0FEA1")
    with pytest.raises(InputError, match="Feather of version 1"):
        texts_of(tmp_path / "old.feather")


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=4), max_size=6), st.booleans())
def test_dictionaries_may_grow_and_change(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str | None]], is_ordered: bool
) -> None:
    """A column of categories keeps its values and its type, whichever dictionary each batch of the input has."""
    folder = tmp_path_factory.mktemp("dictionaries")
    kind = pa.dictionary(pa.int8(), pa.string(), ordered=is_ordered)
    schema = pa.schema([("kind", kind), ("text", pa.string())])
    with ipc.new_stream(folder / "in.arrow", schema) as writer:
        for batch in batches:
            values = pa.array(batch, pa.string()).dictionary_encode()
            encoded = pa.DictionaryArray.from_arrays(
                values.indices.cast(pa.int8()), values.dictionary, None, is_ordered
            )
            writer.write_batch(pa.record_batch([encoded, pa.array(batch, pa.string())], schema=schema))
    joined(folder / "in.arrow", folder / "out.arrow")
    output = ipc.open_file(folder / "out.arrow").read_all()
    assert output["kind"].to_pandas().isna().tolist() == [value is None for batch in batches for value in batch]
    assert output.schema.field("kind").type == kind
    assert output["kind"].to_pylist() == [value for batch in batches for value in batch]


KINDS_WITH_CATEGORIES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "alone": lambda column: column,
    "in a struct": lambda column: pa.StructArray.from_arrays([column], ["k"], mask=pa.array([False] * 5 + [True])),
    "in a list": lambda column: pa.ListArray.from_arrays(pa.array([0, 1, 1, None, 4, 5, 6], pa.int32()), column),
    "in a fixed list": lambda column: pa.FixedSizeListArray.from_arrays(pa.concat_arrays([column, column]), 2),
    "in a map": lambda column: pa.MapArray.from_arrays(
        pa.array([0, 1, 1, None, 4, 5, 6], pa.int32()), "abcdef", column
    ),
}


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
@pytest.mark.parametrize("where", KINDS_WITH_CATEGORIES)
@pytest.mark.parametrize("values", [["x", None, "y"], [None, 1.5], [None, ""]], ids=str)
def test_a_dictionary_may_hold_null(tmp_path: Path, ending: str, where: str, values: list[object]) -> None:
    """Other writers than pandas make some; each batch has another one, and is a slice of an array."""
    indexes = pa.array([0, len(values) - 1, None, 0, len(values) - 1, 0], pa.int8())
    batches = []
    for each in (values, values[::-1]):
        column = KINDS_WITH_CATEGORIES[where](pa.DictionaryArray.from_arrays(indexes, pa.array(each)))
        table = pa.record_batch({"text": pa.array([*"abcdef"]), "kind": column})
        batches += [table, table.slice(1, 4)]
    with ipc.new_stream(tmp_path / "in.arrow", batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    joined(tmp_path / "in.arrow", tmp_path / f"out.{ending}")
    out = (
        ipc.open_file(tmp_path / "out.arrow").read_all()
        if ending == "arrow"
        else pq.read_table(tmp_path / "out.parquet")
    )
    assert out["kind"].to_pylist() == [value for batch in batches for value in batch["kind"].to_pylist()]


@pytest.mark.parametrize("ending", ["arrow", "parquet", "csv"])
def test_categories_that_are_all_null(tmp_path: Path, ending: str) -> None:
    """What pandas makes of such a column has no type of values."""
    frame = pd.DataFrame({"text": ["a", "b"], "kind": pd.Categorical([None, None])})
    frame.to_feather(tmp_path / "in.feather")
    joined(tmp_path / "in.feather", tmp_path / f"out.{ending}")
    read = getattr(pd, f"read_{'feather' if ending == 'arrow' else ending}")
    assert read(tmp_path / f"out.{ending}")["kind"].isna().tolist() == [True, True]


def test_categories_of_a_parquet_file_become_those_of_an_arrow_file(tmp_path: Path) -> None:
    """Each row group has a dictionary of its own."""
    table = pa.table({"text": pa.array(list("abcd")).dictionary_encode()})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=1)
    joined(tmp_path / "in.parquet", tmp_path / "out.arrow")
    assert ipc.open_file(tmp_path / "out.arrow").read_all()["text"].to_pylist() == list("abcd")


@pytest.mark.parametrize(("compression", "allowed"), [("zstd", True), ("lz4", True), ("none", True), ("gzip", False)])
def test_the_compression_of_an_arrow_file(tmp_path: Path, compression: str, allowed: bool) -> None:
    """It has two; another one is refused before anything is sent."""
    config = Config(
        loader=Loader(input="in.csv"),
        writer=Writer(output=str(tmp_path / "out.arrow"), compression=compression),  # type: ignore[arg-type]
    )
    if allowed:
        output_at(config, local(config.writer.output), local("in.csv"), may_make_directory=False)
    else:
        with pytest.raises(ConfigError, match="zstd or lz4"):
            output_at(config, local(config.writer.output), local("in.csv"), may_make_directory=False)


# -- Excel


def workbook(path: Path, *rows: Sequence[object], sheet: str = "Sheet") -> Path:
    """Write a workbook with an empty first sheet and the rows in another one, or in the first."""
    book = openpyxl.Workbook()
    active = book.active
    assert active is not None
    written = active if sheet == "Sheet" else book.create_sheet(sheet)
    for row in rows:
        written.append(list(row))
    book.save(path)
    return path


def test_cells_become_text(tmp_path: Path) -> None:
    """Numbers as short as they can be, dates in ISO 8601; an empty cell is null."""
    numbers = [7, 7.0, 0.1, 1e300, 2**53 + 2, 9007199254740994.0]
    values = [*numbers, True, date(2026, 1, 2), datetime(2026, 1, 2, 3, 4), "=1+1", "é\n", None, "x"]  # noqa: DTZ001
    path = workbook(tmp_path / "in.xlsx", ["n", "text"], *([index, value] for index, value in enumerate(values)))
    large = ["9007199254740994", "9007199254740994"]
    texts = ["7", "7", "0.1", "1e+300", *large, "TRUE", "2026-01-02", "2026-01-02 03:04:00", None, "é\n", None, "x"]
    assert texts_of(path) == texts
    joined(path, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["text"].to_pylist() == texts
    assert table["n"].to_pylist() == [str(index) for index in range(len(values))]


def test_a_sheet_is_named(tmp_path: Path) -> None:
    """By default the first is read; a name that is not there is answered with those that are."""
    path = workbook(tmp_path / "in.xlsx", ["text"], ["here"], sheet="Reviews")
    assert texts_of(path, sheet="Reviews") == ["here"]
    with pytest.raises(InputError, match="no sheet 'Review'; there are 'Sheet', 'Reviews'"):
        texts_of(path, sheet="Review")
    with pytest.raises(InputError, match="no column 'text'"):
        texts_of(path)


def test_empty_rows_and_cells(tmp_path: Path) -> None:
    """An empty row between others is a row; those at the end are none, nor are columns without name and value."""
    path = workbook(
        tmp_path / "in.xlsx", ["text", None, "c", None], ["a"], [], [None, "b", "d"], [None], [None, ""], [None, None]
    )
    assert texts_of(path) == ["a", None, None]
    joined(path, tmp_path / "out.csv")
    assert [list(row.values())[:3] for row in rows_of(tmp_path / "out.csv")] == [
        ["a", "", ""],
        ["", "", ""],
        ["", "b", "d"],
    ]
    assert list(rows_of(tmp_path / "out.csv")[0])[:3] == ["text", "column_2", "c"]


def test_a_value_without_a_column_is_refused(tmp_path: Path) -> None:
    """It would be lost."""
    path = workbook(tmp_path / "in.xlsx", ["text"], ["a"], ["b", "lost"])
    with pytest.raises(InputError, match="row 3 of the sheet has 2 cells where the header has 1"):
        texts_of(path)


def test_a_workbook_is_read_from_any_row_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a resumed run does."""
    monkeypatch.setattr("pipeline.formats.source.BLOCK_ROWS", 3)
    path = workbook(tmp_path / "in.xlsx", ["text"], *([f"text {row}"] for row in range(10)))
    loader = Loader(input=str(path))
    spec, source = TextSpec(loader), open_source(loader)
    blocks = list(source.texts(spec))
    assert [block.position.row for block in blocks] == [0, 3, 6, 9]
    for block in blocks:
        again = [text for each in source.texts(spec, block.position) for text in sent(each)]
        assert again == [f"text {row}" for row in range(block.position.row, 10)]
    rows, is_exact = estimate_rows(source, spec)
    assert rows >= 6
    assert not is_exact


def test_what_is_no_workbook_is_said(tmp_path: Path) -> None:
    """Whatever is in the file, or where it ends; a password is only spoken of where there may be one."""
    whole = workbook(tmp_path / "in.xlsx", ["text"], ["a"]).read_bytes()
    for size in range(301, len(whole), 301):
        (tmp_path / "cut.xlsx").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut.xlsx: can't be read as .xlsx: is damaged, or no workbook: [^\n]+$"):
            texts_of(tmp_path / "cut.xlsx")
    (tmp_path / "cut.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + b"an encrypted one")
    with pytest.raises(InputError, match=r"cut.xlsx: .* needs a password, or is an .xls file"):
        texts_of(tmp_path / "cut.xlsx")


@pytest.mark.parametrize("seed", range(40))
def test_a_workbook_with_wrong_bytes_is_damaged(seed: int, tmp_path: Path) -> None:
    """Or it can still be read; whatever openpyxl raises, it is a sentence."""
    rng = random.Random(seed)
    content = bytearray(workbook(tmp_path / "in.xlsx", ["text"], *([f"text {row}"] for row in range(50))).read_bytes())
    for _ in range(rng.choice((1, 5, 50))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    (tmp_path / "bad.xlsx").write_bytes(content)
    try:
        texts_of(tmp_path / "bad.xlsx")
    except InputError as error:
        assert "bad.xlsx" in str(error)  # noqa: PT017 - the bytes may be some that nobody reads
        assert "\n" not in str(error)  # noqa: PT017


def edited(path: Path, **parts: str | None) -> Path:
    """Replace parts of a workbook, or leave them out; a part is named by the stem of its file."""
    with zipfile.ZipFile(path) as whole:
        contents = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            part = parts.get(Path(name).stem, content)
            if part is not None:
                file.writestr(name, part)
    return path


SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'
)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"sheet1": None}, "there is no sheet 'Sheet'"),
        ({"sheet1": "<worksheet"}, "unclosed token"),
        ({"sheet1": SHEET % '<row><c t="s"><v>7</v></c></row>'}, "list index out of range"),
        ({"workbook": None}, "workbook.xml"),
        ({"[Content_Types]": None}, "Content_Types"),
    ],
)
def test_a_workbook_that_lacks_a_part_is_damaged(parts: dict[str, str | None], words: str, tmp_path: Path) -> None:
    """A sheet that is lost is not replaced by the next one."""
    path = edited(workbook(tmp_path / "in.xlsx", ["text"], ["a"]), **parts)
    with pytest.raises(
        InputError, match=f"in.xlsx: can't be read as .xlsx: is damaged, or no workbook: .*{words}"
    ) as caught:
        texts_of(path)
    assert "\n" not in str(caught.value)


def test_charts_that_are_sheets_are_left_out(tmp_path: Path) -> None:
    """The first sheet with cells is read; a chart that is asked for is named."""
    book = openpyxl.Workbook()
    sheet, path = book.active, tmp_path / "in.xlsx"
    assert sheet is not None
    sheet.append(["text"])
    sheet.append(["here"])
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=2))
    book.create_chartsheet("Chart", 0).add_chart(chart)
    book.save(path)
    assert texts_of(path) == ["here"]
    with pytest.raises(InputError, match=r"the sheet 'Chart' is a chart; there are 'Sheet' \(loader\.sheet\)"):
        texts_of(path, sheet="Chart")


def test_blank_rows_before_the_header_are_none(tmp_path: Path) -> None:
    """The header is the first row that has a value; messages count rows as Excel does."""
    path = workbook(tmp_path / "in.xlsx", [], [None, ""], ["id", "text"], [], [1, "a"])
    assert texts_of(path) == [None, "a"]
    joined(path, tmp_path / "out.csv")
    assert [row["text"] for row in rows_of(tmp_path / "out.csv")] == ["", "a"]
    with pytest.raises(InputError, match="row 5 of the sheet has 3 cells where the header has 2"):
        texts_of(workbook(tmp_path / "in.xlsx", [], [None, ""], ["id", "text"], [], [1, "a", "lost"]))


def test_a_blank_sheet(classify: Command, fake: FakeServer, tmp_path: Path) -> None:
    """It is empty, and may be so."""
    workbook(tmp_path / "in.xlsx", [], [None, ""])
    arguments = ("run", "-i", "in.xlsx", "-o", "out.csv", "--url", fake.url, "--quiet")
    complaint(classify(*arguments, expect=2), "in.xlsx: is empty", "run.allow_empty")
    classify(*arguments, "--set", "run.allow_empty=true")
    assert rows_of(tmp_path / "out.csv") == []


def test_characters_that_xml_lacks(tmp_path: Path) -> None:
    """Excel writes them as escapes, also the underscore of what only looks like one."""
    path = workbook(tmp_path / "in.xlsx", ["text"], ["a_x000D_\nb"], ["_x005F_x000D_"], ["_xD83D_"], ["_x0041"])
    assert texts_of(path) == ["a\r\nb", "_x000D_", "_xD83D_", "_x0041"]


def test_a_date_that_there_is_not_warns_nobody(classify: Command, fake: FakeServer, tmp_path: Path) -> None:
    """Openpyxl makes it an error, as Excel shows it."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["text", "day"])
    sheet.append(["a", 99_999_999])
    sheet["B2"].number_format = "yyyy-mm-dd"
    book.save(tmp_path / "in.xlsx")
    done = classify("run", "-i", "in.xlsx", "-o", "out.csv", "--url", fake.url, "--quiet")
    assert "Warning" not in done.stderr
    assert len(done.stderr.splitlines()) == 4  # a label, all scores, the last line
    assert [row["day"] for row in rows_of(tmp_path / "out.csv")] == ["#VALUE!"]


@pytest.mark.parametrize(
    ("name", "output"),
    [("a.xlsx", "a_labelled.csv"), ("a.orc", "a_labelled.parquet"), ("a.feather", "a_labelled.feather")],
)
def test_where_the_output_goes_by_default(name: str, output: str) -> None:
    """A format that is only read has another one for its outputs."""
    config = Config(loader=Loader(input=name))
    assert default_output(config, local(name)).name == output


def test_predictions_fit(tmp_path: Path) -> None:
    """More rows than a batch, to an Arrow file: batches of the input are those of the output."""
    table = pa.table({"text": [str(row) for row in range(40_000)]})
    sink = io.BytesIO()
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "in.arrow").write_bytes(sink.getvalue())
    joined(tmp_path / "in.arrow", tmp_path / "out.arrow", predictions_of(40_000, failed=[39_999]))
    output = ipc.open_file(tmp_path / "out.arrow").read_all()
    assert output["text"].to_pylist() == table["text"].to_pylist()
    assert output["predicted_error"].to_pylist()[39_998:] == [None, "rejected: no"]
