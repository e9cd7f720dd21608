"""What only concerns the embedded server: its life as a process, its model, and that it stays responsive.

What it answers to which request is compared with real servers in tests/real/test_vllm_wire.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from pipeline.config import Config, Request, Server
from pipeline.errors import ConfigError, ServerGone
from pipeline.library import classify_texts_async
from pipeline.servers import embedded
from pipeline.servers.embedded_apis import APIS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

JSON = {"Content-Type": "application/json"}
# Starts the server as the library does, says where it is, and waits to be killed.
PARENT = """
import asyncio
from pipeline.servers.embedded import spawned

async def main():
    async with spawned() as url:
        print(url, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def refuses_connections(url: str) -> bool:
    """Tell whether nobody listens at the URL any more."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


async def classify_for_long(session: aiohttp.ClientSession, *, texts: int) -> int:
    """Send one request that takes a second or so for every 1000 texts; return the status of the answer."""
    body = json.dumps({"input": ["a long text about nothing in particular " * 200] * texts}).encode()
    # A stream, because aiohttp warns of large bodies in one piece.
    async with session.post("/classify", data=io.BytesIO(body), headers=JSON) as response:
        return response.status


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """Return a client of the server in this process, with a short model."""
    async with TestClient(TestServer(embedded.make_app(max_model_len=20))) as client:
        yield client


async def classify(client: TestClient[Any, Any], *texts: str, **fields: object) -> dict[str, Any]:
    """POST texts to /classify and return the body of the answer."""
    async with client.post("/classify", json={"input": texts, **fields}) as response:
        body: dict[str, Any] = await response.json()
        return body


async def test_known_languages() -> None:
    """Sentences of well-known languages get the code of their language."""
    texts = {
        "en": "The parcel arrived two days late, but the service was friendly.",
        "de": "Das Paket kam zwei Tage zu spät, aber der Service war freundlich.",
        "fr": "Le colis est arrivé avec deux jours de retard, mais le service était aimable.",
        "es": "El paquete llegó con dos días de retraso, pero el servicio fue amable.",
        "ru": "Посылка пришла на два дня позже, но обслуживание было вежливым.",
        "ja": "荷物は二日遅れて届きましたが、対応は親切でした。",
        "ko": "택배가 이틀 늦게 도착했지만 서비스는 친절했습니다.",
    }
    async with TestClient(TestServer(embedded.make_app())) as client:
        classified = (await classify(client, *texts.values()))["data"]
    assert [each["label"] for each in classified] == list(texts)


async def test_probs(client: TestClient[Any, Any]) -> None:
    """Every text gets one probability for each class; they sum to 1, also for a text without any feature."""
    for each in (await classify(client, "good", " ", "???", "ночь"))["data"]:
        assert len(each["probs"]) == each["num_classes"] > 100
        assert sum(each["probs"]) == pytest.approx(1, abs=1e-5)


async def test_length_in_bytes(client: TestClient[Any, Any]) -> None:
    """The length of a text is that of its UTF-8: 20 letters fit where 11 Cyrillic ones do not."""
    assert "data" in await classify(client, "x" * 20, "ж" * 10)
    error = (await classify(client, "x", "ж" * 11))["error"]
    assert error["param"] == "input_tokens"
    assert "maximum context length is 20 tokens" in error["message"]


async def test_cut_inside_a_character(client: TestClient[Any, Any]) -> None:
    """A cut that goes through a character drops what is left of it."""
    cut = await classify(client, "x" + "ж" * 10, truncate_prompt_tokens=-1)
    assert cut["data"] == (await classify(client, "x" + "ж" * 9))["data"]
    assert cut["usage"]["prompt_tokens"] == 20


@pytest.mark.slow
async def test_health_during_a_long_classification() -> None:
    """/health answers while a request keeps the model busy for seconds, and that request is answered too."""
    async with embedded.spawned() as url, aiohttp.ClientSession(url) as session:
        busy = asyncio.create_task(classify_for_long(session, texts=3000))
        answered = 0
        while not busy.done():
            started = time.monotonic()
            async with session.get("/health") as health:
                assert health.status == 200
            assert time.monotonic() - started < 2
            answered += not busy.done()
            await asyncio.sleep(0.05)
        assert busy.result() == 200
        assert answered > 3


async def test_spawned_ends_its_process() -> None:
    """The server listens for as long as the block lasts."""
    async with embedded.spawned() as url:
        assert not refuses_connections(url)
    assert refuses_connections(url)


async def test_spawned_ends_its_process_when_cancelled() -> None:
    """A task that is cancelled inside the block leaves no server behind."""
    ready: asyncio.Queue[str] = asyncio.Queue()

    async def use() -> None:
        async with embedded.spawned() as url:
            ready.put_nowait(url)
            await asyncio.sleep(60)

    task = asyncio.create_task(use())
    url = await ready.get()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert refuses_connections(url)


def test_spawned_dies_with_its_parent() -> None:
    """A parent that is killed with kill -9 takes the server with it."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        assert not refuses_connections(url)
        parent.kill()
    give_up = time.monotonic() + 10
    while not refuses_connections(url):
        assert time.monotonic() < give_up, "the server outlived its parent"
        time.sleep(0.02)


async def test_spawned_that_can_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies before it listens is reported with the last line it said."""
    folder = tmp_path / "pipeline" / "servers"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    (folder / "embedded.py").write_text("raise SystemExit('first\\nno luck today')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ServerGone, match=r"did not start: no luck today$"):
        async with embedded.spawned():
            pytest.fail("nothing can have been started")


async def test_spawned_ignores_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called `pipeline` where the user happens to stand is not taken for this package."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    async with embedded.spawned() as url:
        assert not refuses_connections(url)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """Return the bare process that `spawned` would start, ended by the end of its standard input."""
    command = [sys.executable, "-m", "pipeline.servers.embedded"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def test_process_ignores_ctrl_c(process: subprocess.Popen[str]) -> None:
    """SIGINT, which a terminal sends to all processes in it, does not end the server; the end of its stdin does."""
    assert process.stdout
    assert process.stdin
    url = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert not refuses_connections(url)
    process.stdin.close()
    assert process.wait(10) == 0


async def test_port_in_use() -> None:
    """A port that somebody holds is a matter of configuration; the message names it and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            await embedded.serve("127.0.0.1", port, on_ready=pytest.fail)
    message = str(raised.value)
    assert f"port {port}: it is in use" in message
    assert "--port" in message
    assert "\n" not in message


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 65_536), ("192.0.2.1", 0)])
async def test_impossible_address(host: str, port: int) -> None:
    """A port that does not exist and an address that is not ours are told in one line too."""
    with pytest.raises(ConfigError, match=rf"^cannot listen on {host}, port {port}: [^\n]+$"):
        await embedded.serve(host, port, on_ready=pytest.fail)


