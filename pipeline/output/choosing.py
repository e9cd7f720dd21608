"""Where an output goes, as named or by default."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.checkpoint import Lock
from pipeline.config import PIPE, Config
from pipeline.errors import ConfigError, OutputError
from pipeline.loader import ending_format, format_of
from pipeline.loader.lines import CODECS
from pipeline.output.place import OutputPlace
from pipeline.places import Kind, Location, locate, state_of, state_root

LONGEST_NAME = 230  # bytes: file systems take 255, and the longest of our names beside it adds 23


def default_output(config: Config, source: Location) -> Location:
    """Where the output goes if nobody says so."""
    stem, dot, endings = source.name.partition(".")
    return source.beside(named_for(config, f"{stem}_labelled{dot}{endings}"))


def locate_output(config: Config, named: str, source: Location) -> Location:
    """Where the output goes: as named, into a directory under the input's name, or beside the input as NAME_labelled.

    Raises:
        OutputError: it is a file and should be a directory. StoreRefused, StoreGone: its store.
    """
    if not named:
        return default_output(config, source)
    location = locate(named)
    kind, _ = location.look()
    if location.is_folder and kind not in (Kind.DIRECTORY, Kind.NOTHING):
        raise OutputError(f"{location}: is a file, not a directory; choose another output")
    inside = location.is_folder or kind is Kind.DIRECTORY
    return location.within(named_for(config, source.name)) if inside else location


def place_output(config: Config, source: Location) -> OutputPlace:
    """The output of the one input, as `writer.output` says.

    Raises:
        ConfigError: the ending names no format, or input and output are the same file.
        OutputError: its directory is missing. StoreRefused, StoreGone: so is its bucket, or the store is not there.
    """
    named = config.writer.output
    if not named and source.is_piped:
        raise ConfigError(f"no output; name one with --output, {PIPE} for standard output")
    location = locate_output(config, named, source)
    return place_at(config, location, source, may_make_directory=named.endswith("/"))


def place_at(config: Config, location: Location, source: Location, *, may_make_directory: bool) -> OutputPlace:
    """The output of one input at a location that was chosen for it.

    Raises:
        ConfigError: the ending names no format, or input and output are the same file.
        OutputError: its directory is missing, or its name too long.
    """
    kind = format_of(location, config.writer.format, "writer.format")
    if kind == "parquet" and location.name.lower().endswith(tuple(CODECS)):
        raise ConfigError(f"{location}: Parquet is compressed inside (writer.compression); leave out the last ending")
    if location.store is None:
        _check_name(location)
        if location.look()[0] is Kind.OTHER:
            raise OutputError(f"{location}: is no regular file; choose another output, or {PIPE} for standard output")
        if not may_make_directory and not (folder := Path(location.path).parent).is_dir():
            raise OutputError(f"{location}: its directory {folder} does not exist; make it, or choose another output")
    if _is_same_file(location, source):
        raise ConfigError(f"{location}: is the input; the output must be another file")
    return OutputPlace(location, config.run.state_dir)


def named_for(config: Config, name: str) -> str:
    """What the output of an input of that name is called in a directory: the same, but for another format's ending."""
    wanted = config.writer.format
    if wanted is None or format_of(name, wanted, "writer.format") == ending_format(name):
        return name
    for codec in CODECS:
        name = name[: -len(codec)] if name.lower().endswith(codec) else name
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{Path(last).stem}.{wanted}"


def lock_of_directory(folder: Location, state_dir: str | None) -> Lock:
    """Who holds a directory of outputs: two nights that overlap are told so at once, not file by file."""
    if folder.store is None and not state_dir:
        return Lock(Path(folder.path) / ".classify.lock")
    state = state_of(state_root(state_dir), folder)
    return Lock(state.with_name(f"{state.name}.lock"), state)


def _check_name(location: Location) -> None:
    if len(os.fsencode(location.name)) > LONGEST_NAME:
        raise OutputError(
            f"{location}: the name is too long to keep files beside it; choose one of {LONGEST_NAME} bytes"
        )


def _is_same_file(one: Location, other: Location) -> bool:
    if one.store is not None or other.store is not None:
        return one.key == other.key
    try:
        return os.path.samefile(one.path, other.path)  # noqa: PTH121 - a Path costs more, for each of many files
    except OSError:  # one of them is not there
        return False
