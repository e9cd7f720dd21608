"""Outputs as a report reads them: which files, the records beside them, and only the columns that are counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
from pipeline.loader import open_source
from pipeline.monitoring.record import RunRecord, read_record
from pipeline.report.counts import Block, numbers_of
from pipeline.scores import Floats
from pipeline.storage import Kind, Location, list_files, locate
from pipeline.storage.listing import is_hidden, is_pattern, match_files

# Settings of the loader that a text output has from its input, if both are of one format.
_KEPT = ("encoding", "delimiter", "quoting", "escape", "header")
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


class Labelled(NamedTuple):
    """An output, opened, and the names of its columns that a report is about."""

    source: Source
    record: RunRecord | None  # of the run that made it
    columns: list[str]  # label, score, error; then the truth, if one is wanted and there
    text: TextSpec | None
    has_truth: bool

    def blocks(self, file: str) -> Iterator[Block]:
        """Read the rows; `file` is what examples call the file.

        Raises:
            InputError: it can't be read, or a score is no number.
        """
        row = 1
        texts = self.text.columns if self.text else []
        labels = [self.columns[0], *self.columns[3:]]
        for batch in self.source.select([*self.columns, *texts], repeated=labels):
            columns = batch.columns
            try:
                scores = _numbers(columns[1])
            except (ValueError, pa.ArrowException):
                raise InputError(f"{self.source.path}: the column {self.columns[1]!r} holds no numbers") from None
            truths = columns[3] if self.has_truth else None
            text = _joined(columns[len(self.columns) :], self.text) if self.text else None
            yield Block(file, row, columns[0], scores, columns[2], truths, text)
            row += batch.num_rows


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
    columns = names[:3]
    if not loader.header:  # the new columns are the last ones
        columns = source.columns[len(source.columns) - len(names) :][:3]  # type: ignore[assignment]
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
    return Labelled(source, record, [*columns, *([truth] if truth and has_truth else [])], text, has_truth)


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
