"""Opens an input file: its texts in blocks, from any row on, and its whole rows; see `formats.source.Source`."""

from __future__ import annotations

from pipeline.config import Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.registry import compression_of, format_of
from pipeline.formats.source import Source, TextSpec
from pipeline.storage import Kind, Location, locate

_COMPRESSION_FACTOR = 4  # of a typical text file


def open_source(loader: Loader, location: Location | None = None) -> Source:
    """Open the file at `location`, by default the first of `loader.input`.

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
    file_format = format_of(location.path, loader.format, "loader.format", location.shown)
    source: Source = file_format.load(file_format.reader)(location, loader, file_format)
    return source


def dialect_of(source: Source) -> tuple[list[str], list[str]]:
    """Say in lines how a text file is read, and what would fit its first rows better; nothing of other files."""
    in_words = source.in_words()
    return [in_words] if in_words else [], [f"{source.path}{each}" for each in source.doubts()]


def estimate_rows(source: Source, spec: TextSpec) -> tuple[int, bool]:
    """Estimate the number of rows, of a long text file by its first block. Also says whether the number is exact."""
    if source.total_rows is not None:
        return source.total_rows, True
    blocks = source.texts(spec)
    first, second = next(blocks, None), next(blocks, None)
    if first is None or second is None:
        return (len(first.texts) if first else 0), True
    row_bytes = (second.position.offset - first.position.offset) / len(first.texts)
    if not row_bytes:  # a format whose positions are rows alone
        return len(first.texts) + len(second.texts), False
    _, size = source.location.look()
    return int((_COMPRESSION_FACTOR if compression_of(source.location.name) else 1) * size / row_bytes), False
