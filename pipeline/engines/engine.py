"""What an engine is: it starts workers somewhere, and says when one has ended. Everything else is the run's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from pipeline.engines.channel import Channel


class EngineWorker(ABC):
    """A worker, from its start to its end."""

    channel: Channel | None = None  # once it is started
    where = ""  # the node, in messages; empty: this machine

    @abstractmethod
    async def start(self) -> Channel | None:
        """Start the worker, and return when it can take messages; None: it ended before that.

        Raises:
            WorkerLost: it can't be started. ConfigError: it is of another version.
        """

    @abstractmethod
    def kill(self) -> None:
        """End the worker at once, or as soon as it is started."""

    @abstractmethod
    async def ended(self) -> str:
        """Wait for the end of a worker that was started, and say how it ended."""


class Engine(ABC):
    """Where workers are; an asynchronous context manager, in which they can be started."""

    @property
    @abstractmethod
    def cores(self) -> int:
        """How many workers have a core of their own."""

    @abstractmethod
    def worker(self, number: int) -> EngineWorker:
        """Return a worker that is not started yet."""

    @abstractmethod
    def environment(self, ours: dict[str, str]) -> dict[str, str]:
        """Return the variables of this process that workers are sent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:  # noqa: B027 - a default
        """Let go of what workers were started with."""
