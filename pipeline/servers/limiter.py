"""How many requests may be in flight on one endpoint, and how many texts one request may have.

Counts and times only: the time of every event is an argument, in seconds on any scale. `slots` holds requests back
until there is room.
"""

from __future__ import annotations

from typing import Literal

CEILING = 1024  # requests in flight on one endpoint, however many it seems to take
AUTO_ROWS = 256  # vLLM takes 256 texts as well as 64, and a request costs us the same; thousands have crashed it
QUICK_ROWS = 512  # texts a request above this rate, where what a request costs us is what counts
QUICK_RATE, QUICK_ANSWERS = 50_000, 64  # texts a second, measured over so many answers
AS_GOOD = 0.975  # times the best rate: a level that reaches it counts as equal, and the smallest such is kept
STILL_BETTER = 1.02  # times the rate of the level to stay at: if the highest reaches it, a higher one is tried
DECREASE = 0.75  # times the level, after a refusal
FIRST_STEP = 8  # the level after 1, as long as nothing was refused
LEAP = 4  # times the level, where answers take no longer than at the level before
AS_QUICK = 1.25  # times the latency before: up to it, no request seems to wait on the server
CROWDED = 4  # times as many in flight as the least latency would need: then half as many are tried
FEWEST_ANSWERS = 16  # in the window that a rate is measured over
PROBE_AFTER, PROBE_ROUND_TRIPS = 250, 32  # answers before a refused level is tried again: refusals stay below 1 %
REST = 6  # windows at a level before others are tried; twice as many each time the same level is found again ...
LONGEST_REST = 48  # ... up to so many


