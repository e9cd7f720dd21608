"""The servers of a run: found at the start, asked while it runs, all of them with the same model.

After a failure a health check sends the canary, fixed short texts that every model takes. Passed, the request that
failed is suspect; failed, the endpoint is in quarantine: it is sent nothing but the canary, again and again, until that
passes. An endpoint that answers as another model, or refuses our key, is dropped for the rest of the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

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
    Unreachable,
    UserError,
)
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import Client, proxy_for
from pipeline.servers.dialect import DEFAULT, DIALECTS, Dialect
from pipeline.servers.endpoint import Endpoint
from pipeline.servers.limiter import BatchSize, shared_time
from pipeline.servers.model import ModelFacts
from pipeline.servers.retry import backoff
from pipeline.servers.slots import Slots
from pipeline.texts import Texts
from pipeline.thresholds import COMPETE, SEVERAL, classes_compete

SHORTEST_PAUSE_S = 0.5  # between two canaries to a server that does not answer


class Endpoints:
    """All servers of a run. They serve one model: `facts` is what is known of it, `identity` how it is known again.

    `urls` are base URLs or full ones, `environment` has the variables that hold keys and headers. With `keeps_probs`
    answers keep the values of all classes. The `dialect` is by default that of `server.api`.
    """

    def __init__(
        self,
        config: Config,
        urls: list[str],
        environment: dict[str, str],
        progress: Progress,
        *,
        dialect: Dialect | None = None,
        keeps_probs: bool = True,
    ) -> None:
        self.facts = ModelFacts(given=dict(enumerate(config.writer.class_names or ())))
        self.identity: dict[str, Any] = {}
        self.batch_size = BatchSize(config.request.rows, config.request.manners)
        headers = config.server.request_headers(environment)
        if dialect is None and config.server.api != "auto":
            dialect = DIALECTS[config.server.api](config.request)
        defaults = (dialect or DEFAULT).headers
        self.all = [
            Endpoint(client, dialect, config, self.facts, progress, keeps_probs=keeps_probs)
            for client in (
                Client(url, config.server, headers, defaults, proxy_for(url, config.server, environment))
                for url in urls
            )
        ]
        self.slots = Slots(self.all)
        self._config, self._progress = config, progress
        self._failing_since: float | None = None  # since then no server has answered
        self._tasks: set[asyncio.Future[Any]] = set()  # health checks and watches under way
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
        """Find the model on every endpoint, and see with the canary that all serve the same.

        Without `wait`, a server that is not there yet is not waited for.

        Raises:
            Misconfigured: wrong address, key or model, no classifier, or two endpoints with different models.
            ServerGone: none answers within `server.start_wait_s`.
        """
        until = time.monotonic() + (self._config.server.start_wait_s if wait else 0)
        found = await asyncio.gather(*(self._find(endpoint, until) for endpoint in self.all), return_exceptions=True)
        errors = [error for error in found if isinstance(error, BaseException)]
        for error in errors:
            if not isinstance(error, ServerGone):
                raise error
        if len(errors) == len(self.all):
            raise errors[0]
        if endpoint := next((each for each in self.all if each.dialect.cuts == "unseen"), None):
            request = self._config.request
            then = {
                "error": "",
                "truncate": f"; {self._config.writer.prefix}truncated is null",
                "split": "; request.max_text_chars has them split before" * (request.max_text_chars is None),
            }[request.too_long]
            cuts = f"{endpoint.dialect.server} may cut texts that are too long, and does not say which"
            self._progress.notice(f"{endpoint.shown}: {cuts}{then}")
        if self._config.writer.multi_label is not None and classes_compete(self._config, self.identity):
            self._progress.notice(f"writer.multi_label: {COMPETE}; {SEVERAL}")
        for endpoint, gone in zip(self.all, found, strict=True):
            if gone is not None:
                self._progress.notice(f"{gone}; going on without it until it answers")
                self.quarantine(endpoint)

    async def _find(self, endpoint: Endpoint, until: float) -> None:
        """Identify an endpoint, and wait for its server until the clock says `until`."""
        is_told = False
        while True:
            try:
                await self._identify(endpoint)
                return self._progress.end_waiting()
            except BadAddress as error:
                raise Misconfigured(str(error)) from None
            except BadAnswer as error:
                is_https = ", and is it http, not https" if endpoint.shown.startswith("http://") else ""
                raise Misconfigured(
                    f"{endpoint.shown}: {error}; is it the address of a classifier{is_https}?"
                ) from None
            except RequestFailed as error:
                message = endpoint.with_address(error)
                if time.monotonic() >= until:
                    raise ServerGone(f"{message}; start the server, or check server.url") from None
                if not is_told:
                    self._progress.begin_waiting(until - time.monotonic())
                    self._progress.notice(f"{message}; waiting {until - time.monotonic():.0f} s for it")
                is_told = True
                await asyncio.sleep(SHORTEST_PAUSE_S)

    async def _identify(self, endpoint: Endpoint) -> None:
        """See that an endpoint serves the model of the run; the first one that answers says which that is."""
        identity, facts = await endpoint.identify()
        if other := self._other_model(endpoint, identity, facts):
            raise ModelChanged(f"{endpoint.shown} serves another model: {other}")
        endpoint.answers_as = endpoint.answers_as or facts.model
        self.identity = self.identity or identity
        self.facts.adopt(facts)
        self.batch_size.limit(endpoint.served.texts)

    def _other_model(self, endpoint: Endpoint, identity: Mapping[str, Any], facts: ModelFacts) -> str:
        """Return how the model of an endpoint differs from that of the run; empty if it does not."""
        if other := differences(self.identity, identity):
            return "; ".join(map(str, other))
        renamed = any(facts.names.get(index, name) != name for index, name in self.facts.names.items())
        if renamed or (self.facts.names and max(self.facts.names) >= facts.num_classes):
            return f"its classes are named {facts.names}, ours {self.facts.names}"
        if endpoint.answers_as and facts.model and facts.model != endpoint.answers_as:
            return f"its answers call it {facts.model!r}, and called it {endpoint.answers_as!r}"
        return ""

    # -- while it runs

    async def ask(
        self, texts: Texts, *, truncate: bool = False, alone: bool = False
    ) -> tuple[Endpoint, Answers | RequestFailed]:
        """Send one request once, where there is a slot; return which endpoint was asked, and what came of it.

        Raises:
            ServerGone: no server has answered for `server.wait_s`.
            Misconfigured: a server has another model now, or no endpoint is left.
        """
        while True:
            async with self.slots.take(len(texts), alone=alone) as endpoint:
                sent_at, reconnects = shared_time(), endpoint.client.reconnects
                try:
                    answers = await endpoint.ask(texts, truncate=truncate)
                except Misconfigured as wrong:
                    self.drop(endpoint, wrong)
                    continue
                except Rejected as refused:
                    self._note_refusal(refused, len(texts))
                    return endpoint, refused
                except RequestFailed as failed:
                    self._note(endpoint, failed, len(texts), sent_at)
                    return endpoint, failed
                # A connection broke meanwhile: is this the answer of the same server?
                if endpoint.is_doubtful or endpoint.client.reconnects > reconnects:
                    unsure = Unreachable("another connection broke before this answer came", server=endpoint.shown)
                    if not await self.is_well(endpoint, unsure):
                        return endpoint, unsure
                self._failing_since = None
                self._progress.end_waiting()
                now = shared_time()
                endpoint.limiter.succeeded(sent_at, now)
                self.batch_size.succeeded(len(texts), now)
                return endpoint, answers

    def _note_refusal(self, refused: Rejected, texts: int) -> None:
        """Let a refusal have its effect on the size of requests."""
        if not refused.is_doubtful:
            self._failing_since = None  # the server is there, and it read the request
        if refused.most_texts is None:
            self.batch_size.failed(texts)
        else:
            self.batch_size.limit(max(1, min(refused.most_texts, texts - 1)))

    def _note(self, endpoint: Endpoint, failed: RequestFailed, texts: int, sent_at: float) -> None:
        """Let a failure have its effect on limits and health."""
        self._stop_if_gone(failed)
        self.batch_size.failed(texts)
        if isinstance(failed, ConnectionLost):
            self.check(endpoint, failed)
        if isinstance(failed, Overloaded) and endpoint.limiter.refused(sent_at, shared_time()):
            self.batch_size.refused(texts)

    async def wait(self, delay: float, error: RequestFailed) -> None:
        """Sleep before the next attempt, but no longer than servers are waited for, whatever the server asked for."""
        until = time.monotonic() + min(delay, self._config.server.wait_s + SHORTEST_PAUSE_S)
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(left)
            if self._failing_since is not None and time.monotonic() < until:
                self._stop_if_gone(error)
                self.slots.raise_if_stopped()

    # -- health checks, quarantine and watch

    async def is_well(self, endpoint: Endpoint, error: RequestFailed) -> bool:
        """Return whether the endpoint answers the canary after a failure; if so, the request itself is suspect.

        One health check serves all that ask at the same time.
        """
        if endpoint.is_quarantined:
            return False
        return await asyncio.shield(self.check(endpoint, error))

    def _stop_if_gone(self, error: RequestFailed) -> None:
        """Note a failure; stop the run if no server has answered for longer than `server.wait_s`."""
        now, wait_s = time.monotonic(), self._config.server.wait_s
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > wait_s:
            advice = "what was answered is kept, run the same command again when the server is back"
            self.slots.stop(ServerGone(f"no server answered for {wait_s:g} s ({error}); {advice}"))

    def check(self, endpoint: Endpoint, error: RequestFailed) -> asyncio.Future[bool]:
        """Begin a health check after `error`, or join the one under way; it gives whether the endpoint is well.

        After a lost connection the endpoint is in doubt until the canary passes: another server with another model may
        be there now. Nothing is sent to it, and no answer of it is used.
        """
        is_doubtful = isinstance(error, ConnectionLost)
        if endpoint.health_check is None or (is_doubtful and not endpoint.is_doubtful):
            # A check that was under way may have asked whatever was there before.
            endpoint.health_check = self._begin(self._check(endpoint, error))
            endpoint.is_doubtful |= is_doubtful
        return endpoint.health_check

    async def _check(self, endpoint: Endpoint, error: RequestFailed) -> bool:
        try:
            await self._identify(endpoint)
            if endpoint.health_check is asyncio.current_task():  # else a later one decides
                endpoint.is_doubtful = False
        except RequestFailed as sick:
            self.quarantine(endpoint)
            again = "" if sick.reason == error.reason else f"; and then: {sick.reason}"
            then = f"waiting up to {self._config.server.wait_s:g} s for it, no row is lost"
            if not self._are_all_quarantined:
                then = "going on without it until it answers"
            self._progress.notice(f"{endpoint.with_address(error)}{again}; {then}", f"{endpoint.shown} is gone")
            return False
        except UserError as wrong:
            self.drop(endpoint, wrong)
            return False
        finally:
            if endpoint.health_check is asyncio.current_task():
                endpoint.health_check = None
            self.slots.wake_all()
        return True

    def quarantine(self, endpoint: Endpoint) -> None:
        """Send it nothing but the canary, until that passes."""
        if not endpoint.is_quarantined:  # else it is watched already, or was dropped
            endpoint.is_quarantined = True
            if self._are_all_quarantined:
                self._progress.begin_waiting(self._config.server.wait_s)
            self.slots.wake_all()
            self._begin(self._watch(endpoint))

    @property
    def _are_all_quarantined(self) -> bool:
        return all(each.is_quarantined for each in self.all)

    async def _watch(self, endpoint: Endpoint) -> None:
        attempt = 0
        while endpoint.is_quarantined:
            attempt += 1
            await asyncio.sleep(max(SHORTEST_PAUSE_S, backoff(attempt, self._config.retry)))
            try:
                await self._identify(endpoint)
                endpoint.is_quarantined = False
                endpoint.is_doubtful &= endpoint.health_check is not None  # a check under way began later
            except RequestFailed as sick:
                if self._are_all_quarantined:
                    self._stop_if_gone(sick)
            except UserError as wrong:
                return self.drop(endpoint, wrong)
        self._progress.end_waiting()
        self._progress.notice(f"{endpoint.shown} answers again", f"{endpoint.shown} is back")
        self.slots.wake_all()
        return None

    def drop(self, endpoint: Endpoint, error: UserError) -> None:
        """Ask it nothing any more; stop the run if it has another model, or if no endpoint is left."""
        if endpoint not in self.all:
            return  # dropped for another request that was in flight
        endpoint.is_quarantined = True
        self.all.remove(endpoint)
        if not self.all or isinstance(error, ModelChanged):
            self.slots.stop(error)
        else:
            self._progress.notice(f"{endpoint.with_address(error)}; going on without it")

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Let it go on beside the requests; the end of the context ends it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
