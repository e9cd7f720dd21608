"""CSV and TSV out: cells appended to the record's own bytes, or records made from Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.checkpoint import Slab
from pipeline.errors import OutputError
from pipeline.loader.delimited import CsvSource
from pipeline.loader.lines import is_wide
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft
from pipeline.writer.values import to_cells


class CsvAppender:
    """Copies each record's bytes and appends cells before its line end, in the file's own encoding."""

    def __init__(self, draft: Draft, source: CsvSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._layout, self._labels = layout, labels
        self._delimiter, self._encoding = source.delimiter, source.file.encoding
        bom = source.file.bom
        header = source.header_raw.removeprefix(bom)
        names = [_quote(name, self._delimiter) for name in layout.names]
        # A file of no bytes has no columns that ours could follow.
        first = f"{self._delimiter.join(names)}\n".encode() if source.is_empty else self._append(header, names)
        self._stream.write(bom + first)

    def write(self, records: Sequence[bytes], slab: Slab) -> None:
        """Append rows."""
        values = self._layout.values(slab, self._labels)
        values[2] = [error and self._spelled(error) for error in values[2]]
        columns = [_cells(column, self._delimiter) for column in values]
        if self._encoding != "utf-8":
            rows = zip(records, zip(*columns, strict=True), strict=True)
            self._stream.write(b"".join([self._append(record, cells) for record, cells in rows]))
            return
        mark = self._delimiter
        added = "\0".join([mark + mark.join(cells) for cells in zip(*columns, strict=True)]).encode().split(b"\0")
        if len(added) != len(records):  # a label holds a NUL
            added = [(mark + mark.join(cells)).encode() for cells in zip(*columns, strict=True)]
        self._stream.write(b"".join(map(_appended, records, added)))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _spelled(self, error: str) -> str:
        """A server's words, with escapes for what the encoding does not have: they are no reason to stop."""
        return error.encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _append(self, record: bytes, cells: Sequence[str]) -> bytes:
        added = self._delimiter + self._delimiter.join(cells)
        try:
            if is_wide(self._encoding):
                text = record.decode(self._encoding)
                body = text.rstrip("\r\n")
                return (body + added + text[len(body) :]).encode(self._encoding)
            body_bytes = record.rstrip(b"\r\n")
            return body_bytes + added.encode(self._encoding) + record[len(body_bytes) :]
        except UnicodeEncodeError as error:
            what = error.object[error.start : error.end]
            raise OutputError(
                f"{what!r} can't be written in {self._encoding}, the encoding of the input; choose another format"
            ) from None


class CsvSink:
    """Writes record batches as CSV: UTF-8, LF, quotes where they are needed."""

    def __init__(self, draft: Draft, schema: pa.Schema, layout: Layout, labels: Sequence[str], delimiter: str) -> None:
        self._stream = draft.write_text()
        self._names, self._layout, self._labels, self._delimiter = schema.names, layout, labels, delimiter
        self._write([[*self._names, *layout.names]])

    def write(self, batch: pa.RecordBatch, slab: Slab) -> None:
        """Append rows."""
        columns = [to_cells(column, name) for column, name in zip(batch.columns, self._names, strict=True)]
        columns += [[_cell(value) for value in column] for column in self._layout.values(slab, self._labels)]
        self._write(zip(*columns, strict=True))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _write(self, rows: Iterable[Sequence[str | None]]) -> None:
        # Not csv.writer: with LF as its line end it leaves a cell with a lone CR unquoted (Python 3.11).
        delimiter = self._delimiter
        lines = [delimiter.join([_quote(cell, delimiter) if cell else "" for cell in row]) + "\n" for row in rows]
        self._stream.write("".join(lines).encode())


def _appended(record: bytes, added: bytes) -> bytes:
    """`added` comes before the record's line end."""
    if record.endswith(b"\n") and not record.endswith(b"\r\n"):
        return b"%b%b\n" % (record[:-1], added)
    body = record.rstrip(b"\r\n")
    return body + added + record[len(body) :]


def _cells(column: list[Any], delimiter: str) -> list[str]:
    """Values as cells; a text that comes again is quoted once."""
    if all(value is None for value in column):
        return [""] * len(column)
    if delimiter in ",;\t|" and all(isinstance(value, float) for value in column):
        return msgspec.json.encode(column)[1:-1].decode().split(",")  # no number needs quotes
    if any(isinstance(value, list) for value in column):
        return [_quote(_cell(value), delimiter) for value in column]
    known = {value: _quote(_cell(value), delimiter) for value in set(column)}
    return [known[value] for value in column]


def _cell(value: Any) -> str:
    """A value that we add as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value).decode()


def _quote(text: str, delimiter: str) -> str:
    if delimiter in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text
