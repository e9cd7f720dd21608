"""The servers of a run: which answers are used when one of them breaks, and when one is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from answers import labels_of
from fake import Action, FakeServer, label_of, reset

from pipeline.answers import Answers
from pipeline.config import Config, Request, Retry
from pipeline.errors import ConnectionLost, Misconfigured, ModelChanged, RequestFailed, TimedOut
from pipeline.monitoring.progress import Progress
from pipeline.servers.model import CANARY
from pipeline.servers.pool import Endpoints
from pipeline.texts import escape_all


@asynccontextmanager
async def connected(*servers: FakeServer) -> AsyncIterator[Endpoints]:
    """Connect to servers as a run does, with slots for several requests and short pauses."""
    config = Config(request=Request(concurrency=4), retry=Retry(base_delay_s=0.1, max_delay_s=0.1))
    async with Endpoints(config, [each.url for each in servers], {}, Progress("quiet")) as endpoints:
        await endpoints.connect()
        yield endpoints


def late(server: FakeServer, seconds: float) -> Action:
    """Answer rightly after some seconds."""

    async def act(_: web.Request, texts: list[str]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(server.answer(texts))

    return act


async def answered_while_another_breaks(fake: FakeServer, **change: Any) -> Any:
    """Break one of two requests in flight; the server changes, answers the other one, and only then the canary."""
    async with connected(fake) as endpoints:
        (endpoint,) = endpoints.all
        fake.rules += [("slow".__eq__, late(fake, 0.4)), ("broken".__eq__, reset())]
        fake.rules.append((CANARY[0].__eq__, late(fake, 0.8)))
        slow = asyncio.ensure_future(endpoints.ask(escape_all(["slow"])))
        await asyncio.sleep(0.1)
        for name, value in change.items():
            setattr(fake, name, value)
        _, failed = await endpoints.ask(escape_all(["broken"]))
        assert isinstance(failed, ConnectionLost)
        assert endpoint.is_doubtful
        _, outcome = await slow
        if change:
            assert endpoint.is_doubtful
            with pytest.raises(ModelChanged):
                await endpoints.ask(escape_all(["next"]))
        return outcome


async def test_no_answer_of_another_model_is_used_when_a_connection_breaks(fake: FakeServer) -> None:
    """An answer that comes while it is not known which model is there now waits for the canary."""
    assert isinstance(await answered_while_another_breaks(fake, weights="other"), RequestFailed)


async def test_an_answer_of_the_same_model_is_used_when_another_connection_breaks(fake: FakeServer) -> None:
    """The canary passes, so what came meanwhile is ours."""
    outcome = await answered_while_another_breaks(fake)
    assert isinstance(outcome, Answers)
    assert labels_of(outcome) == [label_of("slow")]


async def test_an_endpoint_in_quarantine_has_one_watch(fake: FakeServer) -> None:
    """Failures of several requests in flight ask for the same quarantine, which one canary ends."""
    async with connected(fake) as endpoints:
        (endpoint,) = endpoints.all
        asked = len(fake.requests)
        for _ in range(5):
            endpoints.quarantine(endpoint)
        assert not await endpoints.is_well(endpoint, TimedOut("no answer"))
        _, outcome = await endpoints.ask(escape_all(["a"]))
    assert isinstance(outcome, Answers)
    assert [seen.texts for seen in fake.requests[asked:]] == [list(CANARY), ["a"]]


async def test_an_endpoint_that_was_dropped_is_asked_nothing_any_more(fake: FakeServer) -> None:
    """Not even the canary, whatever its last requests come to."""
    with FakeServer() as other:
        async with connected(fake, other) as endpoints:
            first, second = endpoints.all
            asked = len(fake.requests)
            endpoints.drop(first, Misconfigured("no key"))
            endpoints.quarantine(first)
            await asyncio.sleep(1.2)
            assert endpoints.all == [second]
            assert len(fake.requests) == asked
