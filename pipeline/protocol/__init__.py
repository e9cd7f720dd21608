"""vLLM's `POST /classify` on the wire: encode a request, check an answer, turn a status into an error. No I/O.

The shapes are those of vLLM 0.9 to 0.32 (the same in all of them):

    {"model": str?, "input": [str], ...}
    {"data": [{"index": int, "label": str | null, "probs": [float], "num_classes": int}, ...], "model": str, ...}

An answer is all or nothing: one bad text refuses the whole request, and the message never says which.
"""

from __future__ import annotations

from pipeline.protocol.answer import Answer, Item, ModelEntry, ModelFacts, decode, decode_models
from pipeline.protocol.refusal import error_message, error_of, parse_retry_after
from pipeline.protocol.request import encode

__all__ = [
    "Answer",
    "Item",
    "ModelEntry",
    "ModelFacts",
    "decode",
    "decode_models",
    "encode",
    "error_message",
    "error_of",
    "parse_retry_after",
]
