"""Outputs before they are complete: written beside their place, synced, renamed. A reader never sees half a file."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from pipeline.cancellation import raise_if_cancelled
from pipeline.errors import DISK_TROUBLE, ClassifyError, DiskTrouble, OutputError, ReaderGone
from pipeline.storage.location import Location, local
from pipeline.storage.samples import parts_of

LOOK_S = 0.05  # between two looks whether the run was cancelled
STDOUT = 1


class Draft:
    """A file that becomes `output` when it is published, and is removed when it is not.

    It stands at `path` (default: beside its place, as `.NAME.tmp`) until it is renamed, or sent to a store.

    Raises:
        OutputError: the place can't be written to. DiskTrouble: the disk is full or fails.
    """

    def __init__(self, output: Location | Path, path: Path | None = None) -> None:
        self.output = output if isinstance(output, Location) else local(str(output))
        self.path = path or Path(self.output.beside(f".{self.output.name}.tmp").path)
        self._descriptor = -1
        self._is_there = False

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            self.file: BinaryIO = os.fdopen(self._descriptor, "wb", buffering=1 << 20, closefd=False)
        self._is_there = True
        return self

    def write_bytes(self) -> pa.NativeFile:
        """Return a stream into the file; the caller closes it."""
        return pa.PythonFile(self.file, "w")

    @property
    def written(self) -> Location:
        """What was written, as a file that can be read."""
        return local(str(self.path))

    def close(self) -> None:
        """End the writing."""
        with disk_errors(self.path):
            self.file.close()  # a compressing stream has closed it before

    def begin_sync(self) -> None:
        """End the writing, and let the disk begin: several drafts are durable sooner if all begin before one waits."""
        self.close()
        if self.output.store is None and hasattr(os, "posix_fadvise"):
            with disk_errors(self.path):  # to drop it from memory, the system begins to write it
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Wait until what was written is durable; what is to be sent to a store need not be."""
        self.close()
        if self.output.store is None:
            with disk_errors(self.path):
                os.fsync(self._descriptor)
        self._close_descriptor()

    def publish(self) -> None:
        """Let it take the output's place in one step; on the way to a store that can be cancelled.

        Raises:
            StoreRefused, StoreGone: the store.
        """
        if self.output.store is not None:
            with disk_errors(self.output):
                self.output.put(parts_of(self.path))
            return
        self.rename()
        with disk_errors(self.output):
            sync_file(self.path.parent)

    def rename(self) -> None:
        """Let it take the output's place on a disk; durable when the directory is synced, too."""
        with disk_errors(self.output):
            os.replace(self.path, self.output.path)  # noqa: PTH105 - a Path costs more, for each of many files
        self._is_there = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.file.close()
        except OSError:
            if kind is None:
                raise
        finally:
            self._close_descriptor()
        if self._is_there:
            self.path.unlink(missing_ok=True)

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class Pipe:
    """Standard output in the place of a draft. While its reader is slow, the run can be cancelled."""

    path = "standard output"

    def write_bytes(self) -> Pipe:
        """Return the stream to write to."""
        return self

    def write(self, content: bytes | memoryview) -> None:
        """Write all of it.

        Raises:
            ReaderGone: nobody reads any more. DiskTrouble: it goes to a file, and the disk is full.
        """
        left = memoryview(content)
        while left:
            raise_if_cancelled()
            if not select.select([], [STDOUT], [], LOOK_S)[1]:
                continue
            try:
                # So much a pipe takes at once when it takes anything.
                left = left[os.write(STDOUT, left[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise ReaderGone from None
            except OSError as error:
                raise DiskTrouble(f"standard output can't be written: {error.strerror}") from None

    def close(self) -> None:
        """Do nothing: nothing is held back."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that it is there as a whole or not at all."""
    with Draft(path) as draft:
        with disk_errors(path):
            draft.file.write(content)
        draft.sync()
        draft.publish()


def sync_file(path: Path) -> None:
    """Bring a file to the disk, or a directory: a rename lasts through a power cut only when that is synced, too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Location | Path) -> Iterator[None]:
    """The system's errors as ours."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        ours: ClassifyError = OutputError(f"{path}: can't be written: {reason}")
        if error.errno in DISK_TROUBLE:
            ours = DiskTrouble(f"{path}: {reason}; what was answered is kept, make room and run the same command again")
        raise ours from None
