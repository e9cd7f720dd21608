"""Simulated: many clients of one server, each with a limiter of its own, none of which knows of the others."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import fmean, median
from typing import Literal

from pipeline.servers.limiter import Limiter

EPOCH = 1_000_000_000.0  # what the shared clock of the clients shows at the start
REFUSAL_S, PAUSE_S = 0.002, 0.25  # how long a refusal takes, and how long a client waits after one, on average


@dataclass(frozen=True)
class Server:
    """A server that works on so many requests at a time, in the order they came."""

    slots: int
    service_s: float = 0.1
    jitter: float = 0.1  # how far the time of a request is from `service_s` at most, as a part of it
    batches: bool = False  # what is worked on together takes longer, but less than one after the other
    most_waiting: int | None = None  # more are refused

    def seconds(self, active: int, random: Random) -> float:
        """Return how long a request takes that begins as the last of so many."""
        load = 0.3 + 0.7 * active / self.slots if self.batches else 1.0
        return self.service_s * load * random.uniform(1 - self.jitter, 1 + self.jitter)


@dataclass
class Result:
    """What was seen after the warm-up."""

    throughput: float  # as a part of the most that the server has
    in_flight: float  # requests of all clients, the mean over time
    peak: int
    latency: float  # the median, in seconds
    fairness: float  # Jain's index of the clients' rates while they were there: 1 all alike, 1/n one has all
    refused: float  # as a part of all requests
    limits: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)  # of each client, every 0.1 s


def simulate(
    limiters: Sequence[Limiter],
    server: Server,
    *,
    seconds: float,
    starts: Sequence[float],
    stops: Sequence[float] = (),
    warm_up: float,
    seed: int,
) -> Result:
    """Let each client send as much as its limiter allows, from its start until it stops; count from `warm_up` on."""
    return _Simulation(limiters, server, Random(seed), stops or [seconds] * len(limiters)).run(seconds, starts, warm_up)


def staggered(count: int, within: float, seed: int) -> list[float]:
    """Return when clients start: the first at once, the others at random."""
    random = Random(seed)
    return [0.0, *(random.uniform(0, within) for _ in range(count - 1))]


def fairness(shares: Sequence[float]) -> float:
    """Return Jain's index."""
    squares = len(shares) * sum(share**2 for share in shares)
    return sum(shares) ** 2 / squares if squares else 0.0


Kind = Literal["send", "answer", "refusal", "look"]
Event = tuple[float, int, Kind, int, float]


class _Simulation:
    def __init__(self, limiters: Sequence[Limiter], server: Server, random: Random, stops: Sequence[float]) -> None:
        self.limiters, self.server, self.random, self.stops = limiters, server, random, stops
        self.events: list[Event] = []
        self.waiting: deque[tuple[int, float]] = deque()
        self.active = self.events_made = 0
        self.may_send_at = [0.0] * len(limiters)
        self.limits: list[tuple[float, tuple[int, ...]]] = []
        self.seen: dict[Kind, list[tuple[int, float]]] = {"send": [], "answer": [], "refusal": [], "look": []}

    def run(self, seconds: float, starts: Sequence[float], warm_up: float) -> Result:
        weighted, peak, last = 0.0, 0, warm_up
        for client, start in enumerate(starts):
            self.may_send_at[client] = start
            self._at(start, "send", client)
        self._at(0.0, "look", 0)
        while self.events and self.events[0][0] <= seconds:
            now, _, kind, client, sent_at = heapq.heappop(self.events)
            if now > warm_up:
                in_flight = sum(each.in_flight for each in self.limiters)
                weighted, peak, last = weighted + in_flight * (now - last), max(peak, in_flight), now
                self.seen[kind].append((client, now - sent_at))
            if kind == "look":
                self.limits.append((now, tuple(each.limit for each in self.limiters)))
                self._at(now + 0.1, "look", 0)
                continue
            if kind == "answer":
                self._answer(now, client, sent_at)
            if kind == "refusal":
                self._refuse(now, client, sent_at)
            self._send(now, client)
        answers = [sum(client == each for each, _ in self.seen["answer"]) for client in range(len(self.limiters))]
        times = [min(seconds, stop) - max(warm_up, start) for start, stop in zip(starts, self.stops, strict=True)]
        return Result(
            sum(answers) / (seconds - warm_up) * self.server.service_s / self.server.slots,
            weighted / (seconds - warm_up),
            peak,
            median(latency for _, latency in self.seen["answer"]),
            fairness([count / time for count, time in zip(answers, times, strict=True) if time > 0]),
            len(self.seen["refusal"]) / (len(self.seen["refusal"]) + sum(answers)),
            self.limits,
        )

    def _answer(self, now: float, client: int, sent_at: float) -> None:
        self.active -= 1
        self.limiters[client].succeeded(EPOCH + sent_at, EPOCH + now)
        self.limiters[client].in_flight -= 1
        if self.waiting:
            self._work(now, *self.waiting.popleft())

    def _refuse(self, now: float, client: int, sent_at: float) -> None:
        self.limiters[client].refused(EPOCH + sent_at, EPOCH + now)
        self.limiters[client].in_flight -= 1
        self.may_send_at[client] = now + PAUSE_S * self.random.uniform(0.5, 1.5)
        self._at(self.may_send_at[client], "send", client)

    def _at(self, moment: float, kind: Kind, client: int, sent_at: float = 0.0) -> None:
        self.events_made += 1
        heapq.heappush(self.events, (moment, self.events_made, kind, client, sent_at))

    def _send(self, now: float, client: int) -> None:
        limiter, most = self.limiters[client], self.server.most_waiting
        while limiter.in_flight < limiter.limit and self.may_send_at[client] <= now < self.stops[client]:
            limiter.in_flight += 1
            if self.active < self.server.slots:
                self._work(now, client, now)
            elif most is not None and len(self.waiting) >= most:
                self._at(now + REFUSAL_S, "refusal", client, now)
            else:
                self.waiting.append((client, now))

    def _work(self, now: float, client: int, sent_at: float) -> None:
        self.active += 1
        self._at(now + self.server.seconds(self.active, self.random), "answer", client, sent_at)


def mean_limit(result: Result, client: int, begin: float, end: float) -> float:
    """Return the mean limit of one client between two moments."""
    return fmean(limits[client] for moment, limits in result.limits if begin <= moment < end)
