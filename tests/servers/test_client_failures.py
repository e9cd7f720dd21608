"""What goes wrong on the way to a server: which failure is which, and what its message may say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from pathlib import Path
from shutil import which

import pytest
from fake import FakeServer, cut, hang, reply, reset
from sockets import BODY, LARGEST, PATH, client, count_body, raw

from pipeline.config import Server
from pipeline.errors import (
    BadAddress,
    BadAnswer,
    ConfigError,
    ConnectionLost,
    RequestFailed,
    TimedOut,
    Unavailable,
    Unreachable,
)
from pipeline.servers.client import Client


async def failure(url: str, *, largest: int = LARGEST, timeout_s: float = 5.0) -> RequestFailed:
    """Send one request to `url` and return what it raises."""
    async with client(url, timeout_s=timeout_s) as asked:
        with pytest.raises(RequestFailed) as caught:
            await asked.post(PATH, BODY, largest)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_read_only_so_far(chunked: bool) -> None:
    """An endless answer is BadAnswer after `largest` bytes, announced or not; the server notices that we left."""
    sent = 0
    gone = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000000000"
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if chunked else b"x" * 0x10000)
                sent += 0x10000
                await writer.drain()
        gone.set()
        writer.close()

    async with raw(flood) as port:
        error = await failure(f"http://127.0.0.1:{port}", largest=100_000)
        await asyncio.wait_for(gone.wait(), 5)
    assert isinstance(error, BadAnswer)
    assert sent < 64 << 20


async def test_an_answer_of_exactly_the_bound_is_read(fake: FakeServer) -> None:
    """`largest` bytes are allowed, one more is not."""
    fake.script += [reply(200, b"x" * 1000), reply(200, b"x" * 1001)]
    async with client(fake.url) as endpoint:
        assert len((await endpoint.post(PATH, BODY, 1000)).body) == 1000
        with pytest.raises(BadAnswer):
            await endpoint.post(PATH, BODY, 1000)


async def test_a_refusal_of_any_size_is_read_as_far_as_the_bound(fake: FakeServer) -> None:
    """A server that repeats the whole request in its refusal has still refused: the status decides."""
    fake.script += [reply(413, b"x" * 1001), reply(422, b"y" * 5_000_000), reply(503, b"z" * 3, Retry_After="3")]
    async with client(fake.url) as endpoint:
        answers = [await endpoint.post(PATH, BODY, 1000) for _ in range(3)]
    assert [(each.status, len(each.body)) for each in answers] == [(413, 1000), (422, 1000), (503, 3)]


async def test_a_reset_a_cut_and_a_refusal_are_unavailable(fake: FakeServer) -> None:
    """A connection broken before or within the answer, or not accepted at all, is a server to wait for."""
    fake.script += [reset(), cut(fake)]
    for _ in range(2):
        error = await failure(fake.url)
        assert isinstance(error, Unavailable)
        assert not isinstance(error, BadAddress)
    fake.down()
    error = await failure(fake.url)
    fake.up()
    assert isinstance(error, Unavailable)
    assert not isinstance(error, BadAddress)
    assert fake.url in str(error)
    assert "refused" in str(error)


async def test_silence_is_timed_out(fake: FakeServer) -> None:
    """No answer within server.timeout_s is TimedOut, also when the answer began."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await reader.read()
        writer.close()

    fake.script.append(hang())
    assert type(await failure(fake.url, timeout_s=0.3)) is TimedOut
    async with raw(drip) as port:
        assert type(await failure(f"http://127.0.0.1:{port}", timeout_s=0.3)) is TimedOut


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 64}.invalid", "a..b"])
async def test_a_name_that_does_not_resolve_is_a_bad_address(host: str) -> None:
    """An unknown name, and one that no name server could know, say so and name the host."""
    error = await failure(f"http://user:pa55@{host}:8000")
    assert isinstance(error, BadAddress)
    assert host in str(error)
    assert "pa55" not in str(error)


