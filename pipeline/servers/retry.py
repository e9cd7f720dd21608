"""When a failed request is tried again: delays, and the end of its budget. No clock and no socket."""

from __future__ import annotations

import random
from collections.abc import Callable

from pipeline.config import Retry


def backoff(attempt: int, retry: Retry, *, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after failure number `attempt` (1, 2, ...).

    Full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): evenly drawn between 0 and the exponential
    delay, so that requests that failed together do not return together.
    """
    # The exponent is bounded because 2**1100 is no float; the delay is at its maximum long before.
    return draw() * min(retry.max_delay_s, retry.base_delay_s * 2.0 ** min(attempt - 1, 60))


def delay_before_next(
    failures: int,
    overloads: int,
    elapsed_s: float,
    retry: Retry,
    *,
    retry_after: float | None = None,
    draw: Callable[[], float] = random.random,
) -> float | None:
    """Return the seconds to wait before a request is tried again, or None when its budget is used up.

    `failures` count against `retry.attempts`, `elapsed_s` since the first attempt against `retry.max_elapsed_s`.
    `overloads`, answers of servers that are too busy, make the delay longer and count against nothing. `retry_after`,
    the seconds that the server asked for, is a floor: the jitter comes on top of it.
    """
    if failures >= retry.attempts:
        return None
    delay = backoff(max(failures + overloads, 1), retry, draw=draw)
    # How long the server wants to be left alone is not the request's fault.
    return delay + (retry_after or 0.0) if elapsed_s + delay <= retry.max_elapsed_s else None
