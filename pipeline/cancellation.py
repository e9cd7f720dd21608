"""Long work in threads that ends soon after its run was cancelled.

A thread can't be cancelled from outside. Work started with `run_cancellable` calls `raise_if_cancelled` between two
steps; anywhere else that does nothing, so the same functions serve callers that never cancel.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_cancelled = contextvars.ContextVar[threading.Event | None]("cancelled", default=None)


def raise_if_cancelled() -> None:
    """End the work of this thread if its run was cancelled.

    Raises:
        CancelledError: it was.
    """
    event = _cancelled.get()
    if event is not None and event.is_set():
        raise asyncio.CancelledError


async def run_cancellable(work: Callable[[], T], executor: Executor | None = None) -> T:
    """Run `work` in a thread. If the caller is cancelled, the work is ended before that goes on.

    Raises:
        CancelledError: the caller was cancelled. Anything that `work` raises.
    """
    cancelled = threading.Event()
    context = contextvars.copy_context()
    context.run(_cancelled.set, cancelled)
    task = asyncio.get_running_loop().run_in_executor(executor, context.run, work)
    try:
        return await asyncio.shield(task)
    finally:
        cancelled.set()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run coroutines as tasks, which are cancelled, and have ended, when the context ends."""
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def every(seconds: float, do: Callable[[], object]) -> None:
    """Call `do` again and again, `seconds` apart, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        do()
