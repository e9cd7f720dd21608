"""JSON Lines out: members appended to the line's own bytes, or lines made from Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.checkpoint import Slab
from pipeline.loader.jsonl import JsonlSource
from pipeline.loader.lines import is_wide
from pipeline.loader.rows import Positions, RawRows
from pipeline.writer.added import AddedText, spliced
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft
from pipeline.writer.front import Pipe
from pipeline.writer.values import to_json

_encode = msgspec.json.Encoder().encode


class JsonlAppender:
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, draft: Draft | Pipe, source: JsonlSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._encoding = source.file.encoding
        self._stream.write(source.file.bom)
        # In ASCII, JSON's escapes stand for whatever the encoding does not have.
        self._members = _members(layout, labels, _encode if self._encoding == "utf-8" else _encode_ascii)

    def write(self, records: RawRows | Sequence[bytes], slab: Slab) -> None:
        """Append rows."""
        members = self._members.of(slab)
        if isinstance(records, RawRows) and (braces := _closing_braces(records)) is not None:
            for part in spliced(records, braces, members):
                self._stream.write(part)
            return
        append = self._append_wide if is_wide(self._encoding) else _append
        self._stream.write(b"".join(map(append, records, members.to_pylist())))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _append_wide(self, line: bytes, members: bytes) -> bytes:
        line8 = line.decode(self._encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        return _append(line8, members).decode("utf-8", "surrogatepass").encode(self._encoding, "surrogatepass")


class JsonlSink:
    """Writes record batches as JSON Lines: UTF-8, LF."""

    def __init__(self, draft: Draft | Pipe, schema: pa.Schema, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._names, self._members = schema.names, _members(layout, labels, _encode)

    def write(self, batch: pa.RecordBatch, slab: Slab) -> None:
        """Append rows."""
        columns = [to_json(column, name) for column, name in zip(batch.columns, self._names, strict=True)]
        rows = (_encode(dict(zip(self._names, row, strict=True))) for row in zip(*columns, strict=True))
        members = self._members.of(slab).to_pylist()
        self._stream.write(b"".join([b"%b%b}\n" % (row[:-1], added) for row, added in zip(rows, members, strict=True)]))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


def _members(layout: Layout, labels: Sequence[str], encode: Callable[[Any], bytes]) -> AddedText:
    """What is added to a line: members, each after a comma."""
    heads = [b",%b:" % encode(name) for name in layout.names]
    return AddedText(layout, labels, heads, [encode] * len(heads))


def _encode_ascii(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _closing_braces(rows: RawRows) -> Positions | None:
    """Where they stand, if every line ends with one that a comma may precede; None if one is out of the ordinary."""
    braces = rows.body_ends - 1
    before = rows.codes[braces - 1]
    is_usual = (rows.codes[braces] == ord("}")) & (before != ord("{")) & (before > ord(" "))
    return braces if is_usual.all() else None


def _append(line: bytes, members: bytes) -> bytes:
    """Only white space stands after the line's closing brace."""
    before, brace, after = line.rpartition(b"}")  # a line without one is seen as a change of the input, later
    if before.rstrip().endswith(b"{"):
        members = members[1:]
    return before + members + brace + after