async def test_serve_until_cancelled() -> None:
    """`serve` names the address it really took, and closes it when it is cancelled."""
    ready: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(embedded.serve("127.0.0.1", 0, on_ready=ready.put_nowait))
    url = await ready.get()
    assert not refuses_connections(url)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert refuses_connections(url)


@pytest.mark.slow
async def test_serve_ends_during_a_classification() -> None:
    """A classification that is running does not hold up the end of the server by more than a moment."""
    ready: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(embedded.serve("127.0.0.1", 0, on_ready=ready.put_nowait))
    async with aiohttp.ClientSession(await ready.get()) as session:
        busy = asyncio.create_task(classify_for_long(session, texts=10_000))
        await asyncio.sleep(1)
        started = time.monotonic()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 5
        with pytest.raises(aiohttp.ClientError):
            await busy


@pytest.mark.parametrize("api", APIS)
async def test_it_is_another_server_with_the_same_model(api: str) -> None:
    """Texts of known languages get their labels; one that is too long is cut or refused as there."""
    ready: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(embedded.serve("127.0.0.1", 0, api=api, on_ready=ready.put_nowait))
    texts = ["Guten Morgen, liebe Leute", "buenos días", "x" * 9000]
    try:
        server = Server(url=await ready.get(), api="json" if api == "json" else "auto")
        request = Request(answer="predictions", too_long="error")
        found = await classify_texts_async(texts, config=Config(server=server, request=request), wait=False)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    labels = [each.label for each in found]
    classes = list(embedded._language_model(normalised=True).labels)
    nameless = [f"LABEL_{classes.index(label)}" for label in ("de", "es")]
    assert labels[:2] == (nameless if api == "kserve" else ["de", "es"])
    assert (found[2].error or "").startswith("too_long") == (api in ("tei", "sglang"))
    assert found[0].truncated is (False if api in ("tei", "sglang") else None)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"inputs": 3}', b'{"input": []}', b'{"inputs": [["a", "b", "c"]]}']
)
async def test_another_server_refuses_what_it_does_not_understand(api: str, body: bytes) -> None:
    """With a status, never with a broken connection."""
    async with TestClient(TestServer(embedded.make_app(api=api))) as client:
        path = APIS[api].path.replace("{model}", "py3langid")
        async with client.post(path, data=body) as response:
            assert 400 <= response.status < 600
