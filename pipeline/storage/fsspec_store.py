"""Stores that pyarrow does not know, through fsspec: Hugging Face, Azure, web servers, and whatever fsspec opens.

fsspec and the package that it needs for a scheme are extras of this package; they take their credentials from the
environment, or as options of the URI.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pipeline.config import Uri, is_web, mask_words
from pipeline.errors import ClassifyError, ConfigError, StoreGone, StoreRefused
from pipeline.storage.store import ATTEMPTS, PATIENCE_S, TRY_AGAIN, Store

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

EXTRAS = {"hf": "hf", "az": "azure", "abfs": "azure", "abfss": "azure", "http": "https", "https": "https"}
READ_S = 30.0  # without a byte from a web server
_DENIED = 401, 403
# Of errors without an HTTP status, by package: the connection failed. TimeoutError is an OSError, too.
_OF_NETWORK = {
    *("builtins.OSError", "aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError", "httpx.TransportError"),
    *("azure.ServiceRequestError", "azure.ServiceResponseError"),
}
Found = TypeVar("Found")


class FsspecStore(Store):
    """A store behind fsspec. Paths are those of fsspec; of a web server host and path, without credentials and query.

    Raises:
        ConfigError: there is no such scheme, or a package is missing.
    """

    def __init__(self, uri: Uri) -> None:
        self._uri = uri
        self._failed: ClassifyError | None = None  # pyarrow passes on that a file failed, but not always how
        self.is_written = not is_web(uri.scheme)
        try:
            import fsspec

            self._class = fsspec.get_filesystem_class(uri.scheme)
        except (ImportError, ValueError) as error:
            if extra := EXTRAS.get(uri.scheme):
                known = f'{uri.scheme}:// needs a package that is missing; pip install "classify-pipeline[{extra}]"'
                raise ConfigError(known) from None
            raise ConfigError(
                f"{uri.scheme}:// is no storage for files; it is s3://, gs://, hf://, az://, https://, file:// "
                f"or a path, or what fsspec opens ({error})"
            ) from None

    @property
    def path(self) -> str:
        """The path of what the URI names."""
        uri = self._uri
        if not self.is_written:
            return f"{uri.host}/{uri.name.partition('?')[0]}"
        return str(self._class._strip_protocol(self._named))  # noqa: SLF001 - the only way, documented by fsspec

    @property
    def _origin(self) -> str:
        """The scheme, and the credentials if the URI has any."""
        uri = self._uri
        secret = f":{quote(uri.secret, safe='')}" if uri.secret else ""
        return f"{uri.scheme}://{quote(uri.user, safe='')}{secret}{'@' if uri.user else ''}"

    @property
    def _named(self) -> str:
        return f"{self._origin}{self._uri.host}/{self._uri.name}"

    def _full(self, path: str) -> str:
        """Return the path as fsspec takes it: of a web server the URL with credentials and query."""
        if self.is_written:
            return path
        _, question, query = self._uri.name.partition("?")
        return f"{self._origin}{path}{question}{query}"

    @cached_property
    def _files(self) -> Any:
        options: dict[str, Any] = dict(self._uri.options)
        if not self.is_written:
            import aiohttp

            patience = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S, sock_read=READ_S)
            options = {"client_kwargs": {"timeout": patience, "trust_env": True}}
        else:
            options |= self._class._get_kwargs_from_urls(self._named)  # noqa: SLF001
        return self._class(**options, use_listings_cache=False, skip_instance_cache=True)

    @cached_property
    def _system(self) -> fs.FileSystem:
        from pyarrow import fs

        return fs.PyFileSystem(fs.FSSpecHandler(self._files))

    @contextmanager
    def errors(self, shown: str) -> Iterator[None]:
        """Raise errors of the store as StoreRefused or StoreGone."""
        try:
            yield
        except ClassifyError:
            raise
        except FileNotFoundError as error:
            cause = error.__cause__  # of a web server fsspec says so whatever went wrong
            if cause is None or _status_of(cause) in (404, 410) or isinstance(cause, FileNotFoundError):
                raise
            raise self._error(shown, cause) from None
        except Exception as error:  # noqa: BLE001 - each package has errors of its own
            raise self._error(shown, error) from None

    def trouble(self, shown: str, error: Exception) -> ClassifyError | None:  # noqa: ARG002 - those of pyarrow are wrapped
        """Return the error that the last reading ended with; None if it was not the store's."""
        return self._failed

    def _error(self, shown: str, error: BaseException) -> ClassifyError:
        status, said = _status_of(error), mask_words(" ".join(str(error).split()))[:200].rstrip(". ")
        what = f"{said or type(error).__name__}{f' (HTTP {status})' if status else ''}"
        is_later = status in TRY_AGAIN or status // 100 == 5  # noqa: PLR2004 - a server error
        is_network = not status and not _OF_NETWORK.isdisjoint(map(_named, type(error).__mro__))
        if isinstance(error, PermissionError) or status in _DENIED:
            return StoreRefused(f"{shown}: the store refuses: {what}; check the credentials and what they permit")
        if is_later or is_network:
            return StoreGone(f"{shown}: the store can't be reached, or is too busy: {what}; try again later")
        return StoreRefused(f"{shown}: the store refuses: {what}")

    def attempt(self, shown: str, call: Callable[[], Found]) -> Found:
        """Return what `call` returns, which is called up to `ATTEMPTS` times while the store can't be reached."""
        for left in reversed(range(ATTEMPTS)):
            try:
                with self.errors(shown):
                    found = call()
            except StoreGone as error:
                self._failed = error
                if not left:
                    raise
            except (ClassifyError, FileNotFoundError) as error:
                self._failed = error if isinstance(error, ClassifyError) else self._error(shown, error)
                raise
            else:
                self._failed = None  # what an earlier attempt met is over
                return found
        raise AssertionError

    def look(self, shown: str, path: str) -> fs.FileInfo:
        """Return the type of the file at `path`, and its size."""
        from pyarrow import fs

        try:
            info = self.attempt(shown, lambda: self._files.info(self._full(path)))
        except FileNotFoundError:
            self._failed = None
            return fs.FileInfo(path, fs.FileType.NotFound)
        if info["type"] == "directory":
            return fs.FileInfo(path, fs.FileType.Directory)
        if info.get("size") is None:
            raise StoreRefused(f"{shown}: the server does not say how long the file is; download it first")
        return fs.FileInfo(path, fs.FileType.File, size=int(info["size"]))

    def open(self, shown: str, path: str) -> pa.NativeFile:
        """Open a file for random access."""
        import pyarrow as pa

        return pa.PythonFile(_File(self, shown, self.attempt(shown, lambda: self._files.open(self._full(path)))), "r")

    def put(self, shown: str, path: str, parts: Iterator[bytes]) -> None:
        """Write a file of `parts`, which are gathered on the disk first: fsspec has no way to give up a half upload."""
        with tempfile.NamedTemporaryFile(prefix="classify-") as whole:
            for part in parts:
                whole.write(part)
            whole.flush()
            with self.errors(shown):
                self._files.put_file(whole.name, path)

    def copy(self, shown: str, path: str, target: str) -> None:
        """Write a file once more under another name, through this machine: some stores copy after they have said so."""
        self._rewrite(shown, path, target)

    def remove(self, shown: str, path: str) -> None:
        """Remove a file."""
        self.attempt(shown, lambda: self._files.rm_file(path))


class _File:
    """A file of fsspec for pyarrow, whose errors are those of the store."""

    closed = False

    def __init__(self, store: FsspecStore, shown: str, file: Any) -> None:
        self._store, self._shown, self._file = store, shown, file

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()

        def again() -> bytes:
            self._file.seek(start)
            return bytes(self._file.read(size))

        try:
            return self._store.attempt(self._shown, again)
        except ClassifyError as error:
            raise OSError(str(error)) from error

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        pass


def _named(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _status_of(error: BaseException) -> int:
    """Return the HTTP status of an error of aiohttp, httpx, requests or Azure's packages; 0 if it has none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code"):
            if isinstance(status := getattr(holder, name, None), int):
                return status
    return 0
