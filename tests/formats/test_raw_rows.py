"""Rows as one piece of bytes: cut, sliced and added to as if each row stood alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

from answers import answers_of
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import Answers, Labels
from pipeline.config import Config, Request, Writer
from pipeline.formats.appended_columns import AppendedColumns, AppendedText
from pipeline.formats.jsonl import _closing_braces, append_members
from pipeline.formats.textfile import MOST_LINES, RowBytes, insert, line_ends, rows_of_lines, whole_lines
from pipeline.texts import binary_array, string_array

PIECES = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b",", "ж".encode()]))
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


def test_no_piece_has_many_lines_or_waits_for_more_than_it_needs() -> None:
    """Lines of one byte come in parts; a CR at the end of each block ends a line as soon as no LF follows."""
    content = b"\n" * (3 * MOST_LINES + 5)
    assert max(len(rows) for rows in rows_of_lines(iter([content, content]))) <= MOST_LINES
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        for number in range(1, 9):
            taken = number
            yield b"aaaa\r"

    next(whole_lines(blocks()))
    assert taken == 2


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
    rows = RowBytes(content, 0, line_ends(content))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
    part = rows[:stop][start:]
    assert list(part) == content.splitlines(keepends=True)[start:stop]
    added = [b"<%d>" % index for index in range(start, stop)]
    if added:
        got = b"".join(insert(part, part.body_ends, binary_array(added)))
        assert got == b"".join(map(b"%b%b%b".__mod__, zip(bodies[start:stop], added, ends[start:stop], strict=True)))


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n"])), min_size=1, max_size=9))
def test_members_come_into_many_lines_as_into_one(pairs: list[tuple[bytes, bytes]]) -> None:
    """Lines that all end as usual are spliced, and come out as each of them alone; with any other, none is."""
    lines = [line + end for line, end in pairs]
    content = b"".join(lines)
    rows = RowBytes(content, 0, line_ends(content))
    members = [b',"n":%d' % index for index in range(len(lines))]
    alone = list(map(append_members, lines, members))
    for line, index in zip(alone, range(len(lines)), strict=True):
        assert json.loads(line)["n"] == index
    is_usual = all(line[-2:] != b"{}" and line[-2:-1] != b" " and line[-1:] == b"}" for line, _ in pairs)
    braces = _closing_braces(rows)
    assert (braces is not None) == is_usual
    if braces is not None:
        assert b"".join(insert(rows, braces, binary_array(members))) == b"".join(alone)


ROWS = st.lists(st.one_of(st.integers(0, 2), st.sampled_from(["rejected: a", "too_long: b"])), min_size=1)


@given(ROWS, st.lists(st.text(), min_size=3, max_size=3, unique=True), st.data())
def test_what_is_added_is_spelled_value_by_value(rows: list[int | str], labels: list[str], data: st.DataObject) -> None:
    """A label or an error, numbers in one go, more labels later: each row has what its own values say."""
    writer = Writer(probs=data.draw(st.sampled_from(["none", "list", "columns"])))
    request = Request(too_long=data.draw(st.sampled_from(["error", "truncate"])))
    columns, known = AppendedColumns(Config(writer=writer, request=request), 2), labels[:1]
    heads = [f",{json.dumps(name)}:".encode() for name in columns.names]
    added = AppendedText(columns, known, heads, [lambda value: json.dumps(value).encode()] * len(heads))
    assert added.of(_answers([0], labels)).to_pylist()[0].startswith(heads[0] + json.dumps(labels[0]).encode())
    known += labels[1:]
    made = _answers(rows, labels)
    for index, text in enumerate(added.of(made).to_pylist()):
        wanted = [column[index].as_py() for column in columns.arrays(made, string_array(labels))]
        assert json.loads(b"{%b}" % text[1:]) == dict(zip(columns.names, wanted, strict=True))


def _answers(rows: list[int | str], labels: list[str]) -> Answers:
    named = [labels[row] if isinstance(row, int) else None for row in rows]
    probs = [[1 / (row + 3), 1e-9] if isinstance(row, int) else None for row in rows]
    errors = {index: row for index, row in enumerate(rows) if isinstance(row, str)}
    made = answers_of(named, [None if row is None else row[0] for row in probs], probs, errors, {0})
    ids = made.ids_in(vocabulary := Labels(labels))
    return Answers(vocabulary, ids, made.scores, made.probs, errors=made.errors, truncated=made.truncated)
