"""What the formats of Arrow columns share: texts of string columns and of fields in structs, a batch at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ClassifyError, InputError
from pipeline.formats.dictionaries import (
    decoded,
    grown,
    has_dictionary,
    is_narrow,
    with_null_indexes,
    with_wide_indexes,
)
from pipeline.formats.registry import Format
from pipeline.formats.source import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    Source,
    TextSpec,
    existing_columns,
    refuse_duplicates,
    refuse_existing,
)
from pipeline.formats.textfile import is_utf8
from pipeline.storage import Location
from pipeline.texts import (
    Position,
    TextBlock,
    binary_scalar,
    block_of_escaped,
    escape_joined,
    join_values,
)

BATCH_ROWS = 16_384  # a batch of 64k rows would take some 50 MiB more and gain nothing
BATCH_BYTES = 16 << 20
# Of types. pandas gives a column without any value the type null.
_ARE_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
_ARE_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


class ColumnarSource(Source):
    """A source of Arrow columns, see `Source`. A format says in `_batches` how they are read."""

    advice = ""  # in a message about a column that is not there, where it is another one than for files

    def __init__(self, location: Location, file_format: Format, schema: pa.Schema, rows: int | None) -> None:
        super().__init__(location, file_format)
        self.schema_of_file, self.total_rows = schema, rows
        self._schema: pa.Schema | None = None  # of whole rows
        self.columns: list[str] = list(schema.names)

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        refuse_duplicates(self.path, self.columns, heads_of(spec.columns))
        for name in spec.columns:
            kind = self._type_of(name, spec.advice(name))
            if not any(is_text(kind) for is_text in (*_ARE_STRINGS, *_ARE_BYTES)):
                raise InputError(f"{self.path}: the column {name!r} is of type {kind}, a text column is a string")
        refuse_existing(self.path, self.columns, appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`; of a position only the row matters."""
        row = position.row if position else 0
        for batch in self._batches(row, BLOCK_ROWS, BLOCK_CHARS, spec.columns):
            here, columns = Position(row, 0, 0), [_column(batch, name) for name in spec.columns]
            block = _block_of_column(here, columns[0]) if spec.is_plain else None
            if block is None:
                rows = zip(*[column.cast(pa.large_binary()).to_pylist() for column in columns], strict=True)
                block = spec.block_of(here, rows, lambda row: [*map(_decoded, row)])
            yield block
            row += batch.num_rows

    def cuts(self, rows: int, position: Position | None = None) -> Iterator[Position]:
        """See `Source.cuts`."""
        first, total = position.row if position else 0, self.total_rows or 0
        yield from (Position(row, 0, 0) for row in [*range(first + rows, total, rows), total])

    def schema(self) -> pa.Schema:
        """See `Source.schema`: that of the file, with all metadata. Dictionaries have indexes that count all values.

        Raises:
            InputError: a file with narrow indexes can't be read.
        """
        if self._schema is None:
            fields = [*self.schema_of_file]
            narrow = [index for index, field in enumerate(fields) if is_narrow(field.type)]
            if narrow and not self._indexes_fit([fields[index].name for index in narrow]):
                for index in narrow:
                    fields[index] = fields[index].with_type(with_wide_indexes(fields[index].type))
            self._schema = pa.schema(fields, self.schema_of_file.metadata)
        return self._schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        schema = self.schema()
        is_as_read = schema.equals(self.schema_of_file)
        has_dictionaries = any(map(has_dictionary, schema.types))
        for batch in self._batches(0, BATCH_ROWS, BATCH_BYTES, None):
            rows = batch
            if has_dictionaries:
                rows = pa.RecordBatch.from_arrays(list(map(with_null_indexes, batch.columns)), schema=batch.schema)
            yield rows if is_as_read else rows.cast(schema)

    def _indexes_fit(self, names: Sequence[str]) -> bool:
        """Read the dictionaries of the columns, and say whether their indexes can count the values of all batches."""
        known: dict[int, pa.Array] = {}
        try:
            for batch in self._batches(0, BATCH_ROWS, BATCH_BYTES, names):
                for index, column in enumerate(each for each in batch.columns if is_narrow(each.type)):
                    known[index], _ = grown(known.get(index), with_null_indexes(column.slice(0, 0)))
        except pa.ArrowInvalid:
            return False
        return True

    def see_columns(self, names: Sequence[str]) -> None:
        """See `Source.see_columns`."""
        for name in names:
            self._type_of(name)

    def select(self, names: Sequence[str], *, repeated: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """See `Source.select`."""
        for batch in self._batches(0, BATCH_ROWS, BATCH_BYTES, names):
            yield pa.RecordBatch.from_arrays([_field(batch, name) for name in names], list(names))

    @abstractmethod
    def _batches(
        self, row: int, most_rows: int, most_bytes: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """Read batches from `row` on, each within `most_rows` and about `most_bytes`.

        They hold at least the columns `names`, by default all.
        """

    def _type_of(self, name: str, advice: str = "") -> pa.DataType:
        """Find the type of a column, or of a field in a struct."""
        path = [name] if name in self.columns else name.split(".")
        level: pa.Schema | pa.DataType = self.schema_of_file
        for part in path:
            is_nested = isinstance(level, pa.Schema) or pa.types.is_struct(level)
            if not is_nested or level.get_field_index(part) < 0:
                there = existing_columns(self.columns, name, self.advice or advice)
                raise InputError(f"{self.path}: no column {name!r}; {there}")
            level = level.field(part).type
        return level.value_type if pa.types.is_dictionary(level) else level


def read_error(location: Location, what: str, error: Exception) -> ClassifyError:
    """Make the error of a failed reading: that of the store, else `what` of the file."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return location.trouble(error) or InputError(f"{location}: {what}: {reason}")


def slices(batch: pa.RecordBatch, row: int, most_rows: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Cut a batch, from `row` on, into batches of at most `most_rows` and about `most_bytes`."""
    size = max(1, min(most_rows, most_bytes * batch.num_rows // max(1, batch.nbytes)))
    yield from (batch.slice(start, size) for start in range(row, batch.num_rows, size))


def heads_of(names: Sequence[str]) -> list[str]:
    """Give all columns that `names` may mean: of exactly that name, or those that hold the field `a.b`."""
    return [*names, *[name.partition(".")[0] for name in names]]


def _field(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Take the column of exactly that name, else the field that `a.b` reaches; a null struct has null fields."""
    if name in batch.schema.names:
        return batch.column(name)
    head, *rest = name.split(".")
    return pc.struct_field(batch.column(head), rest)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Take a text column, see `_field`. Bytes are taken for strings: Impala and Hive do not say which are."""
    array = _field(batch, name)
    array = decoded(array)
    is_bytes = any(is_so(array.type) for is_so in _ARE_BYTES)
    return array.cast(pa.large_string(), safe=False) if is_bytes else array  # no look at whether they are UTF-8


def _block_of_column(position: Position, array: pa.Array) -> TextBlock | None:
    """Make a block without a Python string for each text; None if one has a rare control character or is no UTF-8."""
    data = array.cast(pa.large_binary())
    if data.null_count:
        data = pc.fill_null(data, binary_scalar(b""))
    joined = join_values(data)
    texts = escape_joined(joined, len(data))
    if texts is None or not (joined.isascii() or is_utf8(texts.data)):  # Parquet does not check what it calls a string
        return None
    return block_of_escaped(position, texts)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        raise ValueError("no valid UTF-8") from None
