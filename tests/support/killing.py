"""Start the real command, kill -9 its process group at a random moment, run it again: until it is done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Killed:
    """What it took to finish a run that was killed again and again."""

    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)  # what was there when the kill came


# The interpreter reports what it is about to do: the first report after that of the rename comes when it is done.
KILLED_AFTER_RENAME = """
import runpy, signal, sys
renamed = False

def look(event, arguments):
    global renamed
    if renamed:
        signal.raise_signal(signal.SIGKILL)
    renamed = event == "os.rename" and str(arguments[1]).endswith("out.jsonl")

sys.addaudithook(look)
runpy.run_module("pipeline", run_name="__main__")
"""


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(arguments: list[str]) -> tuple[int, str]:
    """Run to the end: exit code and standard error."""
    process = start(arguments)
    _, errors = process.communicate(timeout=100)
    return process.returncode, errors.decode()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """As the kernel's out-of-memory killer or a preempted machine would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def phase_of(output: Path) -> str:
    """How far a run had come, by the files it keeps."""
    if output.exists():
        return "published"
    if output.with_name(f".{output.name}.tmp").exists():
        return "joining"
    return "classifying" if output.with_name(f".{output.name}.checkpoint").exists() else "starting"


def run_with_kills(arguments: list[str], output: Path, moments: list[float]) -> Killed:
    """Run and kill after each of `moments` seconds, then let it finish.

    A moment below zero means: as soon as the join has begun, and that many seconds after.
    """
    done = Killed()
    for moment in moments:
        process = start(arguments)
        if moment < 0:
            wait_for_join(process, output)
        time.sleep(abs(moment))
        if process.poll() is not None:
            process.communicate()
            break
        done.phases[phase_of(output)] += 1
        kill_group(process)
        done.kills += 1
    code, errors = finish(arguments)
    assert code == 0, errors
    return done


def wait_for_join(process: subprocess.Popen[bytes], output: Path) -> None:
    """Until the file is there that the join writes."""
    draft = output.with_name(f".{output.name}.tmp")
    while process.poll() is None and not draft.exists():
        time.sleep(0.001)


def random_moments(seed: int, kills: int, longest: float) -> list[float]:
    """Moments spread over the first pass, and then some in the join, which only a finished first pass comes to."""
    draw = random.Random(seed)
    in_join = kills // 3
    return [draw.uniform(0.2, longest) for _ in range(kills - in_join)] + [
        -draw.uniform(1e-4, 0.05) for _ in range(in_join)
    ]
