"""URLs and URIs: check them, split them, and mask their secrets; secrets in what a server says."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError

# A question mark without NAME=VALUE after it is part of the name.
_OPTIONS = re.compile(r"\?([a-z_]+=[^?&]*(?:&[a-z_]+=[^?&]*)*)$")
_CREDENTIALS = re.compile(r"(?<=://)[^\s@]+@")
_QUERY = re.compile(r"(://\S*\?)[a-z_]+=\S*|(https?://[^\s?]*\?)\S*", re.IGNORECASE)
SHORTEST_SECRET = 4  # characters; shorter words are not masked
# How a byte or character may be escaped in a server's words; what has no group is left out.
_ESCAPE = re.compile(
    rb"\\u([0-9a-f]{4})|(?:\\x|%)([0-9a-f]{2})|&(#?\w{1,10};)|\\([^nrt\s])|\\[nrt]?|[\s\0]", re.IGNORECASE
)
MOST_ESCAPES = 8  # one over the other
FROM_ENVIRONMENT = "env:"  # before the name of the variable that holds the value


def mask_url(url: str) -> str:
    """Mask the password and the query of a URL; also of text that is no valid URL."""
    start, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    rest, question, _ = rest.partition("?")
    user, at, host = rest.rpartition("@")
    if at:
        rest = f"{user.partition(':')[0]}:***@{host}" if ":" in user and slashes else f"***@{host}"
    return f"{start}{slashes}{rest}{question and '?***'}"


def is_http(url: str) -> bool:
    """Return whether `url` is a valid http or https URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, a bracket that is never closed
        return False


def origin(url: str) -> str:
    """Return scheme and host of a URL whose path may be a secret; `env:NAME` is returned as it is."""
    if url.startswith(FROM_ENVIRONMENT):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"


def is_web(text: str) -> bool:
    """Return whether `text` is a URL of a web server, or the scheme of one."""
    return text.lower().partition("://")[0] in ("http", "https")


def is_variable(name: str) -> bool:
    """Return whether `name` is a valid name of an environment variable, in every shell and scheduler."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def read_secret(key: str, text: str, environment: Mapping[str, str]) -> str:
    """Return `text`, or the value of the variable of `env:NAME`; `key` is the config key, for messages.

    Raises:
        ConfigError: the variable is not set.
    """
    if not text.startswith(FROM_ENVIRONMENT):
        return text
    variable = text.removeprefix(FROM_ENVIRONMENT)
    if variable not in environment:
        raise ConfigError(f"{key}: the environment has no variable {variable}; set it")
    return environment[variable]


class Uri(NamedTuple):
    """`SCHEME://[USER[:SECRET]@]HOST/NAME[?OPTION=VALUE&...]`; for a store, HOST is the bucket and NAME the key."""

    scheme: str
    user: str
    secret: str
    host: str
    name: str  # not unescaped: tools show object names as they are, so % and # have no meaning
    options: dict[str, str]


def split_uri(text: str) -> Uri | None:
    """Split a URI; None if `text` is a path."""
    scheme, slashes, rest = text.partition("://")
    if not slashes or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return None
    rest, given = (rest, "") if is_web(scheme) else cut_options(rest)
    pairs = [pair.partition("=") for pair in given[1:].split("&") if pair]
    options = {name: unquote(value) for name, _, value in pairs}
    authority, _, name = rest.partition("/")
    credentials, _, host = authority.rpartition("@")
    user, _, secret = credentials.partition(":")
    return Uri(scheme.lower(), unquote(user), unquote(secret), host, name, options)


def cut_options(text: str) -> tuple[str, str]:
    """Split a URI into the part before its options, and the options with their question mark, or "".

    A URL of a web server has none: its query belongs to the name.
    """
    found = None if is_web(text) else _OPTIONS.search(text)
    return (text[: found.start()], found[0]) if found else (text, "")


def mask_uri(text: str) -> str:
    """Mask credentials and options of a URI, and most of one that is malformed; a path is returned as it is."""
    uri = split_uri(text)
    if uri is None:
        return text
    name, question, _ = uri.name.partition("?") if is_web(text) else (uri.name, bool(uri.options), "")
    has_port = uri.scheme not in ("s3", "gs") and re.fullmatch(r"[^:]+:\d+", uri.host)
    if ":" in uri.host and not has_port:  # perhaps part of a secret that holds a slash
        return f"{uri.scheme}://***"
    user, options = "***@" if uri.user else "", "?***" if question else ""
    return f"{uri.scheme}://{user}{uri.host}/{name}{options}"


def mask_words(message: str) -> str:
    """Mask credentials and queries of all URIs in a message."""
    return _QUERY.sub(r"\1\2***", _CREDENTIALS.sub("***@", message))


class Secrets:
    r"""What a server was sent and may repeat, found in its words however it is spelled there.

    A character may be escaped as in JSON (`\u002B`, `\/`), a URL (`%2B`), HTML (`&#43;`, `&plus;`) or Python (`\x2b`),
    also several times over; and the whole may be in Base64, also with other words before and after it.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        given = {secret.encode("utf-8", "surrogateescape") for secret in secrets if len(secret) >= SHORTEST_SECRET}
        words = {_unescape(word)[0] for secret in given for word in (secret, *_in_base64(secret))}
        # The longest first, so that none is cut out of another one. Without any, nothing matches.
        longest_first = sorted((word for word in words if len(word) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first)) or b"(?!)")

    def mask(self, words: bytes) -> bytes:
        """Return a server's words with *** for each secret."""
        if not self._pattern.search(_plain(words)):  # as always, and several times as fast as to find out where
            return words
        plain, spans = _unescape(words)
        for found in reversed(list(self._pattern.finditer(plain))):
            words = words[: spans[found.start()][0]] + b"***" + words[spans[found.end() - 1][1] :]
        return words


def _plain(words: bytes) -> bytes:
    for _ in range(MOST_ESCAPES):
        words, found = _ESCAPE.subn(_meant, words)
        if not found:
            break
    return words


def _unescape(words: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Return words without escapes and white space, and where each byte of that stands in `words`: start, stop."""
    spans = [(index, index + 1) for index in range(len(words))]
    for _ in range(MOST_ESCAPES):
        plain, kept, at = bytearray(), list[tuple[int, int]](), 0
        for found in _ESCAPE.finditer(words):
            meant = _meant(found)
            plain += words[at : found.start()] + meant
            kept += spans[at : found.start()]
            kept += [(spans[found.start()][0], spans[found.end() - 1][1])] * len(meant)
            at = found.end()
        if not at:
            break
        words, spans = bytes(plain + words[at:]), kept + spans[at:]
    return words, spans


def _meant(escape: re.Match[bytes]) -> bytes:
    code, octet, entity, sign = escape.groups()
    if code:
        return chr(int(code, 16)).encode("utf-8", "surrogatepass")
    if entity:
        return unescape(f"&{entity.decode()}").encode()
    return bytes.fromhex(octet.decode()) if octet else sign or b""


def _in_base64(secret: bytes) -> set[bytes]:
    """Return what of a secret's Base64 does not depend on the bytes around it, at each of three offsets."""
    found = set()
    for offset in range(3):
        content = bytes(offset) + secret
        whole = slice(offset and offset + 1, len(content) * 8 // 6)
        found |= {encode(content)[whole] for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return found
