"""SGLang: `POST /v1/classify` answers as vLLM does; the native `POST /classify` has logits. Recorded from 0.5.23.

- There is no field for cutting, and none for logits: `--allow-auto-truncate` of the server cuts, and says nothing.
- `/v1/classify` applies a softmax to whatever the model gives, also to several labels a text; a model with one class
  has the value 1.0 for every text, or is an error. So where the config asks for logits, or for an activation of its
  own, the native path is asked: `{"text": [...]}` -> `[{"embedding": [logit, ...]}, ...]`, in class order and without
  names.
- The native path takes pairs, too: `{"text": [[text, text], ...], "is_cross_encoder_request": true}`.
- Where its activation fails, the server says 200 and the label "Default".
- A refusal names the first blank text by its position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import BadAnswer, Misconfigured, Rejected, RequestFailed
from pipeline.servers.dialects.scores import NUMBERED, body_of, of_values, read
from pipeline.servers.dialects.vllm import MODELS, Vllm, models_in, version_in
from pipeline.servers.model import Cuts, ModelFacts, Probe, Replies, Served
from pipeline.servers.refusal import error_of
from pipeline.texts import Texts

SERVER_INFO = Probe("/server_info", is_optional=True)
TOO_LONG = b"longer than the model's context length"
GUILTY = re.compile(rb"Input at index (\d+) ")
ONE_CLASS = (
    'is an SGLang server, which has no probability of a model with one class; request.activation = "sigmoid" asks for '
    "its logits"
)


class Item(msgspec.Struct, gc=False):
    """The native answer to one text; of a model with one class it is a bare number."""

    embedding: list[float] | float


_decode = msgspec.json.Decoder(list[Item]).decode


class Sglang(Vllm):
    """The dialect of SGLang; `is_native` asks for logits. The members stand in `servers.dialect.Dialect`."""

    name = "sglang"
    server = "SGLang"
    cuts: Cuts = "never"
    lacks: tuple[str, ...] = (
        "it cuts no text, unless it was started with --allow-auto-truncate, and then does not say so",
        'it applies a softmax always: several labels a text need request.activation = "sigmoid" and writer.labels',
    )

    def __init__(self, *, is_native: bool = False) -> None:
        self._is_native = is_native
        self.path = "/classify" if is_native else "/v1/classify"
        self.other_paths = ("/v1/classify",)
        self.pairs = "taken" if is_native else "for logits"

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for the models, and for the version."""
        return (MODELS, SERVER_INFO)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Return the models that `/v1/models` lists."""
        return Served(models=models_in(replies.get(MODELS)), version=version_in(replies.get(SERVER_INFO)))

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request."""
        named = {} if model is None else {"model": model}
        more: dict[str, Any] = {} if request.priority is None else {"priority": request.priority}
        if texts.are_pairs:
            more["is_cross_encoder_request"] = True
        return body_of("text" if self._is_native else "input", texts.data[:-1], named | more | request.extra)

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:
        """Check the answer: that of vLLM, or the logits of the native path."""
        if self._is_native:
            rows = [
                each.embedding if isinstance(each.embedding, list) else [each.embedding] for each in read(_decode, body)
            ]
            return of_values(rows, texts, facts, probs=probs)
        if b'"Default"' in body and facts.names.get(0) != "Default":
            raise BadAnswer('the server failed in its activation, and says so with the label "Default"')
        return super().decode(body, texts, facts, model, probs=probs)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for."""
        error = error_of(status, headers, body, key_variable, is_too_long=TOO_LONG in body)
        if isinstance(error, Rejected) and (guilty := GUILTY.search(body)):
            return Rejected(str(error), status=status, positions=[int(guilty[1])])
        if status == 500 and b"'float' has no len()" in body:  # noqa: PLR2004
            return Misconfigured(f"{error}: it {ONE_CLASS}", status=status)
        return error

    def cannot(self, request: Request, canary: Answers) -> str | None:
        """Return what of the request, or of the model, this server can't do."""
        if request.too_long == "truncate":
            return (
                "is an SGLang server, which cuts no text when it is asked to; "
                'request.too_long = "split" has it answered in parts, or start it with --allow-auto-truncate'
            )
        if self._is_native and any(map(NUMBERED.match, canary.labels.names)):
            return "is an SGLang server, which gives logits without names; name all classes in writer.labels"
        if not self._is_native and (canary.probs_or_nan(1) == 1).all():
            return ONE_CLASS
        return None
