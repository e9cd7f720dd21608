"""Opens an input file: its texts in blocks, from any row on, and its whole rows; see `formats.source.Source`."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress

from pipeline.config import Loader
from pipeline.errors import ConfigError, InputError
from pipeline.formats.registry import FORMATS, Format, format_of
from pipeline.formats.source import Source, TextSpec
from pipeline.formats.textfile import other_file
from pipeline.storage import Kind, Location, locate

_START_BYTES = 512  # that are looked at to see what a file is


def open_source(loader: Loader, location: Location | None = None) -> Source:
    """Open the file at `location`, by default the first of `loader.input`.

    Raises:
        ConfigError: no input is named, or its format is unknown.
        InputError: it can't be read. StoreRefused, StoreGone: its store.
    """
    if not loader.inputs:
        raise ConfigError("no input; name one with --input, or with loader.input in a config file")
    location = location or locate(loader.inputs[0])
    found, size = location.look()
    if found is Kind.DIRECTORY:
        raise InputError(f"{location}: is a directory; name a file in it")
    if found is Kind.NOTHING:
        raise InputError(f"{location}: no such file; {_likely_file(location) or 'check --input'}")
    if found is Kind.OTHER:
        raise InputError(f"{location}: is no regular file; it is read twice, so write it to a file first")
    file_format = format_of(location.path, loader.format, "loader.format", location.shown)
    if not size and not file_format.is_text:
        file_format = FORMATS["csv"]  # nothing is no file of Arrow columns; an empty CSV file is known as such
    try:
        source: Source = file_format.load(file_format.reader)(location, loader, file_format)
    except InputError:
        if other := _kind_of(location, file_format):
            raise InputError(f"{location}: {other}") from None
        raise
    return source


def _likely_file(location: Location) -> str:
    """Say which file beside one that is not there may be meant, on a disk."""
    if location.store is not None:
        return ""
    if found := re.match(r"(\w{2,}):/(?!/)", location.path):
        return f"a URI begins with {found[1]}://"
    with suppress(OSError):
        near = difflib.get_close_matches(location.name, os.listdir(os.path.dirname(location.path) or "."), n=1)  # noqa: PTH120, PTH208
        return "".join(f"did you mean {location.beside(name)}?" for name in near)
    return ""


def _kind_of(location: Location, file_format: Format) -> str | None:
    """Say what a file is that can't be read in the format that it is named after, and what to do; None if unknown."""
    if file_format.is_text:  # which is looked at before it is read
        return None
    with location.open() as file:
        start = bytes(file.read(_START_BYTES))
    if other := other_file(start):
        return None if f".{file_format.name}" in other else other
    if re.search(rb"[\0-\x08\x0e-\x1f]", start):
        return None
    endings = ".jsonl, or .json if it is an array" if start.lstrip()[:1] in (b"{", b"[") else ".csv, .tsv or .jsonl"
    return f"is a text file, not {file_format.name}; end its name in {endings}, or set loader.format"


def dialect_of(source: Source) -> tuple[list[str], list[str]]:
    """Say in lines how a text file is read, and what would fit its first rows better; nothing of other files."""
    in_words = source.in_words()
    return [in_words] if in_words else [], [f"{source.path}{each}" for each in source.doubts()]


def estimate_rows(source: Source, spec: TextSpec) -> tuple[int, bool]:
    """Estimate the number of rows, of a long text file by its first block. Also says whether the number is exact.

    Raises:
        InputError: it can't be read, or every line is bad.
    """
    if source.total_rows is not None:
        return source.total_rows, True
    blocks = source.texts(spec)
    first, second = next(blocks, None), next(blocks, None)
    if first is None:
        source.see_rows_left()
    if first is None or second is None:
        return (len(first.texts) if first else 0), True
    row_bytes = (second.position.offset - first.position.offset) / len(first.texts)
    if not row_bytes:  # a format whose positions are rows alone
        return len(first.texts) + len(second.texts), False
    _, size = source.location.look()
    return int(source.growth * size / row_bytes), False
