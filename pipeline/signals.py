"""An event loop that ends when it is told to: by SIGINT, by SIGTERM, and in any case soon after."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from pipeline.errors import Stopped
from pipeline.loops import loop_factory

T = TypeVar("T")

PATIENCE_S = 8.0  # from a signal to the end, however it comes about


def run_with_signals(work: Coroutine[Any, Any, T], advice: str = "") -> T:
    """Run `work` on an event loop; SIGINT and SIGTERM cancel it, a second SIGINT ends the process at once.

    So does waiting: a thread that hangs in a call to a file system can't be cancelled.

    Raises:
        Stopped: a signal came.
    """
    received: list[Stopped] = []
    last = threading.Timer(PATIENCE_S, lambda: os._exit(received[0].exit_code))
    last.daemon = True

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def stop(number: int) -> None:
            if received and number == signal.SIGINT:
                os._exit(128 + number)
            received.append(Stopped(number, advice))
            if len(received) == 1:
                last.start()
            task.cancel(received[0])  # so that who is cancelled knows why

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        return await task

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(supervised())
    except asyncio.CancelledError:
        raise (received[0] if received else Stopped(signal.SIGINT, advice)) from None
    finally:
        last.cancel()
