"""How many at once, and how many in one: numbers only, against servers that are a formula."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from random import Random
from statistics import fmean, median
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many_clients import Result, Server, mean_limit, simulate, staggered

from pipeline.servers.limiter import (
    AUTO_ROWS,
    BACKGROUND_ROWS,
    CEILING,
    GROW_AFTER,
    QUICK_ANSWERS,
    QUICK_RATE,
    QUICK_ROWS,
    BatchSize,
    Limiter,
)

TEXTS = 64


def drive(limiter: Limiter, service_s: float, slots: Callable[[float], int], until: float) -> list[tuple[float, int]]:
    """Simulate a server with so many slots, each busy `service_s` a request, kept as busy as the limiter allows.

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
        limiter.in_flight = len(in_flight)
        now, sent_at = heapq.heappop(in_flight)
        limiter.succeeded(sent_at, now)
        log.append((now, limiter.limit))
    return log


Speed = Callable[[int], float]


def share(limiter: Limiter, speed: Speed, requests: int, noise: float = 0.0, seed: int = 0) -> float:
    """Simulate a server that works on all in flight alike, and does `speed(in flight)` requests a second in all.

    Returns after how many seconds so many requests are answered; `noise` is how much they differ in size.
    """
    random, unsent = Random(seed), requests
    now = progress = 0.0  # progress: what each one has got that was there from the start
    in_flight: list[tuple[float, float]] = []  # at which progress it will be answered, when it was sent
    while unsent or in_flight:
        while unsent and len(in_flight) < limiter.limit:
            heapq.heappush(in_flight, (progress + max(0.1, random.gauss(1, noise)), now))
            unsent -= 1
        limiter.in_flight = len(in_flight)
        done, sent_at = heapq.heappop(in_flight)
        now += (done - progress) * limiter.in_flight / speed(limiter.in_flight)
        progress = done
        limiter.succeeded(sent_at, now)
    return now


def crowded(in_flight: int) -> float:
    """As a vLLM on two cores was measured with 256 texts a request: four are best, more get into each other's way."""
    return 3.4 if in_flight == 1 else 4.5 - 0.3 * abs(math.log2(in_flight / 4))


def rate(log: list[tuple[float, int]], start: float, stop: float) -> float:
    """Answers a second between two moments."""
    return sum(start <= moment < stop for moment, _ in log) / (stop - start)


@pytest.mark.parametrize(("service_s", "slots"), [(0.05, 8), (0.5, 256), (0.02, 1), (1.0, 32)])
def test_auto_finds_a_level_that_keeps_the_server_busy(service_s: float, slots: int) -> None:
    """After some round trips the server gives at least 95 % of what it has, and goes on doing so."""
    log = drive(Limiter("auto", chance=Random(1)), service_s, lambda _: slots, until=40 * service_s + 5)
    settled = 14 * service_s
    assert rate(log, settled, 40 * service_s + 5) >= 0.95 * slots / service_s


@pytest.mark.parametrize(("service_s", "slots"), [(0.5, 256), (0.05, 8), (1.0, 64)])
def test_the_climb_takes_a_few_round_trips(service_s: float, slots: int) -> None:
    """All that is not sent while it climbs is what the server could have answered in seven round trips."""
    log = drive(Limiter("auto", chance=Random(1)), service_s, lambda _: slots, until=30 * service_s)
    assert len(log) >= (30 - 7) * slots


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_where_more_in_flight_is_worse_the_best_level_is_found_in_200_requests(noise: float) -> None:
    """A short run, its start included, takes no longer than the best fixed number's time / 0.94."""

    def seconds(limit: int | Literal["auto"]) -> float:
        return fmean(share(Limiter(limit, chance=Random(1)), crowded, 200, noise, seed) for seed in range(20))

    assert 0.94 * seconds("auto") <= min(seconds(level) for level in (1, 2, 4, 8, 16, 32))


def test_a_short_run_on_eight_slots_loses_little() -> None:
    """200 requests are answered in what the best fixed number takes, and four round trips."""
    auto, fixed = (drive(Limiter(limit, chance=Random(1)), 0.05, lambda _: 8, until=10) for limit in ("auto", 16))
    assert auto[199][0] <= fixed[199][0] + 4 * 0.05


@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize("fixed_costs", [0.2, 1, 4, 10])
def test_a_server_that_batches_is_given_enough_to_batch(fixed_costs: float, noise: float) -> None:
    """Answers get slower with every one more in flight, and the server better: after the climb it gives 90 %."""

    def seconds(requests: int) -> float:
        limiter = Limiter("auto", chance=Random(1))
        return share(limiter, lambda in_flight: in_flight / (fixed_costs + in_flight), requests, noise)

    assert 8000 / (seconds(16_000) - seconds(8000)) >= 0.9


