"""Work in threads ends when its run is cancelled, and not before."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from pipeline.cancellation import every, raise_if_cancelled, run_cancellable


async def test_work_that_is_not_cancelled_returns_its_value() -> None:
    """And so does work outside of any run: asking whether it was cancelled does nothing there."""

    def work() -> int:
        raise_if_cancelled()
        return 7

    raise_if_cancelled()
    assert await run_cancellable(work) == 7


async def test_an_error_of_the_work_is_raised() -> None:
    """As it is, not wrapped."""
    with pytest.raises(ZeroDivisionError):
        await run_cancellable(lambda: 1 // 0)


async def test_the_work_has_ended_when_the_cancelled_caller_goes_on() -> None:
    """Nothing of it runs beside what comes next; other work at the same time is not ended."""
    begun, ended, other = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            while True:
                raise_if_cancelled()
                time.sleep(0.001)
        finally:
            ended.set()

    def neighbour() -> int:
        other.wait()
        raise_if_cancelled()
        return 1

    beside = asyncio.ensure_future(run_cancellable(neighbour))
    task = asyncio.ensure_future(run_cancellable(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    other.set()
    assert await beside == 1


async def test_every_calls_until_it_is_cancelled() -> None:
    """And no more after that."""
    called: list[int] = []
    thrice = asyncio.Event()

    def call() -> None:
        called.append(1)
        if len(called) == 3:
            thrice.set()

    task = asyncio.ensure_future(every(0, call))
    await thrice.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    count = len(called)
    await asyncio.sleep(0)
    assert len(called) == count
