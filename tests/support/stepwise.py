"""`python -m pipeline` that kills itself when it is about to change a file for the n-th time.

python -m stepwise N ARGUMENTS...    the interpreter reports what it is about to do, and kill -9 comes first
"""

from __future__ import annotations

import runpy
import signal
import sys

CHANGES = ("os.rename", "os.remove", "os.rmdir")


def main() -> None:
    """Be the command, until the step comes."""
    left = int(sys.argv.pop(1))

    def look(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        if event in CHANGES:
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGKILL)

    sys.addaudithook(look)
    runpy.run_module("pipeline", run_name="__main__")


if __name__ == "__main__":
    main()
