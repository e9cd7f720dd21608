"""What comes instead of an answer: a status and a server's words, as the error to raise."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping, Sequence
from datetime import UTC

import msgspec

from pipeline.config import mask_url
from pipeline.errors import ClassifyError, Misconfigured, Overloaded, Rejected, Unavailable

LONGEST_MESSAGE = 300  # characters of a server's message that we repeat


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, api_key_env: str, secrets: Sequence[str] = ()
) -> ClassifyError:
    """What a status other than 200 means, as the error to raise: its class decides what happens next.

    A server may repeat what it was sent: `secrets` never get into the message.
    """
    for secret in secrets:
        body = body.replace(secret.encode(), b"***")
    message = f"HTTP {status}: {error_message(body)}"
    retry_after = parse_retry_after(headers.get("Retry-After"))
    if status in (400, 413, 422):
        return Rejected(message, too_long=b"maximum context length" in body)
    if status in (408, 425, 429, 503):
        busy = Overloaded(message, retry_after=retry_after)
        busy.may_be_broken = status in (408, 503) and retry_after is None
        return busy
    if status == 424 or status >= 500:  # noqa: PLR2004
        return Unavailable(message, retry_after=retry_after)
    if status in (401, 403):
        return Misconfigured(f"{message}; put the server's key into the environment variable {api_key_env}")
    if 300 <= status < 400:  # noqa: PLR2004
        target = headers.get("Location", "another address")
        for secret in secrets:
            target = target.replace(secret, "***")
        target = shorten(mask_url(target))
        return Misconfigured(f"HTTP {status}: redirects to {target}; redirects are not followed, give that url")
    return Misconfigured(f"{message}; check server.url and server.model")


def error_message(body: bytes) -> str:
    """The server's own words, shortened: nested since vLLM 0.10, flat before, `detail` from FastAPI, else the text."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return shorten(body[:2000].decode("utf-8", "replace"))
    for key in ("error", "message", "detail"):
        if isinstance(tree, dict) and key in tree:
            tree = tree[key]
    return shorten(tree if isinstance(tree, str) else msgspec.json.encode(tree).decode())


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, from `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); None if absent or nonsense."""
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
    """One printable line of at most `LONGEST_MESSAGE` characters: it may go into a file, a log or a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_MESSAGE]).split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
