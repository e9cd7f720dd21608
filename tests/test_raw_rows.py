"""Rows as one piece of bytes: cut, sliced and added to as if each row stood alone."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.loader.rows import RawRows, _line_ends, rows_of_lines, rows_of_records
from pipeline.writer.added import added_text, binary_array, spliced
from pipeline.writer.jsonl import _append, _closing_braces

PIECES = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b",", "ж".encode()]))
CELLS = st.sampled_from(["", "a", "ж,b", 'c"d', "e\nf", "g\r\nh", "\ri\r", '"\n"'])
LINES = st.sampled_from([b'{"a":1}', b'{"a": {}}', b'{"a":"{"}', b"{}", b"{ }", b'{"a":1 }', b' {"a":1} '])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def blocks_of(content: bytes, sizes: list[int]) -> list[bytes]:
    """`content` cut into blocks of these sizes, and the rest."""
    blocks = []
    for size in sizes:
        blocks.append(content[:size])
        content = content[size:]
    return [block for block in [*blocks, content] if block]


SIZES = st.lists(st.integers(1, 9), max_size=20)


@given(PIECES, SIZES)
def test_lines_are_those_that_bytes_has(pieces: list[bytes], sizes: list[int]) -> None:
    """Wherever the blocks end, the lines are those of the whole."""
    content = b"".join(pieces)
    rows = [row for some in rows_of_lines(iter(blocks_of(content, sizes))) for row in some]
    assert rows == content.splitlines(keepends=True)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2)), ENDS, SIZES)
def test_records_are_those_of_the_csv_module(cells: list[list[str]], end: bytes, sizes: list[int]) -> None:
    """A line break within quotes does not end a record, whatever the records end with."""
    records = [_csv_record(row) + end for row in cells]
    rows = [row for some in rows_of_records(iter(blocks_of(b"".join(records), sizes))) for row in some]
    assert rows == records


def _csv_record(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    return text.getvalue().encode()


@given(st.lists(st.tuples(PIECES, ENDS), min_size=1, max_size=9), st.data())
def test_what_is_added_stands_before_the_line_end(pairs: list[tuple[list[bytes], bytes]], data: st.DataObject) -> None:
    """Each row gets its own, before LF, CRLF or CR; in a slice of the rows, too, and where the last has no end."""
    bodies = [b"".join(pieces).replace(b"\r", b"").replace(b"\n", b"") for pieces, _ in pairs]
    ends = [end for _, end in pairs]
    if bodies[-1] and data.draw(st.booleans()):
        ends[-1] = b""
    for index, end in enumerate(ends[:-1]):  # CR and an empty line that ends with LF are one CRLF
        if end == b"\r" and not bodies[index + 1]:
            bodies[index + 1] = b"x"
    content = b"".join(body + end for body, end in zip(bodies, ends, strict=True))
    rows = RawRows(content, 0, _line_ends(content))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
    part = rows[:stop][start:]
    assert list(part) == content.splitlines(keepends=True)[start:stop]
    added = [b"<%d>" % index for index in range(start, stop)]
    if added:
        got = b"".join(spliced(part, part.body_ends, binary_array(added)))
        assert got == b"".join(map(b"%b%b%b".__mod__, zip(bodies[start:stop], added, ends[start:stop], strict=True)))


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n"])), min_size=1, max_size=9))
def test_members_come_into_many_lines_as_into_one(pairs: list[tuple[bytes, bytes]]) -> None:
    """Lines that all end as usual are spliced, and come out as each of them alone; with any other, none is."""
    lines = [line + end for line, end in pairs]
    content = b"".join(lines)
    rows = RawRows(content, 0, _line_ends(content))
    members = [b',"n":%d' % index for index in range(len(lines))]
    alone = list(map(_append, lines, members))
    for line, index in zip(alone, range(len(lines)), strict=True):
        assert json.loads(line)["n"] == index
    is_usual = all(line[-2:] != b"{}" and line[-2:-1] != b" " and line[-1:] == b"}" for line, _ in pairs)
    braces = _closing_braces(rows)
    assert (braces is not None) == is_usual
    if braces is not None:
        assert b"".join(spliced(rows, braces, binary_array(members))) == b"".join(alone)


VALUES = st.lists(st.tuples(st.none() | st.text(), st.none() | st.floats(allow_nan=False), st.booleans()), min_size=1)


@given(VALUES)
def test_what_is_added_is_spelled_value_by_value(rows: list[tuple[str | None, float | None, bool]]) -> None:
    """Nulls, texts that come again, numbers in one go: each row has what its own values say."""
    columns = [pa.array(each, kind) for each, kind in zip(zip(*rows, strict=True), KINDS, strict=True)]
    got = added_text([b"[", b",", b","], columns, lambda value: json.dumps(value).encode())
    assert [tuple(json.loads(text + b"]")) for text in got.to_pylist()] == rows


KINDS = [pa.string(), pa.float64(), pa.bool_()]
