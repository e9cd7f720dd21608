"""A time limit that ends one test, never the session: a pytest plugin.

The limit is kept by a C thread that needs no lock of the interpreter (`faulthandler.dump_traceback_later`). Whatever
the test hangs in, deep recursion and C code included, its stacks are printed and its process ends. Nothing runs inside
the test, as the handler of an alarm signal would: raised within deep recursion or the compiler, it breaks pytest.
pytest-xdist reports the test as failed and goes on in a new process, so its workers are always used (`addopts`).
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--time-limit`."""
    said = "seconds that a test may take with its fixtures, on a busy machine, too; more by the marker `time_limit`"
    parser.addoption("--time-limit", type=float, default=300.0, metavar="SECONDS", help=said)


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker, and keep standard error as it is outside tests, whose output is captured."""
    config.addinivalue_line("markers", "time_limit(seconds): what this test may take, where the usual is not enough")
    config.stash[STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close what was kept."""
    os.close(config.stash[STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End this process if the test, its fixtures included, takes longer than it may."""
    marker = item.get_closest_marker("time_limit")
    usual: float = item.config.getoption("--time-limit")
    seconds = max(usual, marker.args[0]) if marker else usual
    faulthandler.dump_traceback_later(seconds, file=item.config.stash[STDERR], exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


STDERR = pytest.StashKey[int]()
