"""The loader on bad files: each is refused with its place and what to do, or its bad lines are left out and counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import COMPRESS, as_csv, as_jsonl
from joining import ADDED, sent, texts_of

import pipeline.formats.csv
import pipeline.formats.source
from pipeline.config import Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.jsonl import JsonlSource
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import open_source

SKIP = 'loader.on_bad_line = "skip"'


def refusal(path: Path, added: tuple[str, ...] = (), **loader: Any) -> str:
    """Return the message about a file that can't be used, whether it is opened, checked, or read."""
    settings = Loader(input=str(path), **loader)
    spec = TextSpec(settings)

    def use() -> None:
        source = open_source(settings)
        source.check(spec, added)
        list(source.texts(spec))

    with pytest.raises((InputError, ConfigError)) as caught:
        use()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def early_refusal(path: Path, added: tuple[str, ...] = (), **loader: Any) -> str:
    """Return the message that comes before any text is read, and so before the first request."""
    settings = Loader(input=str(path), **loader)
    with pytest.raises(InputError) as caught:
        open_source(settings).check(TextSpec(settings), added)
    return str(caught.value)


def skipping(path: Path) -> tuple[Source, list[str | None]]:
    """Read a source to its end with bad lines left out; return it and its texts."""
    settings = Loader(input=str(path), on_bad_line="skip")
    source, spec = open_source(settings), TextSpec(settings)
    return source, [text for block in source.texts(spec) for text in sent(block)]


@pytest.mark.parametrize("bad", ["1", "1,2,3", "1,2,"])
def test_a_ragged_csv_line_is_refused_or_left_out(bad: str, tmp_path: Path) -> None:
    """It is named with file and line, line breaks inside quotes counted; or skipped and counted, in every reading."""
    path = tmp_path / "in.csv"
    path.write_text(f'id,text\n1,"a\nb\r\nc"\n\n{bad}\n2,d\n{bad}')
    assert (said := refusal(path)).startswith(f"{path}:6: ")
    assert SKIP in said
    source, texts = skipping(path)
    assert texts == ["a\nb\r\nc", "d"]
    assert source.skipped == 2
    assert [column for batch in source.batches() for column in batch["text"].to_pylist()] == texts
    assert source.skipped == 2


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[1]",
        '"text"',
        "1",
        "null",
        '{"text": "a"',
        '{"text": "a"} x',
        "{'text': 'a'}",
        '{"text": "\\q"}',
        '{"a":01}',
    ],
)
def test_a_broken_json_line_is_refused_or_left_out(bad: str, tmp_path: Path) -> None:
    """A line that is no JSON object is named with file and line, blank lines counted; or skipped and counted."""
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{bad}\n{{"text": "b"}}\n{bad}')
    assert (said := refusal(path)).startswith(f"{path}:3: ")
    assert SKIP in said
    source, texts = skipping(path)
    assert texts == ["a", "b"]
    assert source.skipped == 2
    assert [text for batch in source.batches() for text in batch["text"].to_pylist()] == texts
    assert source.skipped == 2