@pytest.mark.parametrize(("slots", "most"), [(1, 4), (4, 16), (8, 24), (64, 192)])
def test_no_more_are_in_flight_than_help(slots: int, most: int) -> None:
    """Where many levels are as good as each other, it stays at a low one: to wait on the server helps nobody."""
    log = drive(Limiter("auto", chance=Random(1)), 0.1, lambda _: slots, until=120)
    assert slots <= median(limit for moment, limit in log if moment > 60) <= most


def test_answers_tell_of_the_limit_they_were_sent_at() -> None:
    """What was sent before the limit was set says nothing of it, however quickly it is answered."""
    limiter = Limiter("auto", chance=Random(1))
    limiter.in_flight = 8
    limiter.succeeded(0, 1)
    for step in range(100):
        limiter.succeeded(0.9, 1 + step / 1000)
    assert limiter.limit == 2


def test_what_is_not_used_is_not_raised() -> None:
    """As long as there are only three requests to send at a time, the limit says nothing, and stays."""
    limiter = Limiter("auto", chance=Random(1))
    for step in range(2000):
        limiter.in_flight = min(3, limiter.limit)
        limiter.succeeded(step / 10 - 0.1, step / 10)
    assert limiter.limit == 4


def test_auto_climbs_again_when_the_server_grows() -> None:
    """Twice the slots later on: the limit follows."""
    log = drive(Limiter("auto", chance=Random(1)), 0.1, lambda now: 8 if now < 20 else 64, until=120)
    assert rate(log, 100, 120) >= 0.95 * 64 / 0.1


def test_a_server_that_shrinks_is_still_kept_busy() -> None:
    """Half the slots from the middle on: no answers are lost, and the half is used."""
    log = drive(Limiter("auto", chance=Random(1)), 0.1, lambda now: 16 if now < 20 else 8, until=60)
    assert rate(log, 30, 60) >= 0.95 * 8 / 0.1


def test_sixty_four_refusals_at_once_are_one_reason_to_slow_down() -> None:
    """What was sent before the last decrease says nothing new."""

    def limit_after(refusals: int) -> int:
        limiter = Limiter("auto", chance=Random(1))
        for step in range(200):  # latencies are the same at every limit
            limiter.in_flight = limiter.limit
            limiter.succeeded(step, step + 0.5)
        for _ in range(refusals):
            limiter.refused(sent_at=1000, now=1001)
        return limiter.limit

    assert limit_after(64) == limit_after(1) < limit_after(0)


def test_a_refused_level_is_not_tried_again_soon() -> None:
    """On a server that refuses a 9th request, fewer than 1 in 100 are refused."""
    limiter, refused, sent, now = Limiter("auto", chance=Random(1)), 0, 0, 0.0
    while sent < 20_000:
        now += 0.01
        level = limiter.in_flight = limiter.limit
        sent += level
        for _ in range(min(level, 8)):
            limiter.succeeded(now - 0.009, now)
        for _ in range(level - 8):
            refused += 1
            limiter.refused(sent_at=now - 0.005, now=now)
    assert refused < 0.01 * sent
    assert limiter.limit >= 6


def test_a_fixed_number_stays_fixed() -> None:
    """Who says 7 gets 7, come what may."""
    limiter = Limiter(7)
    for now in range(100):
        limiter.succeeded(now, now)
        limiter.refused(now, now)
    assert limiter.limit == 7


# -- others use the same server

ALL_KINDS = [Server(16), Server(64), Server(16, batches=True), Server(16, most_waiting=32)]


def together(clients: int, server: Server, seed: int, *, others: int = 0) -> Result:
    """Let clients come within 30 s to a server, and some in the background; count from 40 s on."""
    limiters = [Limiter("auto", "fair", Random(f"{seed} {index}")) for index in range(clients)]
    limiters += [Limiter("auto", "background", Random(f"{seed} other {index}")) for index in range(others)]
    starts = staggered(len(limiters), 30, seed)
    return simulate(limiters, server, seconds=100, starts=starts, warm_up=40, seed=seed)


@pytest.mark.parametrize("server", ALL_KINDS, ids=["plain", "large", "batches", "refuses"])
@pytest.mark.parametrize("clients", [1, 2, 4, 16])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_all_together_send_what_one_alone_would_and_share_it(clients: int, server: Server, seed: int) -> None:
    """However many clients there are, whenever they come, and none of them saw the server empty."""
    result = together(clients, server, seed)
    assert result.in_flight <= 2 * server.slots + 2 * clients
    assert result.throughput >= 0.95
    assert result.refused <= 0.02
    if server.most_waiting is None:  # whoever was refused sends less than others, for a while
        assert result.fairness >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("server", [Server(16), Server(256)], ids=["16 slots", "256 slots"])
def test_even_with_more_clients_than_slots(server: Server) -> None:
    """Each of 64 clients needs one request in flight, where a server has 16 slots."""
    result = together(64, server, seed=1)
    assert result.in_flight <= 2 * server.slots + 2 * 64
    assert result.throughput >= 0.95
    assert result.fairness >= 0.9


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_in_the_background_a_client_takes_what_is_left(seed: int) -> None:
    """Beside a fair client it has a few requests in flight at most; alone it uses what there is."""
    beside = together(1, Server(16), seed, others=1)
    assert mean_limit(beside, 1, 60, 100) <= 4
    assert mean_limit(beside, 0, 60, 100) >= 12
    alone = together(0, Server(16), seed, others=1)
    assert alone.throughput >= 0.85


