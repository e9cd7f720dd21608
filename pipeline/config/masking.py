"""Urls and URIs: as they are checked, taken apart, and shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError

# What stands behind a name and its question mark; a question mark without NAME=VALUE after it is part of the name.
_OPTIONS = re.compile(r"\?([a-z_]+=[^?&]*(?:&[a-z_]+=[^?&]*)*)$")
_CREDENTIALS = re.compile(r"(?<=://)[^\s@]+@")
_QUERY = re.compile(r"(://\S*\?)[a-z_]+=\S*")
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


def is_variable(name: str) -> bool:
    """Whether `name` can be that of an environment variable, in every shell and for every scheduler."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def is_secret_url(text: str) -> bool:
    """Whether it is a url that can be asked over HTTP, or `env:NAME`."""
    if text.startswith(FROM_ENVIRONMENT):
        return is_variable(text.removeprefix(FROM_ENVIRONMENT))
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


class Uri(NamedTuple):
    """`SCHEME://[USER[:SECRET]@]HOST/NAME[?OPTION=VALUE&...]`. Of a store HOST is the bucket and NAME the key."""

    scheme: str
    user: str
    secret: str
    host: str
    name: str  # as it stands: tools show the names of objects unescaped, so a % or a # is only that
    options: dict[str, str]


def split_uri(text: str) -> Uri | None:
    """`text` taken apart; None if it is a path."""
    scheme, slashes, rest = text.partition("://")
    if not slashes or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return None
    rest, given = cut_options(rest)
    pairs = [pair.partition("=") for pair in given[1:].split("&") if pair]
    options = {name: unquote(value) for name, _, value in pairs}
    authority, _, name = rest.partition("/")
    credentials, _, host = authority.rpartition("@")
    user, _, secret = credentials.partition(":")
    return Uri(scheme.lower(), unquote(user), unquote(secret), host, name, options)


def cut_options(text: str) -> tuple[str, str]:
    """What stands before the options of a URI, and they themselves with their question mark, or ""."""
    found = _OPTIONS.search(text)
    return (text[: found.start()], found[0]) if found else (text, "")


def mask_place(text: str) -> str:
    """A path or URI, credentials and options shown as ***; a URI that is misspelt shows as little as possible."""
    uri = split_uri(text)
    if uri is None:
        return text
    if ":" in uri.host:  # part of a secret, perhaps, that tore it apart
        return f"{uri.scheme}://***"
    user, options = "***@" if uri.user else "", "?***" if uri.options else ""
    return f"{uri.scheme}://{user}{uri.host}/{uri.name}{options}"


def mask_words(message: str) -> str:
    """A message that repeats what was typed, without what URIs in it may carry."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub("***@", message))
