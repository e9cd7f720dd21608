"""What `make test` leaves out, and that it says so: a pytest plugin.

Tests marked `slow` take more than some seconds, those marked `real` need a real server. All are skipped, counted in the
last line, and run with `--all`, where Hypothesis also tries more examples.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings

MARKERS = {"slow": "that take long", "real": "that need a real server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--all`."""
    parser.addoption("--all", action="store_true", help="run all tests, also the long ones and those of a real server")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples Hypothesis tries; none has a deadline: files and processes take their time."""
    settings.register_profile("few", deadline=None, max_examples=15)
    settings.register_profile("many", deadline=None, max_examples=60)
    # Always the same examples, up to the first that fails, which is not made smaller: for seeded bugs (`test_bugs`).
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile(
        "verdict", deadline=None, max_examples=100, derandomize=True, database=None, phases=phases
    )
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("many" if config.getoption("--all") else "few")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is left out; begin with what takes longest, so that no worker is left with it at the end."""
    for item in items:
        for marker, reason in MARKERS.items():
            if item.get_closest_marker(marker) and not config.getoption("--all"):
                item.add_marker(pytest.mark.skip(reason=f"one of those {reason} (--all)"))
    items.sort(key=lambda item: not any(map(item.get_closest_marker, MARKERS)))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say at the very end how many tests were left out, and how to run them."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and not config.getoption("--all"):
        skipped = [str(report.longrepr) for report in reporter.getreports("skipped")]
        counts = {reason: sum(reason in each for each in skipped) for reason in MARKERS.values()}
        if said := " and ".join(f"{number} {reason}" for reason, number in counts.items() if number):
            reporter.write_line(f"Left out: {said}. `make test-all` runs them too.", yellow=True)
