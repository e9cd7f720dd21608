"""JSON arrays: rows are the objects in them, wherever the reads cut the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import Command, complaint
from fake import FakeServer
from files import COMPRESS, rows_of
from joining import joined, texts_of

from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats import textfile
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": 'a "quote", ]}[{ and \\ \\" \\\\', "more": {"x": [1, {"y": "],["}], "z": None}},
    {"text": "größe 😀", "id": 12345678901234567890, "half": 1.50},
    {"text": "line\nbreak\\"},
    {},
    {"id": 5, "text": "last"},
]
SPELLINGS = {
    "lines": "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n]\n",
    "pretty": json.dumps(ROWS, indent=4),
    "dense": json.dumps(ROWS, separators=(",", ":")),
    "windows": " \r\n [ "
    + " ,\r\n".join(json.dumps(row, indent=1) for row in ROWS).replace("\n", "\r\n")
    + "\r\n ] \r\n",
}
TEXTS = [row.get("text") for row in ROWS]


@pytest.mark.parametrize("read_bytes", [1, 7, 64, 2 << 20])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_object_is_a_row(spelling: str, read_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is spelled, and wherever a read ends; all that is not appended is copied byte for byte."""
    monkeypatch.setattr(textfile, "READ_BYTES", read_bytes)
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_bytes(SPELLINGS[spelling].encode())
    assert texts_of(source) == TEXTS
    joined(source, output)
    found = json.loads(output.read_bytes())
    assert [{name: value for name, value in row.items() if "predicted" not in name} for row in found] == ROWS
    assert [row["predicted_label"] for row in found] == ["no", "yes", "no", "yes", "no"]
    kept = output.read_bytes()
    for row in found:
        for comma in (b",", b""):
            appended = ",".join(f'"{name}":{json.dumps(row[name])}' for name in row if "predicted" in name).encode()
            kept = kept.replace(comma + appended, b"", 1) if comma + appended in kept else kept
    assert kept == source.read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "utf-32-be"])
@pytest.mark.parametrize("ending", COMPRESS)
def test_encodings_and_compression(encoding: str, ending: str, tmp_path: Path) -> None:
    """An array in another encoding than UTF-8 becomes UTF-8."""
    source, output = tmp_path / f"in.json{ending}", tmp_path / "out.json"
    source.write_bytes(COMPRESS[ending]('[{"text":"größe"},\n{"text":"b"}]'.encode(encoding)))
    loader = {"encoding": encoding}
    assert texts_of(source, **loader) == ["größe", "b"]
    joined(source, output, loader=loader)
    assert [row["text"] for row in json.loads(output.read_bytes().decode("utf-8-sig"))] == ["größe", "b"]