OBJECT_OVER_LINES = '{"text": "b", "n": [{}\n, {}]}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"text": "a"}{"text": "b"}\n', 1),
        ('{"text": "a"}\n{"text": "b"} {"text": "c"}\n\n', 2),
        ('{"text": "a"}\n{"text": "b",\n"n": 1}\n{"text": "c"}{"text": "d"}\n', 2),
        (OBJECT_OVER_LINES + '{"text": "c"}{"text": "d"}\n', 1),
        ('{"text": "a"}\n' + OBJECT_OVER_LINES.replace("\n,", ",\r") + '{"text": "c"}{"text": "d"}\n', 2),
        ('{"text": "a"}{"text": "b"\n}\n', 1),
    ],
)
def test_a_line_is_one_object(content: str, line: int, tmp_path: Path) -> None:
    """Neither two nor a part of one, also where there are as many objects as lines."""
    (tmp_path / "in.jsonl").write_text(content, newline="")
    assert f"in.jsonl:{line}: no JSON object" in refusal(tmp_path / "in.jsonl")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_lines_are_counted_in_wide_encodings(encoding: str, tmp_path: Path) -> None:
    """A bad line of a UTF-16 file is named by the number an editor shows."""
    path = tmp_path / "in.csv"
    path.write_bytes('id,"te\nxt"\r\n1,\u0a0d\u0d0a\n1\n'.encode(encoding))
    assert refusal(path, encoding=encoding, text_column="te\nxt").startswith(f"{path}:4: ")
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"text": "\u0a0d\u0d0a"}\r\n{\n'.encode(encoding))
    assert refusal(path, encoding=encoding).startswith(f"{path}:2: ")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_wrong_encoding_is_named_with_its_line(kind: str, tmp_path: Path) -> None:
    """The message holds file, line, the encoding that failed, and the key to change."""
    lines = as_csv(["a", "größe"]) if kind == "csv" else as_jsonl(["x", "a", "größe"])
    path = tmp_path / f"in.{kind}"
    path.write_bytes(lines.encode("latin-1"))
    said = refusal(path)
    assert said.startswith(f"{path}:3: ")
    assert "utf-8" in said
    assert "loader.encoding" in said


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_utf16_file_read_as_utf8_is_a_wrong_encoding(kind: str, tmp_path: Path) -> None:
    """The BOM of UTF-16 is no UTF-8: line 1, and the key to change."""
    (tmp_path / f"in.{kind}").write_bytes((as_csv(["a"]) if kind == "csv" else as_jsonl(["a"])).encode("utf-16"))
    said = refusal(tmp_path / f"in.{kind}")
    assert said.startswith(f"{tmp_path / f'in.{kind}'}:1: ")
    assert "loader.encoding" in said


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("tail", [b"\x00\xd8a\x00\n\x00", b"a"])
def test_broken_utf16_is_named_with_its_line(tail: bytes, kind: str, tmp_path: Path) -> None:
    """Half a surrogate pair, or half a character at the end, is an error with file, line and the key to change."""
    content = as_csv(["a", "b"]) if kind == "csv" else as_jsonl(["a", "b", "c"])
    path = tmp_path / f"in.{kind}"
    path.write_bytes(content.encode("utf-16") + tail)
    said = refusal(path, encoding="utf-16")
    assert said.startswith(f"{path}:4: ")
    assert "loader.encoding" in said


@pytest.mark.parametrize("rest", ["b\n" * 5, "b", ""])
def test_a_quote_that_nobody_closes_is_an_error(rest: str, tmp_path: Path) -> None:
    """It is named with the line on which its record begins, not taken for one enormous cell."""
    (tmp_path / "in.csv").write_text(f'id,text\n1,"a\nb"\n2,"{rest}')
    assert refusal(tmp_path / "in.csv").startswith(f"{tmp_path / 'in.csv'}:4: ")
    (tmp_path / "head.csv").write_text(f'id,"text{rest}')
    assert refusal(tmp_path / "head.csv").startswith(f"{tmp_path / 'head.csv'}:1: ")


@pytest.mark.parametrize("record", ["x" * 2_000, '"' + "x\n" * 2_000 + '"'])
def test_a_record_beyond_the_bound_is_an_error(record: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record longer than the bound stops the run with its place; it and what follows are never dropped silently."""
    for module in (pipeline.formats.csv,):
        monkeypatch.setattr(module, "LONGEST_RECORD", 1_000)
    monkeypatch.setattr(pipeline.formats.csv, "MOST_AT_ONCE", 500)
    (tmp_path / "in.csv").write_text(f"text\na\n{record}\nb\n")
    assert refusal(tmp_path / "in.csv").startswith(f"{tmp_path / 'in.csv'}:3: ")


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2"])
def test_a_compressed_file_that_is_cut_short_is_an_error(ending: str, tmp_path: Path) -> None:
    """Wherever it is cut, in its head, its data or its checksum, no rows are silently missing."""
    whole = COMPRESS[ending](as_jsonl([f"text {n * n}" for n in range(20)]).encode())
    path = tmp_path / f"in.jsonl{ending}"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert str(path) in refusal(path), length


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2"])
def test_a_file_that_is_not_what_its_ending_says_is_an_error(ending: str, tmp_path: Path) -> None:
    """Plain text under a compression's ending is refused by name."""
    path = tmp_path / f"in.csv{ending}"
    path.write_text(as_csv(["a"]))
    assert str(path) in refusal(path)


def test_a_broken_parquet_file_is_an_error(tmp_path: Path) -> None:
    """Cut short, or damaged inside, it is refused by name."""
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(5_000)]}), path, use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refusal(path)
    path.write_bytes(whole[:4] + bytes(1_000) + whole[1_004:])
    assert str(path) in refusal(path)


def test_a_doubled_column_name_is_an_error(tmp_path: Path) -> None:
    """Nobody knows which one is meant, so the name is said before anything is read."""
    (tmp_path / "in.csv").write_text("text,id,id\na,1,2\n")
    pq.write_table(pa.table([["a"], ["1"], ["2"]], names=["text", "id", "id"]), tmp_path / "in.parquet")
    for name in ("in.csv", "in.parquet"):
        assert "'id' is there twice" in early_refusal(tmp_path / name, text_column="id")


