"""What a status other than 200 means, and what a server said with it: the same for most servers over HTTP.

A dialect calls `error_of` and corrects it where its server means something else by a status.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import UTC

import msgspec

from pipeline.config import mask_url
from pipeline.errors import Misconfigured, Overloaded, Rejected, RequestFailed, Unavailable

LONGEST_MESSAGE = 300  # characters of a server's message that are repeated


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, key_variable: str, *, is_too_long: bool = False
) -> RequestFailed | Misconfigured:
    """Return the error that a status other than 200 stands for; its class decides what happens next.

    Of `headers`, `Retry-After` and `Location` are read. `key_variable` is named to a person whose key is refused.
    `is_too_long` is whether the server says that a text is too long.
    """
    message = f"HTTP {status}: {error_message(body)}"
    retry_after = parse_retry_after(headers.get("Retry-After"))
    if status in (400, 413, 422):
        return Rejected(message, status=status, too_long=is_too_long)
    if status in (408, 425, 429, 503):
        return Overloaded(message, status=status, retry_after=retry_after)
    if status == 424 or (status >= 500 and status != 501):  # noqa: PLR2004 - 501: it will never take a POST
        return Unavailable(message, status=status, retry_after=retry_after)
    if status in (401, 403):
        advice = f"put the server's key into the environment variable {key_variable}"
        return Misconfigured(f"{message}; {advice}", status=status)
    if 300 <= status < 400:  # noqa: PLR2004
        target = shorten(mask_url(headers.get("Location", "another address")))
        advice = "redirects are not followed, give that url"
        return Misconfigured(f"HTTP {status}: redirects to {target}; {advice}", status=status)
    advice = "that is a proxy: check server.proxy" if status == 407 else "check server.url and server.model"  # noqa: PLR2004
    return Misconfigured(f"{message}; {advice}", status=status)


def error_message(body: bytes) -> str:
    """Return the server's own words on one line.

    They are nested under `error` and `message` (vLLM since 0.10), flat under `message` (before) or `error`, under
    `detail` (FastAPI), or the body is the text.
    """
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:2000].decode("utf-8", "replace")
        return shorten(
            re.sub(r"(?is)<(style|script|head)\b.*?</\1>|<[^>]*>", " ", text) if text.lstrip()[:1] == "<" else text
        )
    for key in ("error", "message", "detail"):
        if isinstance(tree, dict) and key in tree:
            tree = tree[key]
    return shorten(tree if isinstance(tree, str) else msgspec.json.encode(tree).decode())


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds to wait that `Retry-After` asks for, in seconds or as a date (RFC 9110, 10.2.3).

    None if the header is absent or neither of both; `now` is the time in seconds since 1970, the clock's by default.
    """
    text = (value or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        date = email.utils.parsedate_to_datetime(text)
        # Dates without a zone (asctime's, in RFC 9110) are in UTC, too.
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def shorten(text: str) -> str:
    """Return one printable line of at most `LONGEST_MESSAGE` characters: fit for a file, a log or a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_MESSAGE]).split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
