"""Signals, for the commands that run on an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from pipeline.errors import Stopped

T = TypeVar("T")


def run_with_signals(work: Coroutine[Any, Any, T], advice: str = "") -> T:
    """Run `work` on an event loop; SIGINT and SIGTERM cancel it, a second SIGINT ends the process at once.

    Raises:
        Stopped: a signal came.
    """
    from pipeline.library import loop_factory

    received: list[int] = []

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def stop(number: int) -> None:
            if received and number == signal.SIGINT:
                os._exit(128 + number)
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(supervised())
    except asyncio.CancelledError:
        raise Stopped(received[0] if received else signal.SIGINT, advice) from None
