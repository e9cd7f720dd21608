"""What the command sets for its process, and a library must not."""

from __future__ import annotations

import gc
import subprocess
import sys

from pipeline.memory import GC_THRESHOLD, exempt_from_gc


def test_objects_made_inside_are_never_searched_for_garbage() -> None:
    """Objects made inside are frozen, and later searches are rare, but not off."""
    before, was = gc.get_freeze_count(), gc.get_threshold()
    try:
        with exempt_from_gc():
            made: list[list[int]] = [[] for _ in range(1000)]
            assert not gc.isenabled()
        assert gc.get_freeze_count() >= before + len(made)
        assert gc.isenabled()
        assert gc.get_threshold()[0] == GC_THRESHOLD
    finally:
        gc.unfreeze()
        gc.set_threshold(*was)


def test_arrow_takes_its_memory_from_the_same_heap_unless_the_user_has_chosen() -> None:
    """One heap for Python and Arrow; an environment variable of the user's stays."""
    code = (
        "from pipeline.memory import keep_freed_memory; keep_freed_memory(); "
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    for given, backend in ((None, "system"), ("mimalloc", "mimalloc")):
        environment = {} if given is None else {"ARROW_DEFAULT_MEMORY_POOL": given}
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == backend


def test_importing_the_package_leaves_the_host_as_it_was() -> None:
    """The library's doors set nothing for the process."""
    code = (
        "import gc, os, pipeline; pipeline.classify_texts; "
        "print(gc.get_threshold(), gc.get_freeze_count(), 'ARROW_DEFAULT_MEMORY_POOL' in os.environ)"
    )
    said = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    assert said.stdout == f"{(700, 10, 10)} 0 False\n"
