"""Parquet files.

Reading: row group by row group, in batches bounded in bytes, types untouched.

Writing: `ParquetAppender` copies a Parquet file and adds columns to it, see `parquet_footer` for how; `ParquetWriter`
encodes all columns anew, for rows of another format and for files that can't be copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.answers import Answers
from pipeline.cancellation import raise_if_cancelled
from pipeline.config import Loader
from pipeline.errors import InputError, OutputError
from pipeline.formats.column_lists import schema_with_fields
from pipeline.formats.columnar import BATCH_ROWS, ColumnarSource, heads_of, read_error
from pipeline.formats.dictionaries import decoded, has_dictionary, is_closed, value_type
from pipeline.formats.parquet_footer import MAGIC, TAIL_BYTES, Footer
from pipeline.formats.registry import Format
from pipeline.formats.source import BLOCK_ROWS, Destination, Writer
from pipeline.storage import Location
from pipeline.texts import Position, string_array

# Reading.
SAMPLE_ROWS = 64  # of a row group, which tell how large its rows are
SMALL_BYTES = 1 << 20  # of a row group that is read once as a whole, where the file's content is in memory

# Writing.
GROUP_ROWS = 65_536
GROUP_BYTES = 64 << 20  # a row group is gathered in memory: one of large rows ends earlier
PAGE_BYTES = 256 << 10  # stays in the processor's cache while it is compressed: an eighth less CPU than 1 MiB

# Appending.
COPY_BYTES = 4 << 20  # at a time
MOST_FOOTER = 1 << 20  # bytes: larger footers are slow to take apart
MOST_LOOKED_AT = 64 << 10  # bytes: of a footer that is only looked at, within some milliseconds
MOST_CHUNKS = 10_000  # of new columns in row groups: each takes half a millisecond and 300 bytes
LABEL_BYTES, VALUE_BYTES = 32, 8  # of memory: of a row with its label, about, and of each of its values


class ParquetSource(ColumnarSource):
    """Reads a Parquet file.

    Raises:
        InputError: it is no Parquet, cut short or damaged, or the name of a column is no UTF-8.
        StoreRefused, StoreGone: its store.
    """

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:  # noqa: ARG002 - no options
        try:
            self._opened = location.open()
            # Without pre_buffer=False the reader keeps what it has read, and memory grows with the file.
            self._file = pq.ParquetFile(self._opened, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise read_error(location, "can't be read as Parquet", error) from None
        except UnicodeDecodeError as error:
            name = bytes(error.object).decode("utf-8", "backslashreplace")
            raise InputError(f"{location}: the name of the column '{name}' is no UTF-8; rename it") from None
        self._small: pa.RecordBatch | None = None  # all rows and columns of a small file
        self._int96_unit: str | None = None  # not chosen yet, which is nanoseconds
        self._dictionaries: list[str] = []  # columns that are read as such
        rows, rows_of_groups = self._file.metadata.num_rows, sum(self.group_rows)
        if rows != rows_of_groups:
            raise InputError(
                f"{location}: is damaged: {rows:,} rows by its footer, {rows_of_groups:,} by its row groups; "
                f"write the file once more"
            )
        super().__init__(location, file_format, self._file.schema_arrow, rows)

    def schema(self) -> pa.Schema:
        """See `Source.schema`: that of the file, with all metadata.

        Raises:
            InputError: whole rows can't be read: the footer says that columns differ in length, or there are INT96
                timestamps that no unit of Arrow holds together.
        """
        if self._int96_unit is None:
            self._see_lengths()
            self._int96_unit = self._choose_int96_unit()
        return super().schema()

    def cuts(self, rows: int, position: Position | None = None) -> Iterator[Position]:
        """See `Source.cuts`: between row groups. Only within large ones, whose rows before a cut are decoded again."""
        last, end = position.row if position else 0, 0
        for count in self.group_rows:
            start, end = end, end + count
            inner = range(start, end, -(-count // max(1, count // rows)) if count else 1)
            for row in inner:
                if row - last >= rows:
                    last = row
                    yield Position(row, 0, 0)
        yield Position(end, 0, 0)

    def select(self, names: Sequence[str], *, repeated: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """See `Source.select`: strings that repeat are read as the dictionaries that they are in the file."""
        fields = [self.schema_of_file.field(name) for name in repeated if name in self.columns]
        self._dictionaries = [field.name for field in fields if pa.types.is_string(field.type)]
        return super().select(names)

    def appender(self, destination: Destination) -> tuple[Writer, Iterator[range]] | None:
        """See `Source.appender`.

        None where not all rows are wanted or a compression is, where the new columns of a row group would be too large
        for memory, or where the footer is one that can't be taken apart.
        """
        if not destination.all_rows or destination.compression is not None:
            return None
        groups, columns = self.group_rows, destination.columns
        label_bytes = max([LABEL_BYTES, *(len(label) for label in destination.labels)])
        values = 1 if columns.probs == "none" else columns.num_classes
        row_bytes = label_bytes * (1 + columns.most_named) + VALUE_BYTES * (values + columns.most_named)
        if max(groups, default=0) * row_bytes > GROUP_BYTES or len(groups) * len(columns.names) > MOST_CHUNKS:
            return None
        try:
            appender = ParquetAppender(self, Footer(self._footer(MOST_FOOTER) or b""), destination)
        except ValueError:
            return None
        return appender, appender.rows()

    def _see_lengths(self) -> None:
        """See that the columns of a row group are of the same length, as far as a footer tells that is soon read."""
        footer = self._footer(MOST_LOOKED_AT)
        with suppress(ValueError, KeyError):  # then it shows when they are read
            for group, (rows, values) in enumerate(Footer(footer or b"").lengths()):
                for index, found in enumerate(values):
                    if found != rows and self._is_flat(index):
                        raise self._damaged(group, f"{found:,}", rows)

    def _choose_int96_unit(self) -> str:
        """Have INT96 timestamps (of Spark, Hive, Impala) read as microseconds if one is outside of 1677 to 2262.

        Arrow reads them as nanoseconds, and those of other years as wrong instants.
        """
        kinds = [self._file.schema.column(index).physical_type for index in range(len(self._file.schema))]
        if "INT96" not in kinds:
            return "ns"
        names = [name for name in self.columns if any(kinds[index] == "INT96" for index in self._columns_of([name]))]
        wide = self._reopened("us", pre_buffer=False)
        is_wide = is_finer = False
        try:
            batches = (file.iter_batches(BATCH_ROWS, columns=names, use_threads=False) for file in (self._file, wide))
            for fine, coarse in zip(*batches, strict=True):
                is_finer = is_finer or not coarse.cast(fine.schema, safe=False).equals(fine)
                is_wide = is_wide or not _can_be_cast(coarse, fine.schema)
        except (pa.ArrowException, OSError) as error:
            raise read_error(self.location, "the timestamps can't be read", error) from None
        if is_wide and is_finer:
            raise InputError(
                f"{self.path}: {', '.join(names)}: INT96 timestamps outside of the years 1677 to 2262 beside some with "
                f"nanoseconds, which no other type holds; choose a Parquet output, all rows, no writer.compression"
            )
        if is_wide:
            self._file, self.schema_of_file, self._small = wide, wide.schema_arrow, None
        return "us" if is_wide else "ns"

    @property
    def group_rows(self) -> list[int]:
        """Rows of each row group."""
        metadata = self._file.metadata
        return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]

    def _footer(self, most: int) -> bytes | None:
        """Read the footer; None if it is encrypted, or of more than `most` bytes."""
        try:
            with self.location.open() as file:
                size = file.size()
                length, magic = struct.unpack("<I4s", file.read_at(TAIL_BYTES, size - TAIL_BYTES))
                is_usual = magic == MAGIC and length <= most
                return bytes(file.read_at(length, size - TAIL_BYTES - length)) if is_usual else None
        except (pa.ArrowException, OSError) as error:
            raise read_error(self.location, "can't be read any more", error) from None

    def _batches(
        self, row: int, most_rows: int, most_bytes: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """Read batches from `row` on, each within `most_rows` and (by the average of its row group) `most_bytes`.

        They hold the columns `names`, by default all.
        """
        for group in range(self._file.metadata.num_row_groups):
            metadata = self._file.metadata.row_group(group)
            if row >= metadata.num_rows:
                row -= metadata.num_rows
                continue
            read = 0
            try:
                size = max(1, min(most_rows, int(most_bytes / max(1.0, self._row_bytes(group, names)))))
                for batch in self._read(group, size, names):
                    read += batch.num_rows
                    if row < batch.num_rows:
                        yield batch.slice(row)
                    row = max(0, row - batch.num_rows)
            except (pa.ArrowException, OSError) as error:
                raise read_error(self.location, f"row group {group} can't be read", error) from None
            if read != metadata.num_rows:  # Arrow ends where the shortest column does
                raise self._damaged(group, f"{read:,}", metadata.num_rows)

    def _damaged(self, group: int, values: str, rows: int) -> InputError:
        return InputError(
            f"{self.path}: row group {group} is damaged: {values} values of a column where it should have {rows:,} "
            f"rows; write the file once more"
        )

    def _row_bytes(self, group: int, names: Sequence[str] | None) -> float:
        """Estimate the bytes of memory of a row: as in the file, or as of its first ones: repeats take none there."""
        metadata = self._file.metadata.row_group(group)
        if self._is_small or self.location.store is not None:
            return float(metadata.total_byte_size / metadata.num_rows)
        batches = self._reader().iter_batches(SAMPLE_ROWS, row_groups=[group], columns=names, use_threads=False)
        first = next(batches, None)
        sampled = first.nbytes / max(1, len(first)) if first else 0.0
        if names is None:
            return float(max(sampled, metadata.total_byte_size / metadata.num_rows))
        # Not before the reading: to ask for a column that can't be read, one that is encrypted, would end the process.
        columns = [(index, metadata.column(index)) for index in self._columns_of(names)]
        for index, column in columns:
            if self._is_flat(index) and column.num_values != metadata.num_rows:
                raise self._damaged(group, f"{column.num_values:,}", metadata.num_rows)
        return float(max(sampled, sum(column.total_uncompressed_size for _, column in columns) / metadata.num_rows))

    def _is_flat(self, index: int) -> bool:
        """Whether a Parquet column has one value a row."""
        return bool(self._file.schema.column(index).max_repetition_level == 0)

    def _read(self, group: int, size: int, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """Read the batches of a row group; of a small file all columns in one batch, once for texts and rows."""
        if not self._is_small:
            yield from self._reader().iter_batches(size, row_groups=[group], columns=names, use_threads=False)
            return
        self._small = self._small or next(self._file.iter_batches(BLOCK_ROWS, use_threads=False), None)
        if self._small is not None:
            yield self._small

    def _reader(self) -> pq.ParquetFile:
        """Choose what reads one row group.

        From a store all its columns are read in a few large requests, by a reader that is then let go of with them.
        """
        if self.location.store is None and not self._dictionaries:
            return self._file
        return self._reopened(self._int96_unit, pre_buffer=self.location.store is not None)

    def _reopened(self, int96_unit: str | None, *, pre_buffer: bool) -> pq.ParquetFile:
        metadata = self._file.metadata
        return pq.ParquetFile(
            self._opened,
            metadata=metadata,
            pre_buffer=pre_buffer,
            coerce_int96_timestamp_unit=int96_unit,
            read_dictionary=self._dictionaries,
        )

    @property
    def _is_small(self) -> bool:
        if self.location.content is None or self._file.metadata.num_row_groups != 1:
            return False
        group = self._file.metadata.row_group(0)
        return bool(group.num_rows <= BLOCK_ROWS and group.total_byte_size <= SMALL_BYTES)

    def _columns_of(self, names: Sequence[str]) -> list[int]:
        """Find the Parquet columns that hold the columns `names`."""
        heads = heads_of(names)
        paths = [self._file.schema.column(index).path for index in range(len(self._file.schema))]
        return [index for index, path in enumerate(paths) if path.partition(".")[0] in heads]


def _can_be_cast(batch: pa.RecordBatch, schema: pa.Schema) -> bool:
    try:
        batch.cast(schema)
    except pa.ArrowInvalid:
        return False
    return True


class ParquetAppender:
    """Copies a Parquet file and adds columns: what was there is neither decoded nor encoded again.

    So encodings, compression, statistics, indexes and types that Arrow has no name for stay as they are. The new
    columns of a row group are written as a whole, so those of one row group are held in memory.
    """

    def __init__(self, source: ParquetSource, footer: Footer, destination: Destination) -> None:
        self._source, self._footer = source, footer
        self._path, self._columns = destination.draft.path, destination.columns
        self._labels = string_array(destination.labels)
        self._schema = pa.schema(self._columns.fields)
        self._stream = destination.draft.write_bytes()
        self._copied_bytes = source.location.look()[1] - TAIL_BYTES - footer.size  # all that stands before the footer
        self._groups = list(source.group_rows)  # rows of the row groups whose new columns are not written yet
        self._batches: list[pa.RecordBatch] = []  # new columns of the first of them
        self._rows = 0  # in these
        self._written: list[pq.FileMetaData] = []  # what pyarrow says of the new columns when they are all written
        self._writer: Any = None  # a `pq.ParquetWriter`, from when the file is copied on

    def rows(self) -> Iterator[range]:
        """Copy the file, then give the rows that `write` takes: only their number, within one row group."""
        for data in self._data():
            self._stream.write(data)
            raise_if_cancelled()
        names = self._schema.names
        self._writer = pq.ParquetWriter(  # of a file of its own behind the copy; offsets in it count from there
            pa.PythonFile(self._stream, "w"),
            self._schema,
            use_dictionary=[names[0], names[2], *self._columns.paths_of_names],  # labels and errors, which repeat
            data_page_size=PAGE_BYTES,
            metadata_collector=self._written,
        )
        for rows in self._source.group_rows:
            for start in range(0, rows, BATCH_ROWS):
                yield range(min(BATCH_ROWS, rows - start))

    def write(self, rows: range, answers: Answers) -> None:
        """See `Writer.write`; the rows are in one row group."""
        self._end_groups()
        arrays = self._columns.arrays(answers, self._labels)
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows += len(rows)
        self._end_groups()

    def close(self) -> None:
        """See `Writer.close`; without all rows there is no footer.

        Raises:
            InputError: the footer is not the one that was read before. OutputError: the file would not be readable.
        """
        if self._writer is None:
            return
        try:
            self._end_groups()
            if self._groups:
                return
            self._writer.close()  # the footer that this writes stays before ours, and nobody reads it
        finally:
            self._writer.is_open = False  # else it tries once more when it is freed, and says that it can't
        sink = pa.BufferOutputStream()
        self._written[0].write_metadata_file(sink)
        appended = sink.getvalue().to_pybytes()[len(MAGIC) : -TAIL_BYTES]
        try:
            footer = self._footer.with_columns(appended, self._copied_bytes)
        except ValueError as error:
            raise InputError(f"{self._source.path}: has another footer than it had ({error}); it has changed") from None
        found = pq.read_schema(pa.BufferReader(MAGIC + footer))
        if not found.equals(pa.schema([*self._source.schema_of_file, *self._schema])):
            raise OutputError(f"{self._path}: the columns can't be copied; set writer.compression to snappy")
        self._stream.write(footer)

    def _data(self) -> Iterator[bytes]:
        """Read what stands before the footer.

        Raises:
            InputError: it can't be read. StoreRefused, StoreGone: its store.
        """
        path, left = self._source.path, self._copied_bytes
        try:
            with self._source.location.stream() as stream:
                while left > 0 and (data := stream.read(min(left, COPY_BYTES))):
                    yield data
                    left -= len(data)
        except OSError as error:
            raise InputError(f"{path}: can't be read any more: {error.strerror or error}") from None
        if left > 0:
            raise InputError(f"{path}: is shorter than it was; it has changed")

    def _end_groups(self) -> None:
        """Write the row groups that are complete, also those without rows."""
        while self._groups and self._rows == self._groups[0]:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table, row_group_size=max(1, self._rows))
            self._groups.pop(0)
            self._batches, self._rows = [], 0


class ParquetWriter:
    """Writes Parquet: the schema of the rows with its metadata, and the new columns after it.

    Row groups are cut by position, so the same rows give the same bytes.
    """

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        self._columns = destination.columns
        fields = [field.with_type(_type_in_parquet(field.type)) for field in schema]
        self._schema = schema_with_fields(pa.schema(fields, schema.metadata), self._columns.fields)
        self._labels = string_array(destination.labels)
        self._writer = pq.ParquetWriter(
            destination.draft.write_bytes(),
            self._schema,
            compression=destination.compression or "snappy",
            data_page_size=PAGE_BYTES,
        )
        self._batches: list[pa.RecordBatch] = []  # of the next row group
        self._rows = self._bytes = 0  # in these

    @staticmethod
    def see_type(kind: pa.DataType) -> None:
        """See `ColumnWriter.see_type`."""
        is_dictionary = pa.types.is_dictionary(kind)
        if not is_dictionary and has_dictionary(
            kind, lambda each: is_closed(each) or pa.types.is_duration(each.value_type)
        ):
            raise pa.ArrowInvalid("dictionaries of such values have to be columns")
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([("", _type_in_parquet(kind))])).close()

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        arrays = [*map(_in_parquet, rows.columns), *self._columns.arrays(answers, self._labels)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        while True:
            part = batch.slice(0, GROUP_ROWS - self._rows)
            self._batches.append(part)
            self._rows += part.num_rows
            self._bytes += part.nbytes
            if self._rows == GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()
            if part.num_rows == batch.num_rows:
                return
            batch = batch.slice(part.num_rows)

    def close(self) -> None:
        """See `Writer.close`."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        """Write a row group."""
        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=GROUP_ROWS)
        self._batches, self._rows, self._bytes = [], 0, 0


def _type_in_parquet(kind: pa.DataType) -> pa.DataType:
    """Give the type that a column has in Parquet: a dictionary is one of strings or of bytes there."""
    if not pa.types.is_dictionary(kind):
        return kind
    value = value_type(kind)
    is_kept = value in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
    return pa.dictionary(kind.index_type, value, kind.ordered) if is_kept else value


def _in_parquet(column: pa.Array) -> pa.Array:
    """Give a column the type that it has in Parquet."""
    kind = _type_in_parquet(column.type)
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(
            column.indices, column.dictionary.cast(kind.value_type), ordered=kind.ordered
        )
    return decoded(column)
