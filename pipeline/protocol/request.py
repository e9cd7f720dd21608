"""What is sent: the body of one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pipeline.config import Request
    from pipeline.escaped import Texts

_encode = msgspec.json.Encoder().encode


def encode(texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:
    """The body of one request.

    `request.extra` is sent as it is and may override all but the texts.
    """
    body: dict[str, Any] = {}
    if model is not None:
        body["model"] = model
    if not request.activation:
        body["use_activation"] = False
    if request.priority is not None:
        body["priority"] = request.priority
    if truncate:
        body["truncate_prompt_tokens"] = -1
    body.update(request.extra)
    body.pop("input", None)
    head = b'%b%b"input":[' % (_encode(body)[:-1], b"," if body else b"")
    return b"".join([head, texts.data[:-1], b"]}"])
