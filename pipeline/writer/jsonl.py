"""JSON Lines out: members appended to the line's own bytes, or lines made from Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pyarrow as pa

from pipeline.checkpoint import Slab
from pipeline.loader.jsonl import JsonlSource
from pipeline.loader.lines import is_wide
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft
from pipeline.writer.values import to_json

_encode = msgspec.json.Encoder().encode


class JsonlAppender:
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, draft: Draft, source: JsonlSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._layout, self._labels = layout, labels
        self._encoding = source.file.encoding
        self._stream.write(source.file.bom)

    def write(self, records: Sequence[bytes], slab: Slab) -> None:
        """Append rows."""
        names = self._layout.names
        rows = zip(*self._layout.values(slab, self._labels), strict=True)
        members = [dict(zip(names, row, strict=True)) for row in rows]
        if self._encoding == "utf-8":
            lines = [_append(line, _encode(row)) for line, row in zip(records, members, strict=True)]
        else:
            # In ASCII, JSON's escapes stand for whatever the encoding does not have.
            lines = [self._append_encoded(line, json.dumps(row)) for line, row in zip(records, members, strict=True)]
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

    def __init__(self, draft: Draft, schema: pa.Schema, layout: Layout, labels: Sequence[str]) -> None:
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


def _append(line: bytes, members: bytes) -> bytes:
    """`members` is an object of its own; only white space stands after the line's closing brace."""
    brace = line.rindex(b"}")
    comma = b"" if line[:brace].rstrip().endswith(b"{") else b","
    return line[:brace] + comma + members[1:] + line[brace + 1 :]
