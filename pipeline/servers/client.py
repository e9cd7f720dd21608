"""One endpoint over aiohttp: the only module here that awaits a socket. What the bytes mean is the dialect's matter."""

from __future__ import annotations

import base64
import io
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pipeline.config import Secrets, Server, mask_url
from pipeline.config.masking import is_http, read_secret
from pipeline.errors import (
    BadAddress,
    BadAnswer,
    ConfigError,
    ConnectionLost,
    Misconfigured,
    RequestFailed,
    TimedOut,
    Unreachable,
)

OK = 200
# What runs on uvicorn closes idle connections after 5 s; a request sent into that moment would be lost.
KEEP_ALIVE_S = 4.0
CONNECT_S = 10.0
LARGE_BODY = 1 << 20
REFUSAL_BYTES = 64 << 10  # of a body that explains a refusal
LONGEST_HEADER = 64 << 10  # bytes of one line; gateways put whole policies and tokens there


class Reply(NamedTuple):
    """A status, its headers and the body; unless the status is 200, the body may be cut and holds no secret of ours."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """One session with the server at `url`.

    Args:
        url: a base URL or a full one. Its host, its query and its password are used; `path` is for others to decide.
        server: timeout and certificates.
        headers: of every request, from the config: they may hold secrets.
        defaults: headers that those of the config replace.
        proxy: the URL of a proxy to go through, see `proxy_for`.

    Raises, from `post` and `get`:
        BadAddress: the name does not resolve, or TLS fails.
        Unreachable: refused. ConnectionLost: reset, cut short. TimedOut: no answer within `server.timeout_s`.
        BadAnswer: no HTTP, or a 200 with a longer body than was allowed. A longer refusal is cut.
        Misconfigured: the proxy refuses to connect.
    """

    def __init__(
        self,
        url: str,
        server: Server,
        headers: Mapping[str, str],
        defaults: Mapping[str, str] | None = None,
        proxy: str | None = None,
    ) -> None:
        full = URL(url, encoded=True)
        self.path = full.raw_path
        self.shown = mask_url(url).rstrip("/")  # for people: no password in it
        self._url = full.with_user(None)
        self._urls: dict[
            tuple[str, bool], URL
        ] = {}  # by path, and whether they have a query: making one takes its time
        self._server, self._proxy = server, proxy
        # How often a connection turned out to be closed when it was used again; then no other one is used twice.
        self.reconnects = 0
        self._headers = CIMultiDict({"Accept-Encoding": "identity", **(defaults or {})})
        self._headers.update(headers)
        if full.user is not None and "Authorization" not in self._headers:
            pair = base64.b64encode(f"{full.user}:{full.password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        proxy_password = URL(proxy).password if proxy else None
        given = [
            *headers.values(),
            *full.query.values(),
            full.password,
            proxy_password,
            self._headers.get("Authorization"),
        ]
        self._secrets = Secrets(word for value in given if value for word in (value, value.rpartition(" ")[2]))

    @property
    def has_key(self) -> bool:
        """Whether requests carry a key or a password."""
        return "Authorization" in self._headers

    async def __aenter__(self) -> Self:
        self._tls = _tls(self._server.ca_bundle)
        self._stack = AsyncExitStack()
        self._session = await self._stack.enter_async_context(self._open(keepalive_timeout=KEEP_ALIVE_S))
        self._single_use = await self._stack.enter_async_context(self._open(force_close=True))
        return self

    def _open(self, **how: Any) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls, **how),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._server.timeout_s, sock_connect=CONNECT_S),
            headers=self._headers,
            auto_decompress=False,  # we ask for none, and a compressed answer could hide any size
            read_bufsize=1 << 20,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            trace_configs=[trace],
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def post(self, path: str, body: bytes, largest: int) -> Reply:
        """Send `body` to `path`, with the query of the URL; the answer may have `largest` bytes."""
        return await self._send("POST", self._url_of(path, has_query=True), body, largest)

    async def get(self, path: str, largest: int = 1 << 20) -> Reply:
        """Ask for `path`; the answer may have `largest` bytes."""
        return await self._send("GET", self._url_of(path, has_query=False), None, largest)

    def _url_of(self, path: str, *, has_query: bool) -> URL:
        url = self._urls.get((path, has_query))
        if url is None:
            url = self._urls[path, has_query] = self._url.with_path(path, encoded=True, keep_query=has_query)
        return url

    async def _send(self, method: str, url: URL, body: bytes | None, largest: int) -> Reply:
        try:
            return await self._attempt(
                self._single_use if self.reconnects else self._session, method, url, body, largest
            )
        except _ClosedBefore:  # some servers and proxies close a connection after an answer without announcing it
            self.reconnects += 1
            return await self._attempt(self._single_use, method, url, body, largest)

    async def _attempt(
        self, session: aiohttp.ClientSession, method: str, url: URL, body: bytes | None, largest: int
    ) -> Reply:
        # A large body in one piece would hold up the loop (and aiohttp warns): it is sent from a stream.
        sent = io.BytesIO(body) if body and len(body) >= LARGE_BODY else body
        seen = SimpleNamespace(is_reused=False)
        try:
            # No redirect is followed: it could carry the key to another host.
            async with session.request(
                method, url, data=sent, allow_redirects=False, proxy=self._proxy, trace_request_ctx=seen
            ) as response:
                seen.is_reused = False  # from here on it was no closed one
                reply = Reply(response.status, response.headers, await self._read(response, largest))
        except (aiohttp.ClientError, ssl.SSLError, UnicodeError, OSError) as error:
            raise self._failure(error, is_reused=seen.is_reused) from None
        return reply if reply.status == OK else self._without_secrets(reply)

    def _failure(self, error: Exception, *, is_reused: bool) -> RequestFailed | Misconfigured:
        """Return what an exception of aiohttp stands for."""
        through = f"the proxy {mask_url(self._proxy)}: " if self._proxy else ""
        failure: RequestFailed | Misconfigured
        match error:
            case aiohttp.ClientConnectorDNSError() if _is_for_now(error):
                failure = Unreachable(f"{_reason(error)} at the moment", server=self.shown)
            case aiohttp.ClientConnectorDNSError() | aiohttp.ClientSSLError() | ssl.SSLError() | UnicodeError():
                failure = BadAddress(f"{through}{_reason(error)}; {_advice(error)}", server=self.shown)
            case aiohttp.ConnectionTimeoutError():
                failure = Unreachable(f"{through}no connection within {CONNECT_S:g} s", server=self.shown)
            case aiohttp.ClientHttpProxyError():
                failure = Misconfigured(
                    f"{self.shown}: {through}answers {error.status}; check server.proxy", status=error.status
                )
            case aiohttp.ClientConnectorError():
                failure = Unreachable(f"{through}{_reason(error)}", server=self.shown)
            case TimeoutError():
                failure = TimedOut(f"no answer within {self._server.timeout_s:g} s")
            case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
                failure = (_ClosedBefore if is_reused else ConnectionLost)(self._said(error), server=self.shown)
            case _:
                failure = BadAnswer(f"no HTTP answer: {self._said(error)}")
        return failure

    def _without_secrets(self, reply: Reply) -> Reply:
        """Mask what a server may repeat of what it was sent, where it explains itself."""
        headers = CIMultiDict(reply.headers)
        if "Location" in headers:
            headers["Location"] = self.mask(headers["Location"])
        return Reply(reply.status, headers, self._secrets.mask(reply.body))

    def _said(self, error: Exception) -> str:
        return self.mask(_reason(error))[:200]  # what the HTTP parser says quotes the server

    def mask(self, words: str) -> str:
        """Mask what of a server's words is a secret that it was sent."""
        return self._secrets.mask(words.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    async def _read(self, response: aiohttp.ClientResponse, largest: int) -> bytes:
        """Return the body; of a refusal only the beginning, since it may repeat all that was sent."""
        largest = largest if response.status == OK else min(largest, REFUSAL_BYTES)
        pieces, size = [], 0
        async for piece in response.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > largest:
                response.close()
                if response.status == OK:
                    raise BadAnswer(f"an answer of more than {largest:,} bytes")
                break
        return b"".join(pieces)[:largest]


class _ClosedBefore(ConnectionLost):
    """A connection that was used before broke, and no byte of an answer had come."""


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _given: object) -> None:
    context.trace_request_ctx.is_reused = True


