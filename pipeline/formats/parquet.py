"""Parquet to Parquet: the file's own bytes as they stand, and after them the columns that are added."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.answers import Answers
from pipeline.cancellation import raise_if_cancelled
from pipeline.errors import InputError, OutputError
from pipeline.formats.columns import Layout
from pipeline.formats.parquet_footer import MAGIC, TAIL_BYTES, Footer
from pipeline.formats.source import BLOCK_CHARS, BLOCK_ROWS, TextSpec, no_column, refuse_doubled, refuse_existing
from pipeline.formats.textfile import is_utf8
from pipeline.storage import Draft, Location
from pipeline.texts import EMPTY, Position, TextBlock, binary, blank_ones, block_of, escape_joined, joined_with, strings

# -- Parquet: row group by row group, in batches bounded in bytes, types untouched


BATCH_BYTES = 16 << 20
SAMPLE_ROWS = 64  # of a row group that tell how large its rows are
SMALL_BYTES = 1 << 20  # of a row group that is read once as a whole, where the file is in memory
BATCH_ROWS = 16_384  # a batch of 64k rows costs some 50 MiB more and gains nothing


class ParquetSource:
    """A Parquet file.

    Raises:
        InputError: no Parquet, cut short, a column name twice, a text column of another type than string.
    """

    seekable = True
    skipped = 0
    is_empty = False

    def __init__(self, location: Location) -> None:
        self.location, self.path = location, location.shown
        try:
            self._opened = location.open()
            # Without pre_buffer=False the reader keeps what it has read, and memory grows with the file.
            self._file = pq.ParquetFile(self._opened, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            what = InputError(f"{self.path}: can't be read as Parquet: {_first_line(error)}")
            raise location.trouble(error) or what from None
        self._all: pa.RecordBatch | None = None  # rows and columns, of a small file
        self._schema: pa.Schema = self._file.schema_arrow
        self.columns: list[str] = list(self._schema.names)
        self.total_rows: int | None = self._file.metadata.num_rows
        refuse_doubled(self.path, self.columns)

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            kind = self._type_of(name)
            # pandas gives a column without any value the type null.
            is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
            if not any(is_so(kind) for is_so in is_text):
                raise InputError(f"{self.path}: the column {name!r} is of type {kind}, a text column is a string")
        refuse_existing(self.path, self.columns, added)

    def texts(self, spec: TextSpec, place: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`; of a place only the row matters."""
        row = place.row if place else 0
        for batch in self._batches(row, BLOCK_ROWS, BLOCK_CHARS, spec.columns):
            columns = [_column(batch, name) for name in spec.columns]
            block = _block_at_once(Position(row, 0, 0), columns[0]) if spec.is_plain else None
            yield block or _block_by_row(Position(row, 0, 0), columns, spec)
            row += batch.num_rows

    def schema(self) -> pa.Schema:
        """The file's schema, with its metadata and that of its fields."""
        return self._schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, all columns."""
        yield from self._batches(0, BATCH_ROWS, BATCH_BYTES, None)

    @property
    def group_rows(self) -> list[int]:
        """How many rows each row group has."""
        metadata = self._file.metadata
        return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]

    def footer(self, most: int) -> bytes | None:
        """What describes the file, as it stands at its end; None if it is encrypted, or has more than `most` bytes."""
        try:
            with self.location.open() as file:
                size = file.size()
                length, magic = struct.unpack("<I4s", file.read_at(TAIL_BYTES, size - TAIL_BYTES))
                is_usual = magic == MAGIC and length <= most
                return bytes(file.read_at(length, size - TAIL_BYTES - length)) if is_usual else None
        except (pa.ArrowException, OSError) as error:
            what = InputError(f"{self.path}: can't be read any more: {_first_line(error)}")
            raise self.location.trouble(error) or what from None

    def _batches(
        self, row: int, most_rows: int, most_bytes: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """Batches from `row` on, each within `most_rows` and (by the average of its row group) `most_bytes`."""
        wanted = None if names is None else self._columns_of(names)
        for group in range(self._file.metadata.num_row_groups):
            metadata = self._file.metadata.row_group(group)
            if row >= metadata.num_rows:
                row -= metadata.num_rows
                continue
            try:
                row_bytes = _bytes_of(metadata, wanted) / metadata.num_rows
                if self.location.store is None and _has_dictionary(metadata, wanted) and not self._is_small:
                    row_bytes = max(row_bytes, self._bytes_a_row(group, names))
                size = max(1, min(most_rows, int(most_bytes / max(1.0, row_bytes))))
                for batch in self._read(group, size, names):
                    if row < batch.num_rows:
                        yield batch.slice(row)
                    row = max(0, row - batch.num_rows)
            except (pa.ArrowException, OSError) as error:
                what = InputError(f"{self.path}: row group {group} can't be read: {_first_line(error)}")
                raise self.location.trouble(error) or what from None

    def _bytes_a_row(self, group: int, names: Sequence[str] | None) -> float:
        """By the first rows of a row group: what repeats takes next to nothing in the file, and all of it in memory."""
        first = next(self._reader().iter_batches(SAMPLE_ROWS, row_groups=[group], columns=names, use_threads=False))
        return float(first.nbytes / max(1, len(first)))

    def _read(self, group: int, size: int, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The batches of a row group; all of a small file is read with the texts, and at once."""
        if not self._is_small:
            yield from self._reader().iter_batches(size, row_groups=[group], columns=names, use_threads=False)
            return
        self._all = self._all or next(self._file.iter_batches(BLOCK_ROWS, use_threads=False))
        yield self._all

    def _reader(self) -> pq.ParquetFile:
        """What reads one row group: from a store all its columns at once, by a reader that is then let go of."""
        if self.location.store is None:
            return self._file
        return pq.ParquetFile(self._opened, metadata=self._file.metadata, pre_buffer=True)

    @property
    def _is_small(self) -> bool:
        if self.location.content is None or self._file.metadata.num_row_groups != 1:
            return False
        group = self._file.metadata.row_group(0)
        return bool(group.num_rows <= BLOCK_ROWS and group.total_byte_size <= SMALL_BYTES)

    def _columns_of(self, names: Sequence[str]) -> list[int]:
        """The Parquet columns that these are of. Asking a row group for an encrypted one would end the process."""
        heads = {name.partition(".")[0] for name in names} | set(names)
        paths = [self._file.schema.column(index).path for index in range(len(self._file.schema))]
        return [index for index, path in enumerate(paths) if path.partition(".")[0] in heads]

    def _type_of(self, name: str) -> pa.DataType:
        path = [name] if name in self.columns else name.split(".")
        level: pa.Schema | pa.DataType = self._schema
        for part in path:
            nested = isinstance(level, pa.Schema) or pa.types.is_struct(level)
            if not nested or level.get_field_index(part) < 0:
                raise InputError(f"{self.path}: no column {name!r}; {no_column(self.columns, name)}")
            level = level.field(part).type
        return level.value_type if pa.types.is_dictionary(level) else level


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The column of exactly that name, else the field that `a.b` reaches; a null struct has null fields."""
    if name in batch.schema.names:
        array = batch.column(name)
    else:
        head, *rest = name.split(".")
        array = pc.struct_field(batch.column(head), rest)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _block_at_once(place: Position, array: pa.Array) -> TextBlock | None:
    """Texts without a Python string for each; None where one of them is out of the ordinary."""
    data = array.cast(pa.large_binary())
    if data.null_count:
        data = pc.fill_null(data, binary(b""))
    joined = joined_with(b"\xff", data)
    texts = escape_joined(joined, len(data))
    if texts is None or not (joined.isascii() or is_utf8(texts.data)):  # Parquet does not check what it calls a string
        return None
    return TextBlock(place, texts, dict.fromkeys(blank_ones(texts), EMPTY))


def _block_by_row(place: Position, columns: Sequence[pa.Array], spec: TextSpec) -> TextBlock:
    found = [_texts_of(column) for column in columns]
    bad = {index: "no valid UTF-8" for _, failed in found for index in failed}
    values = [texts for texts, _ in found]
    texts = values[0] if spec.is_plain else [spec.render(row) for row in zip(*values, strict=True)]
    return block_of(place, texts, bad)


def _texts_of(array: pa.Array) -> tuple[list[str | None], list[int]]:
    """The values as Python strings, and the indexes of those that are no UTF-8."""
    try:
        return array.to_pylist(), []
    except UnicodeDecodeError:
        texts: list[str | None] = []
        bad: list[int] = []
        for index, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
                bad.append(index)
        return texts, bad


def _bytes_of(metadata: pq.RowGroupMetaData, wanted: Sequence[int] | None) -> int:
    if wanted is None:
        return int(metadata.total_byte_size)
    return sum(metadata.column(index).total_uncompressed_size for index in wanted if index < metadata.num_columns)


def _has_dictionary(metadata: pq.RowGroupMetaData, wanted: Sequence[int] | None) -> bool:
    if wanted is None:  # one of all columns has one, most likely; asking for one that is encrypted ends the process
        return True
    encodings = {each for index in wanted if index < metadata.num_columns for each in metadata.column(index).encodings}
    return not encodings.isdisjoint(("RLE_DICTIONARY", "PLAIN_DICTIONARY"))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


# -- Parquet out: the input's schema with its metadata, the new columns after it


GROUP_ROWS = 65_536
GROUP_BYTES = 64 << 20  # a row group is gathered in memory: rows of a megabyte are cut earlier
FEW_ROWS = 1024  # a dictionary gains nothing there, and to see whether values repeat costs as much as to write them
PAGE_BYTES = 256 << 10  # stays in the processor's cache while it is compressed: an eighth less than pages of 1 MiB


class ParquetSink:
    """Writes record batches with their predictions; row groups are cut by position, so they are always the same."""

    def __init__(
        self, draft: Draft, schema: pa.Schema, layout: Layout, labels: Sequence[str], compression: str | None
    ) -> None:
        for field in layout.fields():
            schema = schema.append(field)
        self._schema, self._layout = schema, layout
        self._labels = strings(labels)
        self._draft, self._compression = draft, compression or "snappy"
        self._writer: pq.ParquetWriter | None = None
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch, answers: Answers) -> None:
        """Append rows."""
        arrays = [*batch.columns, *self._layout.arrays(answers, self._labels)]
        while True:
            whole = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
            part = whole.slice(0, GROUP_ROWS - self._rows)
            self._batches.append(part)
            self._rows += part.num_rows
            self._bytes += part.nbytes
            if self._rows == GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()
            if part.num_rows == batch.num_rows:
                return
            batch = batch.slice(part.num_rows)
            arrays = [array.slice(part.num_rows) for array in arrays]

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._open([]).close()

    def _flush(self) -> None:
        if self._rows:
            writer = self._open(self._batches)
            writer.write_table(pa.Table.from_batches(self._batches), row_group_size=GROUP_ROWS)
        self._batches, self._rows, self._bytes = [], 0, 0

    def _open(self, first: list[pa.RecordBatch]) -> pq.ParquetWriter:
        """The writer, made for what the first row group holds."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._draft.write_bytes(),
                self._schema,
                compression=self._compression,
                use_dictionary=_with_dictionary(self._schema, first),
                data_page_size=PAGE_BYTES,
            )
        return self._writer


