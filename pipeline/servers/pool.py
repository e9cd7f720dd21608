"""The servers we may ask, and which to ask next; whether one is sick, and whether it still serves the same model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar

from pipeline.answers import Answers
from pipeline.checkpoint import differences
from pipeline.config import Config
from pipeline.errors import (
    BadAddress,
    BadAnswer,
    ConnectionLost,
    Misconfigured,
    ModelChanged,
    Overloaded,
    Rejected,
    RequestFailed,
    ServerGone,
    UserError,
)
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import Client
from pipeline.servers.endpoint import CANARY, Endpoint
from pipeline.servers.gate import Gate
from pipeline.servers.limiter import ChunkSize
from pipeline.servers.retry import backoff
from pipeline.servers.vllm import ModelFacts
from pipeline.texts import Texts

__all__ = ["CANARY", "Endpoint", "Endpoints"]

STARTING_PAUSE_S = 0.5  # between two looks at a server that is not there yet
T = TypeVar("T")


class Endpoints:
    """All servers of a run. They serve one model: `facts` is what is known of it, `identity` how to know it again."""

    def __init__(
        self,
        config: Config,
        urls: list[str],
        environment: dict[str, str],
        progress: Progress,
        *,
        keeps_probs: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.facts = ModelFacts(given=dict(enumerate(config.writer.labels or [])))
        headers = config.server.request_headers(environment)
        self.all = [
            Endpoint(Client(url, config.server, headers), config, self.facts, progress, keeps_probs=keeps_probs)
            for url in urls
        ]
        self.identity: dict[str, Any] = {}
        self.sizes = ChunkSize(config.request.rows)
        self._config, self._progress = config, progress
        self._clock, self._sleep = clock, sleep
        self._failing_since: float | None = None
        self.gate = Gate(self.all)
        self._tasks: set[asyncio.Future[Any]] = set()  # examinations and nurses under way
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for endpoint in self.all:
            await self._stack.enter_async_context(endpoint.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    # -- the start

    async def connect(self, *, wait: bool = True) -> None:
        """Find the model on every endpoint and see with the canary that all serve the same.

        Without `wait`, a server that is not there yet is not waited for.

        Raises:
            Misconfigured: wrong address, key or model, no classifier, or two endpoints with different models.
            ServerGone: nobody answers within `server.start_wait_s`.
        """
        until = self._clock() + (self._config.server.start_wait_s if wait else 0)
        found = await asyncio.gather(*(self._find(endpoint, until) for endpoint in self.all), return_exceptions=True)
        errors = [error for error in found if isinstance(error, BaseException)]
        for error in errors:
            if not isinstance(error, ServerGone):
                raise error
        if len(errors) == len(self.all):
            raise errors[0]
        for endpoint, gone in zip(self.all, found, strict=True):
            if gone is not None:
                self._progress.notice(f"{gone}; going on without it until it answers")
                self._rest(endpoint)

    async def _find(self, endpoint: Endpoint, until: float) -> None:
        said = False
        while True:
            try:
                return await self._meet(endpoint)
            except BadAddress as error:
                raise Misconfigured(f"{error}; check server.url") from None
            except BadAnswer as error:
                raise Misconfigured(f"{endpoint.shown}: {error}; is it the address of a classifier?") from None
            except RequestFailed as error:
                if self._clock() >= until:
                    raise ServerGone(f"{endpoint.say(error)}; start the server, or check server.url") from None
                if not said:
                    self._progress.notice(f"{endpoint.say(error)}; waiting {until - self._clock():.0f} s for it")
                said = True
                await self._sleep(STARTING_PAUSE_S)

    async def _meet(self, endpoint: Endpoint) -> None:
        """See that it serves the model we know; the first one met is that model."""
        identity, facts = await endpoint.meet()
        other = differences(self.identity, identity)
        wrong = [name for index, name in self.facts.names.items() if facts.names.get(index, name) != name]
        if other or wrong or (self.facts.names and max(self.facts.names) >= facts.num_classes):
            said = "; ".join(other) or f"its classes are named {facts.names}, ours {self.facts.names}"
            raise ModelChanged(f"{endpoint.shown} serves another model: {said}")
        if endpoint.answers_as and facts.model and facts.model != endpoint.answers_as:
            said = f"its answers call it {facts.model!r}, and called it {endpoint.answers_as!r}"
            raise ModelChanged(f"{endpoint.shown} serves another model: {said}")
        endpoint.answers_as = endpoint.answers_as or facts.model
        self.identity = self.identity or identity
        self.facts.num_classes, self.facts.model = facts.num_classes, facts.model
        self.facts.names.update(facts.names)

    # -- while it runs

    async def ask(
        self, texts: Texts, *, truncate: bool = False, alone: bool = False
    ) -> tuple[Endpoint, Answers | RequestFailed]:
        """One attempt, where there is room: who was asked, and what came of it.

        Raises:
            ServerGone: nobody has answered for `server.wait_s`.
            Misconfigured: a server has another model now, or no endpoint is left.
        """
        while True:
            async with self.gate.place(alone=alone) as endpoint:
                sent_at = self._clock()
                try:
                    answers = await endpoint.ask(texts, truncate=truncate)
                except Misconfigured as wrong:
                    self.drop(endpoint, wrong)
                    continue
                except Rejected as refused:
                    self._failing_since = None  # it is there, and it read the request
                    self.sizes.failed(len(texts))
                    return endpoint, refused
                except RequestFailed as failed:
                    self._give_up_if_due(failed)
                    self.sizes.failed(len(texts))
                    if isinstance(failed, ConnectionLost):
                        self._begin_examination(endpoint, failed)  # nobody is asked before it is known who is there
                    if isinstance(failed, Overloaded) and endpoint.limiter.refused(sent_at, self._clock()):
                        self.sizes.refused(len(texts))
                    return endpoint, failed
                self._failing_since = None  # somebody answered: patience starts anew
                now = self._clock()
                endpoint.limiter.succeeded(len(texts), sent_at, now)
                self.sizes.succeeded(len(texts), now)
                return endpoint, answers

    async def wait(self, delay: float, error: RequestFailed) -> None:
        """Sleep before the next attempt, but no longer than patience lasts, whatever the server asked for."""
        until = self._clock() + min(delay, self._config.server.wait_s + STARTING_PAUSE_S)
        while (left := until - self._clock()) > 0:
            await self._sleep(left)
            if self._failing_since is not None and self._clock() < until:
                self._give_up_if_due(error)
                self.gate.raise_if_stopped()

    async def is_well(self, endpoint: Endpoint, error: RequestFailed) -> bool:
        """After a failure: does the server answer the canary? If so, the request itself is suspect.

        One canary serves all who ask at the same time. If it fails, the endpoint rests until it passes.
        """
        if endpoint.is_resting:
            return False
        return await asyncio.shield(self._begin_examination(endpoint, error))

    def _begin_examination(self, endpoint: Endpoint, error: RequestFailed) -> asyncio.Future[bool]:
        is_doubtful = isinstance(error, ConnectionLost)
        if endpoint.examination is None or (is_doubtful and not endpoint.is_doubtful):
            # One that was under way may have asked whoever was there before.
            endpoint.examination = self._begin(self._examine(endpoint, error))
            endpoint.is_doubtful = is_doubtful
        return endpoint.examination

    def _give_up_if_due(self, error: RequestFailed) -> None:
        now = self._clock()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > self._config.server.wait_s:
            self.gate.stop(
                ServerGone(
                    f"no server answered for {self._config.server.wait_s:g} s ({error}); what was answered is kept, "
                    f"run the same command again when the server is back"
                )
            )

    async def _examine(self, endpoint: Endpoint, error: RequestFailed) -> bool:
        try:
            await self._meet(endpoint)
        except RequestFailed as sick:
            self._progress.notice(f"{endpoint.say(error)}; and then: {sick}; it is left alone for a while")
            self._rest(endpoint)
            return False
        except UserError as other:
            self.drop(endpoint, other)
            return False
        finally:
            if endpoint.examination is asyncio.current_task():  # else a later one has the word
                endpoint.examination, endpoint.is_doubtful = None, False
            self.gate.wake_all()
        return True

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Let it go on beside the requests; it ends with us at the latest."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _rest(self, endpoint: Endpoint) -> None:
        """Ask it nothing until the canary passes again."""
        endpoint.is_resting = True
        self.gate.wake_all()
        self._begin(self._nurse(endpoint))

    async def _nurse(self, endpoint: Endpoint) -> None:
        attempt = 0
        while endpoint.is_resting:
            attempt += 1
            await self._sleep(max(STARTING_PAUSE_S, backoff(attempt, self._config.retry)))
            try:
                await self._meet(endpoint)
                endpoint.is_resting = False
            except RequestFailed as sick:
                if all(each.is_resting for each in self.all):
                    self._give_up_if_due(sick)
            except UserError as other:
                return self.drop(endpoint, other)
        self._progress.notice(f"{endpoint.shown} answers again")
        self.gate.wake_all()
        return None

    def drop(self, endpoint: Endpoint, error: UserError) -> None:
        """Ask it nothing any more; another model, or nobody left, ends the run."""
        if endpoint not in self.all:
            return  # by another request that was in flight
        endpoint.is_resting = True
        self.all.remove(endpoint)
        if not self.all or isinstance(error, ModelChanged):
            self.gate.stop(error)
        else:
            self._progress.notice(f"{endpoint.say(error)}; going on without it")
