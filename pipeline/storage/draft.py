"""The output before it is one: written beside its place, synced, renamed. A reader never sees half a file."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from pipeline.errors import DISK_TROUBLE, ClassifyError, DiskTrouble, OutputError, ReaderGone
from pipeline.storage.location import Location, local
from pipeline.storage.samples import parts_of

LOOK_S = 0.05


STDOUT = 1


class Pipe:
    """Standard output in the place of a draft. It never waits for its reader without calling `tick`."""

    path = "standard output"

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def write_bytes(self) -> Pipe:
        """The stream to write to."""
        return self

    def write(self, content: bytes | memoryview) -> None:
        """Write all of it.

        Raises:
            ReaderGone: nobody reads any more. DiskTrouble: it goes to a file, and the disk is full.
        """
        left = memoryview(content)
        while left:
            self._tick()
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
        """Nothing is held back."""

    def sync(self) -> None:
        """Whoever reads it has it."""


class Draft:
    """A file that becomes `output` when it is published, and is taken away when it is not.

    It stands at `path` (default: beside its place, as `.NAME.tmp`) until it is renamed, or sent to a store.

    Raises:
        OutputError: the place can't be written to. DiskTrouble: the disk is full or fails.
    """

    def __init__(self, output: Location | Path, path: Path | None = None) -> None:
        self.output = output if isinstance(output, Location) else local(str(output))
        self.path = path or Path(self.output.beside(f".{self.output.name}.tmp").path)
        self._is_there = False

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.file: BinaryIO = self.path.open("wb", buffering=1 << 20)
        self._is_there = True
        return self

    def write_bytes(self) -> pa.NativeFile:
        """A stream into the file; the caller closes it."""
        return pa.PythonFile(self.file, "w")

    @property
    def written(self) -> Location:
        """What was written, as a file that can be read."""
        return local(str(self.path))

    def close(self) -> None:
        """There is nothing more to be written."""
        with disk_errors(self.path):
            self.file.close()  # a compressing stream has closed it before

    def begin_sync(self) -> None:
        """Nothing more is written, and the disk may begin; several are on the disk sooner if all begin first."""
        self.close()

    def sync(self) -> None:
        """What was written is on the disk when this returns; what is to be sent to a store need not be."""
        self.close()
        with disk_errors(self.path):
            if self.output.store is None:
                sync_file(self.path)

    def publish(self, tick: Callable[[], None] = lambda: None) -> None:
        """Let it take the output's place, in one step; on the way to a store `tick` may raise to end it.

        Raises:
            StoreRefused, StoreGone: the store.
        """
        with disk_errors(self.output):
            if self.output.store is not None:
                self.output.put(parts_of(self.path, tick))
                return
            self.rename()
            sync_file(self.path.parent)

    def rename(self) -> None:
        """Let it take the output's place on a disk; that lasts when the directory is synced, too."""
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
        if self._is_there:
            self.path.unlink(missing_ok=True)


class SmallDraft(Draft):
    """A draft that stands in memory until it is complete: one of many, each of which would be opened and read again."""

    def __enter__(self) -> Self:
        self._stream = pa.BufferOutputStream()
        self._content: pa.Buffer | None = None
        self._descriptor: int | None = None
        return self

    def write_bytes(self) -> pa.NativeFile:
        """See `Draft`."""
        return self._stream

    @property
    def written(self) -> Location:
        """See `Draft`; complete with this."""
        assert self._content is not None  # noqa: S101 - it is complete
        return replace(self.output, content=self._content.to_pybytes())

    def close(self) -> None:
        """See `Draft`."""
        if self._content is None:  # the stream gives it once
            self._content = self._stream.getvalue()

    def begin_sync(self) -> None:
        """See `Draft`."""
        self.close()
        content = memoryview(self._content or b"")
        with disk_errors(self.path):
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            self._is_there = True
            while content:
                content = content[os.write(self._descriptor, content) :]
            if hasattr(os, "posix_fadvise"):  # to have no more of it in memory, the system begins to write it
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """See `Draft`; after `begin_sync`."""
        with disk_errors(self.path):
            if self._descriptor is not None:
                os.fsync(self._descriptor)
        self._let_go()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()
        if self._is_there:
            self.path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


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
