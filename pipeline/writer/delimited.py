"""CSV and TSV out: cells appended to the record's own bytes, or records made from Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.checkpoint import Slab
from pipeline.errors import OutputError
from pipeline.loader.delimited import CsvSource
from pipeline.loader.lines import is_wide
from pipeline.loader.rows import RawRows
from pipeline.writer.added import AddedText, spliced
from pipeline.writer.columns import Layout
from pipeline.writer.draft import Draft
from pipeline.writer.values import to_cells


class CsvAppender:
    """Copies each record's bytes and appends cells before its line end, in the file's own encoding."""

    def __init__(self, draft: Draft, source: CsvSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._delimiter, self._encoding = source.delimiter, source.file.encoding
        bom = source.file.bom
        header = source.header_raw.removeprefix(bom)
        names = self._delimiter.join([_quote(name, self._delimiter) for name in layout.names])
        # A file of no bytes has no columns that ours could follow.
        first = f"{names}\n".encode() if source.is_empty else self._append(header, (self._delimiter + names).encode())
        self._stream.write(bom + first)
        self._added = _added_cells(layout, labels, self._delimiter, self._encoding)

    def write(self, records: RawRows | Sequence[bytes], slab: Slab) -> None:
        """Append rows."""
        added = self._added.of(slab)
        if isinstance(records, RawRows):
            for part in spliced(records, records.body_ends, added):
                self._stream.write(part)
        else:
            self._stream.write(b"".join(map(self._append, records, added.to_pylist())))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _append(self, record: bytes, added: bytes) -> bytes:
        """`added` is UTF-8, and comes before the record's line end."""
        try:
            if is_wide(self._encoding):
                text = record.decode(self._encoding)
                body = text.rstrip("\r\n")
                return (body + added.decode() + text[len(body) :]).encode(self._encoding)
            if self._encoding != "utf-8":
                added = added.decode().encode(self._encoding)
        except UnicodeEncodeError as error:
            what = error.object[error.start : error.end]
            raise OutputError(
                f"{what!r} can't be written in {self._encoding}, the encoding of the input; choose another format"
            ) from None
        body_bytes = record.rstrip(b"\r\n")
        return body_bytes + added + record[len(body_bytes) :]


class CsvSink:
    """Writes record batches as CSV: UTF-8, LF, quotes where they are needed."""

    def __init__(self, draft: Draft, schema: pa.Schema, layout: Layout, labels: Sequence[str], delimiter: str) -> None:
        self._stream = draft.write_text()
        self._names, self._delimiter = schema.names, delimiter
        self._added = _added_cells(layout, labels, delimiter)
        self._stream.write(self._line([*self._names, *layout.names]) + b"\n")

    def write(self, batch: pa.RecordBatch, slab: Slab) -> None:
        """Append rows."""
        columns = [to_cells(column, name) for column, name in zip(batch.columns, self._names, strict=True)]
        lines = map(self._line, zip(*columns, strict=True))
        rows = zip(lines, self._added.of(slab).to_pylist(), strict=True)
        self._stream.write(b"".join([b"%b%b\n" % row for row in rows]))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _line(self, cells: Sequence[str | None]) -> bytes:
        # Not csv.writer: with LF as its line end it leaves a cell with a lone CR unquoted (Python 3.11).
        delimiter = self._delimiter
        return delimiter.join([_quote(cell, delimiter) if cell else "" for cell in cells]).encode()


def _added_cells(layout: Layout, labels: Sequence[str], delimiter: str, encoding: str = "utf-8") -> AddedText:
    """What is added to a record: cells, each after a delimiter, in UTF-8 still; `encoding` is that of the file."""

    def spell(value: Any) -> bytes:
        return _cell(value, delimiter)

    def spell_error(value: str | None) -> bytes:
        # A server's words, with escapes for what the encoding does not have: they are no reason to stop.
        return spell(value and value.encode(encoding, "backslashreplace").decode(encoding))

    columns = len(layout.names)
    spells = [spell] * columns
    spells[2] = spell_error
    return AddedText(layout, labels, [delimiter.encode()] * columns, spells)


def _cell(value: Any, delimiter: str) -> bytes:
    """A value that we add as a cell."""
    if value is None:
        return b""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _quote(text, delimiter).encode()


def _quote(text: str, delimiter: str) -> str:
    if delimiter in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text
