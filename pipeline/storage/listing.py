"""List the files of a directory, below a prefix of a store, or that match a pattern.

Raises (from all functions that list):
    InputError: a directory can't be read. StoreRefused, StoreGone: see `Store`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

from pipeline.config import cut_options, is_web
from pipeline.errors import InputError
from pipeline.storage.location import Location, local, locate

_MAGIC = re.compile(r"[*?[]")


def list_files(location: Location) -> list[str]:
    """Return the files in a directory, or below a prefix of a store, as sorted paths relative to it.

    A link to a directory is followed, but not to one that contains it; a broken link counts as a file, which can't be
    read. Raises FileNotFoundError if there is no such directory.
    """
    if location.store is not None:
        start = len(location.path) + 1
        return sorted(each.path[start:] for each in location.store.list(location.shown, location.path) if each.is_file)
    if not os.path.isdir(location.path):  # noqa: PTH112 - a name may be bytes that are no UTF-8
        raise FileNotFoundError(location.path)
    return sorted(_local_files(Path(location.path)))


def _local_files(top: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(top, onerror=_unreadable, followlinks=True):
        above = {os.path.realpath(folder), *map(str, Path(os.path.realpath(folder)).parents)}
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) not in above]  # noqa: PTH118
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            # A Path raises where a link leads into a directory that can't be entered.
            if os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path)):  # noqa: PTH110, PTH113, PTH114
                yield Path(path).relative_to(top).as_posix()


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # deleted meanwhile
        raise InputError(
            f"{error.filename}: can't be read: {error.strerror}; what is in it would be left out"
        ) from None


def is_pattern(text: str) -> bool:
    """Return whether a path or URI has wildcards: `*`, `?`, `[...]`, or `**` for any number of directories."""
    return bool(_split(text)[1])


def match_files(pattern: str) -> list[tuple[str, Location]]:
    """Return the files that match a pattern: their paths from its first part with a wildcard on, and their locations.

    A directory that matches stands for all files in it. Names that begin with a dot or an underscore are left out, as
    readers of directories do, unless a part of the pattern begins with one.
    """
    named, parts = _split(pattern)
    base, below = locate(named), list[str]()
    if base.store is None:
        below = sorted(_local_paths(base, parts))
    else:
        with suppress(FileNotFoundError):
            below = list_files(base)
    return [(path, base.within(path)) for path in below if _matches(path.split("/"), parts)]


def is_named(pattern: str, path: str) -> bool:
    """Return whether a file of `match_files` matches itself, and not only a directory that contains it."""
    return _matches(path.split("/"), _split(pattern)[1], whole=True)


def is_hidden(path: str) -> bool:
    """Return whether a part of `path` has a name that readers of directories skip: `.x.csv.checkpoint`, `_SUCCESS`."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _split(text: str) -> tuple[str, list[str]]:
    """Split a pattern into the directory before its first wildcard, with a URI's options, and the parts after that."""
    if is_web(text):  # a question mark is no wildcard there, and nothing can be listed
        return text, []
    text, options = cut_options(text) if "://" in text else (text, "")
    parts = text.split("/")
    names = 3 if "://" in text else 0  # of a URI, after scheme and bucket
    first = next((index for index, part in enumerate(parts) if index >= names and _MAGIC.search(part)), len(parts))
    base = "".join(f"{part}/" for part in parts[:first])
    rest = [unquote(part) for part in parts[first:]] if text.startswith("file:") else parts[first:]
    if rest and not rest[-1]:  # a slash at the end matches directories only
        rest[-1] = "**"
    return (base or "./") + options, rest


def _local_paths(base: Location, parts: Sequence[str]) -> set[str]:
    top, found = Path(base.path), set()
    for path in glob.glob("/".join(parts), root_dir=top, recursive=True):  # noqa: PTH207 - a Path knows no root
        if os.path.isdir(top / path):  # noqa: PTH112
            found |= {str(Path(path, each)) for each in list_files(local(str(top / path)))}
        elif os.path.isfile(top / path) or os.path.islink(top / path):  # noqa: PTH113, PTH114
            found.add(path)
    return found


def _matches(names: Sequence[str], parts: Sequence[str], *, whole: bool = False) -> bool:
    """Return whether the parts of a pattern match a path; without `whole`, a directory that contains it is enough."""
    if not parts or not names:
        return not parts and (not names if whole else not is_hidden("/".join(names)))
    if parts[0] == "**":
        skipped = not is_hidden(names[0]) and _matches(names[1:], parts, whole=whole)
        return skipped or _matches(names, parts[1:], whole=whole)
    fits = fnmatchcase(names[0], parts[0]) and (not is_hidden(names[0]) or is_hidden(parts[0]))
    return fits and _matches(names[1:], parts[1:], whole=whole)
