"""The workers of a run that is going on, as processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def workers_of(pid: int) -> list[int]:
    """The processes that a run has started and that are still there."""
    found = list[int]()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (thread / "children").read_text().split())
        except OSError:  # the thread has ended
            continue
    return [each for each in found if is_alive(each)]


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_workers(pid: int, count: int) -> list[int]:
    """Until a run has so many workers."""
    while len(found := workers_of(pid)) < count:
        time.sleep(0.01)
    return found


def wait_until_gone(pids: list[int], within_s: float) -> list[int]:
    """Wait for the end of processes; returns those that are left, and ends them."""
    until = time.monotonic() + within_s
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    for pid in left:
        kill(pid)
    return left


def kill(pid: int) -> None:
    """As the kernel's out-of-memory killer would."""
    os.kill(pid, signal.SIGKILL)