@pytest.mark.parametrize(
    "kind",
    [
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.binary(3),
        pa.timestamp("us"),
        pa.list_(pa.string()),
        pa.struct([("x", pa.string())]),
        pa.dictionary(pa.int32(), pa.int64()),
        pa.decimal128(5, 2),
    ],
    ids=str,
)
def test_a_parquet_column_that_holds_no_text_is_an_error(kind: pa.DataType, tmp_path: Path) -> None:
    """It is refused before the first request, with its name and its type; so is it inside a struct."""
    column = pa.nulls(2, kind)
    nested = pa.StructArray.from_arrays([column], ["inner"])
    pq.write_table(pa.table({"outer": nested, "other": column}), tmp_path / "in.parquet")
    shown = str(pq.read_schema(tmp_path / "in.parquet").field("other").type)
    shown = shown.removeprefix("dictionary<values=").partition(",")[0] if shown.startswith("dict") else shown
    for name in ("other", "outer.inner"):
        said = early_refusal(tmp_path / "in.parquet", text_column=name)
        assert repr(name) in said
        assert shown in said


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_text_column_that_is_not_there_is_an_error(kind: str, tmp_path: Path) -> None:
    """The message names what is there, and what was probably meant."""
    path = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"id": [1], "text": ["a"]}), path)
    else:
        path.write_text(as_csv(["a"]) if kind == "csv" else as_jsonl(["a"]))
    said = early_refusal(path, text_column="texts")
    assert "'texts'" in said
    assert "id, text" in said
    assert "did you mean 'text'" in said
    assert "'nothing.like'" in early_refusal(path, text_column="nothing.like")


def test_a_json_member_missing_in_the_first_thousand_lines_is_an_error(tmp_path: Path) -> None:
    """In line 1,000 it is found; later is too late, and objects without any member are no exception."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": 1}\n' * 999 + '{"text": "x"}\n')
    assert texts_of(path)[-1] == "x"
    path.write_text('{"a": 1}\n' * 1_000 + '{"text": "x"}\n')
    assert "'text'" in early_refusal(path)
    path.write_text("{}\n" * 3)
    assert "'text'" in early_refusal(path)


def test_a_wrong_delimiter_is_guessed_from_the_header(tmp_path: Path) -> None:
    """A semicolon file read as CSV is told which delimiter to set."""
    (tmp_path / "in.csv").write_text("id;text\n1;a\n")
    assert "loader.delimiter" in early_refusal(tmp_path / "in.csv")
    assert texts_of(tmp_path / "in.csv", delimiter=";") == ["a"]


@pytest.mark.parametrize("name", ADDED)
def test_a_column_we_would_add_must_not_be_there(name: str, tmp_path: Path) -> None:
    """It is refused before the first request in CSV, Parquet and the first 1,000 JSON lines, and named."""
    (tmp_path / "in.csv").write_text(f"text,{name}\na,b\n")
    pq.write_table(pa.table({"text": ["a"], name: [1]}), tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n' * 999 + json.dumps({"text": "a", name: None}))
    for file in ("in.csv", "in.parquet", "in.jsonl"):
        assert repr(name) in early_refusal(tmp_path / file, ADDED)


@pytest.mark.parametrize("shown", ["predicted_label", r"predicted\u005flabel"])
def test_a_late_json_member_that_we_would_add_is_named_with_its_line(shown: str, tmp_path: Path) -> None:
    """After the first 1,000 lines it is found where it stands, however it is spelled."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n' * 5_000 + f'{{"text": "a", "{shown}": 1}}\n')
    said = refusal(path, ADDED)
    assert said.startswith(f"{path}:5001: ")
    assert "'predicted_label'" in said


def test_a_dotted_prefix_collides_with_names_only(tmp_path: Path) -> None:
    """With the prefix `p.` the column is called `p.label`; the member `label` of an object `p` is something else."""
    (tmp_path / "in.jsonl").write_text('{"text": "a", "p": {"label": 1}}\n')
    settings = Loader(input=str(tmp_path / "in.jsonl"))
    source, spec = open_source(settings), TextSpec(settings)
    source.check(spec, ["p.label"])
    assert [sent(block) for block in source.texts(spec)] == [["a"]]


def test_inputs_that_can_not_be_opened(tmp_path: Path) -> None:
    """No file, a directory and an ending without a format are said as what they are."""
    (tmp_path / "dir.csv").mkdir()
    (tmp_path / "in.docx").write_text("x")
    assert "no such file" in refusal(tmp_path / "none.csv")
    assert "directory" in refusal(tmp_path / "dir.csv")
    assert re.search(r"format", refusal(tmp_path / "in.docx"))


