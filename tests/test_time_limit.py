"""A time limit ends one test, whatever it hangs in, and the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SUPPORT

CONFTEST = f"import sys\nsys.path.append({str(SUPPORT)!r})\npytest_plugins = ['time_limit']\n"
# Deep recursion with the compiler's on top, code that keeps the interpreter's lock, a wait, code that survives errors.
TESTS = """
import re, time
import pytest

@pytest.mark.parametrize("number", range(20))
def test_that_ends(number):
    pass

def deeper(depth):
    while depth == 0:
        compile("(" * 50 + "0" + ")" * 50, "", "eval")
    deeper(depth - 1)

def test_hangs_in_deep_recursion():
    deeper(900)

def test_hangs_in_c_code():
    re.fullmatch("(x+x+)+y", "x" * 100)

def test_hangs_in_a_wait():
    time.sleep(3600)

def test_hangs_whatever_is_raised():
    while True:
        try:
            sum(range(1000))
        except BaseException:
            pass
"""


@pytest.mark.slow
def test_only_tests_that_hang_fail(tmp_path: Path) -> None:
    """They are named, their stacks are shown, and all the others pass."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    flags = ["-p", "xdist.plugin", "-n", "2", "--dist=worksteal", "--time-limit", "1", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *flags, "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "4 failed, 20 passed" in done.stdout, done.stdout
    for name in ("in_deep_recursion", "in_c_code", "in_a_wait", "whatever_is_raised"):
        assert f"crashed while running 'test_it.py::test_hangs_{name}'" in done.stdout
    assert "INTERNALERROR" not in done.stdout
    assert done.stderr.count("Timeout (0:00:01)!") == 4
    assert all(f"in test_hangs_{name}" in done.stderr for name in ("in_c_code", "in_a_wait", "whatever_is_raised"))
    assert "in deeper" in done.stderr
