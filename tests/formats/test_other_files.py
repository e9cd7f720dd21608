"""Files that are not what their name says, and compressed files that Arrow alone does not read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from files import as_jsonl, zstd
from joining import texts_of

from pipeline.config import Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source

ROWS = b"".join(b'{"id": %d, "text": "a"}\n' % number for number in range(120_000)) + b'{"id": 120000, "text": "b"}\n'


def parquet() -> bytes:
    """A Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), sink)
    return sink.getvalue()


def archive() -> bytes:
    """A zip archive, as `.xlsx` files are."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("a.jsonl", '{"text": "a"}')
    return sink.getvalue()


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (parquet(), r"Parquet.*loader\.format"),
        (gzip.compress(b"text\na\n"), r"gzip.*\.gz"),
        (zstd(b"text\na\n"), r"zstd.*\.zst"),
        (bz2.compress(b"text\na\n"), r"bzip2.*\.bz2"),
        (lzma.compress(b"text\na\n"), "xz -d"),
        (archive(), "zip archive or an Excel file"),
        (b"\n<!doctype html>", "web page"),
    ],
    ids=["parquet", "gzip", "zstd", "bzip2", "xz", "zip", "html"],
)
def test_a_file_under_another_name(content: bytes, words: str, name: str, tmp_path: Path) -> None:
    """Its first bytes say what it is; the message says what to do, and not to try another encoding."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        texts_of(tmp_path / name)
    assert "encoding" not in str(caught.value)


OF_COLUMNS = {
    "csv": (b"text\na\n", r"is a text file, not \w+; end its name in \.csv, \.tsv or"),
    "jsonl": (b'{"text": "a"}\n', r"end its name in \.jsonl, or \.json if it is an array"),
    "parquet": (parquet(), r"is a Parquet file; end its name in \.parquet"),
    "gzip": (gzip.compress(b"text\na\n"), r"gzip; end its name in \.csv\.gz or \.jsonl\.gz, or decompress it"),
    "xlsx": (archive(), "zip archive or an Excel file"),
    "html": (b"\n<!doctype html>", "web page"),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(f"in.{ending}", kind) for ending in ("parquet", "arrow", "orc", "xlsx") for kind in OF_COLUMNS if kind != ending],
)
def test_a_file_named_after_a_format_of_columns(name: str, kind: str, tmp_path: Path) -> None:
    """The same of formats that are not read as text."""
    content, words = OF_COLUMNS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        texts_of(tmp_path / name)


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow", "in.orc", "in.xlsx", "in.json", "in.csv", "in.tsv.gz"])
def test_a_file_of_no_bytes(name: str, tmp_path: Path) -> None:
    """Is empty in each format, which `run.allow_empty` allows."""
    (tmp_path / name).write_bytes(b"")
    source = open_source(Loader(input=str(tmp_path / name)))
    assert source.is_empty
    assert list(source.texts(TextSpec(Loader()))) == []
    assert len(source.schema()) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"text\na\n", "not compressed with gzip"), (parquet(), "Parquet"), (zstd(b"a"), "zstd")],
    ids=["csv", "parquet", "zstd"],
)
def test_a_name_that_says_compressed_wrongly(content: bytes, words: str, tmp_path: Path) -> None:
    """The ending is wrong, the data is not broken."""
    (tmp_path / "in.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match=words):
        texts_of(tmp_path / "in.csv.gz")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("content", ['[\n{"text":"a"},\n{"text":"b"}\n]\n', '[{"text":"a"}, {"text":"b"}]', " [ "])
@pytest.mark.parametrize("on_bad_line", ["stop", "skip"])
def test_a_json_array_is_no_json_lines(content: str, encoding: str, on_bad_line: str, tmp_path: Path) -> None:
    """It is told so, also where bad lines are left out, which would lose rows."""
    (tmp_path / "in.jsonl").write_bytes(content.encode(encoding))
    with pytest.raises(InputError, match=r"JSON array.*loader\.format = \"json\"") as caught:
        texts_of(tmp_path / "in.jsonl", encoding=encoding, on_bad_line=on_bad_line)
    assert "skip" not in str(caught.value)


def test_objects_over_several_lines_are_not_to_be_left_out(tmp_path: Path) -> None:
    """`skip` would lose all rows; but a line that is an array among objects may be left out."""
    path = tmp_path / "in.jsonl"
    path.write_text('{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n')
    with pytest.raises(InputError, match="jq -c") as caught:
        texts_of(path)
    assert "skip" not in str(caught.value)
    path.write_text('[{"text":"a"}]\n{"text":"b"}\n[1]\n')
    assert texts_of(path, on_bad_line="skip") == ["b"]


@pytest.mark.slow
@pytest.mark.parametrize("zeros", [1, 512, 5 << 20])
def test_gzip_that_is_filled_up_with_zeros(zeros: int, tmp_path: Path) -> None:
    """As on tapes and disk images: all rows are read, however many members there are."""
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(ROWS, 1) + gzip.compress(as_jsonl(["c"]).encode()) + bytes(zeros))
    texts = texts_of(path)
    assert (len(texts), texts[-2:]) == (120_002, ["b", "c"])


@pytest.mark.parametrize(
    "damage", [b"garbage", b"\0\0garbage", gzip.compress(b"x" * 99)[:-5]], ids=["garbage", "zeros", "cut"]
)
def test_gzip_with_anything_else_behind_is_broken(damage: bytes, tmp_path: Path) -> None:
    """Nothing is left out silently."""
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(as_jsonl(["a"]).encode()) + damage)
    with pytest.raises(InputError, match="cut short or broken"):
        texts_of(tmp_path / "in.jsonl.gz")


def long_window(data: bytes) -> bytes:
    """A zstd frame with a window of 2 GiB, as `zstd --long=31` makes it of a stream."""
    frame = zstandard.ZstdCompressor(write_content_size=False, level=1).compressobj()
    raw = bytearray(frame.compress(data) + frame.flush())
    assert raw[4] & 0x20 == 0  # there is a window descriptor
    raw[5] = 21 << 3
    return bytes(raw)


def test_zstd_with_a_long_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after frames that Arrow reads; without the package the message names the extra."""
    path = tmp_path / "in.jsonl.zst"
    path.write_bytes(zstd(ROWS) + long_window(as_jsonl(["c", os.urandom(9).hex(), "d"]).encode()))
    texts = texts_of(path)
    assert (len(texts), texts[-4], texts[-3], texts[-1]) == (120_004, "b", "c", "d")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="cut short or broken"):
        texts_of(path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"pip install \"classify-pipeline\[zstd\]\""):
        texts_of(path)
