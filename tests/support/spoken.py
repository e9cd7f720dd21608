"""Every dialect with the server that speaks it: recorded exchanges of real servers, and what fakes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import Request
from pipeline.servers.dialect import DIALECTS, Dialect
from pipeline.servers.embedded_apis import (
    About,
    Api,
    HfApi,
    InfinityApi,
    KserveApi,
    OipApi,
    OwnJsonApi,
    SglangApi,
    TeiApi,
)
from pipeline.servers.model import Probe

SAMPLES = Path(__file__).parents[1] / "samples"
# What a fake speaks, the value of `server.api` for it, and whether it has a class order, so that outputs are the same.
APIS: dict[str, Api] = {
    "tei": TeiApi(),
    "infinity": InfinityApi(),
    "infinity below /v1": InfinityApi("/v1"),
    "sglang": SglangApi(),
    "hf": HfApi(),
    "kserve": KserveApi(),
    "mlserver": OipApi("mlserver"),
    "triton": OipApi("triton"),
    "kserve v2": OipApi("kserve"),
    "json": OwnJsonApi(),
}
NAMELESS = ("kserve", "kserve v2")  # writer.labels has the names
JSON_REQUEST = Request(field="inputs", answer="predictions")


class Sample(NamedTuple):
    """One recorded exchange."""

    method: str
    path: str
    asked: Any
    status: int
    headers: dict[str, str]
    body: bytes


def sample(server: str, name: str) -> Sample:
    """Return what a real server was asked, and what it answered."""
    found = json.loads((SAMPLES / server / f"{name}.json").read_text(encoding="utf-8"))
    body = found.get("body", "")
    # As they came: without spaces, as all of these servers write JSON.
    raw = body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
    asked = found["request"]
    return Sample(asked["method"], asked["path"], asked.get("body"), found["status"], found["headers"], raw)


def samples_of(server: str) -> dict[str, Sample]:
    """Return all recorded exchanges with a server, by their names."""
    return {path.stem: sample(server, path.stem) for path in sorted((SAMPLES / server).glob("*.json"))}


def dialect_for(api: Api, about: About, request: Request = JSON_REQUEST) -> Dialect:
    """Return the dialect that speaks to a server, with all that it learns from the probes that the server answers."""
    kind = DIALECTS[api.name](request)
    posts, gets = api.posts_about(about), api.about(about)
    replies: dict[Probe, bytes | None] = {}
    while wanted := [probe for probe in kind.probes(replies, None) if probe not in replies]:
        for probe in wanted:
            said = gets.get(probe.path) if probe.body is None else posts.get(probe.path)
            replies[probe] = None if said is None else json.dumps(said).encode()
    found = kind.served(replies, None).dialect
    return kind if found is None else found
