"""Object stores through pyarrow's file systems, with time limits, and errors by what is to be done about them."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pipeline.config import Uri
from pipeline.errors import ClassifyError, StoreGone, StoreRefused

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

FIRST_BYTES = 256 << 10  # of a stream's first request: mostly enough for a header and the first rows
MOST_BYTES = 8 << 20  # of any: a request takes 30 to 100 ms before its first byte comes
# A store that does not answer is given up after some 20 seconds: three attempts of this length.
ATTEMPTS = 3
PATIENCE_S = 5.0
PART_BYTES = 10 << 20  # of an upload; pyarrow cuts its parts there, too
MOST_PARTS = 10_000  # of an upload to S3
OPTIONS = {"s3": ("region", "scheme", "endpoint_override"), "gs": ("scheme", "endpoint_override")}

_S3 = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during \w+ operation: (.*)", re.DOTALL)
_GS = re.compile(r"google::cloud::Status\((\w+): (.*?)(?: error_info=|\)\s*$|$)", re.DOTALL)
_AROUND = re.compile(r"^.*(Details:|last message of) | \(Request ID: .*$")  # left out of messages
_LATER = {
    *("NETWORK_CONNECTION", "INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "THROTTLING", "REQUEST_TIMEOUT"),
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "ABORTED"),
}
TRY_AGAIN = 408, 429  # and 500 to 599
# Before the store has answered anything, these are mistakes in the settings: certificate, credentials, address.
_BY_HAND = re.compile(r"\bSSL\b|certificate|access token", re.IGNORECASE)
_ADDRESS = re.compile("resolve host", re.IGNORECASE)  # if an address is given; else the network is down


class StoreStream:
    """Reads an object from one offset on, in requests that grow. `trouble` translates errors of pyarrow."""

    def __init__(self, file: pa.NativeFile, trouble: Callable[[Exception], ClassifyError | None]) -> None:
        self._file, self._trouble = file, trouble
        self._held = memoryview(b"")
        self._at = 0  # the offset of the next request
        self._next = FIRST_BYTES
        self.closed = False

    def seek(self, offset: int) -> None:
        """Continue at an offset."""
        self._at, self._held = offset, memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        import pyarrow as pa

        if not self._held:
            try:
                self._held = memoryview(self._file.read_at(max(size, self._next), self._at))
            except (OSError, pa.ArrowException) as error:
                raise self._trouble(error) or error from None
            self._at += len(self._held)
            self._next = min(2 * self._next, MOST_BYTES)
        taken, self._held = self._held[:size], self._held[size:]
        return bytes(taken)

    def close(self) -> None:
        """Close the object."""
        self.closed = True
        self._held = memoryview(b"")
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Store:
    """An object store, reached as one URI says. Paths are `bucket/key`; `shown` is the location in messages.

    Raises (from every method):
        StoreRefused: no such bucket, no permission. StoreGone: it can't be reached at the moment.
        FileNotFoundError: there is no such object.
    """

    is_written = True  # whether it takes outputs

    @property
    def largest(self) -> int | None:
        """The most bytes that a file written here can have; None: any number."""
        return MOST_PARTS * PART_BYTES if self._uri.scheme == "s3" else None

    def __init__(self, uri: Uri) -> None:
        self._uri = uri
        self._scheme, self._host = _endpoint_of(uri)
        self._answered = False

    def __reduce__(self) -> tuple[type[Self], tuple[Uri]]:
        """Another process opens the store anew."""
        return type(self), (self._uri,)

    @cached_property
    def _system(self) -> fs.FileSystem:
        from pyarrow import fs

        uri = self._uri
        if uri.scheme == "gs":
            return fs.GcsFileSystem(
                anonymous=uri.user == "anonymous",
                scheme=self._scheme,
                endpoint_override=self._host,
                retry_time_limit=timedelta(seconds=PATIENCE_S),
            )
        region = uri.options.get("region")
        if not region and not self._host:  # the bucket knows its region better than the environment
            with suppress(OSError):
                region = fs.resolve_s3_region(uri.host)
        return fs.S3FileSystem(
            anonymous=uri.user == "anonymous",
            access_key=None if uri.user == "anonymous" else uri.user or None,
            secret_key=uri.secret or None,
            region=region or None,
            scheme=self._scheme,
            endpoint_override=self._host,
            connect_timeout=PATIENCE_S,
            request_timeout=PATIENCE_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            background_writes=False,  # they would buffer an upload in memory
        )

    @contextmanager
    def errors(self, shown: str) -> Iterator[None]:
        """Raise errors of the store as StoreRefused or StoreGone."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError:
            self._answered = True
            raise
        except (OSError, pa.ArrowException) as error:
            ours = self.trouble(shown, error)
            if ours is None and getattr(error, "errno", None):  # of the local disk during an upload
                raise
            raise ours or StoreRefused(f"{shown}: {' '.join(str(error).split())}") from None
        self._answered = True

    def trouble(self, shown: str, error: Exception) -> ClassifyError | None:
        """Return the error that an exception of pyarrow stands for; None if it is not the store's."""
        said = " ".join(str(error).split())
        if found := _S3.search(said):
            code, status, words = found[1], int(found[2] or 0), found[3]
        elif found := _GS.search(said):
            code, status, words = found[1], 0, found[2]
        else:
            return None
        words = _AROUND.sub("", words)[:200].rstrip(". ")
        number = f"HTTP {status}" if status else code
        what = number if words == "No response body" else f"{words} ({number})"
        if code in _LATER or status in TRY_AGAIN or status // 100 == 5:  # noqa: PLR2004 - a server error
            is_mistake = _BY_HAND.search(words) or (self._host and _ADDRESS.search(words))
            if self._answered or not is_mistake:
                return StoreGone(f"{shown}: the store can't be reached, or is too busy: {what}; try again later")
            return StoreRefused(f"{shown}: the store can't be reached: {what}; check its address and the credentials")
        self._answered = True
        return StoreRefused(
            f"{shown}: the store refuses: {what}; check the bucket, the credentials and what they permit"
        )

    def look(self, shown: str, path: str) -> fs.FileInfo:
        """Return the type of the object at `path`, and its size if it is a file."""
        from pyarrow.fs import FileType

        with self.errors(shown):
            found = self._system.get_file_info(path)
        bucket = path.partition("/")[0]
        if found.type is FileType.NotFound and not self._has(shown, bucket):
            raise StoreRefused(f"{shown}: there is no bucket {bucket}; make it, or check the name")
        return found

    def _has(self, shown: str, bucket: str) -> bool:
        from pyarrow.fs import FileType

        try:
            with self.errors(shown):
                return bool(self._system.get_file_info(bucket).type is not FileType.NotFound)
        except StoreRefused:  # permission to write does not include that to look
            return True

    def list(self, shown: str, path: str) -> list[fs.FileInfo]:
        """Return all objects below `path`."""
        from pyarrow import fs

        with self.errors(shown):
            found: list[fs.FileInfo] = self._system.get_file_info(fs.FileSelector(path, recursive=True))
            return found

    def open(self, shown: str, path: str) -> pa.NativeFile:
        """Open an object for random access. Errors of its methods are translated by `trouble`."""
        with self.errors(shown):
            return self._system.open_input_file(path)

    def put(self, shown: str, path: str, parts: Iterator[bytes]) -> None:
        """Write an object of `parts`; it appears with the last one.

        An exception meanwhile, also one from `parts`, leaves the old object, and at most an unfinished upload.
        """
        with self.errors(shown):
            stream = self._system.open_output_stream(path, compression=None)  # not again, by the ending of the name
            try:
                for part in parts:
                    stream.write(part)
                stream.close()
            except BaseException:
                _never_close(stream)
                raise

    def copy(self, shown: str, path: str, target: str) -> None:
        """Write an object once more under another name: in the store, or through this machine where it can't do that.

        S3 copies up to 5 GB in one request, and not every store that speaks its protocol copies.
        """
        try:
            with self.errors(shown):
                self._system.copy_file(path, target)
        except StoreRefused:
            self._rewrite(shown, path, target)

    def _rewrite(self, shown: str, path: str, target: str) -> None:
        with self.open(shown, path) as file, StoreStream(file, lambda error: self.trouble(shown, error)) as stream:
            self.put(shown, target, iter(lambda: stream.read(PART_BYTES), b""))

    def remove(self, shown: str, path: str) -> None:
        """Remove an object."""
        with self.errors(shown):
            self._system.delete_file(path)


def _never_close(stream: Any) -> None:
    """Keep a stream from ever being closed, which pyarrow does when it is freed.

    Closing the stream completes the upload with the parts it has, also after one of them has failed: half an object
    would appear. There is no call to abort it, so it is never freed.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


def _endpoint_of(uri: Uri) -> tuple[str | None, str | None]:
    """Return scheme and host of the store, None where they are the usual ones."""
    named = uri.options.get("endpoint_override")
    if not named and uri.scheme == "s3":  # pyarrow reads these only for URIs that it parses itself
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    scheme, _, host = (named or "").rpartition("://")
    return uri.options.get("scheme") or scheme or None, host.rstrip("/") or None
