"""One endpoint over aiohttp: the only module here that awaits a socket. What the bytes mean is the dialect's matter."""

from __future__ import annotations

import base64
import io
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pipeline.config import Secrets, Server, mask_url
from pipeline.errors import BadAddress, BadAnswer, ConfigError, ConnectionLost, TimedOut, Unreachable

OK = 200
# What runs on uvicorn closes idle connections after 5 s; a request sent into that moment would be lost.
KEEP_ALIVE_S = 4.0
CONNECT_S = 10.0
LARGE_BODY = 1 << 20
REFUSAL_BYTES = 64 << 10  # of a body that explains a refusal


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

    Raises, from `post` and `get`:
        BadAddress: the name does not resolve, or TLS fails.
        Unreachable: refused. ConnectionLost: reset, cut short. TimedOut: no answer within `server.timeout_s`.
        BadAnswer: no HTTP, or a 200 with a longer body than was allowed. A longer refusal is cut.
    """

    def __init__(
        self, url: str, server: Server, headers: Mapping[str, str], defaults: Mapping[str, str] | None = None
    ) -> None:
        full = URL(url, encoded=True)
        self.path = full.raw_path
        self.shown = mask_url(url).rstrip("/")  # for people: no password in it
        self._url = full.with_user(None)
        self._server = server
        self._headers = CIMultiDict({"Accept-Encoding": "identity", **(defaults or {})})
        self._headers.update(headers)
        if full.user is not None and "Authorization" not in self._headers:
            pair = base64.b64encode(f"{full.user}:{full.password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        given = [*headers.values(), *full.query.values(), full.password, self._headers.get("Authorization")]
        self._secrets = Secrets(word for value in given if value for word in (value, value.rpartition(" ")[2]))

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=_tls(self._server.ca_bundle))
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._server.timeout_s, sock_connect=CONNECT_S),
            headers=self._headers,
            auto_decompress=False,  # we ask for none, and a compressed answer could hide any size
            read_bufsize=1 << 20,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, path: str, body: bytes, largest: int) -> Reply:
        """Send `body` to `path`, with the query of the URL; the answer may have `largest` bytes."""
        return await self._send("POST", self._url.with_path(path, encoded=True, keep_query=True), body, largest)

    async def get(self, path: str, largest: int = 1 << 20) -> Reply:
        """Ask for `path`; the answer may have `largest` bytes."""
        return await self._send("GET", self._url.with_path(path, encoded=True), None, largest)

    async def _send(self, method: str, url: URL, body: bytes | None, largest: int) -> Reply:
        # A large body in one piece would hold up the loop (and aiohttp warns): it is sent from a stream.
        sent = io.BytesIO(body) if body and len(body) >= LARGE_BODY else body
        try:
            # No redirect is followed: it could carry the key to another host.
            async with self._session.request(method, url, data=sent, allow_redirects=False) as response:
                reply = Reply(response.status, response.headers, await self._read(response, largest))
        except (aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError, ssl.SSLError, UnicodeError) as error:
            raise BadAddress(_reason(error), server=self.shown) from None
        except aiohttp.ConnectionTimeoutError:
            raise Unreachable(f"no connection within {CONNECT_S:g} s", server=self.shown) from None
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(_reason(error), server=self.shown) from None
        except TimeoutError:
            raise TimedOut(f"no answer within {self._server.timeout_s:g} s") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
            raise ConnectionLost(self._said(error), server=self.shown) from None
        except aiohttp.ClientError as error:
            raise BadAnswer(f"no HTTP answer: {self._said(error)}") from None
        return reply if reply.status == OK else self._without_secrets(reply)

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
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > largest:
                response.close()
                if response.status == OK:
                    raise BadAnswer(f"an answer of more than {largest:,} bytes")
                break
        return bytes(body[:largest])


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
    text = os.strerror(number).lower() if number and number > 0 else str(inner) or type(inner).__name__
    return " ".join(str(text).split())
