"""Urls as they are checked, and as they are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from pipeline.errors import ConfigError

FROM_ENVIRONMENT = "env:"  # before the name of the variable that holds the value


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


def origin(url: str) -> str:
    """Scheme and host of a url whose path may be a secret; or `env:NAME`, which is none."""
    if url.startswith(FROM_ENVIRONMENT):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"


def is_secret_url(text: str) -> bool:
    """Whether it is a url that can be asked over HTTP, or `env:NAME`."""
    if text.startswith(FROM_ENVIRONMENT):
        return re.fullmatch(r"[A-Za-z_]\w*", text.removeprefix(FROM_ENVIRONMENT), re.ASCII) is not None
    return is_http(text)


def read_secret_url(key: str, text: str, environment: Mapping[str, str]) -> str:
    """The url that `text` is, or names as `env:NAME`; `key` is where it was set.

    Raises:
        ConfigError: the variable is not set, or holds no url.
    """
    if not text.startswith(FROM_ENVIRONMENT):
        return text
    variable = text.removeprefix(FROM_ENVIRONMENT)
    if variable not in environment:
        raise ConfigError(f"{key}: the environment has no variable {variable}; set it")
    url = environment[variable].strip()  # a variable read from a file often ends in a line break
    if not is_http(url):
        raise ConfigError(f"{key}: the variable {variable} holds no http://... or https://...; mend it")
    return url
