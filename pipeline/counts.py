"""What is counted: of a command as a whole, and of each of its files."""

from __future__ import annotations

from collections import Counter

from pipeline.predictions import Predictions


class Counts:
    """What became of rows, and what it cost."""

    def __init__(self, texts_sent: int = 0) -> None:
        self.rows_done = 0
        self.rows_resumed = 0  # of rows_done: those a former run had answered
        self.rows_labelled = 0
        self.failed: Counter[str] = Counter()  # error code -> rows
        self.empty = 0
        self.requests = self.retries = 0
        self.texts_sent = texts_sent
        self.rows_shared = 0  # rows that another row's text was sent for
        self.rows_reused = 0  # rows with an answer of another run

    def spend(self, texts: int) -> None:
        """Count a request."""
        self.requests += 1
        self.texts_sent += texts

    def add(self, other: Counts) -> None:
        """Count what was counted elsewhere."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def answered(self, predictions: Predictions, *, shared: int = 0, reused: int = 0) -> None:
        """Count the predictions of some rows."""
        self.rows_done += len(predictions)
        self.rows_labelled += len(predictions) - len(predictions.errors)
        self.rows_shared += shared
        self.rows_reused += reused
        for error in predictions.errors.values():
            self.failed_with(error.partition(":")[0], 1)

    def resume(self, rows: int, codes: dict[str, int]) -> None:
        """Count what an earlier run has answered."""
        self.rows_done += rows
        self.rows_resumed += rows
        self.rows_labelled += rows - sum(codes.values())
        for code, count in codes.items():
            self.failed_with(code, count)

    def failed_with(self, code: str, rows: int) -> None:
        """Count rows without an answer; an empty text is no failure."""
        if code == "empty":
            self.empty += rows
        else:
            self.failed[code] += rows

    @property
    def rows_failed(self) -> int:
        """Rows that should have got an answer and did not."""
        return self.failed.total()
