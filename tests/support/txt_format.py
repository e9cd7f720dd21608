"""A format as somebody would add it: `.txt` files of one row a line, whose one column is `text`. They are only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.registry import Format
from pipeline.formats.source import Source, TextSpec, existing_columns, refuse_existing
from pipeline.formats.textfile import RowBytes, TextFile
from pipeline.storage import Location
from pipeline.texts import Position, TextBlock, block_of

TXT = Format(("txt",), "txt_format:TxtSource", is_text=True)


class TxtSource(Source):
    """Reads a file of lines of text."""

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        super().__init__(location, file_format)
        self.file = TextFile(location, loader.encoding)
        self.seekable, self.start = self.file.seekable, Position(0, len(self.file.bom), 0)

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in {*spec.columns} - {"text"}:
            raise InputError(f"{self.path}: no column {name!r}; {existing_columns(['text'], name)}")
        refuse_existing(self.path, ["text"], appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        for here, lines in self.file.lines(position or self.start):
            texts = [text if spec.is_plain else spec.render([text]) for text in self._decoded(here, lines)]
            yield block_of(here, texts, {})

    def schema(self) -> pa.Schema:
        """See `Source.schema`."""
        return pa.schema([("text", pa.string())])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        for here, lines in self.file.lines(self.start):
            yield pa.record_batch([pa.array(self._decoded(here, lines), pa.string())], schema=self.schema())

    def _decoded(self, position: Position, lines: RowBytes) -> list[str]:
        return [self.file.decode(line, number).rstrip("\r\n") for number, line in enumerate(lines, position.line + 1)]
