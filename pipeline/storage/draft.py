"""Outputs before they are complete: written to a file beside them, synced, renamed. A reader never sees half a file."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

import pyarrow as pa

from pipeline.cancellation import raise_if_cancelled
from pipeline.errors import DISK_TROUBLE, ClassifyError, DiskTrouble, OutputError, ReaderGone
from pipeline.storage.location import Location, local
from pipeline.storage.store import PART_BYTES

LOOK_S = 0.05  # between two checks whether the run was cancelled
STDOUT = 1
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what file systems say that have no sync of a directory


class Draft:
    """A file that becomes `output` when it is published, and is deleted when it is not.

    Until it is renamed, or sent to a store, it is at `path` (default: `.NAME.tmp` beside the output). Its mode is that
    of the file it replaces, else what the umask leaves. A link in the place of the output is replaced, not followed.

    Raises:
        OutputError: it can't be written. DiskTrouble: the disk is full or fails. StoreRefused, StoreGone: see `Store`.
    """

    def __init__(self, output: Location | Path, path: Path | None = None) -> None:
        self.output = output if isinstance(output, Location) else local(str(output))
        self.path = path or Path(self.output.beside(f".{self.output.name}.tmp").path)

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self._descriptor = open_new(self.path)
            if self.output.store is None:
                with suppress(OSError):  # there is none, or the file system has no modes
                    os.fchmod(self._descriptor, stat.S_IMODE(os.stat(self.output.path).st_mode) & 0o777)  # noqa: PTH116
            self.file: BinaryIO = os.fdopen(self._descriptor, "wb", buffering=1 << 20, closefd=False)
        return self

    def write_bytes(self) -> pa.NativeFile:
        """Return a stream into the file; the caller closes it."""
        return pa.PythonFile(self.file, "w")

    def close(self) -> None:
        """Close the file for writing."""
        with disk_errors(self.path):
            self.file.close()  # a compressing stream may have closed it before

    def begin_sync(self) -> None:
        """Close the file and start writing it to the disk: several drafts sync sooner if all start before one waits."""
        self.close()
        if self.output.store is None and hasattr(os, "posix_fadvise"):
            with disk_errors(self.path):  # to drop it from its cache, the system starts to write it
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Close the file and wait until it is durable; a draft for a store need not be."""
        self.close()
        if self.output.store is None:
            with disk_errors(self.path):
                os.fsync(self._descriptor)

    def publish(self) -> None:
        """Replace the output by the draft in one step, durably. An upload to a store can be cancelled."""
        if self.output.store is not None:
            with disk_errors(self.output):
                self.output.put(parts_of(self.path))
            return
        self.rename()
        sync_directory(Path(self.output.path).parent)

    def rename(self) -> None:
        """Replace an output on a disk by the draft; durable when the directory is synced, too."""
        with disk_errors(self.output):
            os.replace(self.path, self.output.path)  # noqa: PTH105 - a Path costs more, for each of many files

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.file.close()
        except OSError:
            if kind is None:
                raise
        finally:
            os.close(self._descriptor)
            self.path.unlink(missing_ok=True)


class Pipe:
    """Standard output, written like a draft. While its reader is slow, the run can be cancelled."""

    path = "standard output"

    def write_bytes(self) -> Pipe:
        """Return the stream to write to, which is the pipe itself."""
        return self

    def write(self, content: bytes | memoryview) -> None:
        """Write all of `content`.

        Raises:
            ReaderGone: the reader has closed the pipe. DiskTrouble: it goes to a file, and the disk is full.
        """
        left = memoryview(content)
        while left:
            raise_if_cancelled()
            if not select.select([], [STDOUT], [], LOOK_S)[1]:
                continue
            try:
                # A pipe that is ready takes at least this much without blocking.
                left = left[os.write(STDOUT, left[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise ReaderGone from None
            except OSError as error:
                raise DiskTrouble(f"standard output can't be written: {error.strerror}") from None

    def close(self) -> None:
        """Do nothing: there is no buffer to flush."""


def write_whole(location: Location, content: bytes) -> None:
    """Write a small file in one step, durably: a reader sees all of it or the old one."""
    if location.store is not None:
        location.put(iter([content]))
        return
    with Draft(location) as draft:
        with disk_errors(location):
            draft.file.write(content)
        draft.sync()
        draft.publish()


def move(source: Location, target: Location) -> None:
    """Put a file in the place of another one, durably, with the mode of that; both are on one disk or in one store.

    On a disk that is one step. In a store the new object appears in one step, and then the old one is removed.

    Raises:
        OutputError, DiskTrouble: it fails. StoreRefused, StoreGone: the store.
    """
    if source.store is not None:
        source.store.copy(source.shown, source.path, target.path)
        remove(source)
        return
    with disk_errors(target):
        with suppress(OSError):  # there is none, or the file system has no modes
            os.chmod(source.path, stat.S_IMODE(os.stat(target.path).st_mode) & 0o777)  # noqa: PTH101, PTH116
        os.replace(source.path, target.path)  # noqa: PTH105
    for folder in {Path(target.path).parent, Path(source.path).parent}:
        sync_directory(folder)


def remove(location: Location) -> None:
    """Remove a file, if it is there.

    Raises:
        OutputError, DiskTrouble: it fails. StoreRefused, StoreGone: its store.
    """
    with suppress(FileNotFoundError):
        if location.store is not None:
            location.store.remove(location.shown, location.path)
            return
        with disk_errors(location):
            Path(location.path).unlink(missing_ok=True)


def open_new(path: Path) -> int:
    """Make a file at a path that others can foresee and open it for writing, not through a link, nor over a content.

    What a killed run has left there is deleted first.

    Raises:
        OutputError: a link or something else that is no file is there. OSError: it can't be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        see_no_link(path)
        path.unlink(missing_ok=True)
        return os.open(path, flags, 0o666)


def see_no_link(path: Path, *, is_directory: bool = False) -> None:
    """See that a file (a directory), or nothing, is where this program keeps one: others may have put a link there.

    Raises:
        OutputError: a link or something else is there.
    """
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not (stat.S_ISDIR(mode) if is_directory else stat.S_ISREG(mode)):
            kept = "directory" if is_directory else "file"
            what = "a link" if stat.S_ISLNK(mode) else f"no {kept}"
            raise OutputError(f"{path}: is {what}, where this program keeps a {kept} of its own; remove it")


def sync_directory(path: Path) -> None:
    """Sync a directory: a rename survives a power cut only then. Nothing is done where a directory can't be synced.

    Raises:
        OutputError, DiskTrouble: it fails.
    """
    with disk_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except PermissionError:  # files may be made in it, but not listed
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NO_SYNC:
                raise
        finally:
            os.close(descriptor)


@contextmanager
def disk_errors(path: Location | Path) -> Iterator[None]:
    """Raise the system's errors as DiskTrouble or OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        ours: ClassifyError = OutputError(f"{path}: can't be written: {reason}")
        if error.errno in DISK_TROUBLE:
            ours = DiskTrouble(f"{path}: {reason}; what was answered is kept, make room and run the same command again")
        raise ours from None


def parts_of(file: Path) -> Iterator[bytes]:
    """Yield the content of a file in parts of an upload's size; the run can be cancelled before each."""
    with file.open("rb") as opened:
        while part := opened.read(PART_BYTES):
            raise_if_cancelled()
            yield part
    raise_if_cancelled()
