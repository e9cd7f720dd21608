"""Sheets of Excel workbooks (`.xlsx`), read row by row by openpyxl. They are only read.

The first row that is not blank is the header. All cells become strings, as those of a CSV file are: numbers as short
as they can be, dates as in ISO 8601, TRUE and FALSE; of a formula its last result. Blank rows at the end are no rows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, time
from typing import Any

import pyarrow as pa
from openpyxl.reader.excel import ExcelReader

from pipeline.config import Loader
from pipeline.errors import ClassifyError, InputError
from pipeline.formats.registry import Format
from pipeline.formats.source import (
    Source,
    TextSpec,
    blocks_of,
    existing_columns,
    refuse_duplicates,
    refuse_existing,
)
from pipeline.storage import Location
from pipeline.texts import Position, TextBlock

Cells = Sequence[str | None]  # of one row
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how old Excel files begin, and those in which a password hides a new one
_ESCAPE = re.compile("_x(?!D[89A-F])([0-9A-F]{4})_", re.IGNORECASE)  # a character that XML can't hold; no surrogate


class XlsxSource(Source):
    """Reads a sheet: the one that `loader.sheet` names, else the first.

    Raises:
        InputError: it is no workbook, has no such sheet, or has a column name twice.
        StoreRefused, StoreGone: its store.
    """

    seekable = False

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        super().__init__(location, file_format)
        self._sheet = loader.sheet
        header, self._blank = list[str | None](), 0  # rows before it
        for header in self._cells():
            if header:
                break
            self._blank += 1
        self.is_empty = not header
        self.columns = [name or f"column_{number}" for number, name in enumerate(header, 1)]
        refuse_duplicates(self.path, self.columns)

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            if name not in self.columns:
                raise InputError(
                    f"{self.path}: no column {name!r}; {existing_columns(self.columns, name, spec.advice(name))}"
                )
        refuse_existing(self.path, self.columns, appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`; of a position only the row matters."""
        if self.is_empty:
            return
        row = position.row if position else 0
        wanted = [self.columns.index(name) for name in spec.columns]
        for block in blocks_of(itertools.islice(self._rows(), row, None), _size_of):
            yield spec.block_of(
                Position(row, 0, row + self._blank + 2), block, lambda cells: [cells[index] for index in wanted]
            )
            row += len(block)

    def schema(self) -> pa.Schema:
        """See `Source.schema`: strings."""
        return pa.schema([(name, pa.string()) for name in self.columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        for block in blocks_of(self._rows(), _size_of):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema())

    def _rows(self) -> Iterator[Cells]:
        """Read the rows below the header, with a cell for each column."""
        width, header = len(self.columns), self._blank + 1
        for number, cells in enumerate(itertools.islice(self._cells(), header, None), header + 1):
            if len(cells) > width:
                raise InputError(
                    f"{self.path}: row {number} of the sheet has {len(cells)} cells where the header has {width}; "
                    f"give each column a name"
                )
            yield [*cells, *[None] * (width - len(cells))]

    def _cells(self) -> Iterator[list[str | None]]:
        """Read all rows up to the last that has a value, each up to its last value."""
        with self._errors(), self.location.open() as file:
            if bytes(file.read(len(_OLE))) == _OLE:
                raise InputError(
                    f"{self.path}: can't be read as .xlsx: needs a password, or is an .xls file; "
                    f"save it as .xlsx without a password"
                )
            file.seek(0)
            sheet = self._sheet_of(file)
            sheet.reset_dimensions()  # what the file says of its size is often wrong
            empty = 0
            for values in sheet.iter_rows(values_only=True):
                cells = [_text_of(value) for value in values]
                while cells and cells[-1] is None:
                    cells.pop()
                if cells:
                    yield from ([] for _ in range(empty))
                    yield cells
                empty = 0 if cells else empty + 1

    def _sheet_of(self, file: Any) -> Any:
        """Find the sheet in an open file; charts that are sheets are none."""
        reader = ExcelReader(file, read_only=True, data_only=True, keep_links=False)
        reader.read()
        lost = {sheet.name for sheet in reader.parser.sheets} - {*reader.wb.sheetnames}
        sheets = {sheet.title: sheet for sheet in reader.wb.worksheets}
        name = next(iter(sheets), None) if self._sheet is None else self._sheet
        if lost or name is None:
            raise ValueError(f"there is no sheet {min(lost)!r}" if lost else "there is no sheet with cells")
        if name not in sheets:
            what = f"the sheet {name!r} is a chart" if name in reader.wb.sheetnames else f"no sheet {name!r}"
            raise InputError(f"{self.path}: {what}; there are {', '.join(map(repr, sheets))} (loader.sheet)")
        return sheets[name]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (ClassifyError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever openpyxl stumbles over in a file
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            what = "" if isinstance(error, OSError) else "is damaged, or no workbook: "
            found = self.location.trouble(error)
            raise found or InputError(f"{self.path}: can't be read as .xlsx: {what}{reason}") from None


def _text_of(value: Any) -> str | None:
    """Make the text of a cell; one without a value has none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, datetime):
        return str(value.date()) if value.time() == time() else value.isoformat(" ")
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), str(value))


def _size_of(cells: Cells) -> int:
    return sum(len(cell) for cell in cells if cell is not None)
