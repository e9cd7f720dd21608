"""Parquet: row group by row group, in batches bounded in bytes, types untouched."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.arrow import binary, joined_with
from pipeline.errors import InputError
from pipeline.escaped import blank_ones, escape_joined
from pipeline.loader.lines import Place, is_utf8
from pipeline.loader.texts import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    EMPTY,
    TextBlock,
    TextSpec,
    block_of,
    no_column,
    refuse_doubled,
    refuse_existing,
)
from pipeline.places import Location

MAGIC, TAIL_BYTES = b"PAR1", 8  # a file ends with its footer, the length of that, and the magic
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

    def texts(self, spec: TextSpec, place: Place | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`; of a place only the row matters."""
        row = place.row if place else 0
        for batch in self._batches(row, BLOCK_ROWS, BLOCK_CHARS, spec.columns):
            columns = [_column(batch, name) for name in spec.columns]
            block = _block_at_once(Place(row, 0, 0), columns[0]) if spec.is_plain else None
            yield block or _block_by_row(Place(row, 0, 0), columns, spec)
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


def _block_at_once(place: Place, array: pa.Array) -> TextBlock | None:
    """Texts without a Python string for each; None where one of them is out of the ordinary."""
    data = array.cast(pa.large_binary())
    if data.null_count:
        data = pc.fill_null(data, binary(b""))
    joined = joined_with(b"\xff", data)
    texts = escape_joined(joined, len(data))
    if texts is None or not (joined.isascii() or is_utf8(texts.data)):  # Parquet does not check what it calls a string
        return None
    return TextBlock(place, texts, dict.fromkeys(blank_ones(texts), EMPTY))


def _block_by_row(place: Place, columns: Sequence[pa.Array], spec: TextSpec) -> TextBlock:
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
