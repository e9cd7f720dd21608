"""Standard input as a file: a run reads its input twice, and what comes through a pipe comes once."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError, DiskTrouble
from pipeline.places.location import Location

LOOK_S = 0.1
BLOCK_BYTES = 1 << 20
STDIN = 0


def spool(folder: Path, tick: Callable[[], None]) -> Location:
    """Copy standard input, all of it, to a file in `folder`. What `tick`, called often, raises ends it.

    Raises:
        ConfigError: nobody is sending anything. DiskTrouble: the disk is full, or the pipe broke.
    """
    if os.isatty(STDIN):
        raise ConfigError("standard input is a terminal; pipe JSON Lines into it, or name a file with --input")
    path = folder / "stdin.jsonl"
    try:
        with path.open("wb") as file:
            while block := _next_block(tick):
                file.write(block)
    except OSError as error:
        raise DiskTrouble(f"{path}: standard input can't be kept: {error.strerror}; set run.state_dir") from None
    return Location("stdin", str(path), is_piped=True)


def _next_block(tick: Callable[[], None]) -> bytes:
    tick()
    while not select.select([STDIN], [], [], LOOK_S)[0]:
        tick()
    return os.read(STDIN, BLOCK_BYTES)
