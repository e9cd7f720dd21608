"""Arbitrary contents: read as they were written, copied byte for byte, and read on from any block."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import rows_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joining import LABELS, joined, sendable, sent, texts_of

import pipeline.formats.source
from pipeline.config import Loader
from pipeline.formats import textfile as lines
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source

SPECIAL = st.sampled_from([*"\",;\t|\r\n\x00 \\'{}:\ufeff\u2028\x85\x0b\x0c\x1a\u0a0d\u0d0aé😀a0", "\r\n", '""', "\\u"])
CELLS = st.lists(SPECIAL | st.characters(exclude_categories=["Cs"]), max_size=8).map("".join)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
# What the file starts with, and how it is encoded.
ENCODINGS = st.sampled_from(
    [
        ("", "utf-8"),
        ("\ufeff", "utf-8"),
        ("\ufeff", "utf-16-le"),
        ("\ufeff", "utf-16-be"),
        ("", "utf-16-le"),
        ("", "latin-1"),
        ("", "shift_jis"),
    ]
)
many = settings(max_examples=2 * settings().max_examples, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples of this module."""
    return tmp_path_factory.mktemp("fidelity")


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks of three rows: nothing outside the loader may depend on where they end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.formats.source, "BLOCK_ROWS", 3)
        patch.setattr(lines, "READ_BYTES", 3)
        patch.setattr(lines, "MOST_LINES", 3)
        yield


def record_of(cells: list[str], delimiter: str, end: str, quoting: Any) -> str:
    """One record as the csv module writes it."""
    text = io.StringIO(newline="")
    # Python 3.11 quotes those line breaks only that are in its own line end.
    quoting = quoting if end == "\r\n" else csv.QUOTE_ALL
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerow(cells)
    return text.getvalue()


def added_to(row: int) -> list[str]:
    """Return the cells that `joined` appends to a row."""
    return [LABELS[row % 2], repr(0.5 + row / 1024), ""]


@pytest.mark.slow
@many
@given(data=st.data())
def test_csv_round_trip(data: st.DataObject, folder: Path) -> None:
    """What the csv module wrote is read as the same texts; each record keeps its bytes, three cells follow them."""
    bom, encoding = data.draw(ENCODINGS)
    delimiter = data.draw(st.sampled_from(",;\t|"))
    width = data.draw(st.integers(1, 3))
    quoting = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=8))
    rows = [[cell.encode(encoding, "replace").decode(encoding) for cell in row] for row in rows]
    text_at = data.draw(st.integers(0, width - 1))
    names = ["text" if index == text_at else f"c{index}" for index in range(width)]
    records, ends = [], []
    for row in [names, *rows]:
        ends.append(data.draw(ENDS))
        records.append(record_of(row, delimiter, ends[-1], data.draw(quoting)).removesuffix(ends[-1]))
    if data.draw(st.booleans()):
        ends[-1] = ""
    source, output = folder / "in.csv", folder / "out.csv"
    content = bom + "".join(itertools.chain(*zip(records, ends, strict=True)))
    source.write_bytes(content.encode(encoding))
    loader = {"encoding": encoding, "delimiter": delimiter}
    assert texts_of(source, **loader) == sendable([row[text_at] for row in rows])
    if delimiter == "\t":
        source, output = source.rename(folder / "in.tsv"), folder / "out.tsv"
    joined(source, output, loader=loader)
    added = [["predicted_label", "predicted_score", "predicted_error"], *map(added_to, range(len(rows)))]
    expected = bom + "".join(
        record + delimiter + delimiter.join(cells) + end
        for record, cells, end in zip(records, added, ends, strict=True)
    )
    assert output.read_bytes() == expected.encode(encoding)
    text = output.read_bytes().decode(encoding).removeprefix(bom)
    parsed = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    assert [cells[:width] for cells in parsed] == [names, *rows]


