"""Sheets of Excel workbooks (`.xlsx`), read row by row by openpyxl. They are only read.

The first row is the header. All cells become strings, as those of a CSV file are: numbers as short as they can be,
dates as in ISO 8601, TRUE and FALSE; of a formula its last result. Empty rows at the end are no rows.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, time
from typing import Any
from xml.etree.ElementTree import ParseError

import openpyxl
import pyarrow as pa
from openpyxl.utils.exceptions import InvalidFileException

from pipeline.config import Loader
from pipeline.errors import InputError
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
        header = next(self._cells(), [])
        self.is_empty = not header
        self.columns = [name or f"column_{number}" for number, name in enumerate(header, 1)]
        refuse_duplicates(self.path, self.columns)

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        for name in spec.columns:
            if name not in self.columns:
                raise InputError(f"{self.path}: no column {name!r}; {existing_columns(self.columns, name)}")
        refuse_existing(self.path, self.columns, appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`; of a position only the row matters."""
        row = position.row if position else 0
        wanted = [self.columns.index(name) for name in spec.columns]
        for block in blocks_of(itertools.islice(self._rows(), row, None), _size_of):
            yield spec.block_of(Position(row, 0, row + 2), block, lambda cells: [cells[index] for index in wanted])
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
        width = len(self.columns)
        for number, cells in enumerate(self._cells()):
            if number and len(cells) > width:
                raise InputError(
                    f"{self.path}: row {number + 1} of the sheet has {len(cells)} cells where the header has {width}; "
                    f"give each column a name"
                )
            if number:
                yield [*cells, *[None] * (width - len(cells))]

    def _cells(self) -> Iterator[list[str | None]]:
        """Read all rows up to the last that has a value, each up to its last value."""
        with self._errors(), self.location.open() as file:
            workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            if self._sheet is not None and self._sheet not in workbook.sheetnames:
                sheets = ", ".join(map(repr, workbook.sheetnames))
                raise InputError(f"{self.path}: no sheet {self._sheet!r}; there are {sheets} (loader.sheet)")
            sheet = workbook[self._sheet] if self._sheet is not None else workbook.worksheets[0]
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

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, ParseError, OSError) as error:
            found = self.location.trouble(error)
            reason = f"{self.path}: can't be read as .xlsx ({error}); a workbook with a password must be saved without"
            raise found or InputError(reason) from None


def _text_of(value: Any) -> str | None:
    """Make the text of a cell; one without a value has none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1 << 53 else repr(value)
    if isinstance(value, datetime):
        return str(value.date()) if value.time() == time() else value.isoformat(" ")
    return str(value)


def _size_of(cells: Cells) -> int:
    return sum(len(cell) for cell in cells if cell is not None)
