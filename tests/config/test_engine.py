"""How many processes a run has, by `[engine]` and `request.concurrency`."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pipeline.config import Config, load

CORES = len(os.sched_getaffinity(0))


def config(**settings: Any) -> Config:
    """A config with keys, whose dots are written as two underscores."""
    return load(None, {key.replace("__", "."): value for key, value in settings.items()})


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ({}, 1),
        ({"engine__name": "local"}, CORES),
        ({"engine__workers": "auto"}, CORES),
        ({"engine__name": "local", "engine__workers": 3}, 3),
        ({"engine__workers": 3, "request__concurrency": 5}, 2),  # each has two slots at least
        ({"engine__workers": 3, "request__concurrency": 1}, 1),
        ({"engine__workers": 3, "request__concurrency": 60}, 3),
    ],
)
def test_the_number_of_processes(settings: dict[str, Any], workers: int) -> None:
    """None but this one by default; one a core where only the engine is named."""
    assert config(**settings).workers_on(CORES) == workers


def test_the_size_of_a_shard() -> None:
    """A sixteenth of a worker's share, within bounds, unless it is given."""
    engine = config().engine
    sizes = [engine.rows_of(rows, 2) for rows in (0, 1_000_000, 10_000_000, 10**9)]
    assert sizes == [65_536, 65_536, 312_500, 1 << 20]
    assert config(engine__workers=2, engine__shard_rows=7).engine.rows_of(10**9, 2) == 7
