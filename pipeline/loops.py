"""Event loops for code that knows nothing of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where it is installed: a request costs a fifth less."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end: on a loop of its own, in a thread of its own where one is running already.

    Raises:
        KeyboardInterrupt: and then `work` was cancelled.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(work)
    return _in_thread(work)


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[T]]] = []
    ended: list[T | BaseException] = []
    has_begun, has_ended = threading.Event(), threading.Event()

    async def begin() -> T:
        task = asyncio.ensure_future(work)
        begun.append((asyncio.get_running_loop(), task))
        has_begun.set()
        return await task

    def live() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                ended.append(runner.run(begin()))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            ended.append(error)
        finally:
            has_begun.set()
            has_ended.set()

    threading.Thread(target=live).start()
    try:
        has_ended.wait()  # not join: interrupted once, it takes a thread for ended (Python 3.11)
    except KeyboardInterrupt:  # the notebook's stop button
        has_begun.wait()
        with suppress(RuntimeError):  # the loop is closed: it is over already
            for loop, task in begun:
                loop.call_soon_threadsafe(task.cancel)
        has_ended.wait()
        raise
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]
