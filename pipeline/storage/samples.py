"""Parts of a file, as few as are needed: samples of it, or one after the other on their way elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.cancellation import raise_if_cancelled
from pipeline.storage.location import Location
from pipeline.storage.store import PART_BYTES

READS_AT_ONCE = 16  # of small pieces of one object: each waits for the network far longer than it takes


@contextmanager
def pieces_of(location: Location) -> Iterator[tuple[int, Callable[[Sequence[int], int], Iterable[bytes]]]]:
    """The size of a file, and a function that reads pieces of it: from each of some offsets so many bytes.

    Raises:
        OSError: of a local file. StoreRefused, StoreGone: see `Store`.
    """
    if (content := location.content) is not None:
        yield len(content), lambda offsets, size: (content[offset : offset + size] for offset in offsets)
        return
    if location.store is None:
        with Path(location.path).open("rb") as local_file:
            yield os.fstat(local_file.fileno()).st_size, lambda offsets, size: _read(local_file, offsets, size)
        return
    with location.store.open(location.shown, location.path) as file, location.store.errors(location.shown):
        total: int = file.size()

        def read(offsets: Sequence[int], size: int) -> Iterator[bytes]:
            if total <= len(offsets) * size:
                whole = file.read()
                yield from (whole[offset : offset + size] for offset in offsets)
                return
            executor = ThreadPoolExecutor(READS_AT_ONCE)
            try:
                yield from executor.map(lambda offset: bytes(file.read_at(size, offset)), offsets)
            finally:
                executor.shutdown(cancel_futures=True)

        yield total, read


def _read(file: BinaryIO, offsets: Sequence[int], size: int) -> Iterator[bytes]:
    for offset in offsets:
        file.seek(offset)
        yield file.read(size)


def parts_of(file: Path) -> Iterator[bytes]:
    """Yield a file of the disk in parts as large as a store takes them; the run may be cancelled before each."""
    with file.open("rb") as opened:
        while part := opened.read(PART_BYTES):
            raise_if_cancelled()
            yield part
    raise_if_cancelled()
