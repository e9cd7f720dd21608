"""One HTTP client of a run, and servers that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine

from aiohttp import web

from pipeline.config import Server
from pipeline.servers.client import Client
from pipeline.servers.dialects.vllm import Vllm

BODY = b'{"input": ["a"]}'
PATH = Vllm.path
LARGEST = 1 << 20
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


def client(url: str, *, key: str = "", headers: dict[str, str] | None = None, timeout_s: float = 5.0) -> Client:
    """Make a client as a run does."""
    server = Server(url=url, headers=headers or {}, timeout_s=timeout_s)
    return Client(url, server, server.request_headers({"VLLM_API_KEY": key} if key else {}), Vllm.headers)


@contextlib.asynccontextmanager
async def raw(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server that does on its socket whatever `handler` does; yield its port."""
    running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running[asyncio.ensure_future(handler(reader, writer))] = writer

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task, writer in running.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*running, *(writer.wait_closed() for writer in running.values()), return_exceptions=True)


@contextlib.asynccontextmanager
async def recorder() -> AsyncIterator[tuple[int, list[web.Request]]]:
    """Run a server that answers {} to everything; yield its port and the requests it was sent."""
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


async def count_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the number of bytes in the request's body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    said = str(len(await reader.readexactly(length))).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
    await writer.drain()
    writer.close()
