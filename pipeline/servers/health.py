"""The health of the endpoints of a run: what a failure says of a server, and when it may be asked again.

After a failure a health check sends the canary, fixed short texts that every model takes. Passed, the request that
failed is suspect; failed, the endpoint is in quarantine: it is sent nothing but the canary, again and again, until that
passes. An endpoint that answers as another model, or refuses our key, is dropped for the rest of the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pipeline.config import Config
from pipeline.errors import ConnectionLost, ModelChanged, RequestFailed, ServerGone, UserError
from pipeline.monitoring.progress import Progress
from pipeline.servers.endpoint import Endpoint
from pipeline.servers.retry import backoff
from pipeline.servers.slots import Slots

SHORTEST_PAUSE_S = 0.5  # between two canaries to a server that does not answer


class Health:
    """Health checks, quarantine and the watch over what is in quarantine; a context that ends them all.

    Args:
        endpoints: those of the run; what is dropped is removed from it.
        slots: told when an endpoint may no longer be asked, or may be asked again, and what ends the run.
        identify: sends the canary to an endpoint and compares its answer with the model of the run. It raises
            RequestFailed where the server is sick, UserError where it is of no use any more.
        config: `server.wait_s`, and the delays of `retry`.
        progress: is told what happens to endpoints.
    """

    def __init__(
        self,
        endpoints: list[Endpoint],
        slots: Slots,
        identify: Callable[[Endpoint], Awaitable[None]],
        config: Config,
        progress: Progress,
    ) -> None:
        self._endpoints, self._slots, self._identify = endpoints, slots, identify
        self._config, self._progress = config, progress
        self.failing_since: float | None = None  # since then no server has answered
        self._tasks: set[asyncio.Future[Any]] = set()  # health checks and watches under way

    async def close(self) -> None:
        """End all health checks and watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- how long no server has answered

    def answered(self) -> None:
        """Note that a server answered: the time that it is waited for starts anew."""
        self.failing_since = None

    def failed(self, error: RequestFailed) -> None:
        """Note a failure; stop the run if no server has answered for longer than `server.wait_s`."""
        now = time.monotonic()
        self.failing_since = now if self.failing_since is None else self.failing_since
        if now - self.failing_since > self._config.server.wait_s:
            self._slots.stop(
                ServerGone(
                    f"no server answered for {self._config.server.wait_s:g} s ({error}); what was answered is kept, "
                    f"run the same command again when the server is back"
                )
            )

    # -- health checks, quarantine and watch

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
            self._progress.notice(f"{endpoint.with_address(error)}; and then: {sick}; it is left alone for a while")
            self.quarantine(endpoint)
            return False
        except UserError as wrong:
            self.drop(endpoint, wrong)
            return False
        finally:
            if endpoint.health_check is asyncio.current_task():
                endpoint.health_check = None
            self._slots.wake_all()
        return True

    def quarantine(self, endpoint: Endpoint) -> None:
        """Send it nothing but the canary, until that passes."""
        if not endpoint.is_quarantined:  # else it is watched already, or was dropped
            endpoint.is_quarantined = True
            self._slots.wake_all()
            self._begin(self._watch(endpoint))

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
                if all(each.is_quarantined for each in self._endpoints):
                    self.failed(sick)
            except UserError as wrong:
                return self.drop(endpoint, wrong)
        self._progress.notice(f"{endpoint.shown} answers again")
        self._slots.wake_all()
        return None

    def drop(self, endpoint: Endpoint, error: UserError) -> None:
        """Ask it nothing any more; stop the run if it has another model, or if no endpoint is left."""
        if endpoint not in self._endpoints:
            return  # dropped for another request that was in flight
        endpoint.is_quarantined = True
        self._endpoints.remove(endpoint)
        if not self._endpoints or isinstance(error, ModelChanged):
            self._slots.stop(error)
        else:
            self._progress.notice(f"{endpoint.with_address(error)}; going on without it")

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Let it go on beside the requests; `close` ends it at the latest."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
