"""A file as a stream of texts and of whole rows, and again from any row on. No part holds the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.source import Source, TextSpec, format_of
from pipeline.storage import Kind, Location, locate

if TYPE_CHECKING:
    pass


def open_source(loader: Loader, location: Location | None = None) -> Source:
    """Open what stands at `location`, by default that of `loader.input`.

    Raises:
        ConfigError: no input is named, or its format is unknown.
        InputError: it can't be read. StoreRefused, StoreGone: its store.
    """
    if not loader.inputs:
        raise ConfigError("no input; name one with --input, or with loader.input in a config file")
    location = location or locate(loader.inputs[0])
    found, _ = location.look()
    if found is Kind.DIRECTORY:
        raise InputError(f"{location}: is a directory; name a file in it")
    if found is Kind.NOTHING:
        raise InputError(f"{location}: no such file; check --input")
    if found is Kind.OTHER:
        raise InputError(f"{location}: is no regular file; it is read twice, so write it to a file first")
    kind = format_of(location, loader.format, "loader.format")
    if kind == "parquet":
        from pipeline.formats.parquet import ParquetSource

        return ParquetSource(location)
    if kind == "jsonl":
        from pipeline.formats.jsonl import JsonlSource

        return JsonlSource(location, loader)
    from pipeline.formats.csv import CsvSource

    return CsvSource(location, loader, "tsv" if kind == "tsv" else "csv")


def estimate_rows(source: Source, spec: TextSpec) -> tuple[int, bool]:
    """How many rows there are, and whether that is exact: a long text file is judged by its first block."""
    if source.total_rows is not None:
        return source.total_rows, True
    blocks = source.texts(spec)
    first, second = next(blocks, None), next(blocks, None)
    if first is None or second is None:
        return (len(first.texts) if first else 0), True
    bytes_a_row = (second.position.offset - first.position.offset) / len(first.texts)
    _, size = source.location.look()
    # A compressed file holds some four times its size; it is a guess, and says so.
    return int((size if source.seekable else 4 * size) / bytes_a_row), False
