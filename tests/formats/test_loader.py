"""The loader on good files: every format, every way to name a text, every way a line may end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import COMPRESS, as_csv, as_jsonl
from joining import blocks_of, sendable, sent, texts_of

from pipeline.config import Loader
from pipeline.formats.source import TextSpec
from pipeline.loader import estimate_rows, open_source
from pipeline.texts import EMPTY, escape

TEXTS: list[str | None] = [
    "plain",
    'quoted "x", and\nbroken\r\nlines\rhere',
    "größe 😀 \u2028 \x85",
    " ",
    "",
    "007",
    "NA",
]
LINE_ENDS = ["\n", "\r\n", "\r"]


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "ndjson"])
def test_text_formats_are_read_also_compressed(kind: str, ending: str, tmp_path: Path) -> None:
    """CSV, TSV and JSONL give their texts unchanged, compressed or not; the ending's case does not matter."""
    content = as_jsonl(TEXTS) if "json" in kind else as_csv(TEXTS, "\t" if kind == "tsv" else ",")
    for name in (f"in.{kind}{ending}", f"IN.{kind.upper()}{ending.upper()}"):
        (tmp_path / name).write_bytes(COMPRESS[ending](content.encode()))
        assert texts_of(tmp_path / name) == sendable(TEXTS)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_compressed_files_glued_together_are_read_to_the_end(ending: str, tmp_path: Path) -> None:
    """`cat a.gz b.gz`, and what parallel compressors write, is one file of all rows."""
    halves = [as_jsonl(["a", "b"]), as_jsonl(["c"] * 70_000), as_jsonl(["d"])]
    path = tmp_path / f"in.jsonl{ending}"
    path.write_bytes(b"".join(COMPRESS[ending](half.encode()) for half in halves))
    assert texts_of(path) == ["a", "b", *["c"] * 70_000, "d"]


def test_the_format_can_be_named_where_the_ending_says_nothing(tmp_path: Path) -> None:
    """`loader.format` beats the ending."""
    (tmp_path / "in.txt").write_text(as_jsonl(["a"]))
    assert texts_of(tmp_path / "in.txt", format="jsonl") == ["a"]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_any_line_end_with_and_without_bom(kind: str, end: str, bom: str, ends: bool, tmp_path: Path) -> None:
    """LF, CRLF and lone CR end a line; a BOM and a missing last line end make no difference."""
    content = as_csv(TEXTS, end=end) if kind == "csv" else as_jsonl(TEXTS, end)
    path = tmp_path / f"in.{kind}"
    path.write_bytes((bom + (content if ends else content.removesuffix(end))).encode())
    assert texts_of(path) == sendable(TEXTS)


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("shift", range(-2, 3))
def test_a_line_end_on_the_edge_of_a_read(shift: int, end: str, tmp_path: Path) -> None:
    """Where the reader's block of a megabyte ends has no influence, not even between CR and LF."""
    for edge in (1 << 20, 1 << 16):
        long = "x" * (edge - len("text" + end) + shift)
        (tmp_path / "in.csv").write_bytes(end.join(["text", long, "second", "", "fourth"]).encode())
        assert texts_of(tmp_path / "in.csv") == [long, "second", None, "fourth"]


