"""How many requests may be in flight on one endpoint, and how many texts one request may have.

Counts and times only: the time of every event is an argument, in seconds on the clock of `shared_time`. `slots` holds
requests back until there is room. `pipeline/docs/concurrency.md` explains the method and shows what it does.
"""

from __future__ import annotations

import math
import random
import time
from typing import Literal, NamedTuple

CEILING = 1024  # requests in flight on one endpoint, however many it seems to take
AUTO_ROWS = 256  # vLLM takes 256 texts as well as 64, and a request costs us the same; thousands have crashed it
BACKGROUND_ROWS = 32  # a short text of others waits for the request that is being worked on
QUICK_ROWS = 512  # texts a request above this rate, where what a request costs us is what counts
GROW_AFTER = 125  # answers before a little more texts are sent in a request again
QUICK_RATE, QUICK_ANSWERS = 50_000, 64  # texts a second, measured over so many answers
DECREASE = 0.75  # times the level, after a refusal
# Round trips before a refused limit is tried again: of so many requests at a limit of 1, one may be refused. Those who
# have few in flight try no later than those who have many.
PROBE_ROUND_TRIPS = 64

# The climb at the start.
CLIMB, LEAP = 2, 4  # times the limit; the second where latencies have been flat up to a limit of ...
LEAP_FROM = 8
UNCLEAR = 2  # the level to go on from where the second limit was already too high
AS_QUICK = 1.2  # times the least latency: up to it, no request seems to wait on the server
FLAT = 0.1  # how far latencies of an idle server lie apart, as a part of them
EARLIER = 3  # limits whose latencies are compared before the last one
ENOUGH_ANSWERS = 16  # or half of the limit, if that is more

# The turns after it.
ROUND_TRIPS = 2.5  # in a turn, at least
TRIAL = 0.5  # the part of a turn in which the low or the high limit holds
STEP = 2  # the high limit is this many times the square root of the low one above it
Manners = Literal["fair", "background"]
WORTHWHILE: dict[Manners, float] = {"fair": 0.1, "background": 0.4}  # gain above which a level is raised
GENTLE, FIRM = 0.7, 3.0  # how strongly a gain above and below that changes the level
FARTHEST = 1.5  # times the step that was tried, on a scale of ratios: more is not changed at once
TRUSTED_ANSWERS = 2  # fewer in a turn count for less

_started = time.time() - time.monotonic()


def shared_time() -> float:
    """Return the seconds since the epoch by a clock that never goes back: clients of one server agree on it."""
    return _started + time.monotonic()


class _Level(NamedTuple):
    """What was seen at one limit of the climb."""

    limit: int
    latency: float  # the mean, in seconds


class _Turn(NamedTuple):
    """What was seen in one turn."""

    number: int
    limit: int
    answers: int
    latency: float  # the mean, in seconds


