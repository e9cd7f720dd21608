"""Work in a thread, so that a signal is heard at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

SHOW_EVERY_S = 0.25  # and commit: with the time a commit takes, far less than a second of answers can be lost


T = TypeVar("T")


async def aside(work: Callable[[Callable[[], None]], T], show: Callable[[], None] = lambda: None) -> T:
    """What `work(tick)` returns, done in a thread which is seen off before anybody goes on.

    It calls `tick` often, which raises CancelledError when it is to end; `show` is called meanwhile.
    """
    stop = threading.Event()

    def tick() -> None:
        if stop.is_set():
            raise asyncio.CancelledError

    task = asyncio.ensure_future(asyncio.to_thread(work, tick))
    try:
        while not task.done():
            await asyncio.wait([task], timeout=SHOW_EVERY_S)
            show()
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()
