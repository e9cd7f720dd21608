"""How many at once, and how many in one: numbers only, against servers that are a formula."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limiter import AUTO_ROWS, CEILING, PROBE_AFTER, ChunkSize, Limiter

TEXTS = 64


def drive(limiter: Limiter, service_s: float, slots: Callable[[float], int], until: float) -> list[tuple[float, int]]:
    """A server with so many slots, each busy `service_s` a request, kept as busy as the limiter allows.

    Returns when each answer came, and the limit then.
    """
    now, free, log = 0.0, [0.0] * 4096, []
    in_flight: list[tuple[float, float]] = []  # when it will be answered, when it was sent
    while now < until:
        while len(in_flight) < limiter.limit:
            count = slots(now)
            free[:count] = sorted(free[:count])
            begins = max(now, free[0])
            free[0] = begins + service_s
            heapq.heappush(in_flight, (begins + service_s, now))
        now, sent_at = heapq.heappop(in_flight)
        limiter.succeeded(TEXTS, sent_at, now)
        log.append((now, limiter.limit))
    return log


def rate(log: list[tuple[float, int]], start: float, stop: float) -> float:
    """Answers a second between two moments."""
    return sum(start <= moment < stop for moment, _ in log) / (stop - start)


@pytest.mark.parametrize(("service_s", "slots"), [(0.05, 8), (0.5, 256), (0.02, 1), (1.0, 32)])
def test_auto_finds_a_level_that_keeps_the_server_busy(service_s: float, slots: int) -> None:
    """After some round trips the server gives at least 95 % of what it has, and goes on doing so."""
    log = drive(Limiter("auto"), service_s, lambda _: slots, until=40 * service_s + 5)
    settled = 14 * service_s
    assert rate(log, settled, 40 * service_s + 5) >= 0.95 * slots / service_s


@pytest.mark.parametrize(("service_s", "slots"), [(0.5, 256), (0.05, 8), (1.0, 64)])
def test_the_climb_takes_a_few_round_trips(service_s: float, slots: int) -> None:
    """All that is not sent while it climbs is what the server could have answered in five round trips."""
    log = drive(Limiter("auto"), service_s, lambda _: slots, until=30 * service_s)
    assert len(log) >= (30 - 5) * slots


def test_auto_climbs_again_when_the_server_grows() -> None:
    """Twice the slots later on: the limit follows."""
    log = drive(Limiter("auto"), 0.1, lambda now: 8 if now < 20 else 64, until=120)
    assert rate(log, 100, 120) >= 0.95 * 64 / 0.1


def test_a_server_that_shrinks_is_still_kept_busy() -> None:
    """Half the slots from the middle on: no answers are lost, and the half is used."""
    log = drive(Limiter("auto"), 0.1, lambda now: 16 if now < 20 else 8, until=60)
    assert rate(log, 30, 60) >= 0.95 * 8 / 0.1


def test_sixty_four_refusals_at_once_are_one_reason_to_slow_down() -> None:
    """What was sent before the last decrease says nothing new."""
    limiter = Limiter("auto")
    for step in range(63):
        limiter.succeeded(TEXTS, 0, step / 1000)
    before = limiter.limit
    for _ in range(64):
        limiter.refused(sent_at=1.0, now=2.0)
    assert before // 2 < limiter.limit < before


def test_a_refused_level_is_not_tried_again_soon() -> None:
    """On a server that refuses a 9th request, fewer than 2 in 100 are refused."""
    limiter, refused, sent, now = Limiter("auto"), 0, 0, 0.0
    while sent < 20_000:
        now += 0.01
        level = limiter.limit
        sent += level
        for _ in range(min(level, 8)):
            limiter.succeeded(TEXTS, now - 1, now)
        for _ in range(level - 8):
            refused += 1
            limiter.refused(sent_at=now - 0.005, now=now)
    assert refused < 0.02 * sent
    assert limiter.limit >= 6


def test_a_fixed_number_stays_fixed() -> None:
    """Who says 7 gets 7, come what may."""
    limiter = Limiter(7)
    for now in range(100):
        limiter.succeeded(TEXTS, now, now)
        limiter.refused(now, now)
    assert limiter.limit == 7


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=600))
def test_the_limit_stays_in_its_range(events: list[tuple[bool, float]]) -> None:
    """Whatever happens in whatever order, at least one request may be sent and never more than the ceiling."""
    limiter: Limiter = Limiter("auto")
    now = 0.0
    for is_success, step in events:
        now += step
        if is_success:
            limiter.succeeded(TEXTS, now - step, now)
        else:
            limiter.refused(now - step, now)
        assert 1 <= limiter.limit <= CEILING


@pytest.mark.parametrize(("rows", "most"), [("auto", AUTO_ROWS), (10, 10)])
def test_chunks_shrink_where_they_are_refused_and_grow_again(rows: int | Literal["auto"], most: int) -> None:
    """Half of what was refused, and after many answers more again; a fixed number stays."""
    sizes = ChunkSize(rows)
    assert sizes.rows == most
    sizes.refused(most)
    assert sizes.rows == (most if rows == 10 else most // 2)
    for _ in range(20 * PROBE_AFTER):
        sizes.succeeded(sizes.rows)
    assert sizes.rows == most
    for _ in range(100):
        sizes.refused(sizes.rows)
    assert sizes.rows >= 1
