"""The columns that are added to a row: their names, their types, and their values from the checkpoint's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.answers import NO_LABEL, Answers
from pipeline.config import Config
from pipeline.texts import bitmap, strings


class Layout:
    """Which columns are added, in which order. `num_classes` matters only where each class has a column."""

    def __init__(self, config: Config, num_classes: int) -> None:
        writer = config.writer
        self.num_classes = num_classes or len(writer.labels or ())
        self._probs = writer.probs
        self._truncated = config.request.too_long == "truncate"
        self.names = [f"{writer.prefix}{name}" for name in ("label", "score", "error")]
        if writer.probs == "list":
            self.names.append(f"{writer.prefix}probs")
        elif writer.probs == "columns":
            classes = writer.labels or [str(index) for index in range(num_classes)]
            self.names += [f"{writer.prefix}prob_{each}" for each in classes]
        if self._truncated:
            self.names.append(f"{writer.prefix}truncated")

    @property
    def has_probs(self) -> bool:
        """Whether each class has a value."""
        return self._probs != "none"

    def fields(self) -> list[pa.Field]:
        """The columns as Arrow fields."""
        types = [pa.string(), pa.float64(), pa.string()]
        probs = self.names[3:-1] if self._truncated else self.names[3:]
        types += [pa.list_(pa.float64()) if self._probs == "list" else pa.float64() for _ in probs]
        if self._truncated:
            types.append(pa.bool_())
        return [pa.field(name, type_) for name, type_ in zip(self.names, types, strict=True)]

    def arrays(self, answers: Answers, labels: pa.Array) -> list[pa.Array]:
        """The columns as Arrow arrays; `labels` are the names by id. No Python object a row."""
        there = bitmap(answers.ids != NO_LABEL)
        ids = pa.Array.from_buffers(pa.int32(), len(answers.ids), [there, pa.py_buffer(answers.ids)])
        return [labels.take(ids), *self.after_label(answers)]

    def after_label(self, answers: Answers) -> list[pa.Array]:
        """The same without the first, which holds the labels."""
        rows = len(answers.ids)
        there = bitmap(answers.ids != NO_LABEL)
        scores = pa.Array.from_buffers(pa.float64(), rows, [there, pa.py_buffer(answers.scores)])
        errors = strings(_errors_of(answers)) if answers.errors else pa.nulls(rows, pa.string())
        arrays = [scores, errors]
        if self._probs == "list":
            probs = self._probs_of(answers)
            offsets = np.arange(rows + 1, dtype=np.int32) * probs.shape[1]
            values = pa.Array.from_buffers(pa.float64(), probs.size, [None, pa.py_buffer(np.ascontiguousarray(probs))])
            buffers = [there, pa.py_buffer(offsets)]
            arrays.append(pa.Array.from_buffers(pa.list_(pa.float64()), rows, buffers, children=[values]))
        elif self._probs == "columns":
            columns = np.ascontiguousarray(self._probs_of(answers).T)
            arrays += [pa.Array.from_buffers(pa.float64(), rows, [there, pa.py_buffer(each)]) for each in columns]
        if self._truncated:
            mask = np.zeros(rows, bool)
            mask[list(answers.truncated)] = True
            arrays.append(pa.Array.from_buffers(pa.bool_(), rows, [None, bitmap(mask)]))
        return arrays

    def _probs_of(self, answers: Answers) -> np.ndarray[Any, np.dtype[np.float64]]:
        return answers.probs_or_nan(self.num_classes)


class Tally:
    """How many rows got which label, and which error."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names  # more may come
        self._counts = np.zeros(0, np.int64)
        self.codes: Counter[str] = Counter()
        self.truncated = 0

    def count(self, answers: Answers) -> None:
        """Count some rows."""
        known = answers.ids[answers.ids != NO_LABEL]
        counts = np.bincount(known, minlength=len(self._names))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self.codes.update(error.code for error in answers.errors.values())
        self.truncated += len(answers.truncated)

    @property
    def labels(self) -> dict[str, int]:
        """Label -> rows, the most frequent first."""
        pairs = zip(self._names, self._counts.tolist(), strict=False)
        return dict(sorted(((name, rows) for name, rows in pairs if rows), key=lambda pair: (-pair[1], pair[0])))


def _errors_of(answers: Answers) -> list[str | None]:
    errors: list[str | None] = [None] * len(answers.ids)
    for row, error in answers.errors.items():
        errors[row] = str(error)
    return errors
