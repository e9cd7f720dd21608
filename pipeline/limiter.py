"""How many requests may be in flight on one endpoint, and how many texts a request may carry. Numbers only.

The gate is `endpoints.gate`; the clock's time is given, so all of this can be tested without waiting.
"""

from __future__ import annotations

from typing import Literal

CEILING = 1024  # requests in flight on one endpoint, whatever it seems to bear
AUTO_ROWS = 256  # vLLM takes 256 texts as well as 64, and a request costs us the same; thousands have crashed it
BETTER = 1.05  # a rate that is not better by this much is the same rate
DECREASE = 0.75
FIRST_STEP = 8  # from one request in flight, once it was answered and as long as none was refused
QUICK_UNTIL = 128  # up to here the limit may grow by more than one place for each answer
AS_QUICK = 1.25  # times the least latency seen: then nobody waits for a place on the server
PROBE_AFTER = 250  # successes before a level that was refused is tried again: refusals stay far below 1 %
EXPLORE_AFTER = 24  # windows before a higher level than the best known is tried


class Limiter:
    """The limit and what is in flight against it.

    With "auto" it climbs as TCP does: one request, then some, then one place more for each answer, so it doubles each
    round trip; at first quicker, as long as answers take no longer than the quickest. It goes on as long as the rate of
    answered texts grows with it, and stays where the rate was best. Where to stop it learns from the rate and not from
    latency: a server that batches gets slower and better at once. A refusal for load takes a quarter away, once for
    all that were sent before it; what was refused is not tried again soon, and the climb is one place a round trip.
    """

    def __init__(self, limit: int | Literal["auto"]) -> None:
        self.is_fixed = limit != "auto"
        self.limit = 1 if limit == "auto" else limit
        self.in_flight = 0
        self._climbing = True
        self._least_latency = float("inf")
        self._refused = CEILING + 1  # the lowest level that was refused lately
        self._refused_at = float("-inf")
        self._since_refusal = 0
        self._best_rate, self._best_limit = 0.0, 1
        self._flat = 0  # windows in a row without a better rate
        self._windows = 0
        self._window, self._window_limit, self._window_began = 4, 1, 0.0
        self._answers = self._texts = 0

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent."""
        return self.in_flight < self.limit

    @property
    def load(self) -> float:
        """The part of the limit that is in use."""
        return self.in_flight / self.limit

    def succeeded(self, texts: int, sent_at: float, now: float) -> None:
        """A request with so many texts was answered."""
        if self.is_fixed:
            return
        if not self._answers:
            self._window_began = self._window_began or now
        self._answers += 1
        self._texts += texts
        self._since_refusal += 1
        self._least_latency = min(self._least_latency, now - sent_at)
        if self._climbing and self.limit < min(CEILING, self._refused - 1):
            self.limit = min(self.limit + self._step(now - sent_at), CEILING, self._refused - 1)
        elif self._since_refusal >= PROBE_AFTER and self._refused <= CEILING:
            self._since_refusal = 0
            self.limit, self._refused = self._refused, CEILING + 1
        if self._answers >= self._window and now > self._window_began:
            self._end_window(now)

    def _step(self, latency: float) -> int:
        if self._refused_at != float("-inf"):  # one place a round trip, for a server that is known to refuse
            return int(self._since_refusal % self.limit == 0)
        if self.limit >= QUICK_UNTIL:
            return 1
        if self.limit == 1:
            return FIRST_STEP - 1
        return 3 if latency <= AS_QUICK * self._least_latency else 1

    def refused(self, sent_at: float, now: float) -> bool:
        """A request was refused because the server has too much to do. Returns whether there was only this one."""
        if self.is_fixed or sent_at <= self._refused_at:
            return self.limit == 1
        self._refused_at, self._since_refusal, self._best_rate = now, 0, 0.0
        was_least = self.limit == 1
        if not was_least:  # else it is not the number of requests that is too much
            self._climbing, self._refused = False, self.limit
            self.limit = max(1, int(self.limit * DECREASE))
        self._start_window(now)
        return was_least

    def _start_window(self, now: float) -> None:
        self._window, self._window_limit, self._window_began = max(4, self.limit), self.limit, now
        self._answers = self._texts = 0

    def _end_window(self, now: float) -> None:
        rate = self._texts / (now - self._window_began)
        if rate > self._best_rate * BETTER:
            # What was measured while climbing belongs to the level in the middle of the climb.
            self._best_rate, self._best_limit, self._flat = rate, max(self._window_limit, self.limit * 3 // 4), 0
        else:
            self._flat += 1
        self._windows += 1
        if self._climbing and self._flat >= 2:  # noqa: PLR2004 - one window may be noise
            self._climbing = False
            self.limit = min(2 * self._best_limit, self.limit, self._refused - 1)
        elif not self._climbing and self._windows % EXPLORE_AFTER == 0:
            self._climbing, self._flat, self._best_rate = True, 0, rate
        self._start_window(now)


class ChunkSize:
    """How many texts the next chunks may have: all that were asked for, fewer where a server refuses so many."""

    def __init__(self, rows: int | Literal["auto"]) -> None:
        self._most = AUTO_ROWS if rows == "auto" else rows
        self._is_fixed = rows != "auto"
        self.rows = self._most
        self._successes = 0

    def succeeded(self, texts: int) -> None:
        """So many texts were taken: after many such answers a little more is tried."""
        self._successes += texts >= self.rows
        if self.rows < self._most and self._successes >= PROBE_AFTER:
            self._successes = 0
            self.rows = min(self._most, self.rows * 3 // 2 + 1)

    def refused(self, texts: int) -> None:
        """So many were too many for a server that had nothing else to do."""
        if not self._is_fixed and texts > 1:
            self.rows, self._successes = max(1, min(self.rows, texts // 2)), 0
