"""Proxies: which one is used for a server, and what is said of one that fails."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from commands import Command
from fake import FakeServer
from sockets import raw

from pipeline.config import Server
from pipeline.errors import ConfigError
from pipeline.servers.client import proxy_for

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://gpu:8000", {}, None),
        ("http://gpu:8000", {"http_proxy": PROXY}, PROXY),
        ("http://gpu:8000", {"http_proxy": "proxy:3128"}, PROXY),
        ("http://gpu:8000", {"HTTP_PROXY": PROXY}, None),  # as curl: it may be a header of a CGI request
        ("https://gpu:8000", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://gpu:8000", {"http_proxy": PROXY}, None),
        ("http://gpu:8000", {"ALL_PROXY": PROXY}, PROXY),
        ("http://localhost:8000", {"http_proxy": PROXY}, None),
        ("http://127.0.0.9:8000", {"http_proxy": PROXY}, None),
        ("http://[::1]:8000", {"http_proxy": PROXY}, None),
        ("http://gpu:8000", {"http_proxy": PROXY, "no_proxy": "*"}, None),
        ("http://gpu.lab.org:8000", {"http_proxy": PROXY, "no_proxy": "x.com, .lab.org"}, None),
        ("http://gpu.lab.org:8000", {"http_proxy": PROXY, "NO_PROXY": "lab.org"}, None),
        ("http://gpu.mylab.org:8000", {"http_proxy": PROXY, "no_proxy": "lab.org"}, PROXY),
        ("http://10.1.2.3:8000", {"http_proxy": PROXY, "no_proxy": "10.0.0.0/8"}, None),
        ("http://11.1.2.3:8000", {"http_proxy": PROXY, "no_proxy": "10.0.0.0/8,::/0"}, PROXY),
    ],
)
def test_the_environment_is_read_as_curl_does(url: str, environment: dict[str, str], proxy: str | None) -> None:
    """Servers on this machine, and those of no_proxy, are asked directly."""
    assert proxy_for(url, Server(), environment) == proxy


def test_the_config_beats_the_environment() -> None:
    """server.proxy is used as it is, also for this machine; "none" is none."""
    environment = {"http_proxy": "http://other:1", "no_proxy": "*", "P": "http://u:pw@proxy:3128"}
    assert proxy_for("http://localhost:1", Server(proxy=PROXY), environment) == PROXY
    assert proxy_for("http://gpu:8000", Server(proxy="none"), environment) is None
    assert proxy_for("http://gpu:8000", Server(proxy="env:P"), environment) == environment["P"]
    with pytest.raises(ConfigError, match=r"all_proxy: socks5://\*\*\*@proxy: only HTTP proxies"):
        proxy_for("http://gpu:8000", Server(), {"all_proxy": "socks5://secret@proxy"})


async def test_a_run_goes_through_the_proxy(tmp_path: Path, classify: Command, fake: FakeServer) -> None:
    """The fake server stands for a proxy here: it is asked for a host that does not exist."""
    (tmp_path / "a.csv").write_text("text\none\n")
    classify("run", "a.csv", "--url", "http://gpu.invalid:8000", env={"http_proxy": fake.url, "no_proxy": ""})
    assert fake.requests[-1].headers["Host"] == "gpu.invalid:8000"
    shown = classify(
        "check",
        "a.csv",
        "-o",
        "b.csv",
        "--url",
        fake.url,
        "--set",
        "server.proxy=http://u:s3cret@127.0.0.1:1",
        expect=75,
    )
    assert "the proxy http://u:***@127.0.0.1:1: connection refused" in shown.stderr
    assert "s3cret" not in shown.stderr + shown.stdout


async def test_a_proxy_that_refuses_is_named(tmp_path: Path, classify: Command) -> None:
    """Exit code 2, and what to check."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"message": "who are you?"}).encode()
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    (tmp_path / "a.csv").write_text("text\none\n")
    async with raw(refuse) as port:
        for url in ("http://gpu.invalid:8000", "https://gpu.invalid"):
            command = ("check", "a.csv", "--url", url, "--set", f"server.proxy=http://127.0.0.1:{port}")
            done = await asyncio.to_thread(classify, *command, expect=2)
            assert "407" in done.stderr
            assert "server.proxy" in done.stderr