def proxy_for(url: str, server: Server, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy to `url`: that of the config, or that of the environment as curl reads it.

    The environment counts for nothing where `url` is on this machine.

    Raises:
        ConfigError: it is no HTTP proxy.
    """
    name, target = "server.proxy", URL(url)
    if server.proxy is not None:
        proxy = read_secret(name, server.proxy, environment)
    else:
        # HTTP_PROXY in capitals may be the header "Proxy" of a CGI request: curl does not read it, either.
        names = ("http_proxy",) if target.scheme == "http" else ("https_proxy", "HTTPS_PROXY")
        name = next((each for each in (*names, "all_proxy", "ALL_PROXY") if environment.get(each)), "")
        proxy = environment.get(name, "")
        exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        if _is_direct(target.host or "", exempt):
            return None
    if proxy in ("", "none"):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not is_http(proxy):
        raise ConfigError(
            f"{name}: {mask_url(proxy)}: only HTTP proxies are known, http://HOST:PORT; or set server.proxy"
        )
    return proxy


def _is_direct(host: str, exempt: str) -> bool:
    """Return whether a host is this machine, or in `exempt`: names (and all names below them) and networks."""
    address = _network(host)
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback):
        return True
    for each in filter(None, re.split(r"[\s,]+", exempt.lower())):
        network = _network(each.strip("[]"))
        if address is not None and network is not None:
            if address.version == network.version and address.subnet_of(network):  # type: ignore[arg-type]
                return True
        elif each == "*" or f".{host}".endswith(f".{each.strip('.')}"):
            return True
    return False


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _advice(error: Exception) -> str:
    """Return what to do about a name that does not resolve, or about TLS that fails."""
    text = str(getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error)
    if "CERTIFICATE_VERIFY_FAILED" in text or isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "server.ca_bundle names a PEM file with the certificates to trust"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return "it seems to speak http, not https: check server.url"
    return "check server.url"


def _is_for_now(error: aiohttp.ClientConnectorError) -> bool:
    """Return whether names can't be resolved for now: the resolver is not reached, as right after a machine's start."""
    return getattr(error.os_error, "errno", None) == socket.EAI_AGAIN


def _tls(ca_bundle: str | None) -> ssl.SSLContext | bool:
    if ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.ca_bundle {ca_bundle}: can't be read as certificates: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return the innermost words, on one line: aiohttp repeats host and port around them, and maybe a password."""
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} does not resolve"
    if isinstance(error, UnicodeError):  # IDNA: a label is empty or too long
        return "the host name does not resolve: a part of it is empty or too long"
    number = None if isinstance(inner, ssl.SSLError) else getattr(inner, "errno", None)
    # What the loop puts into a system error's text differs from loop to loop; what the system calls it does not.
    if "Got more than" in str(error):  # aiohttp calls it "400", and repeats the header
        return f"a header of more than {LONGEST_HEADER:,} bytes"
    text = os.strerror(number).lower() if number and number > 0 else str(inner) or type(inner).__name__
    return " ".join(str(text).split())
