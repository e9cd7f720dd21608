"""Words for a person, on standard error, where nobody may be listening any more."""

from __future__ import annotations

import os
import sys


def say(message: str) -> None:
    """One message. If it can't be written, the run goes on without words: its exit code says the same."""
    try:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
