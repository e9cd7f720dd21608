"""The location of a file: on a disk, or in an object store."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pipeline.config import Uri, mask_uri, split_uri
from pipeline.errors import ClassifyError, ConfigError
from pipeline.storage.store import OPTIONS, Store, StoreStream

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_BYTES = 64 << 10
SAMPLES = 64
READS_AT_ONCE = 16  # of small samples of one object: latency dominates


class Kind(Enum):
    """The kind of file at a location."""

    NOTHING = "nothing"
    FILE = "a file"
    DIRECTORY = "a directory"
    OTHER = "no regular file"


@dataclass(frozen=True, slots=True)
class Location:
    """The location of a file or directory. Its text, for messages and records, contains no secret.

    Raises (from every method that looks at an object of a store):
        StoreRefused, StoreGone: see `Store`.
    """

    shown: str
    path: str  # on the disk; in a store `bucket/key`
    store: Store | None = None  # None: the disk
    is_folder: bool = False  # given with a slash at its end
    is_piped: bool = False  # a copy of what came through a pipe
    content: bytes | None = field(default=None, repr=False, compare=False)  # of a small file, see `loaded`

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
        """Identifies the file, however its path is spelled; independent of credentials and options of a store."""
        return os.path.realpath(self.path) if self.store is None else self.shown

    @property
    def folder(self) -> str:
        """The directory that contains it, as shown."""
        return self.shown.rpartition("/")[0]

    def beside(self, name: str) -> Location:
        """Return the location of `name` in the same directory, without a content."""
        if self.store is None:
            path = os.path.join(os.path.dirname(self.path.rstrip("/")), name)  # noqa: PTH118, PTH120 - see `within`
            return Location(path, path, is_piped=self.is_piped)
        stem = len(self.name)
        shown, path = self.shown[: len(self.shown) - stem] + name, self.path[: -stem or None] + name
        return replace(self, shown=shown, path=path, content=None)

    def within(self, name: str) -> Location:
        """Return the location of `name`, which may contain slashes, below this directory."""
        if self.store is None:
            path = os.path.join(self.path, name)  # noqa: PTH118 - a Path costs more, for each of many files
            return Location(path, path)
        return Location(f"{self.shown.rstrip('/')}/{name}", f"{self.path}/{name}", self.store)

    def look(self) -> tuple[Kind, int]:
        """Return the kind of file that is there, and its size in bytes (0 if it is no regular file)."""
        if self.content is not None:
            return Kind.FILE, len(self.content)
        if self.store is not None:
            from pyarrow.fs import FileType

            info = self.store.look(self.shown, self.path)
            if info.type is FileType.NotFound:
                return Kind.NOTHING, 0
            return (Kind.FILE, info.size) if info.is_file else (Kind.DIRECTORY, 0)
        try:
            found = os.stat(self.path)  # noqa: PTH116 - a Path costs more, for each of many files
        except (OSError, ValueError):
            return Kind.NOTHING, 0
        if stat.S_ISDIR(found.st_mode):
            return Kind.DIRECTORY, 0
        return (Kind.FILE, found.st_size) if stat.S_ISREG(found.st_mode) else (Kind.OTHER, 0)

    def exists(self) -> bool:
        """Return whether a file of any kind is there."""
        return self.look()[0] is not Kind.NOTHING

    def open(self) -> pa.NativeFile:
        """Open the file for random access. For errors of its methods, see `trouble`."""
        import pyarrow as pa

        if self.content is not None:
            return pa.BufferReader(self.content)
        if self.store is None:
            return pa.OSFile(os.fsencode(self.path))  # a name may be bytes that are no UTF-8
        return self.store.open(self.shown, self.path)

    def stream(self) -> pa.NativeFile | StoreStream:
        """Open the file for reading from one offset to the end."""
        return self.open() if self.store is None or self.content is not None else StoreStream(self.open(), self.trouble)

    def loaded(self, most: int) -> Location:
        """Return the location with its content, if that is at most `most` bytes: then reading opens no file."""
        kind, size = self.look()
        return replace(self, content=self.read()) if kind is Kind.FILE and size <= most else self

    def mark(self) -> tuple[int, ...] | None:
        """Return device, inode, size and time of a file on the disk, which change when it is written or replaced.

        None for a file of a store, if there is no file, and if `content` is set, which can be compared itself.
        """
        if self.store is not None or self.content is not None:
            return None
        try:
            found = os.stat(self.path)  # noqa: PTH116
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def trouble(self, error: Exception) -> ClassifyError | None:
        """Return the error of the store that an exception while reading stands for; None if it is not the store's."""
        return None if self.store is None else self.store.trouble(self.shown, error)

    def read(self) -> bytes | None:
        """Return the content of a small file; None if there is none."""
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
        """Write an object of a store; it appears with the last of its parts."""
        if self.store is None:
            raise TypeError(f"{self}: is no object of a store")
        self.store.put(self.shown, self.path, parts)


