"""How the process of `classify run` allocates and frees memory. The library leaves its host's settings alone."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Parameters of glibc's mallopt (malloc.h). By itself glibc gives memory back to the system after each block of texts
# and takes it again for the next one, page by page: a tenth of the CPU time of a run.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
TRIM_THRESHOLD = 64 << 20  # bytes that may be free at the end of the heap
MMAP_THRESHOLD = 32 << 20  # bytes from which on an allocation is not of the heap
GC_THRESHOLD = 10_000  # new objects between two searches for garbage: a run makes few cycles
_malloc_trim: Callable[[int], int] | None = None  # set once freed memory is kept


def keep_freed_memory() -> None:
    """Keep freed memory in the process, in one heap for Python and Arrow, unless the user's environment says otherwise.

    It is to be called before pyarrow and numpy are imported.
    """
    global _malloc_trim  # noqa: PLW0603 - the heap is global, too
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's, which take memory and spin for a while at the start
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
        mallopt(_M_ARENA_MAX, 1)  # else each thread has free memory of its own
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        _malloc_trim = library.malloc_trim


def release_free_memory() -> None:
    """Give free memory back to the system, also between pieces in use, where `keep_freed_memory` was called.

    Without it memory grows where some pieces last, like a Parquet writer's metadata. The system hands it out again page
    by page, so this is for once a second, not for once a block.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


@contextmanager
def exempt_from_gc() -> Iterator[None]:
    """Exempt all objects that exist at the end of the context, imported modules for instance, from garbage collection.

    Later objects are searched for garbage, but less often than by default.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        gc.enable()
