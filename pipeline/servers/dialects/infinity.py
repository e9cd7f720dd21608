"""Infinity: `POST /classify`, below the prefix that the server was started with. Recorded from 0.0.78.

- An answer is `{"data": [[{"score", "label"}, ...], ...], "model": name}`, sorted by score. No index; by position.
- The order of classes is told nowhere. `raw_scores` has no effect here, so there are no logits.
- Texts that are too long are always cut, and it is not said which.
- A 422 names each guilty text by its position, and repeats it: it can be as large as the request. More than 2048 texts
  are one, too; that number stands in the refusal alone.
- Models with one class are served for `/rerank` only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import Misconfigured, Rejected, RequestFailed
from pipeline.servers.dialects.scores import Pair, PlainDialect, body_of, of_pairs, other_name, read
from pipeline.servers.dialects.vllm import models_in
from pipeline.servers.model import Cuts, ModelFacts, Probe, Replies, Served
from pipeline.servers.refusal import error_of, shorten
from pipeline.texts import Texts

MODELS, PREFIXED_MODELS = Probe("/models"), Probe("/v1/models")
PREFIX = "/v1"
# In what the body repeats of a text quotes are escaped, so this is found only where the server itself says it. The body
# may be cut before its end.
GUILTY = re.compile(rb'"type":"(\w+)","loc":\["body","input"(?:,(\d+))?\],"msg":"((?:[^"\\]|\\.)*)"')
MOST = re.compile(rb"at most (\d+) items")


class Answer(msgspec.Struct, gc=False):
    """The answer to one request."""

    data: list[list[Pair]]
    model: str = ""


_decode = msgspec.json.Decoder(Answer).decode


class Infinity(PlainDialect):
    """The dialect of Infinity; what its members are for stands in `servers.dialect.Dialect`."""

    name = "infinity"
    server = "Infinity"
    other_paths: tuple[str, ...] = ("/v1/classify",)
    cuts: Cuts = "unseen"
    lacks: tuple[str, ...] = ("it gives no logits",)

    def __init__(self, prefix: str = "") -> None:
        self.path = f"{prefix}/classify"

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for the models, with and without the usual prefix."""
        return (MODELS,) if replies.get(MODELS) else (MODELS, PREFIXED_MODELS)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Return the models, and where they are asked."""
        prefix = PREFIX if not replies.get(MODELS) and replies.get(PREFIXED_MODELS) else ""
        body = replies.get(MODELS) or replies.get(PREFIXED_MODELS)
        models = [
            each
            for each in models_in(body)
            if not isinstance(each.capabilities, list) or "classify" in each.capabilities
        ]
        return Served(models=models, dialect=Infinity(prefix))

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request."""
        named = {} if model is None else {"model": model}
        return body_of("input", texts.data[:-1], named | request.extra)

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:
        """Check the answer, and bring the values into class order."""
        answer = read(_decode, body)
        if other := other_name(answer.model, model):
            raise other
        answers = of_pairs(answer.data, texts, facts, probs=probs)
        facts.model = answer.model
        return answers

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for."""
        error = error_of(status, headers, body, key_variable)
        if status == 400 and (b"Invalid model" in body or b"does not support `classify`" in body):  # noqa: PLR2004
            return Misconfigured(str(error), status=status)
        if not (found := GUILTY.findall(body)):
            return error
        message = f"HTTP {status}: {shorten(found[0][2].decode(errors='replace'))}"
        if most := MOST.search(found[0][2]):
            return Rejected(message, status=status, most_texts=int(most[1]))
        is_too_long = {kind for kind, _, _ in found} == {b"string_too_long"}
        positions = {int(position) for _, position, _ in found if position}
        return Rejected(message, status=status, too_long=is_too_long, positions=positions)

    def cannot(self, request: Request, canary: Answers) -> str | None:  # noqa: ARG002
        """Return that it has no logits, if they are asked for."""
        return (
            None
            if request.activation is True
            else "is an Infinity server, which gives no logits; leave request.activation = true"
        )
