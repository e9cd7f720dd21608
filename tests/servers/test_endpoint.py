"""One endpoint: where its requests go, and what the server's answers make of the address and the config."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from commands import Command
from fake import FakeServer, refuse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sockets import client, recorder

from pipeline.answers import Answers, Floats, Labels
from pipeline.config import Config
from pipeline.errors import BadAnswer, Misconfigured
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import Client
from pipeline.servers.dialect import DEFAULT
from pipeline.servers.dialects.oip import Oip
from pipeline.servers.dialects.vllm import MODELS
from pipeline.servers.embedded_apis import OipApi
from pipeline.servers.endpoint import Endpoint, activated, base_of, model_in
from pipeline.servers.model import ModelFacts
from pipeline.texts import escape_all


def endpoint(asked: Client) -> Endpoint:
    """Make an endpoint as a run does."""
    return Endpoint(asked, DEFAULT, Config(), ModelFacts(), Progress("quiet"))


@pytest.mark.parametrize(
    ("path", "asked", "beside"),
    [
        ("", "/classify", "/v1/models"),
        ("/", "/classify", "/v1/models"),
        ("/classify", "/classify", "/v1/models"),
        ("/classify/", "/classify/", "/v1/models"),
        ("/team/classify", "/team/classify", "/team/v1/models"),
        ("/api/score", "/api/score", "/api/score/v1/models"),
        ("/my%20route/a%2Fb/classify", "/my%20route/a%2Fb/classify", "/my%20route/a%2Fb/v1/models"),
        ("/classify?version=2024-10&x=%2F", "/classify?version=2024-10&x=%2F", "/v1/models"),
    ],
)
async def test_a_url_with_a_path_is_taken_as_it_is(path: str, asked: str, beside: str) -> None:
    """A base URL gets /classify; a full URL is asked byte for byte; /v1/models is looked for beside it."""
    async with recorder() as (port, seen), client(f"http://127.0.0.1:{port}{path}") as session:
        server = endpoint(session)
        with contextlib.suppress(BadAnswer):  # the recorder is no classifier
            await server.ask(escape_all(["a"]))
        await server.find_model()
    version = beside.replace("/v1/models", "/version")
    assert [request.raw_path for request in seen] == [asked, beside, version]
    assert [request.method for request in seen] == ["POST", "GET", "GET"]


@pytest.mark.parametrize(
    ("given", "path", "base"),
    [
        ("/team/v2/models/bert/infer", "/v2/models/{model}/infer", "/team"),
        ("/team/v2/models/a/b/infer", "/v2/models/{model}/infer", "/team/v2/models/a/b/infer"),
        ("/v1/models/bert:predict", "/v1/models/{model}:predict", ""),
        ("/", "/", ""),
        ("/team/", "/", "/team"),
    ],
)
def test_the_base_of_a_full_url_is_what_stands_before_the_dialect_s_path(given: str, path: str, base: str) -> None:
    """With the model's name in the path, and for servers that are asked at the base itself."""
    assert base_of(given, path) == base


async def test_a_404_beside_a_list_of_models_means_that_the_model_is_no_classifier(fake: FakeServer) -> None:
    """By the status alone: another refusal that speaks of a 404 is told as it is."""
    fake.script += [refuse(404, "Not Found"), refuse(403, "upstream said HTTP 404: Not Found")]
    async with client(fake.url) as session:
        with pytest.raises(Misconfigured, match="serves fake, but not as a classifier") as caught:
            await endpoint(session).identify()
        assert caught.value.status == web.HTTPNotFound.status_code
        with pytest.raises(Misconfigured, match=r"HTTP 403: .*VLLM_API_KEY"):
            await endpoint(session).identify()


@pytest.mark.parametrize(
    ("entries", "asked"),
    [
        ([{"id": "base"}, {"id": "lora", "parent": "base"}], "base"),
        ([{"id": "lora", "parent": "base"}, {"id": "base", "parent": None}, {"id": "l2", "parent": "base"}], "base"),
        ([{"id": "one"}, {"id": "two"}], None),
        ([{"id": "l1", "parent": "base"}, {"id": "l2", "parent": "base"}], None),
        ([{"id": "lora", "parent": "base"}], "lora"),
    ],
)
async def test_of_adapters_and_their_base_the_base_is_asked(entries: list[dict[str, Any]], asked: str | None) -> None:
    """It is the one without a parent; of several bases one must be chosen."""
    replies = {MODELS: json.dumps({"data": entries}).encode()}
    async with client("http://127.0.0.1:1") as session:
        server = endpoint(session)
        if asked is None:
            with pytest.raises(Misconfigured, match="choose one with --model"):
                server._learn(replies, None)
        else:
            server._learn(replies, None)
            assert server.model == asked
        server._learn(replies, entries[-1]["id"])
        assert server.model == entries[-1]["id"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/v2/models/bert/infer", "bert"),
        ("/team/v2/models/a%2Fb/versions/3/infer/", "a/b"),
        ("/v2/models/{model}/infer", None),
        ("/v2/models/bert", None),
    ],
)
def test_the_path_of_a_url_may_name_the_model(given: str, name: str | None) -> None:
    """Where the dialect's path has the model's name in it."""
    assert model_in(given, Oip()) == name


async def test_a_url_is_completed_with_the_name_of_the_model(tmp_path: Path, classify: Command) -> None:
    """`{model}` in it stands for that, as in the paths of the protocol."""
    (tmp_path / "in.csv").write_text("text\na\n")
    with FakeServer(api=OipApi("triton")) as server:
        url = f"{server.url}/v2/models/{{model}}/infer"
        done = await asyncio.to_thread(classify, "run", "in.csv", "--url", url, "--model", "fake", "--quiet")
    assert "1 labelled" in done.stderr


@given(
    logits=arrays(
        np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-1e6, 1e6, allow_nan=False)
    )
)
def test_probabilities_that_are_made_here_are_those_of_the_logits(logits: Floats) -> None:
    """A softmax sums to 1, each sigmoid is its own; the label stays that of the largest."""
    best = logits.argmax(axis=1)
    labels = Labels([str(index) for index in range(logits.shape[1])])
    given = Answers(labels, best.astype(np.int32), logits.max(axis=1), logits)
    softmax = activated(given, "softmax", keeps_probs=True)
    exact = np.array([[math.exp(value - max(row)) for value in row] for row in logits.tolist()])
    assert np.allclose(softmax.probs_or_nan(1), exact / exact.sum(axis=1, keepdims=True))
    sigmoid = activated(given, "sigmoid", keeps_probs=True)
    assert np.allclose(sigmoid.probs_or_nan(1), [[0.5 * (1 + math.tanh(value / 2)) for value in row] for row in logits])
    for found in (softmax, sigmoid):
        assert found.ids.tolist() == best.tolist()
        assert found.scores.tolist() == found.probs_or_nan(1).max(axis=1).tolist()
    assert activated(given, "sigmoid", keeps_probs=False).probs is None
