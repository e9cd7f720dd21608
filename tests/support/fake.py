"""A scriptable server for the whole suite, nastier than the real one: vLLM's /classify with shuffled indexes.

What it answers can be recomputed from the text (`label_of`), what it was asked is written down (`requests`), and what
it does wrong is scripted: `script` for the next requests in turn, `rules` for whatever holds a certain text.
It is a real server on a real socket, in a thread of its own. With `api` it speaks as another server does.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiohttp import web

from pipeline.servers.embedded_apis import About, Api, Cause, Refused

LABELS = ("negative", "neutral", "positive")
Action = Callable[[web.Request, list[str]], Awaitable[web.StreamResponse]]


def probs_of(text: str, classes: int = len(LABELS)) -> list[float]:
    """What the fake's model says of a text: a function of its bytes, in numbers that float32 has."""
    crc = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    weights = [1 + (crc >> (7 * index)) % 127 + (crc + index) % 3 for index in range(classes)]
    # A tie would leave the label open.
    weights[crc % classes] += 200
    return [float(np.float32(weight / sum(weights))) for weight in weights]


def own_values_of(text: str, classes: int = len(LABELS)) -> list[float]:
    """What a model with several labels a text says: of each class by itself, in quarters, so that many are equal."""
    crc = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    return [(crc >> (5 * index)) % 5 / 4 for index in range(classes)]


def label_of(text: str) -> str:
    """The label that belongs to the largest value."""
    probs = probs_of(text)
    return LABELS[probs.index(max(probs))]


def score_of(text: str) -> float:
    """The largest value."""
    return max(probs_of(text))


HELD_LOOK_S = 0.02


@dataclass
class Seen:
    """One request that came in."""

    texts: list[str]
    body: dict[str, Any]
    headers: dict[str, str]
    path: str = "/classify"


