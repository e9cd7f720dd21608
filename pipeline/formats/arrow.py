"""Arrow IPC files (`.arrow`, `.feather`), a record batch at a time. Arrow streams under these endings are read, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import ipc

from pipeline.answers import Answers
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.column_lists import schema_with_fields
from pipeline.formats.columnar import ColumnarSource, heads_of, read_error, slices
from pipeline.formats.dictionaries import grown, has_dictionary
from pipeline.formats.registry import Format
from pipeline.formats.source import Destination
from pipeline.storage import Location
from pipeline.texts import string_array

FILE_MAGIC, OLD_MAGIC = b"ARROW1", b"FEA1"


class ArrowSource(ColumnarSource):
    """Reads an Arrow file or stream.

    A stream has no index: its rows are counted when it is opened, and reading from a row on reads what is before it.

    Raises:
        InputError: it is neither, or is cut short. StoreRefused, StoreGone: its store.
    """

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:  # noqa: ARG002 - no options
        try:
            self._opened = location.open()
            magic = bytes(self._opened.read(len(FILE_MAGIC)))
            if magic.startswith(OLD_MAGIC):
                raise InputError(f"{location}: is Feather of version 1; write it again with pyarrow.feather")
            self._opened.seek(0)
            self._is_file = magic == FILE_MAGIC
            self._open = ipc.open_file if self._is_file else ipc.open_stream
            reader = self._open(self._opened)
            rows = reader.count_rows() if self._is_file else sum(batch.num_rows for batch in reader)
        except (pa.ArrowException, OSError) as error:
            raise read_error(location, "can't be read as Arrow", error) from None
        super().__init__(location, file_format, reader.schema, rows)

    def _batches(
        self, row: int, most_rows: int, most_bytes: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """See `ColumnarSource._batches`: at least the columns of `names`, with all fields."""
        heads = self.columns if names is None else heads_of(names)
        fields = [index for index, name in enumerate(self.columns) if name in heads]
        try:
            self._opened.seek(0)
            reader = self._open(self._opened, options=ipc.IpcReadOptions(included_fields=fields))
            count = reader.num_record_batches if self._is_file else 0
            for batch in (reader.get_batch(index) for index in range(count)) if self._is_file else reader:
                yield from slices(batch, row, most_rows, most_bytes)
                row = max(0, row - batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise read_error(self.location, "can't be read any more", error) from None


class ArrowWriter:
    """Writes an Arrow file: the schema of the rows with its metadata, and the new columns after it."""

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        self._columns = destination.columns
        self._schema = schema = schema_with_fields(schema, self._columns.fields)
        self._labels = string_array(destination.labels)
        self._known: dict[int, pa.Array] = {}  # by column, the dictionaries of what was written, see `grown`
        options = ipc.IpcWriteOptions(
            compression=None if destination.compression == "none" else destination.compression,
            emit_dictionary_deltas=True,
        )
        self._stream = destination.draft.write_bytes()
        self._writer = ipc.new_file(self._stream, schema, options=options)

    @staticmethod
    def see_type(kind: pa.DataType) -> None:
        """See `ColumnWriter.see_type`."""
        pa.schema([("", kind)]).serialize()
        if has_dictionary(kind, lambda each: pa.types.is_float16(each.value_type)):  # Arrow (26) joins others of them
            raise pa.ArrowInvalid("dictionaries of half floats can't be joined")

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        columns = [*rows.columns, *self._columns.arrays(answers, self._labels)]
        for index, column in enumerate(rows.columns):
            if has_dictionary(column.type):
                self._known[index], columns[index] = grown(self._known.get(index), column)
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """See `Writer.close`."""
        self._writer.close()
