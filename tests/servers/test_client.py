"""One endpoint over a real socket: where requests go, what they carry, and which failure is which."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from fake import FakeServer, refuse, reply
from sockets import BODY, LARGEST, client, count_body, raw

from pipeline.errors import ConfigError


@contextlib.asynccontextmanager
async def recorder() -> AsyncIterator[tuple[int, list[web.Request]]]:
    """A server that answers {} to everything and keeps the requests."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request)
        return web.Response(text="{}")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


# -- where it goes and what it carries


@pytest.mark.parametrize(
    ("path", "asked", "beside"),
    [
        ("", "/classify", "/v1/models"),
        ("/", "/classify", "/v1/models"),
        ("/classify", "/classify", "/v1/models"),
        ("/team/classify", "/team/classify", "/team/v1/models"),
        ("/api/score", "/api/score", "/api/score/v1/models"),
        ("/my%20route/a%2Fb/classify", "/my%20route/a%2Fb/classify", "/my%20route/a%2Fb/v1/models"),
        ("/classify?version=2024-10&x=%2F", "/classify?version=2024-10&x=%2F", "/v1/models"),
    ],
)
async def test_a_url_with_a_path_is_taken_as_it_is(path: str, asked: str, beside: str) -> None:
    """A base URL gets /classify; a full URL is asked byte for byte; /v1/models is looked for beside it."""
    async with recorder() as (port, seen), client(f"http://127.0.0.1:{port}{path}") as endpoint:
        await endpoint.post(BODY, LARGEST)
        await endpoint.get("/v1/models")
    assert [request.raw_path for request in seen] == [asked, beside]
    assert [request.method for request in seen] == ["POST", "GET"]


async def test_a_request_carries_its_body_its_key_and_its_headers(fake: FakeServer) -> None:
    """JSON, uncompressed, with the bearer and the headers of the config."""
    async with client(fake.url, key="s3cret", headers={"X-Team": "search"}) as endpoint:
        reply = await endpoint.post(BODY, LARGEST)
    assert reply.status == 200
    (seen,) = fake.requests
    assert seen.texts == ["a"]
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Authorization"] == "Bearer s3cret"
    assert seen.headers["X-Team"] == "search"
    assert seen.headers.get("Accept-Encoding", "identity") == "identity"


async def test_the_bearer_goes_to_v1_models_too() -> None:
    """--api-key of vLLM guards only /v1: the key is sent everywhere."""
    async with recorder() as (port, seen), client(f"http://127.0.0.1:{port}", key="k") as endpoint:
        await endpoint.get("/v1/models")
    assert seen[0].headers["Authorization"] == "Bearer k"


async def test_a_header_of_the_config_replaces_ours() -> None:
    """Whatever its spelling, a configured header stands once and wins."""
    headers = {"authorization": "Token t", "content-type": "application/json; charset=utf-8"}
    async with recorder() as (port, seen), client(f"http://127.0.0.1:{port}", key="k", headers=headers) as endpoint:
        await endpoint.post(BODY, LARGEST)
    assert seen[0].headers.getall("Authorization") == ["Token t"]
    assert seen[0].headers.getall("Content-Type") == ["application/json; charset=utf-8"]


async def test_the_password_of_a_url_is_sent_and_never_shown() -> None:
    """user:password in a URL goes as basic authorization; what people see has ***."""
    async with recorder() as (port, seen), client(f"http://user:pa55@127.0.0.1:{port}") as endpoint:
        await endpoint.post(BODY, LARGEST)
        assert endpoint.shown == f"http://user:***@127.0.0.1:{port}"
    assert seen[0].headers["Authorization"].startswith("Basic ")


async def test_a_password_in_the_url_and_a_key_are_no_bug() -> None:
    """Both a key in the environment and a password in the URL: a request goes out, or a person is told."""
    async with recorder() as (port, seen):
        with contextlib.suppress(ConfigError):
            async with client(f"http://user:pa55@127.0.0.1:{port}", key="k") as endpoint:
                await endpoint.post(BODY, LARGEST)
            assert len(seen) == 1


async def test_a_large_body_arrives_whole() -> None:
    """A request of several megabytes is sent in one piece of truth."""
    body = b'"' + b"x" * (5 << 20) + b'"'
    async with raw(count_body) as port, client(f"http://127.0.0.1:{port}") as endpoint:
        assert (await endpoint.post(body, LARGEST)).body == str(len(body)).encode()


async def test_a_redirect_is_not_followed(fake: FakeServer) -> None:
    """A 302 to another host comes back as it is: the key never reaches that host."""
    async with recorder() as (port, seen):
        fake.script.append(reply(302, "", Location=f"http://127.0.0.1:{port}/classify"))
        async with client(fake.url, key="s3cret") as endpoint:
            answer = await endpoint.post(BODY, LARGEST)
    assert answer.status == 302
    assert str(port) in answer.headers["Location"]
    assert seen == []


async def test_a_connection_is_used_again() -> None:
    """Requests one after the other share one connection."""
    peers = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(len(BODY))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with raw(answer) as port, client(f"http://127.0.0.1:{port}") as endpoint:
        for _ in range(5):
            assert (await endpoint.post(BODY, LARGEST)).body == b"{}"
    assert len(peers) == 1


async def test_an_error_status_is_a_reply(fake: FakeServer) -> None:
    """What a status means is not decided here."""
    fake.script.append(refuse(503, "queue is full", Retry_After="3"))
    async with client(fake.url) as endpoint:
        answer = await endpoint.post(BODY, LARGEST)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
    assert b"queue is full" in answer.body