def test_reading_goes_on_from_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position of a block is all that is needed, also in an encoding that is decoded first."""
    monkeypatch.setattr("pipeline.formats.source.BLOCK_ROWS", 2)
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "in.json").write_bytes(SPELLINGS["pretty"].encode(encoding))
        loader = Loader(input=str(tmp_path / "in.json"), encoding=encoding)
        source, spec = open_source(loader), TextSpec(loader)
        blocks = list(source.texts(spec))
        assert [block.position.row for block in blocks] == [0, 2, 4]
        assert [bytes(block.texts.data) for block in source.texts(spec, blocks[1].position)] == [
            bytes(block.texts.data) for block in blocks[1:]
        ]
        assert blocks[1].position.line > 10


@pytest.mark.parametrize("content", ["[]", " [ \n ] \n", '[{"text":"a"}]'])
def test_short_arrays(content: str, tmp_path: Path) -> None:
    """An empty array is a file without rows."""
    (tmp_path / "in.json").write_text(content)
    assert texts_of(tmp_path / "in.json") == [row["text"] for row in json.loads(content)]
    joined(tmp_path / "in.json", tmp_path / "out.json", rows=len(json.loads(content)))  # no block where there is no row
    assert len(json.loads((tmp_path / "out.json").read_text())) == len(json.loads(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"text":"a"},\n{"text":"b"', "cut short"),
        ('[{"text":"a"},\n{"text":"b"}', "cut short"),
        ('[{"text":"a"},\n{"text":"b\\"}]', "cut short"),
        ('[{"text":"a"}]\n\n[{"text":"b"}]', r"in\.json:3: something comes after the end"),
        ('[\n{"text":"a"}\n}]', r"in\.json:3: a brace is closed here that was never opened"),
        ('[{"text":"a"}} ', r"in\.json:1: a brace is closed here that was never opened"),
        ('[\n{\n"text":"a",\n"n":x}]', r"in\.json:2: no JSON object: Expecting value at column 5 of its line 3"),
        ('[{"text":"a\tb"}]', "Invalid control character at column 11;"),
        ('[{"text":"a"},\n\n1]', r"in\.json:3: no JSON object"),
        ('[{"text":"a"},]', r"in\.json:1: no JSON object"),
        ('[{"text":"a"}\n{"text":"b"}]', "no JSON object"),
        ('[{"text":"a", "predicted_label": 1}]', "predicted_label"),
        ('{"text":"a"}\n{"text":"b"}', r"loader\.format = \"jsonl\""),
        ('{"rows": [{"text":"a"}]}', "jq"),
        ('[{"comment":"a"}]', "no 'text' in the first"),
        ("[" * 600 + "]" * 600, "no JSON object"),
    ],
)
def test_a_broken_array_is_refused(content: str, words: str, tmp_path: Path) -> None:
    """With the line, and before anything is written."""
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(InputError, match=words):
        joined(tmp_path / "in.json", tmp_path / "out.json")


def test_elements_that_are_no_objects_may_be_left_out(tmp_path: Path) -> None:
    """And are counted."""
    (tmp_path / "in.json").write_text('[1, {"text":"a"}, [{"text":"no"}], {"text":"b"}, "]"]')
    loader = {"on_bad_line": "skip"}
    assert texts_of(tmp_path / "in.json", **loader) == ["a", "b"]
    joined(tmp_path / "in.json", tmp_path / "out.json", loader=loader)
    assert [row["text"] for row in json.loads((tmp_path / "out.json").read_text())] == ["a", "b"]


def test_objects_stay_objects_in_json_lines_and_back(tmp_path: Path) -> None:
    """Both hold the same objects: what is nested does not become text, and numbers keep their spelling."""
    (tmp_path / "in.json").write_text(SPELLINGS["windows"])
    joined(tmp_path / "in.json", tmp_path / "out.jsonl")
    rows = rows_of(tmp_path / "out.jsonl")
    assert [{name: row[name] for name in row if "predicted" not in name} for row in rows] == ROWS
    (tmp_path / "in.jsonl").write_bytes(SPELLINGS["lines"][2:-3].replace("},\n", "}\n").encode("utf-16"))
    joined(tmp_path / "in.jsonl", tmp_path / "out.json", loader={"encoding": "utf-16"})
    assert json.loads((tmp_path / "out.json").read_text()) == rows
    assert b"12345678901234567890" in (tmp_path / "out.json").read_bytes()


def test_other_formats_become_an_array_and_back(tmp_path: Path) -> None:
    """CSV to JSON, and JSON to CSV and Parquet, by the table of conversions."""
    (tmp_path / "in.csv").write_text('id,text\n007,"a ""b"""\n,c\n')
    joined(tmp_path / "in.csv", tmp_path / "out.json")
    assert [(row["id"], row["text"]) for row in json.loads((tmp_path / "out.json").read_text())] == [
        ("007", 'a "b"'),
        ("", "c"),
    ]
    (tmp_path / "in.json").write_text(SPELLINGS["pretty"])
    joined(tmp_path / "in.json", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in found] == TEXTS
    assert json.loads(found[0]["more"]) == ROWS[0]["more"]


def test_a_run_of_an_array(classify: Command, fake: FakeServer, tmp_path: Path) -> None:
    """From the first rows to all, the output named by its input; and what a file without an array is told."""
    (tmp_path / "in.json").write_text(SPELLINGS["pretty"])
    classify("run", "-i", "in.json", "--url", fake.url, "--limit-rows", "2", "--quiet")
    assert len(json.loads((tmp_path / "in_labelled.json").read_text())) == 2
    classify("run", "-i", "in.json", "--url", fake.url, "--quiet")
    assert [row.get("text") for row in json.loads((tmp_path / "in_labelled.json").read_text())] == TEXTS
    (tmp_path / "lines.json").write_text('{"text":"a"}\n')
    complaint(classify("run", "-i", "lines.json", "--url", fake.url, expect=2), "loader.format")