ANY_TEXT = CELLS | st.text(st.characters(), max_size=5)  # half surrogate pairs, too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**53, 2**70) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.builds(
    lambda text, others: others | {"text": text},
    ANY_TEXT | JSON,
    st.dictionaries(ANY_TEXT.filter(lambda name: not name.startswith("predicted_")), JSON, max_size=4),
)
BLANKS = st.sampled_from(["", " ", "\t", " \t "])


def line_of(row: dict[str, Any], data: st.DataObject, encoding: str) -> str:
    """One line as the json module writes it, with one kind of white space or another."""
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :  ")]))
    line = json.dumps(row, ensure_ascii=False, separators=separators)
    if data.draw(st.booleans()) or not encodable(line, encoding):
        line = json.dumps(row, separators=separators)
    return data.draw(BLANKS) + line + data.draw(BLANKS)


def encodable(text: str, encoding: str) -> bool:
    """Whether an encoding has all of these characters, and gives them back."""
    try:
        return text.encode(encoding).decode(encoding) == text
    except UnicodeError:
        return False


@pytest.mark.slow
@many
@given(data=st.data())
def test_jsonl_round_trip(data: st.DataObject, folder: Path) -> None:
    """What the json module wrote is read as the same texts; each line keeps its bytes up to its closing brace."""
    bom, encoding = data.draw(ENCODINGS)
    rows = data.draw(st.lists(OBJECTS, max_size=6))
    raw = [(line_of(row, data, encoding), data.draw(ENDS)) for row in rows]
    # A lone CR before a blank line's LF would be one line end, not two.
    between = [data.draw(st.sampled_from(["", "", " \n", " \r\n"])) for _ in rows]
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    content = bom + "".join(blank + line + end for blank, (line, end) in zip(between, raw, strict=True))
    source.write_bytes(content.encode(encoding))
    texts = [row["text"] for row in rows]
    known = [text if isinstance(text, str) and encodable(text, "utf-8") else None for text in texts]
    loader = {"encoding": encoding}
    assert texts_of(source, **loader) == sendable(known)
    joined(source, output, loader=loader)
    text = output.read_bytes().decode(encoding)
    assert text.startswith(bom)
    text = text.removeprefix(bom)
    for number, (row, (line, end)) in enumerate(zip(rows, raw, strict=True)):
        brace = line.rindex("}")
        assert text.startswith(line[:brace])
        stop = text.index("\n" if end == "\r\n" else end) + 1
        assert text[:stop].endswith(line[brace:] + end)
        values = (LABELS[number % 2], 0.5 + number / 1024, None)
        expected = row | dict(zip(("predicted_label", "predicted_score", "predicted_error"), values, strict=True))
        assert repr(json.loads(text[:stop])) == repr(json.loads(json.dumps(expected)))
        text = text[stop:]
    assert text == ""


@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=8))
@pytest.mark.parametrize("out", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("source", ["csv", "jsonl", "parquet"])
def test_strings_are_kept_between_formats(source: str, out: str, rows: list[list[str]], folder: Path) -> None:
    """Strings are the same after any conversion, whatever is in them."""
    path, output = folder / f"from.{source}", folder / f"to.{out}"
    named = [{"text": text, "other": other} for text, other in rows]
    if source == "parquet":
        pq.write_table(pa.Table.from_pylist(named), path)
    elif source == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in named))
    else:
        path.write_bytes("".join(record_of(row, ",", "\n", None) for row in [["text", "other"], *rows]).encode())
    joined(path, output)
    assert [[row["text"], row["other"]] for row in rows_of(output)] == rows