class Limiter:
    """How many requests may be in flight on one endpoint: a number, or "auto" to find the least that is enough.

    A level is a limit that is tried. With "auto" the level is 1 at first, and grows in leaps as long as latency grows
    far less than the level. From then on levels are compared by their rate, texts answered a second, each over a window
    that begins with the first answer to a request sent at that level: half the level where far more are in flight than
    the rate needs, else twice the level for as long as that helps. The smallest level whose rate is as good as the
    best is kept, and its neighbours are tried again from time to time. Rate decides rather than latency, because a
    server that batches gets slower and better at once.

    A refusal for load takes a quarter of the level away, once for all requests sent before it: 64 refusals at once are
    one sign. The refused level is not tried again soon, and levels grow in small steps after it.
    """

    def __init__(self, limit: int | Literal["auto"]) -> None:
        self.is_fixed = limit != "auto"
        self.limit = 1 if limit == "auto" else limit
        self.in_flight = 0
        self._refused = CEILING + 1  # the lowest level that was refused lately
        self._refused_at = float("-inf")
        self._since_refusal = 0
        self._rates: dict[int, float] = {}  # texts a second, by level, since a level was last kept
        self._least_latency = float("inf")  # the mean of the quickest level
        self._found = self._rest = 0  # the level that was kept last, and for how many windows more
        self._pause = REST
        self._answers = self._texts = self._most_in_flight = 0  # of the window
        self._go_to(self.limit, float("-inf"), float("inf"))

    @property
    def load(self) -> float:
        """The part of the limit that is in use; below 1 there is room for one more request."""
        return self.in_flight / self.limit

    def succeeded(self, texts: int, sent_at: float, now: float) -> None:
        """Note that a request with so many texts was answered; it still counts as in flight."""
        if self.is_fixed:
            return
        self._since_refusal += 1
        if self._refused <= CEILING and self._since_refusal >= max(PROBE_AFTER, PROBE_ROUND_TRIPS * self.limit):
            self._refused, self._rest = CEILING + 1, 0
        if self._answers or sent_at >= self._set_at:  # else it says nothing of this level
            self._count(texts, now - sent_at, now)

    def _count(self, texts: int, latency: float, now: float) -> None:
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        self._answers += 1
        self._waited += latency
        if self._answers == 1:
            self._began = now
        else:
            self._texts += texts
        mean = self._waited / self._answers
        if self._answers == min(self.limit, max(FEWEST_ANSWERS, self.limit // 2)) and self._may_leap(mean):
            step = FIRST_STEP if self.limit == 1 else LEAP if mean <= AS_QUICK * self._latency_before else 2
            self._least_latency = min(self._least_latency, mean)
            self._go_to(min(CEILING, self.limit * step), now, mean)
        elif self._answers > self._window and now > self._began:
            self._end_window(now)

    def _may_leap(self, latency: float) -> bool:
        """Return whether levels are still growing and latency hardly is, so that no rate need be measured."""
        is_climb = self.limit > max(self._rates, default=0) and self._refused_at == float("-inf")
        if not is_climb or self.limit == CEILING or self._most_in_flight < self.limit:
            return False
        return latency**2 * self._level_before <= self._latency_before**2 * self.limit

    def _go_to(self, level: int, now: float, latency: float) -> None:
        """Change the level; `latency` is the mean at the level before, in seconds."""
        self._level_before, self._latency_before = self.limit, latency
        self.limit, self._set_at = level, now
        self._start_window()

    def _start_window(self) -> None:
        # Whole round trips: a server may answer all that are in flight at once.
        self._window = self.limit * -(-FEWEST_ANSWERS // self.limit)
        self._began = self._waited = 0.0
        self._answers = self._texts = self._most_in_flight = 0

    def _end_window(self, now: float) -> None:
        if self._most_in_flight < self.limit:  # too little was sent, which says nothing of the server
            return self._start_window()
        seconds, latency = now - self._began, self._waited / self._answers
        self._least_latency = min(self._least_latency, latency)
        rate = self._texts / seconds
        self._rates[self.limit] = (3 * self._rates.get(self.limit, rate) + rate) / 4
        self._rest -= 1
        level = self.limit if self._rest > 0 else self._next((self._answers - 1) / seconds * self._least_latency)
        if self._rest <= 0 and level in self._rates:  # it is kept for some windows
            self._pause = min(2 * self._pause, LONGEST_REST) if level == self._found else REST
            self._found, self._rest = level, self._pause
            self._rates = {level: self._rates[level]}  # others are measured anew: the server may change
        return self._start_window() if level == self.limit else self._go_to(level, now, latency)

    def _next(self, needed: float) -> int:
        """Return the level to try next; one that was tried already is the one to keep.

        By Little's law, with `needed` requests in flight the rate would be the present one if each were answered in the
        least latency seen. A level far above that is too high, or the server batches: half of it tells which.
        """
        lowest, highest, best = min(self._rates), max(self._rates), max(self._rates.values())
        good = min(level for level, rate in self._rates.items() if rate >= AS_GOOD * best)
        if good == lowest > 1 and good >= CROWDED * needed:
            return good // 2
        if good == highest or self._rates[highest] > STILL_BETTER * self._rates[good]:
            step = highest if self._refused_at == float("-inf") else max(1, highest // 12)
            if (higher := min(highest + step, self._refused - 1, CEILING)) > highest:
                return higher
        return good

    def refused(self, sent_at: float, now: float) -> bool:
        """Note that a request was refused for load; return whether it was the only one that the limit allows."""
        if self.is_fixed or sent_at <= self._refused_at:
            return self.limit == 1
        self._refused_at, self._since_refusal = now, 0
        self._rates, self._rest = {}, 0
        was_least = self.limit == 1
        if not was_least:  # else it is not the number of requests that is too much
            self._refused = self.limit
        self._go_to(max(1, int(self.limit * DECREASE)), now, self._least_latency)
        return was_least


class BatchSize:
    """How many texts a request may have: a number, or "auto"; fewer where a server refuses so many.

    With "auto" it is `AUTO_ROWS`, and `QUICK_ROWS` where answers come faster than from any model, until a request of
    that size fails. `texts` is the size now; requests that are under way may be larger.
    """

    def __init__(self, rows: int | Literal["auto"]) -> None:
        self._most = AUTO_ROWS if rows == "auto" else rows
        self._is_fixed = rows != "auto"
        self.texts = self._most
        self._successes = 0
        self._may_grow = rows == "auto"
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
        if self.texts < self._most and self._successes >= PROBE_AFTER:
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
