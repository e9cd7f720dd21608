"""The columns that are appended to each row: their names, their types, and their values from what was answered.

`AppendedColumns` gives them as Arrow arrays; `AppendedText` as the text that comes into a row of a text format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.answers import NO_LABEL, Answers
from pipeline.config import Config
from pipeline.scores import COARSE_BINS, COARSE_EDGES, MOST_LABELS, OTHERS, bins_of
from pipeline.texts import binary_array, binary_scalar, binary_slices, bitmap, string_array
from pipeline.thresholds import LABELS, TOP, Thresholds

Spell = Callable[[Any], bytes]  # from a value, or None for a null, to the bytes that stand for it
_EVERY_SIGN = (1234567890.5, -1e-9)  # numbers with every sign that one is written with, which may be a delimiter


class AppendedColumns:
    """Which columns are appended to a row, in which order.

    `num_classes` is that of the model; it matters only where each class has a column of its own. `names` are those of
    all classes, in class order; they matter where `writer.multi_label` or `top_k` name classes. With `sees_cuts` false
    the server cuts texts without a word, so that it is null whether a text was cut.
    """

    def __init__(self, config: Config, num_classes: int, names: Sequence[str] = (), *, sees_cuts: bool = True) -> None:
        writer, double = config.writer, pa.float64()
        self.num_classes = num_classes or len(writer.class_names or ())
        self.probs, self._too_long = writer.probs, config.request.too_long
        self._sees_cuts = sees_cuts
        columns = [("label", pa.string()), ("score", double), ("error", pa.string())]
        if writer.probs == "list":
            columns.append(("probs", pa.list_(double)))
        elif writer.probs == "columns":
            columns += [(f"prob_{each}", double) for each in writer.class_names or range(num_classes)]
        if self._too_long == "truncate":
            columns.append(("truncated", pa.bool_()))
        elif self._too_long == "split":
            columns.append(("parts", pa.int64()))
        self.thresholds = Thresholds(writer, names)
        self._wants = {"unsure": writer.min_score, "labels": writer.multi_label, "top": writer.top_k}
        kinds = {"unsure": pa.bool_(), "labels": LABELS, "top": TOP}
        columns += [(name, kinds[name]) for name, setting in self._wants.items() if setting is not None]
        # Classes that a row names at most, besides its label.
        self.most_named = (len(names) if writer.multi_label is not None else 0) + min(len(names), writer.top_k or 0)
        self.fields = [pa.field(f"{writer.prefix}{name}", kind) for name, kind in columns]
        self.names = [field.name for field in self.fields]

    @property
    def paths_of_names(self) -> list[str]:
        """The columns inside lists that hold names of classes, as Parquet calls them."""
        ends = {LABELS: "list.element", TOP: "list.element.label"}
        return [f"{field.name}.{ends[field.type]}" for field in self.fields if field.type in ends]

    def arrays(self, answers: Answers, labels: pa.Array) -> list[pa.Array]:
        """Make the columns as Arrow arrays, without a Python object a row; `labels` are the names by label id.

        The answers are those that `Thresholds.applied` gives.
        """
        buffers = [bitmap(answers.has_label), pa.py_buffer(answers.ids)]
        ids = pa.Array.from_buffers(pa.int32(), len(answers), buffers)
        return [labels.take(ids), *self.arrays_after_label(answers)]

    def arrays_after_label(self, answers: Answers) -> list[pa.Array]:
        """Make all columns but the first, which holds the labels."""
        rows = len(answers)
        valid = bitmap(answers.has_label)
        arrays = [pa.Array.from_buffers(pa.float64(), rows, [valid, pa.py_buffer(answers.scores)])]
        if answers.errors:
            found = map(answers.errors.get, range(rows))
            arrays.append(string_array([None if error is None else str(error) for error in found]))
        else:
            arrays.append(pa.nulls(rows, pa.string()))
        if self.probs == "list":
            probs = answers.probs_or_nan(self.num_classes)
            offsets = np.arange(rows + 1, dtype=np.int32) * probs.shape[1]
            values = pa.Array.from_buffers(pa.float64(), probs.size, [None, pa.py_buffer(np.ascontiguousarray(probs))])
            buffers = [valid, pa.py_buffer(offsets)]
            arrays.append(pa.Array.from_buffers(pa.list_(pa.float64()), rows, buffers, children=[values]))
        elif self.probs == "columns":
            columns = np.ascontiguousarray(answers.probs_or_nan(self.num_classes).T)
            arrays += [pa.Array.from_buffers(pa.float64(), rows, [valid, pa.py_buffer(each)]) for each in columns]
        if self._too_long == "truncate":
            mask = np.zeros(rows, bool)
            mask[list(answers.truncated)] = True
            arrays.append(
                pa.Array.from_buffers(pa.bool_(), rows, [None, bitmap(mask)])
                if self._sees_cuts
                else pa.nulls(rows, pa.bool_())
            )
        elif self._too_long == "split":
            parts = np.ones(rows, np.int64)
            parts[list(answers.parts)] = list(answers.parts.values())
            arrays.append(pa.Array.from_buffers(pa.int64(), rows, [valid, pa.py_buffer(parts)]))
        return [*arrays, *self._of_thresholds(answers, valid)]

    def _of_thresholds(self, answers: Answers, valid: pa.Buffer) -> Iterator[pa.Array]:
        """Make the columns of `writer.min_score`, `multi_label` and `top_k`, those that are wanted."""
        if self._wants["unsure"] is not None:
            unsure = np.zeros(len(answers), bool) if answers.unsure is None else answers.unsure
            yield pa.Array.from_buffers(pa.bool_(), len(answers), [valid, bitmap(unsure)])
        if self._wants["labels"] is not None:
            yield self.thresholds.reached(answers)
        if self._wants["top"] is not None:
            yield self.thresholds.best(answers)


class AppendedText:
    """The appended columns as text: for each row the values one after the other, each with its head before it.

    `heads` are what stands before a value, and `spells` how a value is written, one for each column. Numbers are
    written many at a time, as JSON, where that is how they are spelled.
    """

    def __init__(
        self, columns: AppendedColumns, labels: Sequence[str], heads: Sequence[bytes], spells: Sequence[Spell]
    ) -> None:
        self._columns, self._labels = columns, labels  # while a run is going on, more labels may come
        self._heads, self._spells = heads, spells
        self._by_id: pa.Array = binary_array([])
        self._numbers_as_json = all(spells[1](value) == msgspec.json.encode(value) for value in _EVERY_SIGN)

    def of(self, answers: Answers) -> pa.LargeBinaryArray:
        """Make the text of each row of `answers`."""
        parts: list[pa.Array | pa.Scalar] = [self._labels_of(answers)]
        constant = b""  # what is the same in all rows, since the last part that is not
        arrays = self._columns.arrays_after_label(answers)
        for head, spell, array in zip(self._heads[1:], self._spells[1:], arrays, strict=True):
            constant += head
            if array.null_count == len(array):
                constant += spell(None)
                continue
            if self._numbers_as_json and pa.types.is_float64(array.type) and not array.null_count:
                values = _json_numbers(array)
            else:
                values = binary_array([*map(spell, array.to_pylist())])
            parts += [binary_scalar(constant), values]
            constant = b""
        return pc.binary_join_element_wise(*parts, binary_scalar(constant), binary_scalar(b""))

    def _labels_of(self, answers: Answers) -> pa.Array:
        """Make the text of the first column; each label is spelled once."""
        labels, by_id = self._labels, self._by_id
        if len(by_id) != len(labels) + 1:
            values = [*labels, None]  # a row without a label takes the last
            by_id = self._by_id = binary_array([self._heads[0] + self._spells[0](value) for value in values])
        ids = answers.ids
        if NO_LABEL in ids:
            ids = np.where(ids == NO_LABEL, np.int32(len(labels)), ids)
        return by_id.take(pa.Array.from_buffers(pa.int32(), len(ids), [None, pa.py_buffer(ids)]))


def _json_numbers(array: pa.Array) -> pa.LargeBinaryArray:
    """Write numbers as JSON, all in one call: they are what stands between the commas of a list."""
    values = np.frombuffer(array.buffers()[1], np.float64)  # not `to_numpy`, which imports pandas
    text = msgspec.json.encode(values.tolist())[1:-1]
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(","))
    ends = np.append(commas, len(text)) - np.arange(len(values))  # the commas are taken out
    return binary_slices(text.replace(b",", b""), np.append(0, ends))


class Tally:
    """Counts which label how many rows got, with which score, and which errors; `names` are of labels, by label id."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names  # while a run is going on, more may come
        self._counts = np.zeros((0, COARSE_BINS), np.int64)  # label id, bin of the score
        self._has_logits = False  # scores that are no probabilities
        self.codes: Counter[str] = Counter()
        self.truncated = self.in_parts = self.unsure = 0

    def count(self, answers: Answers) -> None:
        """Count more rows."""
        there = answers.has_label
        ids, scores = answers.ids[there].astype(np.intp), answers.scores[there]
        if len(self._counts) < len(self._names):
            missing = np.zeros((len(self._names) - len(self._counts), COARSE_BINS), np.int64)
            self._counts = np.concatenate([self._counts, missing])
        np.add.at(self._counts.reshape(-1), ids * COARSE_BINS + bins_of(scores, COARSE_EDGES), 1)
        if len(scores):
            self._has_logits |= bool(scores.min() < 0 or scores.max() > 1)
        self.codes.update(error.code for error in answers.errors.values())
        self.truncated += len(answers.truncated)
        self.in_parts += len(answers.parts)
        self.unsure += 0 if answers.unsure is None else int(np.count_nonzero(answers.unsure))

    @property
    def labels(self) -> dict[str, int]:
        """Rows by label, the most frequent label first."""
        pairs = zip(self._names, self._counts.sum(1).tolist(), strict=False)
        return dict(sorted(((name, rows) for name, rows in pairs if rows), key=lambda pair: (-pair[1], pair[0])))

    @property
    def scores(self) -> dict[str, list[int]]:
        """Rows by label and bin of the score, see `scores.COARSE_EDGES`; nothing if the scores are raw logits.

        Of many labels these are the most frequent ones, and the sum of all others as `OTHERS`.
        """
        if self._has_logits:
            return {}
        ids = {name: index for index, name in enumerate(self._names)}
        order = [ids[name] for name in self.labels]
        counts = {self._names[index]: self._counts[index].tolist() for index in order[:MOST_LABELS]}
        if rest := order[MOST_LABELS:]:
            counts[OTHERS] = self._counts[rest].sum(0).tolist()
        return counts
