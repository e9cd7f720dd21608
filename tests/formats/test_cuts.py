"""Where a file can be cut: read from one cut to the next, it has the rows that it has when it is read at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joining import sent, texts_of
from pyarrow import feather, orc

import pipeline.formats.source
import pipeline.formats.textfile
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source
from pipeline.texts import Position

CELL = st.sampled_from(["", "a", '"b"', '"c""d"', '"e,f"', '"g\nh"', '"i\r\nj"', 'k"l', ' "o"', "é", '""'])
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])
LINE = st.sampled_from(['{"x": "a"}', '{"x": "b\\n", "y": 1}', "", "  ", '{"x": null}', '{"y": "{}"}', '{"x": "é"} '])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples of this module."""
    return tmp_path_factory.mktemp("cuts")


@pytest.fixture(params=[1, 9, 1 << 20], scope="module", autouse=True)
def block_bytes(request: pytest.FixtureRequest) -> object:
    """Read buffers of any size, and blocks of few rows: cuts are where these begin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.formats.textfile, "READ_BYTES", request.param)
        patch.setattr(pipeline.formats.textfile, "MOST_LINES", request.param)
        patch.setattr(pipeline.formats.source, "BLOCK_ROWS", 2)
        yield


def read_in_shards(path: Path, rows: int, **loader: Any) -> list[str | None]:
    """The texts of all rows, each shard read by a source of its own."""
    config = Loader(input=str(path), text_column="x", **loader)
    spec, found, here = TextSpec(config), list[str | None](), None
    for cut in open_source(config).cuts(rows):
        source, start = open_source(config), here.row if here else 0
        source.check(spec, [])
        texts = [(block.position.row, sent(block)) for block in source.texts(spec, here)]
        assert all(row >= start for row, _ in texts)
        shard = [text for row, some in texts for text in (some if row < cut.row else [])]
        assert cut.row >= start
        found += shard[: cut.row - start]
        assert len(found) == cut.row
        here = cut
    return found


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(st.lists(CELL, min_size=1, max_size=3), ENDS), max_size=9), st.integers(1, 4))
@example([(["a", "b"], "\n"), (['"c\nd"', "e"], "\n"), (["f", "g"], "\n")], 1)
def test_csv(folder: Path, rows: list[tuple[list[str], str]], every: int) -> None:
    """Line feeds in quotes, odd quotes, blank and ragged lines, any line end."""
    path = folder / "in.csv"
    path.write_bytes(("x,y\n" + "".join(",".join(cells) + end for cells, end in rows)).encode())
    try:
        whole = texts_of(path, text_column="x", on_bad_line="skip")
    except InputError:
        return
    assert read_in_shards(path, every, on_bad_line="skip") == whole


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(LINE, ENDS), max_size=9), st.integers(1, 4), st.booleans())
def test_json_lines(folder: Path, lines: list[tuple[str, str]], every: int, has_bad: bool) -> None:
    """Blank lines, bad lines, any line end."""
    path, bad = folder / "in.jsonl", '{"x": "z"}\n{"x": \n{"x": "z"}\n' if has_bad else '{"x": "z"}\n'
    path.write_bytes(("\ufeff" + "".join(line + end for line, end in lines) + bad).encode())
    loader = {"on_bad_line": "skip"} if has_bad else {}
    assert read_in_shards(path, every, **loader) == texts_of(path, text_column="x", **loader)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=6), st.integers(1, 8))
def test_parquet(folder: Path, groups: list[int], every: int) -> None:
    """Row groups of any size, empty ones, too: a large one is cut, small ones stay together."""
    path, row = folder / "in.parquet", 0
    schema = pa.schema([("x", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for size in groups:
            table = pa.table({"x": [f"row {row + index}" for index in range(size)]}, schema=schema)
            writer.write_table(table, row_group_size=size or 1)
            row += size
    assert read_in_shards(path, every) == texts_of(path, text_column="x")
    cuts = [cut.row for cut in open_source(Loader(input=str(path))).cuts(every)]
    assert all(later - earlier >= every for earlier, later in zip([0, *cuts[:-2]], cuts[:-1], strict=False))


@pytest.mark.parametrize("ending", ["arrow", "orc", "json"])
def test_other_formats(ending: str, folder: Path) -> None:
    """By rows, where rows can be found by their number; a JSON array is read from its start, so it has no cuts."""
    table, path = pa.table({"x": [f"row {row}" for row in range(20)]}), folder / f"in.{ending}"
    if ending == "json":
        path.write_text(json.dumps(table.to_pylist()))
        assert list(open_source(Loader(input=str(path))).cuts(5)) == []
        return
    (feather.write_feather if ending == "arrow" else orc.write_table)(table, str(path))
    assert [cut.row for cut in open_source(Loader(input=str(path))).cuts(6)] == [6, 12, 18, 20]
    assert read_in_shards(path, 6) == texts_of(path, text_column="x")


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
def test_text_files_have_cuts_where_buffers_end(name: str, folder: Path) -> None:
    """As many as there are buffers, if that many are asked for."""
    row = '{"x": "a"}' if name == "in.jsonl" else '"a\nb"'
    (folder / name).write_text("x\n" * (name == "in.csv") + f"{row}\n" * 20)
    cuts = [cut.row for cut in open_source(Loader(input=str(folder / name), text_column="x")).cuts(1)]
    assert cuts[-1] == 20
    assert len(cuts) > 5 or pipeline.formats.textfile.READ_BYTES > 1000


def test_cuts_go_on_from_a_position(folder: Path) -> None:
    """A file that was begun is cut from where its first open row is, with rows counted from the start."""
    path = folder / "in.csv"
    path.write_text("x\n" + "".join(f"row {row}\n" for row in range(10)))
    source = open_source(Loader(input=str(path), text_column="x"))
    start = Position(4, len("x\n") + 4 * len("row 0\n"), 5)
    assert [cut.row for cut in source.cuts(100, start)] == [10]


@pytest.mark.parametrize("name", ["in.csv.gz", "in.jsonl.gz"])
def test_what_is_compressed_has_no_cuts(name: str, folder: Path) -> None:
    """It is read from its start, by one worker."""
    with pa.output_stream(folder / name, compression="gzip") as file:
        file.write(b'{"x": "a"}\n' if "jsonl" in name else b"x\na\n")
    assert list(open_source(Loader(input=str(folder / name))).cuts(1)) == []
