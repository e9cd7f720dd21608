"""The checkpoint of a small file, in memory: most often the file is done before one on the disk is of any use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.answers import Answers, Labels
from pipeline.checkpoint.records import Row, answers_of, record_of
from pipeline.checkpoint.store import Checkpoint, Range
from pipeline.texts import Position


class MemoryCheckpoint:
    """What a `Checkpoint` keeps of a new file, in memory. `persist` writes it down as one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels = Labels()
        self._records: list[Row] = []
        self._values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """The value kept under `key`, None if there is none."""
        return self._values.get(key)

    def put(self, **values: Any) -> None:
        """Keep values under their names."""
        self._values |= values

    put_later = put

    def add(self, first_row: int, position: Position, answers: Answers, num_classes: int) -> None:
        """See `Checkpoint.add`."""
        self._records.append(record_of(first_row, position, answers, self.labels, num_classes))

    def open_ranges(self, rows: int | None) -> list[Range]:
        """All rows: none had a record when it began."""
        return [Range(0, rows)] if rows != 0 else []

    def position_before(self, _: int) -> Position | None:
        """None but the start of the file."""
        return None

    def counts(self) -> tuple[int, dict[str, int]]:
        """None were answered when it began."""
        return 0, {}

    def answers(self, num_classes: int) -> Iterator[Answers]:
        """Yield all answers in the order of the rows, record by record."""
        records = sorted(self._records, key=lambda record: record[0])
        return (answers_of(record, self.labels, num_classes) for record in records)

    def persist(self) -> Checkpoint:
        """Return a checkpoint on the disk that holds all this, durably.

        Raises:
            DiskTrouble, OutputError: see `Checkpoint`.
        """
        checkpoint = Checkpoint(self.path)
        checkpoint.take(self._records, self.labels, self._values)
        return checkpoint

    def close(self) -> None:
        """Let go of it; nothing is left."""
