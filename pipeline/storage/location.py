"""Where one file is: on a disk, or in a store."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from pipeline.config import Uri, mask_place, split_uri
from pipeline.errors import ClassifyError, ConfigError
from pipeline.storage.store import OPTIONS, Store, StoreStream

if TYPE_CHECKING:
    import pyarrow as pa


class Kind(Enum):
    """What stands at a location."""

    NOTHING = "nothing"
    FILE = "a file"
    DIRECTORY = "a directory"
    OTHER = "no regular file"


@dataclass(frozen=True, slots=True)
class Location:
    """Where one file is. As text it is what messages and records show: never a secret."""

    shown: str
    path: str  # on the disk; in a store `bucket/key`
    store: Store | None = None  # None: the disk
    is_folder: bool = False  # it was named with a slash at its end
    is_piped: bool = False  # what stands here came through a pipe, and will not come again
    content: bytes | None = field(default=None, repr=False, compare=False)  # of a small file that was read already

    def __str__(self) -> str:
        return self.shown

    @property
    def name(self) -> str:
        """The last part of the path."""
        if self.store is not None:
            return self.path.partition("/")[2].rpartition("/")[2]
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def key(self) -> str:
        """What tells it from any other file, however it is spelt and whoever asks; not the way to its store."""
        return os.path.realpath(self.path) if self.store is None else self.shown

    @property
    def folder(self) -> str:
        """The directory it is in, as shown."""
        return self.shown.rpartition("/")[0]

    def beside(self, name: str) -> Location:
        """The file `name` in the same directory."""
        if self.store is None:
            path = os.path.join(os.path.dirname(self.path.rstrip("/")), name)  # noqa: PTH118, PTH120 - see `within`
            return Location(path, path, is_piped=self.is_piped)
        stem = len(self.name)
        return replace(self, shown=self.shown[: len(self.shown) - stem] + name, path=self.path[: -stem or None] + name)

    def within(self, name: str) -> Location:
        """The file `name` below this directory; it may hold slashes."""
        if self.store is None:
            path = os.path.join(self.path, name)  # noqa: PTH118 - a Path costs more, for each of many files
            return Location(path, path)
        return Location(f"{self.shown.rstrip('/')}/{name}", f"{self.path}/{name}", self.store)

    def look(self) -> tuple[Kind, int]:
        """What stands there, and its size in bytes if it is a file.

        Raises:
            StoreRefused, StoreGone: see `Store`; also where there is no such bucket.
        """
        if self.content is not None:
            return Kind.FILE, len(self.content)
        if self.store is None:
            return _look(self.path)
        from pyarrow.fs import FileType

        found = self.store.look(self.shown, self.path)
        if found.type is FileType.NotFound:
            return Kind.NOTHING, 0
        return (Kind.FILE, found.size) if found.is_file else (Kind.DIRECTORY, 0)

    def exists(self) -> bool:
        """Whether anything stands there."""
        return self.look()[0] is not Kind.NOTHING

    def open(self) -> pa.NativeFile:
        """The file, to be read anywhere in it. Errors of its methods: see `trouble`."""
        import pyarrow as pa

        if self.content is not None:
            return pa.BufferReader(self.content)
        if self.store is None:
            return pa.OSFile(os.fsencode(self.path))  # a name may be bytes that are no UTF-8
        return self.store.open(self.shown, self.path)

    def stream(self) -> pa.NativeFile | StoreStream:
        """The file, to be read from one place on to its end."""
        return self.open() if self.store is None or self.content is not None else StoreStream(self.open(), self.trouble)

    def loaded(self, most: int) -> Location:
        """The same with its content, if that has `most` bytes at most: whoever reads it then opens no file.

        Raises:
            StoreRefused, StoreGone: see `Store`.
        """
        kind, size = self.look()
        return replace(self, content=self.read()) if kind is Kind.FILE and size <= most else self

    def mark(self) -> tuple[int, ...] | None:
        """What changes when a file on the disk is written to or replaced.

        None of a store's, where nothing is, or where the content is known and will be compared.
        """
        if self.store is not None or self.content is not None:
            return None
        try:
            found = os.stat(self.path)  # noqa: PTH116
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def as_it_is_now(self) -> Location:
        """The same without a content that was read before."""
        return replace(self, content=None)

    def trouble(self, error: Exception) -> ClassifyError | None:
        """What an error while reading says of the store; None if the file itself is to blame."""
        return None if self.store is None else self.store.trouble(self.shown, error)

    def read(self) -> bytes | None:
        """All of a small file; None if it is not there."""
        if self.store is None:
            try:
                with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs more, for each of many
                    return file.read()
            except OSError:
                return None
        try:
            with self.store.open(self.shown, self.path) as file, self.store.errors(self.shown):
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def put(self, parts: Iterator[bytes]) -> None:
        """Make an object of a store: it is there when the last part is, and not before.

        Raises:
            StoreRefused, StoreGone: see `Store`.
        """
        if self.store is None:
            raise TypeError(f"{self}: is no object of a store")
        self.store.put(self.shown, self.path, parts)


def locate(text: str) -> Location:
    """Where `text`, a path or a URI, points to.

    Raises:
        ConfigError: no such kind of URI, or no bucket, or an unknown option.
    """
    uri = split_uri(text)
    if uri is None:
        return local(text)
    masked = mask_place(text)
    if uri.scheme == "file":
        if uri.host not in ("", "localhost"):
            raise ConfigError(f"{masked}: a file has three slashes, file:///path")
        return local(unquote(f"/{uri.name}"))
    if uri.scheme not in OPTIONS:
        raise ConfigError(f"{masked}: {uri.scheme}:// is no place for files; it is s3://, gs://, file:// or a path")
    _check_options(uri, masked)
    if not uri.host or ":" in uri.host:
        raise ConfigError(
            f"{masked}: no bucket; it is {uri.scheme}://BUCKET/NAME (a slash in a secret is written %2F; "
            f"better leave credentials to the environment)"
        )
    key = uri.name.rstrip("/")
    if f"/{key}".find("//") >= 0:
        raise ConfigError(f"{masked}: two slashes in a row can't be reached; rename it")
    path = f"{uri.host}/{key}".rstrip("/")
    return Location(f"{uri.scheme}://{path}", path, Store(uri), is_folder=not key or uri.name.endswith("/"))


def _check_options(uri: Uri, masked: str) -> None:
    known = OPTIONS[uri.scheme]
    for option in uri.options:
        near = difflib.get_close_matches(option, known, n=1)
        if option not in known:
            what = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{masked}: {uri.scheme}:// has no option {option}; {what}")


def local(path: str) -> Location:
    """A path on the disk."""
    return Location(path, path, is_folder=path.endswith("/"))


def _look(path: str) -> tuple[Kind, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more, for each of many files
    except (OSError, ValueError):
        return Kind.NOTHING, 0
    if stat.S_ISDIR(found.st_mode):
        return Kind.DIRECTORY, 0
    return (Kind.FILE, found.st_size) if stat.S_ISREG(found.st_mode) else (Kind.OTHER, 0)
