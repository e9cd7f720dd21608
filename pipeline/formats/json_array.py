"""A JSON array of objects, each of which is a row. It is streamed: only a block of elements is in memory.

Reading: an element is what stands between two commas of the array, with its white space. Positions are offsets in the
file's UTF-8, so a file in another encoding is read from its start.

Writing: `jsonl.ArrayAppender` appends members to the objects and keeps their bytes, `LinesAppender` makes them
lines, and `JsonArrayWriter` makes objects of Arrow columns.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.json_columns import is_too_deep, parse_members
from pipeline.formats.jsonl import (
    ArrayAppender,
    JsonlWriter,
    JsonSource,
    Row,
    append_members,
    appended_members,
    texts_of,
)
from pipeline.formats.registry import Format
from pipeline.formats.source import Destination, TextSpec, Writer, blocks_of, refuse_existing
from pipeline.formats.textfile import QUOTE, TextWriter, is_utf8
from pipeline.storage import Location
from pipeline.texts import Position, TextBlock

LONGEST_ELEMENT = 256 << 20  # bytes: a longer one is a string or a bracket that nobody closed

_COMMA, _STARTS, _STOPS = ord(","), tuple(b"[{"), tuple(b"]}")
_MARKS = np.zeros(256, bool)
_MARKS[[QUOTE, _COMMA, *_STARTS, *_STOPS]] = True
_line_breaks = re.compile(rb"[\r\n]\s*")  # never in a string: there they are escaped


class JsonArraySource(JsonSource):
    """Reads a JSON array.

    Raises:
        InputError: it is no array, not closed, or not of the encoding; or an element is no object and may not be left
            out.
    """

    _unit = "objects"

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        super().__init__(location, loader, file_format)
        self.seekable = self.file.seekable and self.file.is_utf8
        # What is before the first element, and after the last, as far as it was read.
        self.head, self.tail = b"", b"]\n"
        for data in self._buffers(len(self.file.bom)):
            self.head += data
            if self.head.strip():
                break
        self.is_empty = not self.head.strip()
        before, bracket, _ = self.head.partition(b"[")
        if not self.is_empty and (before.strip() or not bracket):
            raise InputError(
                f'{self.path}: is no JSON array of objects; of one object a line, set loader.format = "jsonl"; '
                f"an array inside an object is taken out with jq .NAME FILE > NEW.json"
            )
        self.head = before + bracket
        self.start = Position(0, len(self.file.bom) + len(self.head), self.head.count(b"\n"))

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        for block in blocks_of(self._rows(position or self.start), lambda found: len(found[1].raw)):
            yield spec.block_of(block[0][0], (row for _, row in block), lambda row: texts_of(row, spec))

    def appender(self, destination: Destination) -> tuple[Writer, Iterator[list[bytes]]]:
        """See `Source.appender`: into an array, or as JSON Lines."""
        rows = blocks_of((row.raw for row in self._all_rows()), len)
        if destination.format == self.format:
            head = self.file.bom + (self.head or b"[")
            return ArrayAppender(destination, head=head, tail=lambda: self.tail), rows
        return LinesAppender(destination), rows

    def _all_rows(self) -> Iterator[Row]:
        return (row for _, row in self._rows(self.start))

    def _rows(self, position: Position) -> Iterator[tuple[Position, Row]]:
        """Read the objects from `position` on; other elements are left out and counted, if they may be."""
        self.skipped, number = 0, position.row
        if self.is_empty:
            return
        for raw, offset, line in self._elements(position):
            lines = raw[: len(raw) - len(raw.lstrip())].count(b"\n")
            where = f"{self.path}:{1 + line + lines}"
            if not raw.isascii() and not is_utf8(raw):
                raise InputError(f"{where}: not utf-8; set loader.encoding, for instance cp1252")
            try:
                members = _parse(raw.lstrip())
            except ValueError as error:
                if not self._skip_bad:
                    raise InputError(
                        f"{where}: no JSON object: {error}; mend the element, or leave such elements out with "
                        f'loader.on_bad_line = "skip"'
                    ) from None
                self.skipped += 1
                continue
            refuse_existing(where, members, self._appended)
            yield Position(number, offset, line), Row(raw, members)
            number += 1

    def _elements(self, position: Position) -> Iterator[tuple[bytes, int, int]]:
        """Cut the array into its elements; with each come its offset and the lines before it."""
        offset, line, parts, size = position.offset, position.line, list[bytes](), 0
        cutter, buffers = _Cutter(), self._buffers(position.offset)
        for data in buffers:
            data, cuts, has_end = cutter.cut(data)  # noqa: PLW2901 - without what belongs to the next one
            start = 0
            for cut in cuts:
                raw = b"".join([*parts, data[start:cut]])
                is_nothing = has_end and cut == cuts[-1] and offset == self.start.offset and not raw.strip()
                if not is_nothing:  # as in `[]`
                    yield raw, offset, line
                offset, line = offset + len(raw) + 1, line + raw.count(b"\n")
                parts, start, size = [], cut + 1, 0
            if has_end:
                self._end(data[start - 1 :] + cutter.held, buffers, line)
                return
            parts.append(data[start:])
            size += len(data) - start
            if size > LONGEST_ELEMENT:
                break
        raise InputError(
            f"{self.path}:{line + 1}: the array, or an element of it, is not closed: the file is cut short, or an "
            f"element is longer than {LONGEST_ELEMENT >> 20} MiB"
        )

    def _end(self, tail: bytes, buffers: Iterator[bytes], line: int) -> None:
        """See that the array is closed by its own bracket, and that nothing comes after it; `line` are before it."""
        for data in itertools.chain([b""], buffers):
            tail += data
            if tail[1:].strip():
                break
        rest = tail[1:].lstrip()
        if not tail.startswith(b"]"):
            raise InputError(f"{self.path}:{line + 1}: a brace is closed here that was never opened; mend it")
        if rest:
            line += tail[: len(tail) - len(rest)].count(b"\n")
            raise InputError(f"{self.path}:{line + 1}: something comes after the end of the array; take it out")
        self.tail = tail

    def _buffers(self, offset: int) -> Iterator[bytes]:
        """Read UTF-8 from `offset` on."""
        if self.file.is_utf8:
            yield from self.file.buffers(Position(0, offset, 0))
            return
        decoder = codecs.getincrementaldecoder(self.file.encoding)()
        try:
            for data in itertools.chain(self.file.buffers(Position(0, 0, 0)), [b""]):
                utf8 = decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
                if offset < len(utf8):
                    yield utf8[offset:]
                offset = max(0, offset - len(utf8))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: not {self.file.encoding} ({error.reason}); set loader.encoding") from None


def _parse(raw: bytes) -> dict[str, bytes]:
    """Parse an object into tokens without line breaks.

    Raises:
        ValueError: it is no object, or nests too deeply.
    """
    if is_too_deep(raw):
        raise ValueError("nested too deeply")
    return {name: _line_breaks.sub(b"", token) for name, token in parse_members(raw).items()}


class _Cutter:
    """Finds the commas between the elements of an array in the bytes that follow its opening bracket."""

    def __init__(self) -> None:
        self.held = b""  # backslashes at the end, of which the next byte says what they are
        self._in_string, self._depth = 0, 0

    def cut(self, data: bytes) -> tuple[bytes, list[int], bool]:
        """Return the bytes that are looked at, the offsets of commas in them, and whether the last is the end."""
        data = self.held + data
        whole = len(data.rstrip(b"\\"))
        data, self.held = data[:whole], data[whole:]
        codes = np.frombuffer(data.replace(b"\\\\", b"__").replace(b'\\"', b"__"), np.uint8)
        marks = np.flatnonzero(_MARKS[codes])
        kinds = codes[marks]
        is_quote = kinds == QUOTE
        is_open = (np.cumsum(is_quote, dtype=np.uint8) + self._in_string) & 1
        outside = ~is_quote & (is_open == 0)
        self._in_string = int(is_open[-1]) if len(is_open) else self._in_string
        marks, kinds = marks[outside], kinds[outside]
        steps = np.isin(kinds, _STARTS).astype(np.int64) - np.isin(kinds, _STOPS)
        depths = np.cumsum(steps) + self._depth
        ends = np.flatnonzero(depths < 0)
        if len(ends):
            marks, kinds, depths = marks[: ends[0] + 1], kinds[: ends[0] + 1], depths[: ends[0] + 1]
        self._depth = int(depths[-1]) if len(depths) else self._depth
        cuts: list[int] = marks[((kinds == _COMMA) & (depths == 0)) | (depths < 0)].tolist()
        return data, cuts, len(ends) > 0


class LinesAppender(TextWriter):
    """Writes the objects of an array as JSON Lines, their bytes without line ends, and appends members."""

    def __init__(self, destination: Destination) -> None:
        super().__init__(destination.draft)
        self._members = appended_members(destination)

    def write(self, rows: Sequence[bytes], answers: Answers) -> None:
        """See `Writer.write`."""
        lines = [_line_breaks.sub(b"", row.strip()) for row in rows]
        lines = list(map(append_members, lines, self._members.of(answers).to_pylist()))
        self._stream.write(b"".join([b"%b\n" % line for line in lines]))


class JsonArrayWriter(JsonlWriter):
    """Writes a JSON array, one object a line: UTF-8, LF."""

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        super().__init__(destination, schema)
        self._stream.write(b"[")
        self._before = b"\n"

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        self._stream.write(self._before + b",\n".join(self.lines(rows, answers)))
        self._before = b",\n"

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.write(b"\n]\n")
        super().close()
