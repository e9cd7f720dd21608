"""The writer: text records keep their own bytes, and the same rows always give the same output."""

from __future__ import annotations

import asyncio
import bz2
import gc
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import answers_of, failed
from files import rows_of
from joining import ADDED, joined, predictions_of

from pipeline.answers import Answers
from pipeline.errors import InputError

HEAD = b"predicted_label,predicted_score,predicted_error"


def csv_joined(tmp_path: Path, content: bytes, **settings: Any) -> bytes:
    """Return the output for a CSV of these bytes."""
    (tmp_path / "in.csv").write_bytes(content)
    joined(tmp_path / "in.csv", tmp_path / "out.csv", **settings)
    return (tmp_path / "out.csv").read_bytes()


def test_csv_records_keep_their_bytes(tmp_path: Path) -> None:
    """Needless quotes, spaces, mixed line ends, BOM and cells that look like numbers stay as they are."""
    content = b'\xef\xbb\xbf"id", text ,text\r\n"007",1e5,"a ""b"",\nc"\n NA ,,\xc3\xa9\r1,"2"x, z\r\n'
    assert csv_joined(tmp_path, content) == (
        b'\xef\xbb\xbf"id", text ,text,' + HEAD + b'\r\n"007",1e5,"a ""b"",\nc",no,0.5,\n'
        b' NA ,,\xc3\xa9,yes,0.5009765625,\r1,"2"x, z,no,0.501953125,\r\n'
    )


def test_csv_without_a_last_line_end_keeps_to_that(tmp_path: Path) -> None:
    """The last record gets its cells and no line end; so does a header that stands alone."""
    assert csv_joined(tmp_path, b"text\na") == b"text," + HEAD + b"\na,no,0.5,"
    assert csv_joined(tmp_path, b"text") == b"text," + HEAD


def test_csv_blank_lines(tmp_path: Path) -> None:
    """A blank line is a row of a one-column CSV."""
    out = csv_joined(tmp_path, b"text\n\nb\n\n")
    assert out == b"text," + HEAD + b"\n,no,0.5,\nb,yes,0.5009765625,\n,no,0.501953125,\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_csv_keeps_its_encoding(encoding: str, tmp_path: Path) -> None:
    """The added cells are in the file's own encoding, its BOM stays the only one."""
    content = 'id,text\r\n1,"größe\n"\r\n2,b'
    out = csv_joined(tmp_path, content.encode(encoding), loader={"encoding": encoding})
    expected = f'id,text,{HEAD.decode()}\r\n1,"größe\n",no,0.5,\r\n2,b,yes,0.5009765625,'
    assert out == expected.encode(encoding)


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_csv_keeps_its_delimiter(delimiter: str, tmp_path: Path) -> None:
    """CSV to CSV keeps the records' bytes whatever their delimiter, and appends with the same."""
    content = f'"id"{delimiter}text\n01{delimiter}"a"\n'.encode()
    out = csv_joined(tmp_path, content, loader={"delimiter": delimiter})
    added = HEAD.decode().replace(",", delimiter)
    assert (
        out
        == f'"id"{delimiter}text{delimiter}{added}\n01{delimiter}"a"{delimiter}no{delimiter}0.5{delimiter}\n'.encode()
    )


