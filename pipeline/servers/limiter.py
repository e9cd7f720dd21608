"""How many requests may be in flight on one endpoint, and how many texts a request may carry. Numbers only.

The gate is `endpoints.gate`; the clock's time is given, so all of this can be tested without waiting.
"""

from __future__ import annotations

from typing import Literal

CEILING = 1024  # requests in flight on one endpoint, whatever it seems to bear
AUTO_ROWS = 256  # vLLM takes 256 texts as well as 64, and a request costs us the same; thousands have crashed it
QUICK_ROWS = 512  # where so many texts a second are answered that what a request costs us is what counts
QUICK_RATE, QUICK_ANSWERS = 50_000, 64  # texts a second, measured by so many answers
AS_GOOD = 0.975  # of the best rate: then the smaller level is the better one
STILL_BETTER = 1.02  # times the rate of the level we would stay at: then a still higher one is tried
DECREASE = 0.75
FIRST_STEP = 8  # from one request in flight, once it was answered and as long as none was refused
LEAP = 4  # from a level at which answers take no longer than before
AS_QUICK = 1.25  # times the latency before: then nobody waits for a place on the server
CROWDED = 4  # times as many in flight as the least latency would need: then half of them may do
FEWEST_ANSWERS = 16  # that a rate is measured by: fewer say too little, and a small level has them soon
PROBE_AFTER, PROBE_ROUND_TRIPS = 250, 32  # successes before what was refused is tried again: refusals stay below 1 %
REST = 6  # windows at a level before its neighbours are tried again; twice as many each time it is found again ...
LONGEST_REST = 48  # ... up to so many


class Limiter:
    """The limit and what is in flight against it.

    With "auto" it looks for the smallest level at which the server gives its most. One request first, then leaps, as
    long as latency grows far less than the level. Then levels are compared by the rate of texts answered, each in a
    window that begins with the first answer to what was sent at that level: half as many where the server is crowded,
    else twice as many for as long as that helps. The smallest level that is as good as the best one, but for noise, is
    kept, and its neighbours are tried again from time to time. The rate decides and not latency: a server that batches
    gets slower and better at once. A refusal for load takes a quarter away, once for all that were sent before it; what
    was refused is not tried again soon, and from then on the climb is in small steps.
    """

    def __init__(self, limit: int | Literal["auto"]) -> None:
        self.is_fixed = limit != "auto"
        self.limit = 1 if limit == "auto" else limit
        self.in_flight = 0
        self._refused = CEILING + 1  # the lowest level that was refused lately
        self._refused_at = float("-inf")
        self._since_refusal = 0
        self._rates: dict[int, float] = {}  # texts a second, by level, since the last rest
        self._least_latency = float("inf")  # the mean of the quickest level
        self._found = self._rest = 0  # the level that was found last, and for how many windows it is kept
        self._pause = REST
        self._answers = self._texts = self._most_in_flight = 0  # of the window
        self._go_to(self.limit, float("-inf"), float("inf"))

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent."""
        return self.in_flight < self.limit

    @property
    def load(self) -> float:
        """The part of the limit that is in use."""
        return self.in_flight / self.limit

    def succeeded(self, texts: int, sent_at: float, now: float) -> None:
        """A request with so many texts was answered; it still counts as in flight."""
        if self.is_fixed:
            return
        self._since_refusal += 1
        if self._refused <= CEILING and self._since_refusal >= max(PROBE_AFTER, PROBE_ROUND_TRIPS * self.limit):
            self._refused, self._rest = CEILING + 1, 0
        if self._answers or sent_at >= self._set_at:  # else it tells of another level
            self._count(texts, now - sent_at, now)

    def _count(self, texts: int, latency: float, now: float) -> None:
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        self._answers += 1
        self._waited += latency
        if self._answers == 1:
            self._began = now
        else:
            self._texts += texts
        if self._answers == min(self.limit, max(FEWEST_ANSWERS, self.limit // 2)) and self._may_leap():
            self._leap(now)
        elif self._answers > self._window and now > self._began:
            self._end_window(now)

    def _may_leap(self) -> bool:
        """Whether this is a climb on a server that does not mind, so that it need not be measured."""
        is_climb = self.limit > max(self._rates, default=0) and self._refused_at == float("-inf")
        if not is_climb or self.limit == CEILING or self._most_in_flight < self.limit:
            return False
        latency = self._waited / self._answers
        return latency**2 * self._level_before <= self._latency_before**2 * self.limit

    def _leap(self, now: float) -> None:
        latency = self._waited / self._answers
        self._least_latency = min(self._least_latency, latency)
        step = LEAP if latency <= AS_QUICK * self._latency_before else 2
        self._go_to(min(CEILING, self.limit * (FIRST_STEP if self.limit == 1 else step)), now, latency)

    def _go_to(self, level: int, now: float, latency: float) -> None:
        """Be at another level from now on; latency is that of the level before."""
        self._level_before, self._latency_before = self.limit, latency
        self.limit, self._set_at = level, now
        self._start_window()

    def _start_window(self) -> None:
        # Whole round trips: a server may answer all that are in flight at once.
        self._window = self.limit * -(-FEWEST_ANSWERS // self.limit)
        self._began = self._waited = 0.0
        self._answers = self._texts = self._most_in_flight = 0

    def _end_window(self, now: float) -> None:
        if self._most_in_flight < self.limit:  # there was too little to send: that says nothing of the server
            return self._start_window()
        seconds, latency = now - self._began, self._waited / self._answers
        self._least_latency = min(self._least_latency, latency)
        rate = self._texts / seconds
        self._rates[self.limit] = (3 * self._rates.get(self.limit, rate) + rate) / 4
        self._rest -= 1
        level = self.limit if self._rest > 0 else self._next((self._answers - 1) / seconds * self._least_latency)
        if self._rest <= 0 and level in self._rates:
            self._settle(level)
        return self._start_window() if level == self.limit else self._go_to(level, now, latency)

    def _next(self, needed: float) -> int:
        """The level to be tried now; one that was tried already is where to stay.

        By Little's law `needed` in flight would give the present rate if all were answered as quickly as ever. Far
        more than that are too many, or a server that batches: half of them tell which.
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

    def _settle(self, level: int) -> None:
        self._pause = min(2 * self._pause, LONGEST_REST) if level == self._found else REST
        self._found, self._rest = level, self._pause
        self._rates = {level: self._rates[level]}  # others are measured anew: the server may change

    def refused(self, sent_at: float, now: float) -> bool:
        """A request was refused because the server has too much to do. Returns whether there was only this one."""
        if self.is_fixed or sent_at <= self._refused_at:
            return self.limit == 1
        self._refused_at, self._since_refusal = now, 0
        self._rates, self._rest = {}, 0
        was_least = self.limit == 1
        if not was_least:  # else it is not the number of requests that is too much
            self._refused = self.limit
        self._go_to(max(1, int(self.limit * DECREASE)), now, self._least_latency)
        return was_least


