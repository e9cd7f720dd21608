"""How the process of a run handles memory. For the command only: a library does not touch its host's settings."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# glibc's names and numbers (malloc.h). By itself it gives memory back to the system after each block of texts and
# takes it again for the next one, page by page: a tenth of the CPU time of a run.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
KEPT_FREE, LARGE = 64 << 20, 32 << 20  # bytes: free at the end of the heap; a piece that is not of the heap
OBJECTS = 10_000  # new lists, tuples and the like between two searches for cycles, of which a run makes few
_trim: Callable[[int], int] | None = None  # once freed memory is kept


def reuse_memory() -> None:
    """Let what is freed be taken again by whoever needs it next, Python or Arrow; what the user has set stays."""
    global _trim  # noqa: PLW0603 - so is the heap
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's, which take memory and spin for a while at the start
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        malloc_option = library.mallopt
        malloc_option(_ARENA_MAX, 1)  # else each thread has free memory of its own
        malloc_option(_MMAP_THRESHOLD, LARGE)
        malloc_option(_TRIM_THRESHOLD, KEPT_FREE)
        _trim = library.malloc_trim


def give_back() -> None:
    """Let go of what is free between pieces in use, which grows where some of them last: a Parquet writer's notes.

    It is taken again page by page, so this is for once a second, not for once a block.
    """
    if _trim is not None:
        _trim(0)


@contextmanager
def lasting() -> Iterator[None]:
    """What is made inside, by imports for instance, stays to the end: nobody looks for garbage in it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(OBJECTS)
        gc.enable()