@dataclass
class FakeServer:
    """The server; a context manager. All settings may be changed while it runs."""

    port: int = 0
    model: str | None = "fake"  # None: no /v1/models, and no name in the answers
    labels: tuple[str | None, ...] = LABELS
    latency_s: float = 0.0
    slots: int | None = None  # requests served at once; the others wait
    hold_after: int | None = None  # texts answered before all further requests wait, until it is None again
    queue_texts: int | None = None  # texts held at once before a 503
    shuffle: bool = True
    script: deque[Action] = field(default_factory=deque)
    rules: list[tuple[Callable[[str], bool], Action]] = field(default_factory=list)
    each: Callable[[list[str]], Action | None] = lambda _: None  # asked for every request without script and rule
    values_of: Callable[[str, int], list[float]] = probs_of
    weights: str = ""  # mixed into every text: other weights behind the same name
    api_key: str | None = None
    has_pooling: bool = True  # vLLM's other way to ask
    api: Api | None = None  # None: vLLM's
    most_texts: int = 32  # in a request, where `api` says how many
    texts_in_flight: int = 512  # the same, of all requests
    requests: list[Seen] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)  # text -> times it was answered
    most_at_once: int = 0

    def __enter__(self) -> Self:
        self._random = random.Random(7)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._now = self._held_texts = 0
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def texts(self) -> list[str]:
        """All texts received, canaries included."""
        return [text for seen in self.requests for text in seen.texts]

    def up(self) -> None:
        """Listen (again, on the same port)."""
        self._call(self._start())

    def down(self) -> None:
        """Close the port and break what is in flight."""
        self._call(self._stop())

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        if self.api is None:
            app.router.add_post("/classify", self._classify)
            app.router.add_post("/pooling", self._classify)
            app.router.add_get("/v1/models", self._models)
        else:
            for path in filter(None, (self.api.path, self.api.other_path)):
                app.router.add_post(path.replace("{model}", self.about.model), self._classify)
            for path, said in self.api.about(self.about).items():
                app.router.add_get(path, self._say(said))
            for path, said in self.api.posts_about(self.about).items():
                app.router.add_post(path, self._say(said))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._slots = asyncio.Semaphore(self.slots or 1 << 30)

    async def _stop(self) -> None:
        # asyncio (3.11) leaks a connection that it has accepted but not set up when its server is closed. So first no
        # more are accepted, then those that were are set up, and only then the server is closed.
        for site in self._runner.sites:
            for listening in getattr(site, "_server").sockets:  # noqa: B009 - private, and unknown to its types
                self._loop.remove_reader(listening.fileno())
        await asyncio.sleep(0.02)
        await self._runner.cleanup()
        await asyncio.sleep(0.02)  # the loop closes the sockets a little later

    @property
    def about(self) -> About:
        """What a server says of itself that speaks `api`."""
        labels = [label or f"LABEL_{index}" for index, label in enumerate(self.labels)]
        return About(self.model or "", labels, 512, self.most_texts, self.texts_in_flight)

    def _say(self, said: Any) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
                return web.Response(status=401)
            return web.Response(text=said) if isinstance(said, str) else web.json_response(said)

        return handler

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        if self.model is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response(
            {
                "object": "list",
                "data": [
                    {"id": self.model, "owned_by": "vllm", "max_model_len": 512, "created": self._random.random()}
                ],
            }
        )

    async def _classify(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        is_pooling = self.api is None and request.path == "/pooling"
        if is_pooling and not self.has_pooling:
            return web.json_response({"detail": "Not Found"}, status=404)
        try:
            texts = body["input"] if self.api is None else self.api.asked(body, self.about).texts
        except Refused as why:
            return await refused(self, why.cause, count=why.count)(request, [])
        self.requests.append(Seen(texts, body, dict(request.headers), request.path))
        action = self._action_for(texts)
        if self.queue_texts is not None and self._held_texts + len(texts) > self.queue_texts:
            action = refuse(503, "queue is full")
        self._held_texts += len(texts)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            async with self._slots:
                await asyncio.sleep(self.latency_s)
                while self.hold_after is not None and self.answered.total() >= self.hold_after:  # noqa: ASYNC110 - set from other threads
                    await asyncio.sleep(HELD_LOOK_S)
                if action is not None:
                    return await action(request, texts)
                self.answered.update(texts)
                if is_pooling:
                    return self.pooled(texts)
                return web.json_response(self.answer(texts, body))
        finally:
            self._now -= 1
            self._held_texts -= len(texts)

    def _action_for(self, texts: list[str]) -> Action | None:
        if self.script:
            return self.script.popleft()
        for matches, action in self.rules:
            if any(matches(text) for text in texts):
                return action
        return self.each(texts)

    def pooled(self, texts: list[str], change: Callable[[Any], Any] = lambda values: values) -> web.Response:
        """The right answer in plain numbers; `change` is done to them, shape (texts, classes)."""
        values = np.array([probs_of(self.weights + text, len(self.labels)) for text in texts], "<f4")
        return web.Response(body=change(values).tobytes(), content_type="application/octet-stream")

    def answer(self, texts: list[str], asked: Any = None) -> Any:
        """The right answer to some texts; `asked` is the body of the request, which some servers look at."""
        if self.api is not None:
            rows = [self.values_of(self.weights + text, len(self.labels)) for text in texts]
            return self.api.answer(asked or {}, rows, self.about)
        items = []
        for index, text in enumerate(texts):
            probs = self.values_of(self.weights + text, len(self.labels))
            label = self.labels[probs.index(max(probs))]
            items.append({"index": index, "label": label, "probs": probs, "num_classes": len(probs)})
        if self.shuffle:
            self._random.shuffle(items)
        return {"id": "classify-1", "object": "list", "created": 1, "model": self.model or "", "data": items}


# -- what it can do wrong


def reply(status: int, body: bytes | str, **headers: str) -> Action:
    """Answer with these bytes."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def act(_: web.Request, __: list[str]) -> web.StreamResponse:
        return web.Response(status=status, body=content, headers=named)

    return act


def refuse(status: int, message: str, **headers: str) -> Action:
    """Answer with an error as vLLM words it."""
    body = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}
    return reply(status, json.dumps(body), Content_Type="application/json", **headers)


def refused(server: FakeServer, cause: Cause, guilty: Callable[[str], bool] = bool, count: int = 0) -> Action:
    """Refuse as `server.api` words it, for the first text that is `guilty`."""

    async def act(request: web.Request, texts: list[str]) -> web.StreamResponse:
        assert server.api is not None
        position = next((index for index, text in enumerate(texts) if guilty(text)), 0)
        status, body = server.api.refusal(Refused(cause, position, count), server.about)
        text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
        return await reply(status, text)(request, texts)

    return act


def too_long() -> Action:
    """What vLLM says to a text that is too long."""
    return refuse(400, "This model's maximum context length is 512 tokens. However, you requested 600 tokens.")


def hang(seconds: float = 3600.0) -> Action:
    """Say nothing for so long."""

    async def act(_: web.Request, __: list[str]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(status=500)

    return act


def reset() -> Action:
    """Break the connection without a word."""

    async def act(request: web.Request, _: list[str]) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    return act


def changed(server: FakeServer, change: Callable[[dict[str, Any]], Any]) -> Action:
    """The right answer after `change` was done to it; what `change` returns, if anything, is sent instead."""

    async def act(request: web.Request, texts: list[str]) -> web.StreamResponse:
        answer = server.answer(texts, json.loads(await request.read()))
        instead = change(answer)
        return web.Response(text=json.dumps(answer if instead is None else instead), content_type="application/json")

    return act


def cut(server: FakeServer) -> Action:
    """Half of the right answer, then the end of the connection."""

    async def act(request: web.Request, texts: list[str]) -> web.StreamResponse:
        body = json.dumps(server.answer(texts, json.loads(await request.read()))).encode()
        response = web.StreamResponse(headers={"Content-Length": str(len(body)), "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.abort()
        return response

    return act
