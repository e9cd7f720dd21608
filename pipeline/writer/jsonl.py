"""JSON Lines out: members appended to the line's own bytes, or lines made from Arrow columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.checkpoint import Slab
from pipeline.loader.jsonl import JsonlSource
from pipeline.loader.lines import is_wide
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft
from pipeline.writer.front import Pipe
from pipeline.writer.values import to_json

_encode = msgspec.json.Encoder().encode
# How the usual line ends: with its closing brace and LF, and before them with what a comma may follow.
_ends_as_usual = re.compile(rb"[^{ \t\r\n]}\n").fullmatch


class JsonlAppender:
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, draft: Draft | Pipe, source: JsonlSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._layout, self._labels = layout, labels
        self._encoding = source.file.encoding
        self._stream.write(source.file.bom)
        self._names = [b"%b:" % _encode(name) for name in layout.names]

    def write(self, records: Sequence[bytes], slab: Slab) -> None:
        """Append rows."""
        values = self._layout.values(slab, self._labels)
        if self._encoding == "utf-8":
            columns = list(map(_tokens, values))
            is_usual = all(map(_ends_as_usual, {line[-3:] for line in records}))
            self._stream.write((_append_at_once if is_usual else _append_each)(records, self._names, columns))
            return
        # In ASCII, JSON's escapes stand for whatever the encoding does not have.
        names = self._layout.names
        members = [json.dumps(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]
        self._stream.write(b"".join(map(self._append_encoded, records, members)))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _append_encoded(self, line: bytes, members: str) -> bytes:
        if not is_wide(self._encoding):
            return _append(line, members.encode("ascii"))
        line8 = line.decode(self._encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        return _append(line8, members.encode()).decode("utf-8", "surrogatepass").encode(self._encoding, "surrogatepass")


class JsonlSink:
    """Writes record batches as JSON Lines: UTF-8, LF."""

    def __init__(self, draft: Draft | Pipe, schema: pa.Schema, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._names, self._layout, self._labels = schema.names, layout, labels

    def write(self, batch: pa.RecordBatch, slab: Slab) -> None:
        """Append rows."""
        names = [*self._names, *self._layout.names]
        columns = [to_json(column, name) for column, name in zip(batch.columns, self._names, strict=True)]
        columns += self._layout.values(slab, self._labels)
        self._stream.write(
            b"".join([_encode(dict(zip(names, row, strict=True))) + b"\n" for row in zip(*columns, strict=True)])
        )

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


def _tokens(values: list[Any]) -> list[bytes]:
    """Values of one type, or None, as JSON, each for itself; a text that comes again is encoded once."""
    first = next((value for value in values if value is not None), None)
    if first is None:
        return [b"null"] * len(values)
    if isinstance(first, float) and None not in values:
        return _encode(values)[1:-1].split(b",")
    if isinstance(first, list | float):
        return list(map(_encode, values))
    known = {value: _encode(value) for value in set(values)}
    return [known[value] for value in values]


def _append_at_once(records: Sequence[bytes], names: Sequence[bytes], columns: Sequence[list[bytes]]) -> bytes:
    """All lines with their members, put together in one go; each of them ends as usual."""
    parts: list[Iterable[bytes]] = [[line[:-2] for line in records]]
    between = b""
    for name, tokens in zip(names, columns, strict=True):
        between += b"," + name
        if tokens.count(b"null") == len(tokens):
            between += b"null"
        else:
            parts += [repeat(between, len(tokens)), tokens]
            between = b""
    parts.append(repeat(between + b"}\n", len(records)))
    return b"".join(chain.from_iterable(zip(*parts, strict=True)))


def _append_each(records: Sequence[bytes], names: Sequence[bytes], columns: Sequence[list[bytes]]) -> bytes:
    """The same for lines of any kind."""
    rows = zip(records, zip(*columns, strict=True), strict=True)
    return b"".join([_append(line, b"{%b}" % b",".join(map(bytes.__add__, names, row))) for line, row in rows])


def _append(line: bytes, members: bytes) -> bytes:
    """`members` is an object of its own; only white space stands after the line's closing brace."""
    brace = line.rindex(b"}")
    comma = b"" if line[:brace].rstrip().endswith(b"{") else b","
    return line[:brace] + comma + members[1:] + line[brace + 1 :]
