"""Signals, for the commands that run on an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from pipeline.errors import Stopped
from pipeline.loops import loop_factory

T = TypeVar("T")


def run_with_signals(work: Coroutine[Any, Any, T], advice: str = "") -> T:
    """Run `work` on an event loop; SIGINT and SIGTERM cancel it, a second SIGINT ends the process at once.

    Raises:
        Stopped: a signal came.
    """
    received: list[Stopped] = []

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def stop(number: int) -> None:
            if received and number == signal.SIGINT:
                os._exit(128 + number)
            received.append(Stopped(number, advice))
            task.cancel(received[0])  # so that who is cancelled knows why

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(supervised())
    except asyncio.CancelledError:
        raise (received[0] if received else Stopped(signal.SIGINT, advice)) from None