@pytest.mark.parametrize("template", ["{", "{}", "{a!r}", "{a:>5}", "no name"])
def test_a_template_of_anything_but_names_is_refused(template: str) -> None:
    """Offsets, conversions, formats and a template without a name are errors of the config."""
    with pytest.raises(ConfigError, match=r"loader\.template"):
        TextSpec(Loader(template=template))


@pytest.mark.parametrize("member", ["text", "other"])
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_bytes_of_another_encoding_are_named_wherever_they_stand(name: str, member: str, tmp_path: Path) -> None:
    """Latin-1 in a text or in another column, late in the file: exit 2 with the line, before anything of it is sent."""
    row = {"text": "größe", "other": "größe"} | {member: "gr@e"}
    line = json.dumps(row, ensure_ascii=False) if name == "in.jsonl" else ",".join(row.values())
    head = "" if name == "in.jsonl" else "text,other\n"
    good = line.replace("@", "o") + "\n"
    content = f"{head}{good * 1_500}{line}\n{good}".encode().replace(b"@", b"\xf6")
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}:{1_501 + bool(head)}: not utf-8 (byte 0xf6")


def test_how_deep_a_line_may_nest_is_the_same_for_every_reader(tmp_path: Path) -> None:
    """A line is a row or it is not, whoever asks: else labels would move to other rows."""
    lines = [f'{{"text": "{depth}", "x": {"[" * depth}{"]" * depth}}}' for depth in range(480, 1100, 7)]
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n' * 1_000 + "\n".join(lines))
    source, texts = skipping(tmp_path / "in.jsonl")
    assert isinstance(source, JsonlSource)
    skipped = source.skipped
    assert skipped > 50
    assert sum(len(block) for block in source.row_bytes()) == len(texts) == sum(len(rows) for rows in source.batches())
    assert source.skipped == skipped


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "ü"])
def test_a_member_of_any_name_can_be_the_text(name: str, tmp_path: Path) -> None:
    """Quotes, backslashes and line breaks in names, of the text or of what is added, are no bug."""
    (tmp_path / "in.jsonl").write_text(json.dumps({name: "hello"}) + "\n")
    assert texts_of(tmp_path / "in.jsonl", text_column=name) == ["hello"]
    assert "has a column" in refusal(tmp_path / "in.jsonl", (name,), text_column=name)


@pytest.mark.parametrize("key", ["predicted_label", r"predicted\u005flabel"])
def test_a_column_that_is_there_is_noticed_whatever_it_holds(key: str, tmp_path: Path) -> None:
    """Late in the file, however it is spelled: exit 2 before its line is sent."""
    late = f'{{"text": "b", "{key}": "\\u0000"}}\n'
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n' * 1_500 + late)
    assert ":1501: has a column 'predicted_label' already" in refusal(tmp_path / "in.jsonl", ("predicted_label",))


def test_a_column_that_is_found_out_late_is_looked_for_in_what_was_read_before(tmp_path: Path) -> None:
    """The names of classes are columns, and known only from the first answer on; by then a small file was read."""
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "predicted_prob_x": 1}\n')
    loader = Loader(input=str(tmp_path / "in.jsonl"))
    source, spec = open_source(loader), TextSpec(loader)
    source.check(spec, ["predicted_label"])
    reading = source.texts(spec)
    assert len(next(reading).texts) == 2
    with pytest.raises(InputError, match="predicted_prob_x"):
        source.check(spec, ["predicted_label", "predicted_prob_x"])
    assert next(reading, None) is None
    with pytest.raises(InputError, match=":2: has a column 'predicted_prob_x'"):
        list(source.row_bytes())  # type: ignore[attr-defined]


def test_large_records_are_held_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded in bytes where records are large and go through the csv module."""
    monkeypatch.setattr(pipeline.formats.source, "BLOCK_CHARS", 10_000)
    (tmp_path / "in.csv").write_text("text,b\n" + f'x"{"y" * 300_000},b\n' * 20)
    settings = Loader(input=str(tmp_path / "in.csv"))
    assert max(len(block.texts) for block in open_source(settings).texts(TextSpec(settings))) <= 2


def test_an_encoding_that_can_not_be_read_by_lines_is_refused() -> None:
    """Korean's ISO 2022 says once a file what its bytes mean."""
    with pytest.raises(ValueError, match="iso2022_kr"):
        Loader(encoding="iso2022_kr")


def test_what_the_csv_module_refuses_is_told_with_its_line(tmp_path: Path) -> None:
    """UTF-7 spells a line feed within a line: no traceback."""
    (tmp_path / "in.csv").write_bytes(b"id,text\n7,a+AAo-b\n8,y\n")
    assert refusal(tmp_path / "in.csv", encoding="utf-7").startswith(f"{tmp_path / 'in.csv'}:2: ")
