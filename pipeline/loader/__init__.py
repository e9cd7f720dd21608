"""A file as a stream of texts and of whole rows, and again from any row on. No part holds the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline.config import PIPE, Format, Loader
from pipeline.errors import ConfigError, InputError
from pipeline.loader.lines import CODECS, Place, TextFile
from pipeline.loader.texts import TextBlock, TextSpec, block_of
from pipeline.places import Kind, Location, locate

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.loader.rows import RawRows

__all__ = [
    "Place",
    "RawSource",
    "Source",
    "TextBlock",
    "TextSpec",
    "block_of",
    "ending_format",
    "estimate_rows",
    "format_of",
    "open_source",
]


class Source(Protocol):
    """One input file. Every reading starts anew, so the texts and the whole rows can be read apart."""

    location: Location
    path: str  # as messages name it
    total_rows: int | None  # None: unknown before the end
    skipped: int  # bad lines left out by the latest complete reading
    seekable: bool  # a place can be reached without reading what is before it
    is_empty: bool  # not even a header

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See that the text columns are there and hold texts, and that no column to be added is there already.

        Raises:
            InputError: naming the column.
        """

    def texts(self, spec: TextSpec, place: Place | None = None) -> Iterator[TextBlock]:
        """The texts of all rows from `place` on (default: the first row), in order."""

    def schema(self) -> pa.Schema:
        """The columns as Arrow types."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, all columns, in order."""


class RawSource(Source, Protocol):
    """A text file, whose rows can be copied byte for byte."""

    file: TextFile

    def records(self) -> Iterator[RawRows | list[bytes]]:
        """The bytes of all rows with their line ends, some thousand at a time; `RawRows` where that is quicker."""


def format_of(path: str | Location, given: Format | None, key: str) -> Format:
    """The format of a file: as given, else by its ending, a compression's ending set aside; JSONL through a pipe.

    Raises:
        ConfigError: the ending says nothing.
    """
    if given is not None:
        return "jsonl" if given == "ndjson" else given
    if path == PIPE:
        return "jsonl"
    if found := ending_format(path if isinstance(path, str) else path.path):
        return found
    raise ConfigError(f"{path}: the ending names no format; end it in .csv, .tsv, .parquet or .jsonl, or set {key}")


def ending_format(path: str) -> Format | None:
    """The format that a name's ending says, a compression's ending set aside; None if it says none."""
    name = path.rpartition("/")[2].lower()
    for ending in CODECS:
        name = name.removesuffix(ending)
    stem, _, ending = name.rpartition(".")
    if not stem:  # a name that begins with its only dot has no ending
        return None
    if ending in ("csv", "tsv", "parquet", "jsonl", "ndjson"):
        return "jsonl" if ending == "ndjson" else ending  # type: ignore[return-value]
    return None


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
        from pipeline.loader.parquet import ParquetSource

        return ParquetSource(location)
    if kind == "jsonl":
        from pipeline.loader.jsonl import JsonlSource

        return JsonlSource(location, loader)
    from pipeline.loader.delimited import CsvSource

    return CsvSource(location, loader, "tsv" if kind == "tsv" else "csv")


def estimate_rows(source: Source, spec: TextSpec) -> tuple[int, bool]:
    """How many rows there are, and whether that is exact: a long text file is judged by its first block."""
    if source.total_rows is not None:
        return source.total_rows, True
    blocks = source.texts(spec)
    first, second = next(blocks, None), next(blocks, None)
    if first is None or second is None:
        return (len(first.texts) if first else 0), True
    bytes_a_row = (second.place.offset - first.place.offset) / len(first.texts)
    _, size = source.location.look()
    # A compressed file holds some four times its size; it is a guess, and says so.
    return int((size if source.seekable else 4 * size) / bytes_a_row), False
