"""The notification at the end of a run: one POST, limited in time, with errors that do not repeat the URL.

It is sent in a daemon thread, because looking up a name can't be cancelled and may take half a minute.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import gaierror
from urllib.parse import SplitResult, quote, unquote, urlsplit

AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"  # in a path and a query


async def notify(url: str, body: bytes, within_s: float) -> str:
    """POST the JSON `body` to `url` within `within_s` seconds, without redirects.

    Returns:
        Why it failed, for a message; "" if it did not.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    said: list[str] = []

    def post() -> None:
        said.append(_post(urlsplit(url), body, within_s))
        with suppress(RuntimeError):  # the loop is closed after a timeout
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=post, daemon=True).start()
    try:
        async with asyncio.timeout(within_s):
            await done.wait()
    except TimeoutError:
        return _too_slow(within_s)
    return said[0]


def _post(url: SplitResult, body: bytes, timeout_s: float) -> str:
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    headers = {"Content-Type": "application/json", "User-Agent": "classify"}
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    try:
        connection = connect(url.hostname or "", url.port, timeout=timeout_s)
        try:
            target = quote(url.path or "/", AS_IT_IS) + (f"?{quote(url.query, AS_IT_IS)}" if url.query else "")
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    except Exception as error:  # noqa: BLE001 - a notification that fails must not fail the run
        return _reason(error, timeout_s)
    if 300 <= status < 400:  # noqa: PLR2004
        return f"answers {status}, a redirect, which is not followed"
    return "" if status < 300 else f"answers {status}"  # noqa: PLR2004


def _reason(error: Exception, timeout_s: float) -> str:
    """Describe an error without its own text, which may contain the URL."""
    if isinstance(error, TimeoutError):
        return _too_slow(timeout_s)
    if isinstance(error, gaierror | UnicodeError):
        return "the name does not resolve"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {getattr(error, 'verify_message', '') or error.reason}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "no HTTP answer" if isinstance(error, HTTPException) else type(error).__name__


def _too_slow(seconds: float) -> str:
    return f"no answer within {seconds:g} s"
