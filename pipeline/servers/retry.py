"""Again? After how long? Pure: it knows neither a clock nor a socket."""

from __future__ import annotations

import random
from collections.abc import Callable

from pipeline.config import Retry


def backoff(attempt: int, retry: Retry, *, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failure number `attempt` (1, 2, ...).

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
    """Seconds to wait before a request is tried again, or None when its budget is used up.

    `failures` of the request count against `retry.attempts`, `elapsed_s` against `retry.max_elapsed_s`; `overloads`,
    answers of a server that is too busy, against nothing. What the server asked for with Retry-After is a floor, the
    jitter comes on top of it.
    """
    if failures >= retry.attempts:
        return None
    delay = backoff(max(failures + overloads, 1), retry, draw=draw)
    # How long the server wants to be left alone is not the request's fault.
    return delay + (retry_after or 0.0) if elapsed_s + delay <= retry.max_elapsed_s else None
