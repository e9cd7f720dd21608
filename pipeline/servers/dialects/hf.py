"""What runs Hugging Face's pipeline: Inference Endpoints, their toolkit, SageMaker's containers, and home-made servers.

Recorded from huggingface-inference-toolkit 0.5.6; SageMaker's read in its source.

- A request is `{"inputs": [text, ...], "parameters": {...}}`. Without `top_k: null` only the best class is answered,
  without `truncation: true` a text that is too long is an error of torch, which on a GPU ends in a broken process.
  `batch_size` and `padding` make it five times as fast; a tokenizer without padding refuses them.
- A pair is `{"text": ..., "text_pair": ...}` in the place of a text.
- An answer is `[[{"label", "score"}, ...], ...]`, sorted by score. `return_all_scores` gives them in class order, with
  transformers 4; transformers 5 ignores it. That is asked once, with the canary.
- A refusal is 400 whatever the cause, also when the GPU is dead: only the canary tells. Nothing says which text is
  guilty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import Misconfigured, Overloaded, Rejected, RequestFailed, Unavailable
from pipeline.servers.dialects.scores import Pair, PlainDialect, body_of, encode_json, of_best, of_pairs, read
from pipeline.servers.model import CANARY, Cuts, ModelFacts, Probe, Replies, Served, TakesPairs, decoded
from pipeline.servers.refusal import error_of
from pipeline.texts import Texts

BATCH = 32  # texts that go through the model at once
TOO_LONG = re.compile(rb"The size of tensor a \(\d+\) must match|index out of range in self")
BROKEN = re.compile(rb"CUDA|CUBLAS|CUDNN|device-side assert|out of memory", re.IGNORECASE)
LOADING = re.compile(rb'"estimated_time":\s*(\d+(?:\.\d+)?)')
BATCHED = {"padding": True, "batch_size": BATCH}
IN_ORDER = Probe("", encode_json({"inputs": CANARY, "parameters": {"return_all_scores": True, **BATCHED}}))
IN_ORDER_SINGLY = Probe("", encode_json({"inputs": CANARY, "parameters": {"return_all_scores": True}}))

_decode = msgspec.json.Decoder(list[list[Pair]]).decode
_decode_best = msgspec.json.Decoder(list[Pair]).decode


class Hf(PlainDialect):
    """The dialect of Hugging Face's pipeline; what its members are for stands in `servers.dialect.Dialect`."""

    name = "hf"
    server = "Hugging Face pipeline"
    path = "/"
    other_paths: tuple[str, ...] = ("/predict", "/invocations")
    cuts: Cuts = "unseen"
    pairs: TakesPairs = "taken"

    def __init__(self, *, is_batched: bool = True) -> None:
        self._is_batched = is_batched

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for the order of the classes, once more without padding where that is refused."""
        is_refused = IN_ORDER in replies and replies[IN_ORDER] is None
        return (IN_ORDER, IN_ORDER_SINGLY) if is_refused else (IN_ORDER,)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Return the names of the classes, where they come in their order."""
        is_batched = replies.get(IN_ORDER) is not None
        body = replies.get(IN_ORDER) or replies.get(IN_ORDER_SINGLY)
        return Served(names=names_in_order(body), dialect=Hf(is_batched=is_batched))

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request."""
        parameters: dict[str, Any] = {"top_k": None, "truncation": True}
        if self._is_batched:
            parameters |= BATCHED
        if request.activation is not True:
            parameters["function_to_apply"] = "none"
        given = request.extra.get("parameters")
        parameters |= given if isinstance(given, dict) else {}
        inputs: bytes | memoryview = texts.data[:-1]
        if texts.are_pairs:
            inputs = encode_json([{"text": first, "text_pair": second} for first, second in texts.unescaped()])[1:-1]
        return body_of("inputs", inputs, request.extra | {"parameters": parameters})

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:  # noqa: ARG002
        """Check the answer, and bring the values into class order."""
        if body.lstrip()[:2] != b"[{":
            return of_pairs(read(_decode, body), texts, facts, probs=probs)
        return of_best(read(_decode_best, body), texts, facts)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for."""
        error = error_of(status, headers, body, key_variable, is_too_long=bool(TOO_LONG.search(body)))
        if status == 400 and BROKEN.search(body):  # noqa: PLR2004
            return Unavailable(str(error), status=status)
        if isinstance(error, Rejected) and error.code != "too_long":
            return Rejected(error.reason, status=status, is_doubtful=True)
        if isinstance(error, Overloaded) and error.retry_after is None and (seconds := LOADING.search(body)):
            return Overloaded(error.reason, status=status, retry_after=float(seconds[1]))
        return error


def names_in_order(body: bytes | None) -> list[str]:
    """Return the names of all classes if they come in their order: the same for all texts, and not sorted by score.

    None where a server has sorted them after all, or gives the best only.
    """
    rows = decoded(list[list[Pair]], body) or []
    orders = {tuple(pair.label for pair in row) for row in rows}
    is_sorted = all(row == sorted(row, key=lambda pair: -pair.score) for row in rows)
    return list(*orders) if len(rows) == len(CANARY) and len(orders) == 1 and not is_sorted else []
