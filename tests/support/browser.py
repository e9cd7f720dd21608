"""A real browser without a window, where there is one: Debian's Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60
AXE = Path(__file__).parents[2] / ".axe" / "node_modules" / "axe-core" / "axe.min.js"  # by npm, see .ci/run


def browser(folder: Path, *arguments: str, page: Path) -> subprocess.CompletedProcess[str]:
    """Open a page in a browser with its own profile and no way out; the test is skipped where there is no browser."""
    if CHROMIUM is None and os.environ.get("CLASSIFY_REQUIRE_BROWSER") == "1":
        pytest.fail("no chromium; apt-get install chromium")
    if CHROMIUM is None:
        pytest.skip("no chromium; apt-get install chromium")
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0"),
        *("--proxy-server=127.0.0.1:9", "--disable-background-networking", "--no-first-run"),
        *(*arguments, page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)


def dom(folder: Path, page: Path, width: int, *arguments: str) -> str:
    """The page as the browser has it, in a window of a width."""
    return browser(folder, f"--window-size={width},2000", "--dump-dom", *arguments, page=page).stdout