@pytest.mark.parametrize(
    ("encoding", "bom"),
    [
        ("utf-16", b""),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-16-le", "\ufeff".encode("utf-16-le")),
        ("utf-16-be", "\ufeff".encode("utf-16-be")),
        ("utf-32", b""),
        ("utf-8-sig", b""),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_wide_encodings(kind: str, encoding: str, bom: bytes, tmp_path: Path) -> None:
    """UTF-16 and UTF-32 files are read, in either byte order, with and without BOM."""
    texts: list[str | None] = ["a", "größe 😀", "\u0a0d\u0d0a\u0a0a", "x\n\ny" if kind == "csv" else "x"]
    content = as_csv(texts) if kind == "csv" else as_jsonl(texts)
    (tmp_path / f"in.{kind}").write_bytes(bom + content.encode(encoding))
    assert texts_of(tmp_path / f"in.{kind}", encoding=encoding) == sendable(texts)
    if kind == "csv":  # the BOM is no part of the first column's name
        assert texts_of(tmp_path / "in.csv", encoding=encoding, text_column="id") == ["0", "1", "2", "3"]


def test_a_bom_decides_the_byte_order(tmp_path: Path) -> None:
    """`utf-16` is whichever of the two the BOM says."""
    (tmp_path / "in.csv").write_bytes("\ufeff".encode("utf-16-be") + as_csv(["größe"]).encode("utf-16-be"))
    assert texts_of(tmp_path / "in.csv", encoding="utf-16") == ["größe"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "gb18030"])
def test_one_byte_and_east_asian_encodings(encoding: str, kind: str, tmp_path: Path) -> None:
    """Files in the encoding that `loader.encoding` names are read, also where a letter holds an ASCII byte."""
    text = "größe \x85" if encoding == "latin-1" else "größe" if encoding == "cp1252" else "表ソ十 ポ|"
    content = as_csv([text]) if kind == "csv" else as_jsonl([text])
    (tmp_path / f"in.{kind}").write_bytes(content.encode(encoding))
    assert texts_of(tmp_path / f"in.{kind}", encoding=encoding) == sendable([text])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_cell_of_50_megabytes(kind: str, tmp_path: Path) -> None:
    """A long cell with line breaks is read whole, and the rows around it, too."""
    long = ("x" * 9_999 + "\n") * 5_000
    texts: list[str | None] = ["before", long, "after"]
    path = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        path.write_bytes((as_csv(texts) if kind == "csv" else as_jsonl(texts)).encode())
    assert texts_of(path) == sendable(texts)


def test_a_blank_line_is_a_row_where_one_column_is_all_there_is(tmp_path: Path) -> None:
    """In a one-column CSV a blank line is a row with an empty cell; between wider rows it is nothing."""
    (tmp_path / "one.csv").write_text("text\n\na\n\n")
    (tmp_path / "two.csv").write_text("id,text\n\n1,a\n\n2,b\n\n")
    assert texts_of(tmp_path / "one.csv") == [None, "a", None]
    assert texts_of(tmp_path / "two.csv") == ["a", "b"]


def test_files_without_rows(tmp_path: Path) -> None:
    """A header alone, an empty JSONL and an empty table are files of no rows; no bytes at all are an empty CSV."""
    for name, content in {"bare.csv": "text", "header.csv": "text\r\n", "in.jsonl": "", "blank.jsonl": "\n \n"}.items():
        (tmp_path / name).write_text(content)
        assert texts_of(tmp_path / name) == []
        assert not open_source(Loader(input=str(tmp_path / name))).is_empty
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    assert texts_of(tmp_path / "in.parquet") == []
    for name, content_bytes in {"in.csv": b"", "in.csv.gz": gzip.compress(b"")}.items():
        (tmp_path / name).write_bytes(content_bytes)
        assert open_source(Loader(input=str(tmp_path / name))).is_empty


def test_a_dotted_name_is_first_of_all_a_name(tmp_path: Path) -> None:
    """A column of exactly that name wins over the path into a struct or object."""
    rows = [{"a.b": "name", "a": {"b": "path", "c": {"d": "deep"}}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text(json.dumps(rows[0]))
    (tmp_path / "in.csv").write_text("a,a.b\npath,name\n")
    for name in ("in.parquet", "in.jsonl", "in.csv"):
        assert texts_of(tmp_path / name, text_column="a.b") == ["name"]
    for name in ("in.parquet", "in.jsonl"):
        assert texts_of(tmp_path / name, text_column="a.c.d") == ["deep"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_several_columns_and_templates(kind: str, tmp_path: Path) -> None:
    """Columns are joined by a newline, a template says it otherwise; a null is "", and all empty is no text."""
    rows = [{"t": "title", "b": "body"}, {"t": None, "b": "x"}, {"t": " ", "b": None}]
    path = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("t,b\ntitle,body\n,x\n ,\n")
    assert texts_of(path, text_column=["b", "t"])[0] == "body\ntitle"
    assert texts_of(path, template="{{{t}}}: {b} {b}") == ["{title}: body body", "{}: x x", None]


def test_a_template_reaches_into_objects(tmp_path: Path) -> None:
    """A dotted name in a template is the same as in `text_column`."""
    (tmp_path / "in.jsonl").write_text('{"a": {"b": "x"}, "c": "y"}\n')
    assert texts_of(tmp_path / "in.jsonl", template="{a.b} {c}") == ["x y"]


def test_json_lines_that_only_the_standard_parser_takes_are_good_lines(tmp_path: Path) -> None:
    """Half a surrogate pair, NaN, Infinity and 1e999 beside the text do not hurt; escaped and doubled names count."""
    lines = [
        r'{"text": "a", "x": "\ud800"}',
        '{"text": "b", "x": NaN, "y": [-Infinity]}',
        '{"text": "c", "x": 1e999}',
        '{"text": "d", "x": ' + "9" * 400 + "}",
        r'{"\u0074ext": "e", "\ud800": 1}',
        '{"text": "no", "text": "f"}',
        '\t{ "text" :\t"g" } ',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert texts_of(tmp_path / "in.jsonl") == list("abcdefg")


@pytest.mark.parametrize("odd", ["5", "null", "true", '{"a": 1}', '["a"]', "", '"a'])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_line_without_a_text_leaves_the_others_theirs(odd: str, at: int, tmp_path: Path) -> None:
    """Lines are read many at once: where one has no text, each of the others keeps its own row."""
    lines = [f'{{"text": "{text}"}}' for text in "xyz"]
    lines[at] = f'{{"text": {odd}}}' if odd else "{}"
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, ""]))
    texts = list[str | None]("xyz")
    texts[at : at + 1] = [] if odd.startswith('"') else [None]  # that is no JSON
    assert texts_of(tmp_path / "in.jsonl", on_bad_line="skip") == texts


SPELLINGS = [(r"\u00e9\/", "é/"), (r"\u0022\u005c", r"\"\\"), (r"\ud83d\ude00", "😀"), (r"a\u000a", r"a\n")]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_a_text_has_one_form_however_it_is_spelled(one: str, other: str, tmp_path: Path) -> None:
    """Two JSON strings that mean the same text are the same bytes on the wire, so it is sent once."""
    (tmp_path / "in.jsonl").write_text(f'{{"text": "{one}"}}\n{{"text": "{other}"}}\n', encoding="utf-8")
    (block,) = blocks_of(tmp_path / "in.jsonl")
    assert list(block.texts) == [escape(json.loads(f'"{one}"'))] * 2


def test_what_is_no_text_is_named_and_what_is_missing_is_null(tmp_path: Path) -> None:
    """Numbers, booleans, objects, lists and half surrogate pairs are `not_text`; null and missing are None."""
    values = ["1", "true", "{}", "[]", "1.5", "NaN", r'"\ud83d"', "null", '"ok"']
    (tmp_path / "in.jsonl").write_text("".join(f'{{"text": {value}}}\n' for value in values) + "{}\n")
    (block,) = blocks_of(tmp_path / "in.jsonl")
    assert sent(block) == [None] * 8 + ["ok", None]
    assert [index for index, error in block.errors.items() if error.code == "not_text"] == list(range(7))
    assert {block.errors[index] for index in (7, 9)} == {EMPTY}


def test_rows_are_counted_or_estimated(tmp_path: Path) -> None:
    """Parquet and small files are counted exactly; a long text file is estimated within a fifth, and says so."""
    pq.write_table(pa.table({"text": ["a"] * 123}), tmp_path / "in.parquet")
    (tmp_path / "small.csv").write_text(as_csv(["a"] * 77))
    (tmp_path / "long.csv").write_text(as_csv(["x" * 50] * 60_000))
    found = {}
    for name in ("in.parquet", "small.csv", "long.csv"):
        settings = Loader(input=str(tmp_path / name))
        found[name] = estimate_rows(open_source(settings), TextSpec(settings))
    assert found["in.parquet"] == (123, True)
    assert found["small.csv"] == (77, True)
    rows, exact = found["long.csv"]
    assert not exact
    assert 48_000 < rows < 72_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-8"])
@pytest.mark.parametrize(("name", "row"), [("in.csv", "{} text\n"), ("in.jsonl", '{{"text": "{} текст текст"}}\n')])
def test_rows_of_any_encoding_are_estimated(name: str, row: str, encoding: str, tmp_path: Path) -> None:
    """Positions count bytes of UTF-8, and the file has others."""
    rows = "".join(row.format(number) for number in range(100_000, 400_000))
    (tmp_path / name).write_text("text\n" * (name == "in.csv") + rows, encoding=encoding)
    settings = Loader(input=str(tmp_path / name), encoding=encoding)
    found, is_exact = estimate_rows(open_source(settings), TextSpec(settings))
    assert not is_exact
    assert abs(found - 300_000) < 15_000
