"""What is sent: the body of one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pipeline.config import Request

_encode = msgspec.json.Encoder().encode


def encode(texts: Sequence[bytes], model: str | None, request: Request, *, truncate: bool = False) -> bytes:
    """The body of one request, of texts escaped as in `escaped`.

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
    # Head and tail travel with the outermost texts, so that all the texts are copied only once.
    pieces = [*texts] or [b""]
    pieces[0] = b'%b%b"input":["%b' % (_encode(body)[:-1], b"," if body else b"", pieces[0])
    pieces[-1] += b'"]}'
    return b'","'.join(pieces)
