"""One endpoint over a real socket: where requests go, what they carry, and which failure is which."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
from urllib.parse import quote

import pytest
from fake import FakeServer, refuse, reply
from sockets import BODY, LARGEST, PATH, client, count_body, raw, recorder

from pipeline.errors import BadAnswer, ConfigError

# -- where it goes and what it carries


async def test_a_path_is_taken_as_it_is_with_the_query_of_the_url() -> None:
    """Escapes are left alone; the query of the URL goes with what is posted, not with what is asked beside it."""
    async with recorder() as (port, seen), client(f"http://127.0.0.1:{port}/other?version=2024-10&x=%2F") as endpoint:
        await endpoint.post("/a%2Fb", BODY, LARGEST)
        await endpoint.get("/my%20route/v1/models")
    assert [request.raw_path for request in seen] == ["/a%2Fb?version=2024-10&x=%2F", "/my%20route/v1/models"]
    assert [request.method for request in seen] == ["POST", "GET"]


async def test_a_request_carries_its_body_its_key_and_its_headers(fake: FakeServer) -> None:
    """JSON, uncompressed, with the bearer and the headers of the config."""
    async with client(fake.url, key="s3cret", headers={"X-Team": "search"}) as endpoint:
        reply = await endpoint.post(PATH, BODY, LARGEST)
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
        await endpoint.post(PATH, BODY, LARGEST)
    assert seen[0].headers.getall("Authorization") == ["Token t"]
    assert seen[0].headers.getall("Content-Type") == ["application/json; charset=utf-8"]


async def test_the_password_of_a_url_is_sent_and_never_shown() -> None:
    """user:password in a URL goes as basic authorization; what people see has ***."""
    async with recorder() as (port, seen), client(f"http://user:pa55@127.0.0.1:{port}") as endpoint:
        await endpoint.post(PATH, BODY, LARGEST)
        assert endpoint.shown == f"http://user:***@127.0.0.1:{port}"
    assert seen[0].headers["Authorization"].startswith("Basic ")


async def test_a_password_in_the_url_and_a_key_are_no_bug() -> None:
    """Both a key in the environment and a password in the URL: a request goes out, or a person is told."""
    async with recorder() as (port, seen):
        with contextlib.suppress(ConfigError):
            async with client(f"http://user:pa55@127.0.0.1:{port}", key="k") as endpoint:
                await endpoint.post(PATH, BODY, LARGEST)
            assert len(seen) == 1


async def test_a_large_body_arrives_whole() -> None:
    """A request of several megabytes is sent in one piece of truth."""
    body = b'"' + b"x" * (5 << 20) + b'"'
    async with raw(count_body) as port, client(f"http://127.0.0.1:{port}") as endpoint:
        assert (await endpoint.post(PATH, body, LARGEST)).body == str(len(body)).encode()


async def test_a_redirect_is_not_followed(fake: FakeServer) -> None:
    """A 302 to another host comes back as it is: the key never reaches that host."""
    async with recorder() as (port, seen):
        fake.script.append(reply(302, "", Location=f"http://127.0.0.1:{port}/classify"))
        async with client(fake.url, key="s3cret") as endpoint:
            answer = await endpoint.post(PATH, BODY, LARGEST)
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
            assert (await endpoint.post(PATH, BODY, LARGEST)).body == b"{}"
    assert len(peers) == 1


async def test_an_error_status_is_a_reply(fake: FakeServer) -> None:
    """What a status means is not decided here."""
    fake.script.append(refuse(503, "queue is full", Retry_After="3"))
    async with client(fake.url) as endpoint:
        answer = await endpoint.post(PATH, BODY, LARGEST)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
    assert b"queue is full" in answer.body


async def test_a_refusal_that_repeats_our_secrets_is_read_without_them(fake: FakeServer) -> None:
    """Key, header values and a url's password become *** in the body and the Location of what is no 200."""
    url = fake.url.replace("http://", "http://user:pa55word@")
    said = "Bearer s3cret, token-1, pa55word"
    fake.script += [reply(401, said), reply(302, "", Location="https://login.test/?key=s3cret"), reply(200, said)]
    async with client(url, key="s3cret", headers={"X-Token": "token-1"}) as endpoint:
        refused, redirected, answered = [await endpoint.post(PATH, BODY, LARGEST) for _ in range(3)]
    assert refused.body == b"***, ***, ***"
    assert redirected.headers["location"] == "https://login.test/?key=***"
    assert answered.body == said.encode()


KEY = 'sk-1+2/"3"<é>&=%41'
SPELLED = {
    "JSON": json.dumps(KEY),
    ".NET": json.dumps(KEY).replace("+", "\\u002B").replace("<", "\\u003C"),
    "PHP": json.dumps(KEY).replace("/", "\\/"),
    "JSON in JSON": json.dumps(json.dumps(KEY).replace("/", "\\/")),
    "a URL": quote(KEY, safe=""),
    "a URL in a URL": quote(quote(KEY, safe=""), safe=""),
    "HTML": html.escape(KEY),
    "HTML by numbers": "".join(f"&#x{ord(character):X};" for character in KEY),
    "HTML by names": KEY.replace("&", "&amp;").replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;"),
    "Python": repr(KEY.encode()),
    "Base64": base64.b64encode(KEY.encode()).decode(),
    "Base64 of more": base64.b64encode(f"Bearer {KEY} x".encode()).decode().replace("/", "\\/"),
    "Base64 for URLs": base64.urlsafe_b64encode(f"u:{KEY}".encode()).decode(),
}


@pytest.mark.parametrize("how", SPELLED)
async def test_a_secret_is_masked_in_every_spelling(how: str, fake: FakeServer) -> None:
    """No five characters of a key in any notation are left in what a server says of a request; the rest is."""
    spelled = SPELLED[how]
    fake.script += [reply(400, f"no route for {spelled}, sorry"), reply(302, "", Location=f"/?key={quote(spelled)}")]
    async with client(fake.url, key=KEY) as endpoint:
        refused, redirected = [await endpoint.post(PATH, BODY, LARGEST) for _ in range(2)]
    said = refused.body.decode()
    assert said.startswith("no route for ")
    assert said.endswith(", sorry")
    shown = said + redirected.headers["location"]
    assert shown.count("***") == 2
    pieces = {spelled[start : start + 5] for start in range(10, len(spelled) - 14)}
    assert not [piece for piece in pieces if piece in shown]


async def test_a_key_in_the_query_is_masked_and_so_is_one_in_what_is_no_http() -> None:
    """Whatever of the url was sent, and wherever the server repeats it: here in a header that can't be read."""

    async def repeats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = (await reader.readuntil(b"\r\n")).split()[1]
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(sent), sent))
        await reader.readuntil(b"POST")
        writer.write(b"HTTP/1.1 200 OK\r\nkey \x00%b: 1\r\n\r\n" % sent)

    async with raw(repeats) as port, client(f"http://127.0.0.1:{port}/?code=s3cret%2Bkey") as endpoint:
        assert (await endpoint.post(PATH, BODY, LARGEST)).body == b"/classify?code=***"
        with pytest.raises(BadAnswer) as caught:
            await endpoint.post(PATH, BODY, LARGEST)
    assert "***" in str(caught.value)
    assert "s3cret" not in str(caught.value)
