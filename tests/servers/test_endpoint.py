"""One endpoint: where its requests go, and what the server's answers make of the address and the config."""

from __future__ import annotations

import contextlib

import pytest
from aiohttp import web
from fake import FakeServer, refuse
from sockets import client, recorder

from pipeline.config import Config
from pipeline.errors import BadAnswer, Misconfigured
from pipeline.monitoring.progress import Progress
from pipeline.servers.client import Client
from pipeline.servers.dialect import DEFAULT
from pipeline.servers.endpoint import Endpoint, base_of
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
