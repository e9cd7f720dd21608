"""The list of promises names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_promise_has_tests_that_exist() -> None:
    """Each row of `PROMISES.md` is one promise, said once, and at least one test, which is a function of its module."""
    rows = re.findall(r"^\| (?!promise |---)(.*) \| (.*) \|$", (TESTS / "PROMISES.md").read_text(), re.MULTILINE)
    promises = [promise for promise, _ in rows]
    assert len(promises) == len(set(promises)) > 80
    there = {
        f"{path.relative_to(TESTS)}::{each.name}"
        for path in TESTS.rglob("test_*.py")
        for each in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for promise, tests in rows:
        named = re.findall(r"`([^`]*)`", tests)
        assert named, promise
        assert set(named) - there == set(), promise
