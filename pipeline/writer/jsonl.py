"""JSON Lines out: members appended to the line's own bytes, or lines made from Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
_LOOK_CLOSER = frozenset((b"", b"{", b" ", b"\t", b"\r", b"\n"))  # before a line's closing brace


class JsonlAppender:
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, draft: Draft | Pipe, source: JsonlSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._layout, self._labels = layout, labels
        self._encoding = source.file.encoding
        self._stream.write(source.file.bom)
        names = [_encode(name).replace(b"%", b"%%") for name in layout.names]
        self._members = b"%b}" % b",".join([b"%b:%%b" % name for name in names])

    def write(self, records: Sequence[bytes], slab: Slab) -> None:
        """Append rows."""
        values = self._layout.values(slab, self._labels)
        if self._encoding == "utf-8":
            rows = zip(records, zip(*map(_tokens, values), strict=True), strict=True)
            lines = [
                b"%b,%b\n" % (line[:-2], self._members % row)
                if line[-2:] == b"}\n" and line[-3:-2] not in _LOOK_CLOSER
                else _append(line, b"{" + self._members % row)
                for line, row in rows
            ]
        else:
            # In ASCII, JSON's escapes stand for whatever the encoding does not have.
            names = self._layout.names
            members = [json.dumps(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]
            lines = [self._append_encoded(line, row) for line, row in zip(records, members, strict=True)]
        self._stream.write(b"".join(lines))

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
    """Values as JSON, each for itself; a text that comes again is encoded once."""
    if all(value is None for value in values):
        return [b"null"] * len(values)
    if isinstance(values[0], float) and None not in values:
        return _encode(values)[1:-1].split(b",")
    if any(isinstance(value, list | float) for value in values):
        return list(map(_encode, values))
    known = {value: _encode(value) for value in set(values)}
    return [known[value] for value in values]


def _append(line: bytes, members: bytes) -> bytes:
    """`members` is an object of its own; only white space stands after the line's closing brace."""
    brace = line.rindex(b"}")
    comma = b"" if line[:brace].rstrip().endswith(b"{") else b","
    return line[:brace] + comma + members[1:] + line[brace + 1 :]
