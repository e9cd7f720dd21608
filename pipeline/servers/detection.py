"""Which dialect a server speaks, found out by GETs alone: no text is sent to a server that is not known.

`/v1/models` comes first, and is all that vLLM, SGLang and KServe are asked: `/health` of SGLang runs its model, and an
application of one's own at "/" is run by every path. What a URL itself says decides before that, the usual path of a
dialect when nothing else does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import RequestFailed
from pipeline.servers.client import OK, Reply
from pipeline.servers.dialects.kserve import model_names
from pipeline.servers.dialects.oip import ServerInfo
from pipeline.servers.dialects.tei import Info
from pipeline.servers.dialects.vllm import models_in
from pipeline.servers.model import decoded

MODELS, INFO, INFINITY_MODELS, OIP, SGLANG_INFO, HEALTH = (
    "/v1/models",
    "/info",
    "/models",
    "/v2",
    "/model_info",
    "/health",
)
LONGEST_S = 5.0  # for a server to answer one GET
BUSY = (429, 503)
# Paths that belong to one dialect.
OF_OIP = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer/?$")
OF_KSERVE = re.compile(r"/v1/models/[^/]+:predict/?$")
# Paths where requests go; what stands before them is the base.
OF_REQUESTS = re.compile(rf"(?:/v1/classify|/classify|/predict|/invocations|{OF_OIP.pattern}|{OF_KSERVE.pattern})/?$")
Get = Callable[[str], Awaitable[Reply]]


class Found(NamedTuple):
    """The name of a dialect, and how sure that is."""

    name: str
    is_sure: bool = True
    is_busy: bool = False  # a GET was answered with "too busy", which may have hidden who the server is


async def detect(get: Get, path: str) -> Found:
    """Find the dialect of the server that `get` asks, by paths beside the root; `path` is that of the URL given.

    Raises:
        RequestFailed: it is not there.
    """
    for pattern, name in ((OF_OIP, "oip"), (OF_KSERVE, "kserve")):
        if pattern.search(path):
            return Found(name)
    base = OF_REQUESTS.sub("", path.rstrip("/"))
    first = await _ask(get, base + MODELS)
    if name := dialect_of({MODELS: first.body} if first.status == OK else {}):
        return Found(name)
    others = (INFO, INFINITY_MODELS, OIP, SGLANG_INFO, HEALTH)
    found = await asyncio.gather(*(_ask(get, base + beside) for beside in others), return_exceptions=True)
    for problem in found:
        if isinstance(problem, BaseException) and not isinstance(problem, RequestFailed):
            raise problem
    pairs = zip((MODELS, *others), (first, *found), strict=True)
    replies = {beside: reply for beside, reply in pairs if isinstance(reply, Reply)}
    if name := dialect_of({beside: reply.body for beside, reply in replies.items() if reply.status == OK}):
        return Found(name)
    is_busy = any(reply.status in BUSY for reply in replies.values())
    return Found(usual_for(path), is_sure=False, is_busy=is_busy)


async def _ask(get: Get, path: str) -> Reply:
    """Ask for a path; what takes too long is no answer."""
    try:
        async with asyncio.timeout(LONGEST_S):
            return await get(path)
    except TimeoutError:
        return Reply(0, {}, b"")


def dialect_of(bodies: Mapping[str, bytes]) -> str:
    """Return the name of the dialect that some answers of 200 give away, by their paths; empty if they don't."""
    owners = [entry.owned_by for path in (MODELS, INFINITY_MODELS) for entry in models_in(bodies.get(path))]
    for owner in ("vllm", "sglang", "infinity"):
        if owner in owners:
            return owner
    if model_names(bodies.get(MODELS)):
        return "kserve"
    if decoded(Info, bodies.get(INFO)):
        return "tei"
    if decoded(ServerInfo, bodies.get(OIP)):
        return "oip"
    if decoded(SglangInfo, bodies.get(SGLANG_INFO)):
        return "sglang"
    return "hf" if bodies.get(HEALTH, b"").strip(b'"') == b"Ok" else ""


def usual_for(path: str) -> str:
    """Return the dialect that a server behind a gateway most likely speaks, by the path of its URL alone."""
    if path.endswith("/v1/classify"):
        return "sglang"
    return "hf" if path.rstrip("/").endswith(("/predict", "/invocations")) else "vllm"


def form_of(body: bytes, texts: int) -> str:
    """Return which options fit an answer to so many texts, by its form alone; empty if that can't be told."""
    tree: Any = decoded(object, body)
    lists = {
        name: value
        for name, value in (tree.items() if isinstance(tree, dict) else [("", tree)])
        if isinstance(value, list) and len(value) == texts
    }
    if len(lists) != 1:
        return ""
    ((name, items),) = lists.items()
    if name == "data":
        return "--api infinity" if all(isinstance(item, list) for item in items) else "--api vllm"
    return f"--api json --set request.answer={name}" if name else "--api json"


class SglangInfo(msgspec.Struct):
    """What of SGLang's `GET /model_info` no other server has."""

    is_generation: bool
    model_path: str