def test_tsv_stays_tsv_and_becomes_csv(tmp_path: Path) -> None:
    """TSV to TSV keeps the records' bytes; TSV to CSV makes the same cells anew."""
    (tmp_path / "in.tsv").write_text('"id"\ttext\n01\t"a, b"\n')
    joined(tmp_path / "in.tsv", tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_bytes() == (
        b'"id"\ttext\t' + HEAD.replace(b",", b"\t") + b'\n01\t"a, b"\tno\t0.5\t\n'
    )
    joined(tmp_path / "in.tsv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"id,text," + HEAD + b'\n01,"a, b",no,0.5,\n'


def test_ragged_lines_that_are_skipped_are_not_copied(tmp_path: Path) -> None:
    """What was left out in the first reading is left out in the second, so rows and predictions stay together."""
    skip = {"on_bad_line": "skip"}
    out = csv_joined(tmp_path, b"id,text\n1,a\n2\n3,c\n", loader=skip)
    assert out == b"id,text," + HEAD + b"\n1,a,no,0.5,\n3,c,yes,0.5009765625,\n"
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": \n{"text": "c"}\n')
    joined(tmp_path / "in.jsonl", tmp_path / "out.jsonl", loader=skip)
    assert [row["text"] for row in rows_of(tmp_path / "out.jsonl")] == ["a", "c"]


def test_added_cells_are_quoted_where_they_must_be(tmp_path: Path) -> None:
    """A label or an error with delimiters, quotes or line breaks in it is still one cell."""
    label = 'a,"b"\r\nc\rd'
    predictions = Answers.joined([answers_of([label], [0.5]), failed('rejected: "x", y\nz')])
    csv_joined(tmp_path, b"text\na\nb\n", predictions=predictions)
    rows = rows_of(tmp_path / "out.csv")
    assert [row["predicted_label"] for row in rows] == [label, ""]
    assert [row["predicted_error"] for row in rows] == ["", 'rejected: "x", y\nz']


def test_json_lines_keep_their_bytes(tmp_path: Path) -> None:
    """Spaces, escapes, order, doubled members, numbers and line ends stay; members are appended before the brace."""
    lines = [
        b'\xef\xbb\xbf{ "text" : "a\\u00e9\\/" , "n": 1.0e+05, "n": 007e0 }  \r\n'.replace(b"007e0", b"7e0"),
        b"\r\n",
        b"{}\n",
        b' \t{\t} \r{"text": "}", "o": {"x": {}}, "big": 123456789012345678901234567890, "s": "\\ud800", "f": NaN}\n',
        b'{"text":"last"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"".join(lines))
    joined(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    out = (tmp_path / "out.jsonl").read_bytes()
    added = [
        f'"predicted_label":"{"no" if n % 2 == 0 else "yes"}","predicted_score":{0.5 + n / 1024}' for n in range(5)
    ]
    one, two, three, four, five = (f'{each},"predicted_error":null}}'.encode() for each in added)
    assert out == (
        lines[0].replace(b"}  \r\n", b"," + one + b"  \r\n")
        + b"{" + two + b"\n \t{\t" + three
        + b' \r{"text": "}", "o": {"x": {}}, "big": 123456789012345678901234567890, "s": "\\ud800", "f": NaN,' + four
        + b'\n{"text":"last",' + five
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin-1", "shift_jis"])
def test_json_lines_keep_their_encoding(encoding: str, tmp_path: Path) -> None:
    """Members are appended in the file's own encoding; a label it does not have is escaped."""
    text = "größe" if encoding == "latin-1" else "ポ}ソ"
    (tmp_path / "in.jsonl").write_bytes(f'{{"text": "{text}"}} \r\n{{"text": "b"}}'.encode(encoding))
    predictions = answers_of(["☃", "b"], [0.5, 1.0])
    joined(tmp_path / "in.jsonl", tmp_path / "out.jsonl", predictions, loader={"encoding": encoding})
    first, second = (tmp_path / "out.jsonl").read_bytes().decode(encoding).split("\r\n")
    assert first.startswith(f'{{"text": "{text}",')
    assert first.endswith("} ")
    assert json.loads(first) == dict(zip(("text", *ADDED), (text, "☃", 0.5, None), strict=True))
    assert json.loads(second)["predicted_label"] == "b"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "csv.gz"])
def test_the_output_does_not_depend_on_how_the_answers_came(kind: str, tmp_path: Path) -> None:
    """The same rows give the same bytes, whatever chunks the checkpoint holds and whenever it is written."""
    pq.write_table(
        pa.table({"text": [f"text {n}" for n in range(9_000)]}), tmp_path / "in.parquet", row_group_size=4_000
    )
    predictions = answers_of(["no", "yes", "no"] * 3_000, [0.1, 0.2, 0.3] * 3_000, [[0.4, 0.6]] * 9_000)
    outputs = []
    for chunk_rows in (256, 8_999):
        joined(
            tmp_path / "in.parquet", tmp_path / f"out.{kind}", predictions, chunk_rows=chunk_rows, probs="list",
        )  # fmt: skip
        outputs.append((tmp_path / f"out.{kind}").read_bytes())
    assert outputs[0] == outputs[1]


def unzstd(data: bytes) -> bytes:
    """Decompress a zstd file."""
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read())


@pytest.mark.parametrize(("ending", "expand"), [(".gz", gzip.decompress), (".bz2", bz2.decompress), (".zst", unzstd)])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "ndjson"])
def test_compressed_outputs_carry_no_clock(
    kind: str, ending: str, expand: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """The output is compressed as its ending says, readable by the usual tools, and the same tomorrow."""
    (tmp_path / "in.csv").write_text("text\n" + "a\n" * 500)
    joined(tmp_path / "in.csv", tmp_path / f"out.{kind}")
    outputs = []
    for _ in range(2 if kind == "csv" else 1):
        joined(tmp_path / "in.csv", tmp_path / f"out.{kind}{ending}")
        outputs.append((tmp_path / f"out.{kind}{ending}").read_bytes())
        if kind == "csv" and ending == ".gz":
            time.sleep(1.1)  # the clock of gzip counts seconds
    assert len(set(outputs)) == 1
    assert expand(outputs[0]) == (tmp_path / f"out.{kind}").read_bytes()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_only_the_first_rows(kind: str, tmp_path: Path) -> None:
    """With a limit the output holds so many rows, the first ones."""
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"{n}\n" for n in range(10_000)))
    joined(tmp_path / "in.csv", tmp_path / f"out.{kind}", predictions_of(50), rows=50)
    assert [row["text"] for row in rows_of(tmp_path / f"out.{kind}")] == [f"{n}" for n in range(50)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_input_that_lost_rows_between_the_readings_is_an_error(kind: str, tmp_path: Path) -> None:
    """When the second reading gives fewer rows than there are answers, no output appears: rows would be missing."""
    (tmp_path / "in.csv").write_text("text\na\nb\nc\n")
    with pytest.raises(InputError):
        joined(tmp_path / "in.csv", tmp_path / f"out.{kind}", predictions_of(5), rows=5)
    assert not (tmp_path / f"out.{kind}").exists()
    assert not (tmp_path / f".out.{kind}.tmp").exists()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_join_that_is_stopped_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    """What `on_rows` raises ends it: no output, no half of one, and no complaint of a file that was not finished."""
    pq.write_table(pa.table({"text": ["a"] * 50_000}), tmp_path / "in.parquet")

    def stop(written: int) -> None:
        raise asyncio.CancelledError(written)

    with pytest.raises(asyncio.CancelledError):
        joined(tmp_path / "in.parquet", tmp_path / f"out.{kind}", predictions_of(9), rows=9, on_rows=stop)
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
def test_no_rows_give_a_header_or_schema(source: str, out: str, tmp_path: Path) -> None:
    """A file without rows becomes one with the columns of the input and ours, and without rows."""
    path = tmp_path / f"in.{source}"
    if source == "parquet":
        pq.write_table(pa.table({"id": pa.array([], pa.int8()), "text": pa.array([], pa.string())}), path)
    else:
        path.write_text({"csv": "id,text\n", "tsv": "id\ttext\n", "jsonl": ""}[source])
    joined(path, tmp_path / f"out.{out}", probs="columns", labels=["no", "yes"])
    original = [] if source == "jsonl" else ["id", "text"]
    names = [*original, *ADDED, "predicted_prob_no", "predicted_prob_yes"]
    if out == "parquet":
        table = pq.read_table(tmp_path / "out.parquet")
        assert table.column_names == names
        assert table.num_rows == 0
    else:
        delimiter = "\t" if out == "tsv" else ","
        expected = "" if out == "jsonl" else delimiter.join(names) + "\n"
        assert (tmp_path / f"out.{out}").read_text() == expected
