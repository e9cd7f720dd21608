"""Outputs as a report reads them: which files, the records beside them, and only the columns that are counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config, Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.registry import format_by_ending, format_of
from pipeline.formats.source import Source, TextSpec
from pipeline.formats.values import to_cells
from pipeline.loader import open_source
from pipeline.monitoring.record import RunRecord, read_record
from pipeline.report.counts import Block, Mask, numbers_of
from pipeline.scores import Floats
from pipeline.storage import Kind, Location, list_files, locate
from pipeline.storage.listing import is_hidden, is_pattern, match_files
from pipeline.texts import string_array
from pipeline.thresholds import class_names

# Settings of the loader that a text output has from its input, if both are of one format.
_KEPT = ("encoding", "delimiter", "quoting", "escape", "header")
TRUE = ("true", "True")  # in a cell, also of a file that pandas has written
_RECORD = re.compile(r"(.*/)?\.(.+)\.run\.json")


def outputs_of(text: str) -> list[Location]:
    """Return the files that a path, a directory, a glob or a URI names.

    Of a directory those with a run record beside them; if none has one, all whose ending names a format.

    Raises:
        InputError: there is none. StoreRefused, StoreGone: its store.
    """
    location = locate(text)
    kind, _ = location.look()
    if kind is Kind.DIRECTORY:
        paths = list_files(location)
        made = {f"{found[1] or ''}{found[2]}" for path in paths if (found := _RECORD.fullmatch(path))}
        shown = [path for path in paths if not is_hidden(path) and not (path in made and _is_held(location, path))]
        named = [path for path in shown if path in made] or [path for path in shown if format_by_ending(path)]
        files = [location.within(path) for path in named]
    elif kind is Kind.NOTHING and is_pattern(text):
        files = [each for path, each in match_files(text) if format_by_ending(path)]
    else:
        files = [location]
    if not files:
        raise InputError(f"{location}: no output of a run is there; name a file, or a directory of outputs")
    return files


def _is_held(folder: Location, path: str) -> bool:
    """Return whether an output in a directory waits beside the one that counts."""
    if ".held" not in path:
        return False
    record = _record_of(folder.within(path))
    return record is not None and record.is_held


class OwnLabels(NamedTuple):
    """Where the label of the model is found in a row that has `writer.unsure_label` in its place.

    `columns` hold the best classes, or the values of all classes, whose `names` are given then. Without columns it is
    nowhere.
    """

    columns: Sequence[str] = ()
    names: Sequence[str] = ()

    def put(self, labels: pa.Array, columns: Sequence[pa.Array], rows: Mask) -> pa.Array:
        """Put the label of the model into some rows; `columns` are those of `self.columns`."""
        found = to_cells(labels, "label")
        at = np.flatnonzero(rows)
        indices = pa.Array.from_buffers(pa.int64(), len(at), [None, pa.py_buffer(at.astype(np.int64))])
        cells = [to_cells(column.take(indices), "values") for column in columns]
        for row, texts in zip(at.tolist(), zip(*cells, strict=True), strict=True):
            values = [msgspec.json.decode(text or "null") for text in texts]
            values = values[0] if len(values) == 1 else values
            found[row] = self.names[values.index(max(values))] if self.names else values[0]["label"]
        return string_array(found)


class Labelled(NamedTuple):
    """An output, opened, and the names of its columns that a report is about."""

    source: Source
    record: RunRecord | None  # of the run that made it
    columns: list[str]  # label, score, error; then the truth, if one is wanted and there
    text: TextSpec | None
    has_truth: bool
    unsure: Sequence[str] = ()  # the column that says which labels are not sure, if there is one
    own: OwnLabels | None = None  # None: the label column has them in all rows

    def blocks(self, file: str) -> Iterator[Block]:
        """Read the rows; `file` is what examples call the file.

        Raises:
            InputError: it can't be read, or a score is no number.
        """
        row = 1
        texts = self.text.columns if self.text else []
        labels = [self.columns[0], *self.columns[3:]]
        more = [*self.unsure, *(self.own.columns if self.own else ())]
        for batch in self.source.select([*self.columns, *more, *texts], repeated=labels):
            columns = batch.columns
            try:
                scores = _numbers(columns[1])
            except (ValueError, pa.ArrowException):
                raise InputError(f"{self.source.path}: the column {self.columns[1]!r} holds no numbers") from None
            truths = columns[3] if self.has_truth else None
            text = _joined(columns[len(self.columns) + len(more) :], self.text) if self.text else None
            block = Block(file, row, columns[0], scores, columns[2], truths, text)
            yield self._with_unsure(block, columns[len(self.columns) :]) if self.unsure else block
            row += batch.num_rows

    def _with_unsure(self, block: Block, columns: Sequence[pa.Array]) -> Block:
        """Say which labels are not sure, and whose label that of the model is; `columns` begin with `unsure`."""
        unsure = np.array([cell in TRUE for cell in to_cells(columns[0], "unsure")], bool)
        if self.own is None or not unsure.any():
            return block._replace(unsure=unsure)
        if not self.own.columns:
            return block._replace(unsure=unsure, unjudged=unsure)
        try:
            labels = self.own.put(block.labels, columns[1 : 1 + len(self.own.columns)], unsure)
        except (ValueError, TypeError, LookupError):
            named = ", ".join(self.own.columns)
            raise InputError(f"{self.source.path}: {named}: a row that is not sure has no values of classes") from None
        return block._replace(unsure=unsure, labels=labels)


def open_labelled(config: Config, location: Location, *, needs_truth: bool) -> Labelled:
    """Open an output. What its record does not say, of prefix, text column and how a text file is read, `config` does.

    It is an error if it lacks the column `report.truth` and `needs_truth`.

    Raises:
        InputError: it can't be read, or has no labels, or no truth. StoreRefused, StoreGone: its store.
    """
    record = _record_of(location)
    settings = _settings(config, location, record)
    loader = msgspec.structs.replace(settings.loader, input=str(location))
    source = open_source(loader, location)
    names = AppendedColumns(settings, len(_classes(record))).names
    added = {name: name for name in names}
    if not loader.header:  # the new columns are the last ones
        added = dict(zip(names, source.columns[-len(names) :], strict=False))
    columns = [added[name] for name in names[:3]]
    try:
        source.see_columns(columns)
    except InputError as error:
        raise InputError(
            f"{error}; is it an output of `classify run`? writer.prefix is {settings.writer.prefix!r}"
        ) from None
    text: TextSpec | None = TextSpec(loader)
    try:
        source.see_columns(text.columns if text else [])
    except InputError:
        text = None
    truth, has_truth = config.report.truth, config.report.truth is not None
    if truth is not None:
        try:
            source.see_columns([truth])
        except InputError:
            if needs_truth:
                raise
            has_truth = False
    columns += [truth] if truth and has_truth else []
    unsure = added.get(f"{settings.writer.prefix}unsure", f"{settings.writer.prefix}unsure")
    try:
        source.see_columns([unsure])
    except InputError:
        return Labelled(source, record, columns, text, has_truth)
    own = _own_labels(settings, record, added) if settings.writer.unsure_label is not None else None
    return Labelled(source, record, columns, text, has_truth, [unsure], own)


def _own_labels(settings: Config, record: RunRecord | None, added: Mapping[str, str]) -> OwnLabels:
    """Return where the labels of the model are, by the settings of the run and its columns."""
    writer = settings.writer
    model = {f"model.{key}": value for key, value in record.model.items()} if record else {}
    names = class_names(writer, model)
    if writer.top_k is not None:
        return OwnLabels([added[f"{writer.prefix}top"]])
    if writer.probs == "list" and names:
        return OwnLabels([added[f"{writer.prefix}probs"]], names)
    if writer.probs == "columns" and names:
        return OwnLabels(
            [added[f"{writer.prefix}prob_{name}"] for name in writer.class_names or range(len(names))], names
        )
    return OwnLabels()


def _record_of(location: Location) -> RunRecord | None:
    """Return the record of a run beside its output; that of a hidden one, which waits to be judged, has its name."""
    record = read_record(location.beside(f".{location.name}.run.json"), RunRecord)
    if record is None and location.name.startswith("."):
        record = read_record(location.beside(f"{location.name}.run.json"), RunRecord)
    return record


def _settings(config: Config, location: Location, record: RunRecord | None) -> Config:
    """Return the settings to read an output with: those of its record, where `config` has the defaults."""
    if record is None:
        return config
    kept = {section: dict(record.settings.get(section, {})) for section in ("loader", "writer", "request")}
    try:
        was: Config = msgspec.convert(kept, Config)
    except msgspec.ValidationError:  # of another version
        return config
    default = Config()
    same = format_of(location.path, was.writer.format, "writer.format") == _format_of_input(was)
    names = ("text_column", "template", "pair_column", *(_KEPT if same else ()))
    loader = {name: getattr(config.loader, name) for name in (*names, *_KEPT)}
    loader |= {name: getattr(was.loader, name) for name in names if loader[name] == getattr(default.loader, name)}
    writer = config.writer if config.writer.prefix != default.writer.prefix else was.writer
    file_format = config.loader.format or was.writer.format
    return Config(loader=Loader(format=file_format, **loader), writer=writer, request=was.request)


def _format_of_input(was: Config) -> Any:
    try:
        return format_of(was.loader.inputs[0], was.loader.format, "loader.format")
    except (ConfigError, IndexError):
        return None


def _classes(record: RunRecord | None) -> Sequence[Any]:
    return range(int(record.model.get("num_classes") or 0)) if record else ()


def _numbers(column: pa.Array) -> Floats:
    """Return scores, NaN where there is none."""
    if not pa.types.is_floating(column.type):
        return np.array([float(value) if value else np.nan for value in column.to_pylist()], np.float64)
    numbers, is_there = numbers_of(column.cast(pa.float64()))
    return numbers if is_there is None else np.where(is_there, numbers, np.nan)


def _joined(columns: list[pa.Array], spec: TextSpec | None) -> pa.Array:
    """Return the texts of rows: of several columns, what stands between them in a template is left out."""
    texts = [column if _is_string(column.type) else column.cast(pa.large_string()) for column in columns]
    if len(texts) == 1 or spec is None:
        return texts[0]
    options = pc.JoinOptions(null_handling="replace", null_replacement="")
    return pc.binary_join_element_wise(*texts, "\n", options=options)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
