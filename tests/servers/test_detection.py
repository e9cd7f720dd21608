"""Which dialect a server speaks: told by recorded answers of real servers, by fakes, and by the path of a gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Command
from fake import FakeServer, refuse
from spoken import APIS, NAMELESS, samples_of

from pipeline.errors import Unreachable
from pipeline.servers.client import Reply
from pipeline.servers.detection import detect, form_of
from pipeline.servers.embedded_apis import InfinityApi, OwnJsonApi


def recorded(server: str, only: Callable[[str], bool] = lambda _: True) -> dict[str, Reply]:
    """Return what a real server answers to GETs, by path."""
    return {
        each.path: Reply(each.status, each.headers, each.body)
        for name, each in samples_of(server).items()
        if each.method == "GET" and only(name)
    }


async def found_in(replies: dict[str, Reply], path: str = "", asked: list[str] | None = None) -> tuple[str, bool, bool]:
    """Detect the dialect of a server that gives these answers, and 404 to other paths."""

    async def get(beside: str) -> Reply:
        if asked is not None:
            asked.append(beside)
        return replies.get(beside, Reply(404, {}, b""))

    return await detect(get, path)


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("infinity-0.0.78", "infinity"),
        ("sglang-0.5.23", "sglang"),
        ("huggingface-inference-toolkit-0.5.6", "hf"),
        ("kserve-0.21-huggingfaceserver", "kserve"),
        ("mlserver-1.7.1", "oip"),
        ("triton-2.51", "oip"),
        ("vllm-0.32", "vllm"),
    ],
)
async def test_real_servers_are_recognised(server: str, name: str) -> None:
    """By what they answered to GETs when they were recorded."""
    assert await found_in(recorded(server, lambda sample: not sample.startswith("prefixed"))) == (name, True, False)


@pytest.mark.parametrize("server", ["litserve-0.2.19", "ray-serve-2.60.0", "bentoml-1.4.40", "torchserve-0.12"])
async def test_what_is_no_known_server_is_guessed(server: str) -> None:
    """Servers for applications of any kind: nothing tells what they answer."""
    name, is_sure, _ = await found_in(recorded(server))
    assert (name, is_sure) == ("vllm", False)


async def test_one_get_is_enough_for_those_that_suffer_from_more() -> None:
    """SGLang's /health runs its model; vLLM and KServe need no other either."""
    for server in ("sglang-0.5.23", "vllm-0.32", "kserve-0.21-huggingfaceserver"):
        asked: list[str] = []
        await found_in(recorded(server), asked=asked)
        assert asked == ["/v1/models"]


@pytest.mark.parametrize(
    ("path", "name", "is_sure"),
    [
        ("/team/v2/models/bert/infer", "oip", True),
        ("/v2/models/bert/versions/3/infer", "oip", True),
        ("/v1/models/bert:predict", "kserve", True),
        ("/v1/classify", "sglang", False),
        ("/predict", "hf", False),
        ("/invocations", "hf", False),
        ("/classify", "vllm", False),
        ("", "vllm", False),
        ("/any/where", "vllm", False),
    ],
)
async def test_a_gateway_that_hides_everything_is_judged_by_the_path(path: str, name: str, *, is_sure: bool) -> None:
    """Some paths belong to one protocol, others to the most usual one."""
    assert await found_in({}, path) == (name, is_sure, False)


async def test_what_a_server_says_counts_more_than_a_path_that_several_have() -> None:
    """Infinity below /v1 has the path of SGLang."""
    replies = {"/below/v1/models": Reply(200, {}, json.dumps({"data": [{"id": "m", "owned_by": "infinity"}]}).encode())}
    assert await found_in(replies, "/below/v1/classify") == ("infinity", True, False)


async def test_a_server_that_is_too_busy_to_answer_is_not_known_yet() -> None:
    """A verdict from 503 would be one about a server that only starts."""
    assert await found_in({"/info": Reply(503, {}, b"")}) == ("vllm", False, True)


async def test_a_server_that_is_not_there_says_so() -> None:
    """As any request to it does."""

    async def get(_: str) -> Reply:
        raise Unreachable("connection refused")

    with pytest.raises(Unreachable):
        await detect(get, "")


@pytest.mark.parametrize("spoken", [name for name in APIS if name != "json"])
def test_every_fake_is_recognised_by_a_check(spoken: str, classify: Command, tmp_path: Path) -> None:
    """`check` names the dialect, the model, the classes, and where their order comes from."""
    (tmp_path / "in.csv").write_text("text\na\n")
    api = APIS[spoken]
    order = {"tei": "server", "sglang": "server", "hf": "server", "triton": "server"}.get(spoken, "name")
    with FakeServer(api=api) as server:
        shown = classify("check", "in.csv", "--url", server.url).stdout
        assert f'server.api = "{api.name}"' in shown
        assert "3 classes" in shown
        if spoken not in NAMELESS:
            where = {"server": "as the server has them", "name": "by name"}[order]
            assert f"names: negative, neutral, positive (order: {where})" in shown or spoken == "sglang"
        if spoken == "tei":
            assert "takes at most 32 texts in a request, 512 texts in flight" in shown
        if spoken in ("infinity", "hf", "mlserver"):
            assert "does not say which" in shown


@pytest.mark.parametrize("wrong", ["vllm", "tei", "hf", "oip", "kserve", "sglang", "json"])
def test_a_wrong_api_ends_with_the_name_of_the_right_one(wrong: str, classify: Command, tmp_path: Path) -> None:
    """In one line, and nothing is written."""
    (tmp_path / "in.csv").write_text("text\na\n")
    with FakeServer(api=InfinityApi()) as server:
        done = classify("run", "in.csv", "--url", server.url, "--api", wrong, "--quiet", expect=2)
    assert 'set server.api = "infinity"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "in_labelled.csv").exists()


def test_what_answers_in_another_form_is_told_with_what_to_do(classify: Command, tmp_path: Path) -> None:
    """A server of one's own at the path of another one, and a port where something else answers."""
    (tmp_path / "in.csv").write_text("text\na\n")
    with FakeServer(api=OwnJsonApi()) as server:
        done = classify("run", "in.csv", "--url", f"{server.url}/predict", "--quiet", expect=2)
        assert "it has the form of --api json --set request.answer=predictions (" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        classify(
            "run",
            "in.csv",
            "-o",
            "json.csv",
            "--url",
            server.url,
            *["--api", "json", "--set", "request.answer=predictions"],
        )
    with FakeServer() as server:
        server.model = None
        server.script.extend([refuse(404, "Not Found")] * 9)
        done = classify("run", "in.csv", "--url", server.url, "--quiet", expect=2)
    assert "was taken for vLLM: --api names what it speaks" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ('{"predictions": [1, 2]}', "--api json --set request.answer=predictions"),
        ("[[], []]", "--api json"),
        ('{"data": [[], []], "model": "m"}', "--api infinity"),
        ('{"data": [{}, {}]}', "--api vllm"),
        ('{"a": [1, 2], "b": [1, 2]}', ""),
        ('{"a": [1]}', ""),
        ("no JSON", ""),
        ("3", ""),
    ],
)
def test_the_form_of_an_answer_tells_what_to_try(answer: str, form: str) -> None:
    """Where only one list has as many items as there were texts."""
    assert form_of(answer.encode(), 2) == form
