"""How many requests may be in flight at once on one endpoint. A number only: the gate is `endpoints.place`."""

from __future__ import annotations

from typing import Literal

# Enough to keep a server busy whose texts wait in its own queue: a real vLLM gives the most it has from
# some 16 requests of 64 texts on.
AUTO = 16


class Limiter:
    """The limit and what is in flight against it."""

    def __init__(self, limit: int | Literal["auto"]) -> None:
        self.limit = AUTO if limit == "auto" else limit
        self.in_flight = 0

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent."""
        return self.in_flight < self.limit

    @property
    def load(self) -> float:
        """The part of the limit that is in use."""
        return self.in_flight / self.limit