def locate(text: str) -> Location:
    """Return the location that a path or a URI names.

    Raises:
        ConfigError: an unknown scheme, no bucket, or an unknown option.
    """
    uri = split_uri(text)
    if uri is None:
        return local(text)
    masked = mask_uri(text)
    if uri.scheme == "file":
        if uri.host not in ("", "localhost"):
            raise ConfigError(f"{masked}: a file has three slashes, file:///path")
        return local(unquote(f"/{uri.name}"))
    if uri.scheme not in OPTIONS:
        return _behind_fsspec(uri, masked)
    known = OPTIONS[uri.scheme]
    if unknown := [option for option in uri.options if option not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        what = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"{masked}: {uri.scheme}:// has no option {unknown[0]}; {what}")
    if not uri.host or ":" in uri.host:
        raise ConfigError(
            f"{masked}: no bucket; it is {uri.scheme}://BUCKET/NAME (a slash in a secret is written %2F; "
            f"better leave credentials to the environment)"
        )
    _check_credentials(uri, masked)
    key = uri.name.rstrip("/")
    if f"/{key}".find("//") >= 0:
        raise ConfigError(f"{masked}: two slashes in a row can't be reached; rename it")
    path = f"{uri.host}/{key}".rstrip("/")
    return Location(f"{uri.scheme}://{path}", path, Store(uri), is_folder=not key or uri.name.endswith("/"))


def _behind_fsspec(uri: Uri, masked: str) -> Location:
    from pipeline.storage.fsspec_store import FsspecStore

    try:
        store = FsspecStore(uri)
    except ConfigError as error:
        raise ConfigError(f"{masked}: {error}") from None
    return Location(masked.partition("?")[0].rstrip("/"), store.path.rstrip("/"), store, uri.name.endswith("/"))


def _check_credentials(uri: Uri, masked: str) -> None:
    if uri.scheme == "s3" and bool(uri.user) != bool(uri.secret) and uri.user != "anonymous":
        raise ConfigError(
            f"{masked}: credentials are KEY:SECRET@, and anonymous@ is access without any; "
            f"better leave them to the environment"
        )


def local(path: str) -> Location:
    """Return the location of a path on the disk."""
    return Location(path, path, is_folder=path.endswith("/"))


def samples_of(location: Location) -> tuple[int, list[bytes]]:
    """Return the size of a file, and samples of its head, its tail and evenly between: all of it, or 4 MiB.

    Raises:
        OSError: a local file can't be read. StoreRefused, StoreGone: see `Store`.
    """
    if location.store is not None and location.content is None:
        return _samples_of_object(location, location.store)
    with Path(location.path).open("rb") if location.content is None else BytesIO(location.content) as file:
        size, samples = file.seek(0, os.SEEK_END), []
        for offset in _offsets(size):
            file.seek(offset)
            samples.append(file.read(SAMPLE_BYTES))
    return size, samples


def _samples_of_object(location: Location, store: Store) -> tuple[int, list[bytes]]:
    with store.open(location.shown, location.path) as file, store.errors(location.shown):
        size: int = file.size()
        if size <= SAMPLES * SAMPLE_BYTES:
            whole = file.read()
            return size, [whole[offset : offset + SAMPLE_BYTES] for offset in _offsets(size)]
        with ThreadPoolExecutor(READS_AT_ONCE) as executor:
            return size, list(executor.map(lambda offset: bytes(file.read_at(SAMPLE_BYTES, offset)), _offsets(size)))


def _offsets(size: int) -> list[int]:
    last = max(0, size - SAMPLE_BYTES)
    return sorted({last * step // (SAMPLES - 1) for step in range(SAMPLES)}) if last else [0]