class Limiter:
    """How many requests may be in flight on one endpoint: a number, or "auto" to find how many the server needs.

    Others may use the same server. More in flight always gives one of them a larger share, so no client can tell from
    its own rate whether the server does more work. Therefore all clients try a higher limit at the same times: the
    clock is divided into turns, even turns begin with the low limit, odd ones with the high one. As all of them
    change together, the latencies of two turns in a row tell each of them the `gain`: 1 if the server answered all
    the faster, 0 if the additional requests only waited. A gain above `WORTHWHILE` raises the level, which is the low
    limit, one below lowers it. The high limit is higher in proportion where the level is low, so that the same
    latencies show a smaller client a larger gain: shares even out.

    At the start the limit is doubled as long as latency stays what it was.

    A refusal for load takes a quarter of the level away, once for all requests sent before it: 64 refusals at once are
    one sign. The refused limit is not tried again soon.

    Args:
        limit: how many; "auto" finds the number.
        manners: "background" gives way wherever requests wait.
        chance: decides how often a level of 2.5 is 2 and how often 3.
    """

    def __init__(
        self,
        limit: int | Literal["auto"],
        manners: Manners = "fair",
        chance: random.Random | None = None,
    ) -> None:
        self.is_fixed = limit != "auto"
        self.limit = 1 if limit == "auto" else limit
        self.in_flight = 0
        self._worthwhile = WORTHWHILE[manners]
        self._chance = chance or random.Random()  # noqa: S311 - no secret hangs on it
        self._most = CEILING  # below the limit that was refused lately
        self._more = 1  # by so much is that raised next
        self._refused_at = float("-inf")
        self._since_refusal = 0
        self._climb: list[_Level] | None = []  # the limits so far; None: the climb is over
        self._latency = 0.0  # the mean of the last turn
        self._level, self._low, self._high = 1.0, 1, 2
        self._turn, self._turn_s = 0, 0.0
        self._before: _Turn | None = None
        self._start(float("-inf"))

    @property
    def load(self) -> float:
        """The part of the limit that is in use; below 1 there is room for one more request."""
        return self.in_flight / self.limit

    def succeeded(self, sent_at: float, now: float) -> None:
        """Note that a request was answered; it still counts as in flight."""
        if self.is_fixed:
            return
        self._since_refusal += 1
        if self._most < CEILING and self._since_refusal >= PROBE_ROUND_TRIPS * self.limit:
            self._most, self._since_refusal = min(CEILING, self._most + self._more), 0
            self._more *= 2  # as long as that is not refused
            self._set_limits()
        latency = max(1e-9, now - sent_at)
        if self._climb is not None:
            self._climb_on(self._climb, latency, sent_at, now)
        else:
            self._take_turn(latency, sent_at, now)

    def refused(self, sent_at: float, now: float) -> bool:
        """Note that a request was refused for load; return whether it was the only one that the limit allows."""
        if self.is_fixed or sent_at <= self._refused_at:
            return self.limit == 1
        self._refused_at, self._since_refusal = now, 0
        was_least = self.limit == 1
        if not was_least:  # else it is not the number of requests that is too much
            self._most, self._more = self.limit - 1, max(1, self.limit // 8)
        self._settle(DECREASE * (self._level if self._climb is None else self.limit), now)
        return was_least

    def _start(self, now: float) -> None:
        """Begin to count."""
        self._since = now
        self._answers = self._of_limit = self._most_in_flight = 0
        self._waited = self._waited_at_limit = 0.0

    # -- the climb

    def _climb_on(self, seen: list[_Level], latency: float, sent_at: float, now: float) -> None:
        if sent_at < self._since:  # it says nothing of this limit
            return
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        self._answers += 1
        self._waited += latency
        if self._answers < min(self.limit, max(ENOUGH_ANSWERS, self.limit // 2)):
            return
        self._latency, was_used = self._waited / self._answers, self._most_in_flight >= self.limit
        self._start(now)
        if not was_used:
            return
        grown = self._latency / min([self._latency, *(each.latency for each in seen)]) - 1
        earlier = [each.latency for each in seen[-EARLIER:]] or [self._latency]
        is_flat = max(earlier) / min(earlier) - 1 <= FLAT
        if grown <= AS_QUICK - 1 and self.limit < self._most:
            seen.append(_Level(self.limit, self._latency))
            self.limit = min(self._most, self.limit * (LEAP if is_flat and self.limit >= LEAP_FROM else CLIMB))
        else:
            # Latency that grew from the start is not of our making: others are there, and we begin with one request.
            self._settle(UNCLEAR if len(seen) <= 1 else seen[-1].limit if is_flat else 1, now)

    def _settle(self, level: float, now: float) -> None:
        """End the climb, if it is not over; go on from a level."""
        self._climb, self._before = None, None
        self._level = max(1.0, level)
        self._set_limits()
        self._begin_turn(now)

    # -- the turns

    def _set_limits(self) -> None:
        """Choose the limits of the next two turns."""
        low = max(1, int(self._level + self._chance.random()))
        step = max(1, round(STEP * math.sqrt(low) - STEP + 1))
        self._high = max(1, min(low + step, self._most))
        self._low = max(1, min(low, self._high - max(1, self._high // 8)))  # also where no more may be tried

    def _begin_turn(self, now: float) -> None:
        if not self._turn_s or int(now // self._turn_s) % 2 == 0:  # two turns that are compared are of one length
            # Powers of two: clients that see much the same latency have the same turns.
            turn_s = 2.0 ** math.ceil(math.log2(max(1e-4, ROUND_TRIPS * self._latency)))
            if turn_s != self._turn_s:
                self._before, self._turn_s = None, turn_s
        self._turn = int(now // self._turn_s)
        self._start(now)
        self.limit = self._limit_at(now)

    def _limit_at(self, now: float) -> int:
        """Return the limit: at the beginning of a turn the low or the high one, then one below the high one."""
        return self._trial if self._is_trial(now) else max(self._low, self._high - 1)

    @property
    def _trial(self) -> int:
        """The limit that is tried in this turn."""
        return self._high if self._turn % 2 else self._low

    def _is_trial(self, now: float) -> bool:
        return now / self._turn_s - self._turn < TRIAL

    def _take_turn(self, latency: float, sent_at: float, now: float) -> None:
        if sent_at >= self._since:
            self._answers += 1
            self._waited += latency
            # Not of the first round trip, when requests of the limit before are still in flight.
            begin, end = self._turn * self._turn_s, (self._turn + TRIAL) * self._turn_s
            if begin + min(self._latency, (end - begin) / 2) <= sent_at < end:
                self._of_limit += 1
                self._waited_at_limit += latency
        if self._is_trial(now):
            self._most_in_flight = max(self._most_in_flight, self.in_flight)
        if now // self._turn_s != self._turn:
            self._end_turn(now)
        self.limit = self._limit_at(now)

    def _end_turn(self, now: float) -> None:
        if self._answers:
            mean = self._waited / self._answers
            self._latency = mean if self._turn % 2 == 0 else (self._latency + mean) / 2
        limit, before, self._before = self._trial, self._before, None
        # A limit that was not reached says nothing of the server. All clients decide after the odd turns: those who
        # decide by turns follow each other's changes up and down.
        if self._of_limit and self._most_in_flight >= limit:
            self._before = this = _Turn(self._turn, limit, self._of_limit, self._waited_at_limit / self._of_limit)
            if before and this.number % 2 and before.number == this.number - 1 and before.limit < this.limit:
                self._decide(before, this)
        self._begin_turn(now)

    def _decide(self, low: _Turn, high: _Turn) -> None:
        """Change the level by what a higher limit gained."""
        gain = 1 - math.log(high.latency / low.latency) / math.log(high.limit / low.limit)
        change = max(-1.0, min(1.0, gain)) - self._worthwhile
        change *= (GENTLE if change > 0 else FIRM) * min(1.0, min(low.answers, high.answers) / TRUSTED_ANSWERS)
        step = (high.limit / low.limit) ** FARTHEST
        self._level *= max(1 / step, min(step, math.exp(change)))
        self._level = max(1.0, min(CEILING, self._level))
        self._before = None
        self._set_limits()


class BatchSize:
    """How many texts a request may have: a number, or "auto"; fewer where a server refuses so many.

    With "auto" it is `AUTO_ROWS`, and `QUICK_ROWS` where answers come faster than from any model, until a request of
    that size fails; in the background it is `BACKGROUND_ROWS`. `texts` is the size now; requests that are under way may
    be larger.
    """

    def __init__(self, rows: int | Literal["auto"], manners: Manners = "fair") -> None:
        self._most = rows if rows != "auto" else AUTO_ROWS if manners == "fair" else BACKGROUND_ROWS
        self._is_fixed = rows != "auto"
        self.texts = self._most
        self._successes = 0
        self._may_grow = rows == "auto" and manners == "fair"
        self._window_answers = self._window_texts = 0
        self._window_began = 0.0  # the time of the first of them

    def limit(self, texts: int | None) -> None:
        """Never be more than a server announces; None where it announces nothing."""
        if texts is not None:
            self._most, self.texts = min(self._most, texts), min(self.texts, texts)
            self._may_grow &= texts >= QUICK_ROWS

    def succeeded(self, texts: int, now: float = 0.0) -> None:
        """Note that a request with so many texts was answered; after many of full size a little more is tried."""
        self._successes += texts >= self.texts
        if self.texts < self._most and self._successes >= GROW_AFTER:
            self._successes = 0
            self.texts = min(self._most, self.texts * 3 // 2 + 1)
        if self._may_grow:
            self._measure(texts, now)

    def _measure(self, texts: int, now: float) -> None:
        if self._window_answers == QUICK_ANSWERS:
            rate = self._window_texts / (now - self._window_began) if now > self._window_began else 0.0
            if rate > QUICK_RATE or rate < QUICK_RATE / 2:  # what is between them changes nothing
                self.texts = self._most = QUICK_ROWS if rate > QUICK_RATE else AUTO_ROWS
            self._window_answers = 0
        if not self._window_answers:
            self._window_texts, self._window_began = -texts, now
        self._window_answers += 1
        self._window_texts += texts

    def refused(self, texts: int) -> None:
        """Note that a server refused so many for load although it had no other request in flight."""
        self.failed(texts)
        if not self._is_fixed and texts > 1:
            self.texts, self._successes, self._may_grow = max(1, min(self.texts, texts // 2)), 0, False

    def failed(self, texts: int) -> None:
        """Note that a request of so many failed, for any reason: above the usual size, no other will be so large."""
        if self._may_grow and texts > AUTO_ROWS:
            self.texts, self._most, self._may_grow = AUTO_ROWS, AUTO_ROWS, False
