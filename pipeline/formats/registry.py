"""The file formats: their names, the endings of their files, and the classes that read and write them.

To add a format, write a module with a reader (`formats.source.Source`), add a line to `FORMATS`, and, if the format can
be written, give the module a writer (`formats.source.ColumnWriter`).

Importing this module is cheap, since the help of the command line lists the endings. The modules of the formats, and
the packages they need, are imported when a file is opened.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, NamedTuple

from pipeline.errors import ConfigError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # ending of a text file -> name of the codec in Arrow


class Format(NamedTuple):
    """One file format; its classes are named as "MODULE:CLASS"."""

    names: tuple[str, ...]  # the endings of its files without the dot, and its names in the config; the first is shown
    reader: str  # is called with the location, the section `loader` of the config, and the format
    writer: str = ""  # is called with a `Destination` and the Arrow schema of the rows; "": files are only read
    written_as: str = ""  # the format of the default output of one that is only read
    codecs: tuple[str, ...] = ()  # what `writer.compression` may be, besides "none"
    is_text: bool = False  # lines of text: files may be compressed as a whole, and columns have no types of their own
    extra: str | None = None  # the extra of this package that installs what the module imports

    @property
    def name(self) -> str:
        """The name that is shown, and the usual ending without the dot."""
        return self.names[0]

    def load(self, name: str) -> Any:
        """Import the reader or the writer.

        Raises:
            ConfigError: a package is missing.
        """
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise ConfigError(
                f'.{self.name} files need the package {error.name}; pip install "classify-pipeline[{self.extra}]"'
            ) from None


_CSV = ("pipeline.formats.csv:CsvSource", "pipeline.formats.csv:CsvWriter")
_PARQUET = ("pipeline.formats.parquet:ParquetSource", "pipeline.formats.parquet:ParquetWriter")
_JSONL = ("pipeline.formats.jsonl:JsonlSource", "pipeline.formats.jsonl:JsonlWriter")
_JSON = ("pipeline.formats.json_array:JsonArraySource", "pipeline.formats.json_array:JsonArrayWriter")
_ARROW = ("pipeline.formats.arrow:ArrowSource", "pipeline.formats.arrow:ArrowWriter")

FORMATS = {  # by name, in the order in which they are listed
    "csv": Format(("csv",), *_CSV, is_text=True),
    "tsv": Format(("tsv",), *_CSV, is_text=True),
    "parquet": Format(("parquet",), *_PARQUET, codecs=("snappy", "gzip", "zstd", "lz4", "brotli")),
    "jsonl": Format(("jsonl", "ndjson"), *_JSONL, is_text=True),
    "json": Format(("json",), *_JSON, is_text=True),
    "arrow": Format(("arrow", "feather"), *_ARROW, codecs=("zstd", "lz4")),
    "orc": Format(("orc",), "pipeline.formats.orc:OrcSource", written_as="parquet"),
    "xlsx": Format(("xlsx",), "pipeline.formats.xlsx:XlsxSource", written_as="csv", extra="xlsx"),
}
PIPED = FORMATS["jsonl"]  # of standard input, if the config does not say otherwise, and of standard output


def format_of(path: str, given: str | None, key: str, shown: str | None = None) -> Format:
    """Find the format of a file: as given in the config, else by the ending of its path.

    `key` is the key of the config that gives it, and `shown` (default: `path`) is the path as messages show it.

    Raises:
        ConfigError: there is no such format, or the ending names none.
    """
    is_written = key == "writer.format"
    if given is not None:
        found = _by_name(given)
        if found is None:
            raise ConfigError(f"{key}: expected {' or '.join(format_names(only_written=is_written))}, not {given!r}")
        return found
    if path == "-":
        return PIPED
    if found := format_by_ending(path):
        return found
    import difflib

    names = format_names(only_written=is_written)
    near = difflib.get_close_matches(path.rpartition(".")[2].lower(), names, n=1, cutoff=0.6)
    hint = f"did you mean .{near[0]}? Else end" if near else "end"
    named = path if shown is None else shown
    raise ConfigError(
        f"{named}: the ending names no format; {hint} it in {endings_in_words(only_written=is_written)}, or set {key}"
    )


def format_by_ending(path: str) -> Format | None:
    """Find the format that the ending of a path names, after a compression's ending; None if it names none."""
    name = without_compression(path.rpartition("/")[2].lower())
    stem, _, ending = name.rpartition(".")
    return _by_name(ending) if stem else None  # a name that begins with its only dot has no ending


def compression_of(name: str) -> str | None:
    """Find the codec, by its name in Arrow, that the ending of a text file's name stands for; None if it has none."""
    return COMPRESSIONS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122 - a Path costs more, for each of many


def without_compression(name: str) -> str:
    """Leave out a compression's ending."""
    for ending in COMPRESSIONS:
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return name


def format_names(*, only_written: bool = False) -> list[str]:
    """List all names that the config takes; only those of outputs on request."""
    return [name for each in FORMATS.values() if each.writer or not only_written for name in each.names]


def endings_in_words(*, only_written: bool = False) -> str:
    """Say which endings there are: ".csv, .tsv, .parquet or .jsonl"; only those of outputs on request."""
    *most, last = (f".{each.name}" for each in FORMATS.values() if each.writer or not only_written)
    return f"{', '.join(most)} or {last}"


def _by_name(name: str) -> Format | None:
    return FORMATS.get(name) or next((each for each in FORMATS.values() if name in each.names), None)
