"""Urls as they are checked, and as they are shown."""

from __future__ import annotations

from urllib.parse import urlsplit


def mask_url(url: str) -> str:
    """`url` with a password, and whatever a query may carry, shown as ***; also where it is no url at all."""
    start, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    rest, question, _ = rest.partition("?")
    user, at, host = rest.rpartition("@")
    if at:
        rest = f"{user.partition(':')[0]}:***@{host}" if ":" in user and slashes else f"***@{host}"
    return f"{start}{slashes}{rest}{question and '?***'}"


def is_http(url: str) -> bool:
    """Whether it can be asked over HTTP."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket that is never closed
        return False