class ChunkSize:
    """How many texts the next chunks may have: all that were asked for, fewer where a server refuses so many.

    With "auto" twice as many where answers come quicker than from any model, until a request of so many fails.
    """

    def __init__(self, rows: int | Literal["auto"]) -> None:
        self._most = AUTO_ROWS if rows == "auto" else rows
        self._is_fixed = rows != "auto"
        self.rows = self._most
        self._successes = 0
        self._may_grow = rows == "auto"
        self._answers = self._texts = 0
        self._began = 0.0  # when these began to come

    def succeeded(self, texts: int, now: float = 0.0) -> None:
        """So many texts were taken: after many such answers a little more is tried."""
        self._successes += texts >= self.rows
        if self.rows < self._most and self._successes >= PROBE_AFTER:
            self._successes = 0
            self.rows = min(self._most, self.rows * 3 // 2 + 1)
        if self._may_grow:
            self._measure(texts, now)

    def _measure(self, texts: int, now: float) -> None:
        if self._answers == QUICK_ANSWERS:
            rate = self._texts / (now - self._began) if now > self._began else 0.0
            if rate > QUICK_RATE or rate < QUICK_RATE / 2:  # what is between them changes nothing
                self.rows = self._most = QUICK_ROWS if rate > QUICK_RATE else AUTO_ROWS
            self._answers = 0
        if not self._answers:
            self._texts, self._began = -texts, now
        self._answers += 1
        self._texts += texts

    def refused(self, texts: int) -> None:
        """So many were too many for a server that had nothing else to do."""
        self.failed(texts)
        if not self._is_fixed and texts > 1:
            self.rows, self._successes, self._may_grow = max(1, min(self.rows, texts // 2)), 0, False

    def failed(self, texts: int) -> None:
        """A request of so many failed, whyever: if it was larger than usual, none will be any more."""
        if self._may_grow and texts > AUTO_ROWS:
            self.rows, self._most, self._may_grow = AUTO_ROWS, AUTO_ROWS, False