def test_a_client_that_is_left_alone_takes_the_places_of_the_others() -> None:
    """Three clients stop after 60 s; the fourth keeps the server busy soon after."""
    limiters = [Limiter("auto", chance=Random(index)) for index in range(4)]
    result = simulate(limiters, Server(16), seconds=90, starts=[0.0] * 4, stops=[60, 60, 60, 90], warm_up=75, seed=1)
    assert result.throughput >= 0.95


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=600))
def test_the_limit_stays_in_its_range(events: list[tuple[bool, float]]) -> None:
    """Whatever happens in whatever order, at least one request may be sent and never more than the ceiling."""
    limiter: Limiter = Limiter("auto", chance=Random(1))
    now = 0.0
    for is_success, step in events:
        now += step
        if is_success:
            limiter.succeeded(now - step, now)
        else:
            limiter.refused(now - step, now)
        assert 1 <= limiter.limit <= CEILING


@pytest.mark.parametrize(("rows", "most"), [("auto", AUTO_ROWS), (10, 10)])
def test_chunks_shrink_where_they_are_refused_and_grow_again(rows: int | Literal["auto"], most: int) -> None:
    """Half of what was refused, and after many answers more again; a fixed number stays."""
    sizes = BatchSize(rows)
    assert sizes.texts == most
    sizes.refused(most)
    assert sizes.texts == (most if rows == 10 else most // 2)
    for _ in range(20 * GROW_AFTER):
        sizes.succeeded(sizes.texts)
    assert sizes.texts == most
    for _ in range(100):
        sizes.refused(sizes.texts)
    assert sizes.texts >= 1


def answer(sizes: BatchSize, rate: float, now: float = 0.0) -> float:
    """Give enough answers to measure at so many texts a second; return the time after them."""
    for _ in range(2 * QUICK_ANSWERS + 1):
        now += sizes.texts / rate
        sizes.succeeded(sizes.texts, now)
    return now


def test_chunks_grow_where_answers_come_quicker_than_from_any_model() -> None:
    """There our own cost of a request is what counts. They are small again when answers take their time."""
    sizes = BatchSize("auto")
    now = answer(sizes, QUICK_RATE / 2)
    assert sizes.texts == AUTO_ROWS
    now = answer(sizes, QUICK_RATE * 2, now)
    assert sizes.texts == QUICK_ROWS
    now = answer(sizes, QUICK_RATE * 0.7, now)
    assert sizes.texts == QUICK_ROWS
    answer(sizes, QUICK_RATE / 4, now)
    assert sizes.texts == AUTO_ROWS


def test_in_the_background_requests_are_small() -> None:
    """However fast answers come; a number that is given counts."""
    sizes = BatchSize("auto", "background")
    assert sizes.texts == BACKGROUND_ROWS
    answer(sizes, QUICK_RATE * 10)
    assert sizes.texts == BACKGROUND_ROWS
    assert BatchSize(100, "background").texts == 100


def test_a_given_number_of_texts_does_not_grow() -> None:
    """Who says 256 means 256."""
    sizes = BatchSize(AUTO_ROWS)
    answer(sizes, QUICK_RATE * 10)
    assert sizes.texts == AUTO_ROWS


@pytest.mark.parametrize("end", [BatchSize.failed, BatchSize.refused])
def test_chunks_grow_no_more_after_a_large_one_failed(end: Callable[[BatchSize, int], None]) -> None:
    """Whyever it failed; what fails at the usual size says nothing of larger ones."""
    sizes = BatchSize("auto")
    sizes.failed(AUTO_ROWS)
    now = answer(sizes, QUICK_RATE * 2)
    assert sizes.texts == QUICK_ROWS
    end(sizes, QUICK_ROWS)
    assert sizes.texts == AUTO_ROWS
    answer(sizes, QUICK_RATE * 2, now)
    assert sizes.texts == AUTO_ROWS


@pytest.mark.parametrize(
    ("rows", "announced", "most"),
    [("auto", 32, 32), ("auto", 300, AUTO_ROWS), ("auto", 2048, QUICK_ROWS), ("auto", None, QUICK_ROWS), (16, 32, 16)],
)
def test_a_limit_that_a_server_announces_binds(rows: int | Literal["auto"], announced: int | None, most: int) -> None:
    """However fast answers come, whatever was refused and taken again, no request has more texts."""
    sizes = BatchSize(rows)
    sizes.limit(announced)
    now = answer(sizes, 1_000_000)
    assert sizes.texts == most
    sizes.refused(sizes.texts)
    for _ in range(40 * GROW_AFTER):
        sizes.succeeded(sizes.texts, now)
    assert sizes.texts <= most