def _with_dictionary(schema: pa.Schema, first: list[pa.RecordBatch]) -> list[str] | bool:
    """The columns to be written with a dictionary: not those whose values hardly repeat, where it is tried in vain."""
    if sum(batch.num_rows for batch in first) <= FEW_ROWS:
        return False
    if any(pa.types.is_nested(field.type) for field in schema):
        return True
    table = pa.Table.from_batches(first)
    plain = [field.name for field in schema if _is_plain(field.type)]
    unlike = {name for name in plain if pc.count_distinct(table[name]).as_py() > table.num_rows / 2}
    return [name for name in schema.names if name not in unlike]


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return bool(is_text or types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind))


# -- Parquet to Parquet: the file's own bytes as they stand, and after them the columns that are added


PIECE_BYTES = 4 << 20
MOST_FOOTER = 1 << 20  # bytes: ours is slow at reading them
MOST_CHUNKS = 10_000  # of new columns in row groups: each takes half a millisecond and 300 bytes
LABEL_BYTES, VALUE_BYTES = 32, 8  # of memory: of a row with its label, about, and of each of its values


class ParquetAppender:
    """Copies a Parquet file and adds columns: what was there is neither decoded nor encoded again.

    So encodings, compression, statistics, indexes and types that Arrow has no name for stay as they are. A row group
    gets its new columns as a whole, which is how many rows of them are held in memory.
    """

    def __init__(
        self, draft: Draft, source: ParquetSource, footer: Footer, layout: Layout, labels: Sequence[str]
    ) -> None:
        self._path, self._source, self._layout = draft.path, source, layout
        self._labels = strings(labels)
        self._schema = pa.schema(layout.fields())
        self._stream = draft.write_bytes()
        self._footer = footer
        self._end = source.location.look()[1] - TAIL_BYTES - footer.size  # of what is copied
        self._groups = list(source.group_rows)  # rows of the row groups that are not complete
        self._batches: list[pa.RecordBatch] = []  # of the first of them
        self._rows = 0
        self._described: list[pq.FileMetaData] = []
        self._writer: pq.ParquetWriter | None = None

    @classmethod
    def of(cls, draft: Draft, source: ParquetSource, layout: Layout, labels: Sequence[str]) -> ParquetAppender | None:
        """One for this file; None where it can't be copied, or the new columns of a row group would be too large."""
        groups = source.group_rows
        values = layout.num_classes if layout.has_probs else 1
        row = max([LABEL_BYTES, *(len(label) for label in labels)]) + VALUE_BYTES * values
        if max(groups, default=0) * row > GROUP_BYTES or len(groups) * len(layout.names) > MOST_CHUNKS:
            return None
        try:
            return cls(draft, source, Footer(source.footer(MOST_FOOTER) or b""), layout, labels)
        except ValueError:
            return None

    def blocks(self) -> Iterator[range]:
        """Copy the file, then yield its rows, as many at a time as belong to one row group."""
        for piece in _pieces(self._source, self._end):
            self._stream.write(piece)
            raise_if_cancelled()
        for rows in self._source.group_rows:
            for start in range(0, rows, BATCH_ROWS):
                yield range(min(BATCH_ROWS, rows - start))

    def write(self, rows: range, answers: Answers) -> None:
        """Add the predictions of the next rows, which are in one row group."""
        self._end_groups()
        self._batches.append(
            pa.RecordBatch.from_arrays(self._layout.arrays(answers, self._labels), schema=self._schema)
        )
        self._rows += len(rows)
        self._end_groups()

    def close(self) -> None:
        """Write the footer, if all rows are there."""
        try:
            self._end_groups()
            if not self._groups:
                self._open().close()  # the footer that this writes stays before ours, and nobody reads it
        finally:
            if self._writer is not None:
                self._writer.is_open = False  # else it tries once more when it goes, and says that it can't
        if self._groups:
            return
        sink = pa.BufferOutputStream()
        self._described[0].write_metadata_file(sink)
        added = sink.getvalue().to_pybytes()[len(MAGIC) : -TAIL_BYTES]
        try:
            footer = self._footer.widened(added, self._end)
        except ValueError as error:
            raise InputError(f"{self._source.path}: has another footer than it had ({error}); it has changed") from None
        found = pq.read_schema(pa.BufferReader(MAGIC + footer))
        if not found.equals(pa.schema([*self._source.schema(), *self._schema])):
            raise OutputError(f"{self._path}: the columns can't be copied; set writer.compression to snappy")
        self._stream.write(footer)

    def _end_groups(self) -> None:
        """Write the row groups that are complete, also those without rows."""
        while self._groups and self._rows == self._groups[0]:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._open().write_table(table, row_group_size=max(1, self._rows))
            self._groups.pop(0)
            self._batches, self._rows = [], 0

    def _open(self) -> pq.ParquetWriter:
        """What writes the new columns: a file of its own, where the copy ends; places in it count from there."""
        if self._writer is None:
            names = self._schema.names
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._stream, "w"),
                self._schema,
                use_dictionary=[names[0], names[2]],  # labels and errors, which repeat
                data_page_size=PAGE_BYTES,
                metadata_collector=self._described,
            )
        return self._writer


def _pieces(source: ParquetSource, size: int) -> Iterator[bytes]:
    """The first `size` bytes of the file.

    Raises:
        InputError: they can't be read. StoreRefused, StoreGone: its store.
    """
    try:
        with source.location.stream() as stream:
            while size > 0 and (piece := stream.read(min(size, PIECE_BYTES))):
                yield piece
                size -= len(piece)
    except OSError as error:
        raise InputError(f"{source.path}: can't be read any more: {error.strerror or error}") from None
    if size > 0:
        raise InputError(f"{source.path}: is shorter than it was; it has changed")
