"""Run a coroutine from code that has no event loop, and end it when a signal (SIGINT, SIGTERM) comes.

`run_blocking` is for a caller, which may have a loop of its own, as a notebook has. `run_with_signals` is for a
command: SIGINT, SIGTERM and SIGHUP cancel the coroutine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.errors import Stopped

SHUTDOWN_S = 8.0  # from the first signal to the end of the process, whatever hangs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal or the ssh session was closed

T = TypeVar("T")


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's where it is installed (a request costs a fifth less), else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end and return its result; where a loop is running already, on another one in a thread.

    Raises:
        KeyboardInterrupt: and then `work` was cancelled.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(work)
    return _run_in_thread(work)


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    loop = new_loop()
    begun: Future[asyncio.Future[T]] = Future()

    async def begin() -> T:
        task = asyncio.ensure_future(work)
        begun.set_result(task)
        return await task

    def run() -> T:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(begin())

    executor = ThreadPoolExecutor(1)
    ended = executor.submit(run)
    executor.shutdown(wait=False)
    try:
        return ended.result()
    except KeyboardInterrupt:  # the notebook's stop button
        with suppress(RuntimeError):  # the loop is closed: it is over already
            loop.call_soon_threadsafe(begun.result().cancel)
        wait([ended])
        raise


def run_with_signals(work: Coroutine[Any, Any, T], advice: str = "") -> T:
    """Run `work` to its end and return its result; SIGNALS cancel it, with a `Stopped` as the reason.

    A signal that the process has inherited as ignored stays ignored: `nohup` and the `&` of a script want it so.

    A second SIGINT ends the process at once. So does a timer, `SHUTDOWN_S` after the first signal: a thread that hangs
    in a call to a file system can't be cancelled. `advice` is what the message of the `Stopped` ends with.

    Raises:
        Stopped: a signal came.
    """
    received: list[Stopped] = []
    last_resort = threading.Timer(SHUTDOWN_S, lambda: os._exit(received[0].exit_code))
    last_resort.daemon = True

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def stop(number: int) -> None:
            if received and number == signal.SIGINT:
                os._exit(128 + number)
            received.append(Stopped(number, advice))
            if len(received) == 1:
                last_resort.start()
            task.cancel(received[0])  # whoever catches the CancelledError finds the reason in its arguments

        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop, number)
        return await task

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(supervised())
    except asyncio.CancelledError:
        raise (received[0] if received else Stopped(signal.SIGINT, advice)) from None
    finally:
        last_resort.cancel()