@given(rows=st.lists(OBJECTS, min_size=1, max_size=6))
@example(rows=[{"text": "", "n": 0}, {"text": "", "n": 0.0}])
@pytest.mark.parametrize("out", ["csv", "parquet"])
def test_json_values_are_kept_in_columns(out: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Every member leads back to its value: as a string, as a number, or as JSON text."""
    path, output = folder / "values.jsonl", folder / f"values.{out}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    joined(path, output)
    for row, found in zip(rows, rows_of(output), strict=True):
        for name, value in row.items():
            cell = found[name.encode("utf-8", "backslashreplace").decode()]
            assert any(same(each, value) for each in readings(cell)), (name, value, cell)


def readings(cell: Any) -> list[Any]:
    """List what a cell may stand for: itself, nothing, or the JSON text in it."""
    found = [cell, None] if cell in ("", None) else [cell]
    if isinstance(cell, str):
        for read in (json.loads, float):
            try:
                found.append(read(cell))
            except (ValueError, RecursionError):
                continue
    return found


def same(found: Any, value: Any) -> bool:
    """Equal, not a number either, or spelled out because no file but JSON holds half a surrogate pair."""
    if isinstance(value, str) and isinstance(found, str):
        return found in (value, value.encode("utf-8", "backslashreplace").decode())
    if isinstance(value, float | int) and not isinstance(value, bool) and isinstance(found, float):
        # An integer of a column with other numbers is a double, where these are exact.
        return found == value or (math.isnan(found) and math.isnan(value))
    return repr(json.loads(json.dumps(found))) == repr(json.loads(json.dumps(value)))


@given(data=st.data())
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["csv", "one.csv", "jsonl"])
@pytest.mark.usefixtures("small_blocks")
def test_reading_on_from_any_block(kind: str, skip: bool, data: st.DataObject, folder: Path) -> None:
    """From each block's position on, the rest of the texts and of the positions is that of the whole reading."""
    bom, encoding = data.draw(ENCODINGS)
    texts = data.draw(st.lists(CELLS, min_size=1, max_size=20))
    texts = [text.encode(encoding, "replace").decode(encoding) for text in texts]
    header = {"csv": ["id", "text"], "one.csv": ["text"]}.get(kind)
    pieces = [bom, record_of(header, ",", data.draw(ENDS), csv.QUOTE_MINIMAL) if header else ""]
    for number, text in enumerate(texts):
        end = data.draw(ENDS)
        if header is None:
            pieces.append(json.dumps({"text": text}, ensure_ascii=not encodable(text, encoding)) + end)
        else:
            pieces.append(record_of([f"{number}", text][-len(header) :], ",", end, csv.QUOTE_MINIMAL))
        if skip and data.draw(st.booleans()):
            pieces.append("ragged,line,of,many\r\n" if header else "{\r\n")
        # A lone CR before a blank line's LF would be one line end, not two.
        pieces.append(data.draw(st.sampled_from(["", "", " \n" if header is None else "\r\n" if end != "\r" else ""])))
    path = folder / f"resume.{kind}"
    path.write_bytes("".join(pieces).encode(encoding))
    loader = Loader(input=str(path), encoding=encoding, on_bad_line="skip" if skip else "stop")
    source, spec = open_source(loader), TextSpec(loader)
    blocks = list(source.texts(spec))
    whole = [text for block in blocks for text in sent(block)]
    if kind == "one.csv":  # blank lines are rows here
        assert [text for text in whole if text] == [text for text in sendable(texts) if text]
    else:
        assert whole == sendable(texts)
    assert max(len(block.texts) for block in blocks) <= 3
    for block in blocks:
        rest = list(source.texts(spec, block.position))
        assert rest[0].position == block.position
        assert [text for each in rest for text in sent(each)] == whole[block.position.row :]


@settings(max_examples=5 * settings().max_examples, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\n\r", b"bc\r", b"\nd", b"\x85\x0b\x0c"]), max_size=12))
def test_lines_do_not_depend_on_how_the_bytes_came(blocks: list[bytes]) -> None:
    """However a stream is cut into blocks, its lines are those of the whole."""
    whole = b"".join(blocks)
    assert list(itertools.chain.from_iterable(lines.rows_of_lines(iter(blocks)))) == whole.splitlines(keepends=True)
