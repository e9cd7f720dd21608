"""The CSV scanner finds what the csv module finds, whatever the file holds."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joining import sendable, texts_of

import pipeline.formats.textfile
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.csv import CsvScanner
from pipeline.formats.dialect import Dialect
from pipeline.formats.source import TextSpec
from pipeline.formats.textfile import TextFile
from pipeline.loader import open_source
from pipeline.storage import locate
from pipeline.texts import Position

CELL = st.sampled_from(
    ["", "a", '"b"', '"c""d"', '"e,f"', '"g\nh"', '"i\r\nj"', 'k"l', '"m"n', ' "o"', "é", '""', '"', "\0"]
)
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples of this module."""
    return tmp_path_factory.mktemp("regular")


@pytest.fixture(params=[1, 7, 1 << 20], scope="module", autouse=True)
def block_bytes(request: pytest.FixtureRequest) -> object:
    """Read buffers of any size: nothing may depend on where they end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.formats.textfile, "READ_BYTES", request.param)
        patch.setattr(pipeline.formats.textfile, "MOST_LINES", request.param)
        yield


@pytest.mark.slow
@settings(max_examples=7 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(st.lists(CELL, max_size=3), ENDS), max_size=8), st.sampled_from([0, 1]))
@example([(["a", "b"], "\n"), (['"'], "\n"), (["c", "d"], "\n")], 1)
@example([(["a", '"g\nh"'], "\r"), (["c", "d"], "\r")], 0)
def test_any_file_reads_as_the_csv_module_reads_it(
    folder: Path, rows: list[tuple[list[str], str]], column: int
) -> None:
    """Odd quotes, blank lines, ragged lines, any line end: the same cells in the same rows, or an error."""
    content = "x,y\n" + "".join(",".join(cells) + end for cells, end in rows)
    (folder / "in.csv").write_bytes(content.encode())
    wanted = [cells[column] for cells in list(csv.reader(io.StringIO(content, newline="")))[1:] if len(cells) == 2]
    try:
        found = texts_of(folder / "in.csv", text_column="xy"[column], on_bad_line="skip")
    except InputError as error:
        assert "never closed" in str(error)  # noqa: PT017 - there may be an error or not
        return
    assert found == sendable(wanted)


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(st.lists(CELL, min_size=2, max_size=2), ENDS), max_size=8))
def test_the_bytes_of_all_records_are_those_of_the_file(folder: Path, rows: list[tuple[list[str], str]]) -> None:
    """Nothing is left out, nothing is doubled, and no record begins within another."""
    content = "x,y\n" + "".join(",".join(cells) + end for cells, end in rows)
    (folder / "in.csv").write_bytes(content.encode())
    source = open_source(Loader(input=str(folder / "in.csv"), on_bad_line="skip"))
    try:
        records = [record for block in source.row_bytes() for record in block]  # type: ignore[attr-defined]
    except InputError:
        return
    if not source.skipped:
        assert b"x,y\n" + b"".join(records) == content.encode()


REGULAR = st.sampled_from(["", "a", '"b"', '"c""d"', '"e,f"', '"g\nh"', '"i\r\nj"', '"k\rl"', "é", '""', '"m""\n"'])


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(st.lists(CELL | REGULAR, min_size=2, max_size=2), ENDS), max_size=6), st.integers(0, 3))
@example([(["a", '"g\nh"'], "\n"), (['"i\r\nj"', '"k\rl"'], "\r\n")], 0)
@example([(["a", "b"], "\n"), (['"g\nh"', "c"], "\n")], 1)
def test_a_reading_after_another_finds_the_same_records(
    folder: Path, rows: list[tuple[list[str], str]], blank: int
) -> None:
    """What the first one has seen of the file makes the second one quicker, and nothing else."""
    content = "x,y\n" + "".join(",".join(cells) + end for cells, end in rows) + "\n" * blank
    (folder / "in.csv").write_bytes(content.encode())
    loader = Loader(input=str(folder / "in.csv"), text_column="x", on_bad_line="skip")
    source, spec = open_source(loader), TextSpec(loader)
    try:
        before = [record for block in source.row_bytes() for record in block]  # type: ignore[attr-defined]
        texts = sum(len(block.texts) for block in source.texts(spec))
    except InputError:
        return
    after = [record for block in source.row_bytes() for record in block]  # type: ignore[attr-defined]
    assert after == before
    assert len(after) == texts


def test_regular_records_are_read_at_once(tmp_path: Path) -> None:
    """Quoted or not, a regular file is read to its end without the csv module, and its places are right."""
    body = 'a,1\n"b,""c""\nd",2\r\n,3\ne,4'
    (tmp_path / "in.csv").write_text(body, newline="")
    file = TextFile(locate(str(tmp_path / "in.csv")), "utf-8")
    scanner = CsvScanner(file.buffers(Position(0, 0, 0)), Position(0, 0, 0), Dialect(","), width=2, column=0)
    cells = [cell for _, _, found in scanner if found is not None for cell in found.to_pylist()]
    assert cells == [b"a", b'b,""c""\nd', b""]
    assert scanner.position == Position(3, body.index("e,4"), 4)
    assert b"".join(scanner.rest()) == b"e,4"