@pytest.mark.parametrize(
    "banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\x01\x02\x03\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n"]
)
async def test_another_protocol_is_no_answer(banner: bytes) -> None:
    """A port where something else listens gives BadAnswer, in one line without the password."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        await reader.read(100)
        writer.close()

    async with raw(greet) as port:
        error = await failure(f"http://user:pa55@127.0.0.1:{port}")
    assert isinstance(error, BadAnswer)
    assert "pa55" not in str(error)


async def test_no_message_holds_the_password(fake: FakeServer) -> None:
    """Whatever fails, the URL is shown with ***."""
    url = fake.url.replace("http://", "http://user:pa55@") + "/classify?token=t0ken"
    fake.script += [reset(), cut(fake), hang(), reply(200, b"x" * 2000)]
    errors = [await failure(url, timeout_s=0.5, largest=1000) for _ in range(4)]
    fake.down()
    errors.append(await failure(url))
    fake.up()
    assert not [error for error in errors if "pa55" in str(error) or "t0ken" in str(error)]


# -- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for localhost that nobody has signed, with its key."""
    if (openssl := which("openssl")) is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path / "self.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([openssl, *command.split(), *names], check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "cert.pem").read_text())
    return path


async def test_a_certificate_is_believed_only_if_it_is_trusted(certificate: Path) -> None:
    """Self-signed is a bad address; named in server.ca_bundle it is trusted, for its own name only."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with raw(count_body, tls) as port:
        error = await failure(f"https://localhost:{port}")
        assert isinstance(error, BadAddress)
        assert "certificate" in str(error)
        trusting = Server(url=f"https://localhost:{port}", ca_bundle=str(certificate))
        async with Client(f"https://localhost:{port}", trusting, {}) as endpoint:
            assert (await endpoint.post(PATH, BODY, LARGEST)).status == 200
        async with Client(f"https://127.0.0.1:{port}", trusting, {}) as endpoint:
            with pytest.raises(BadAddress):
                await endpoint.post(PATH, BODY, LARGEST)


async def test_https_to_a_plain_port_is_a_bad_address(fake: FakeServer) -> None:
    """A TLS handshake with a server that speaks plain HTTP fails as TLS."""
    assert isinstance(await failure(fake.url.replace("http:", "https:")), BadAddress)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_bundle_that_is_none_is_a_config_error(content: str | None, tmp_path: Path) -> None:
    """A missing or broken bundle is named."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"ca_bundle.*ca\.pem"):
        await Client("https://localhost", Server(ca_bundle=str(path)), {}).__aenter__()


async def test_a_connection_that_is_not_taken_up_is_bounded() -> None:
    """A full backlog answers nothing: the request ends within its own time, as Unavailable or TimedOut."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        assert isinstance(await failure(f"http://127.0.0.1:{port}", timeout_s=0.5), Unavailable | TimedOut)


# -- connections that are closed unannounced, long headers, names that do not resolve for now


async def test_a_server_that_closes_each_connection_unannounced_is_served() -> None:
    """A request on a connection that was closed after the last answer goes again, at once, on a new one."""
    connections = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")  # the next one is read, and dies with the connection
        writer.close()

    async with raw(answer_once) as port, client(f"http://127.0.0.1:{port}") as endpoint:
        await endpoint.get("/v1/models")
        assert (await endpoint.post(PATH, BODY, LARGEST)).body == b"{}"
        assert endpoint.reconnects == 1
        assert (await endpoint.post(PATH, BODY, LARGEST)).body == b"{}"
        assert (endpoint.reconnects, connections) == (1, 3)  # no connection is used twice any more


async def test_a_new_connection_that_breaks_is_lost() -> None:
    """Only a connection that was used before is excused: a request that ends its server goes out once."""
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with raw(hang_up) as port:
        assert isinstance(await failure(f"http://127.0.0.1:{port}"), ConnectionLost)
    assert connections == 1


@pytest.mark.parametrize(("length", "is_read"), [(20_000, True), (200_000, False)])
async def test_long_headers_are_read_and_endless_ones_called_so(length: int, is_read: bool) -> None:
    """Gateways send headers of many KB; what is too long is named, not called a status."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 2\r\n\r\n{}" % (b"x" * length))
            await writer.drain()

    async with raw(answer) as port:
        if is_read:
            async with client(f"http://127.0.0.1:{port}") as endpoint:
                assert (await endpoint.post(PATH, BODY, LARGEST)).body == b"{}"
        else:
            assert (
                str(await failure(f"http://127.0.0.1:{port}")) == "no HTTP answer: a header of more than 65,536 bytes"
            )


@pytest.mark.parametrize(("number", "kind"), [(socket.EAI_AGAIN, Unreachable), (socket.EAI_NONAME, BadAddress)])
async def test_a_name_that_does_not_resolve_for_now_is_waited_for(
    number: int, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EAI_AGAIN is what a machine says whose network is not up yet; the name may be right."""

    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "resolver")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    assert type(await failure("http://gpu.example.com:8000")) is kind
