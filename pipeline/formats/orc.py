"""ORC files, a stripe at a time. They are only read: pyarrow writes them without times and unsigned numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import orc

from pipeline.config import Loader
from pipeline.formats.columnar import ColumnarSource, read_error, slices
from pipeline.formats.registry import Format
from pipeline.storage import Location


class OrcSource(ColumnarSource):
    """Reads an ORC file.

    Raises:
        InputError: it is no ORC, or is cut short. StoreRefused, StoreGone: its store.
    """

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:  # noqa: ARG002 - no options
        try:
            self._file = orc.ORCFile(location.open())
        except (pa.ArrowException, OSError) as error:
            raise read_error(location, "can't be read as ORC", error) from None
        super().__init__(location, file_format, self._file.schema, self._file.nrows)

    def _batches(
        self, row: int, most_rows: int, most_bytes: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """See `ColumnarSource._batches`: all columns where a name has a dot in it, which means a field to Arrow."""
        wanted = None if names is None or any("." in name for name in {*names} & {*self.columns}) else names
        for stripe in range(self._file.nstripes):
            try:
                batch = self._file.read_stripe(stripe, columns=wanted)
            except (pa.ArrowException, OSError) as error:
                raise read_error(self.location, f"stripe {stripe} can't be read", error) from None
            yield from slices(batch, row, most_rows, most_bytes)
            row = max(0, row - batch.num_rows)
