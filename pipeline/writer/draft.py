"""The output before it is one: written beside its place, synced, renamed. A reader never sees half a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from pipeline.errors import ClassifyError, DiskTrouble, OutputError
from pipeline.loader.lines import CODECS
from pipeline.places import Location, local, parts_of

_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class Draft:
    """A file that becomes `output` when it is published, and is taken away when it is not.

    It stands at `path` (default: beside its place, as `.NAME.tmp`) until it is renamed, or sent to a store.

    Raises:
        OutputError: the place can't be written to. DiskTrouble: the disk is full or fails.
    """

    def __init__(self, output: Location | Path, path: Path | None = None) -> None:
        self.output = output if isinstance(output, Location) else local(str(output))
        self.path = path or Path(self.output.path).with_name(f".{self.output.name}.tmp")

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.file: BinaryIO = self.path.open("wb", buffering=1 << 20)
        self._is_there = True
        return self

    def write_text(self) -> pa.NativeFile:
        """A stream into the file, compressed as the output's ending says; the caller closes it."""
        codec = CODECS.get(Path(self.output.name).suffix.lower())
        sink = pa.PythonFile(self.file, "w")
        return pa.CompressedOutputStream(sink, codec) if codec else sink

    def close(self) -> None:
        """There is nothing more to be written."""
        with disk_errors(self.path):
            self.file.close()  # a compressing stream has closed it before

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
            self.path.replace(self.output.path)
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
        if error.errno in _TROUBLE:
            ours = DiskTrouble(f"{path}: {reason}; what was answered is kept, make room and run the same command again")
        raise ours from None
