"""TEI, Hugging Face's text-embeddings-inference: `POST /predict`, and `GET /info`. Read in the source of 1.9.3.

- Each text stands in a list of its own: `["a", "b"]` would be one pair with one answer.
- `truncate` is sent in any case: left out, the server cuts texts that are too long, and does not say so.
- An answer is `[[{"score", "label"}, ...], ...]`, sorted by score, always a softmax, or a sigmoid where the model has
  one class. The softmax of logits far apart overflows, which refuses the request (424, "NaN").
- `/info` has the names of all classes in order, and the limits: texts in a request, texts in flight over all clients.
- A refusal does not name the guilty text: 422 for one that is too long and for too many, 429 for too many in flight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import Misconfigured, Rejected, RequestFailed
from pipeline.servers.dialects.scores import Pair, PlainDialect, body_of, of_pairs, read, texts_in_lists
from pipeline.servers.model import Cuts, ModelEntry, ModelFacts, Probe, Replies, Served, TakesPairs, decoded
from pipeline.servers.refusal import error_of
from pipeline.texts import Texts

INFO = Probe("/info")
TOO_LONG = re.compile(rb"must have less than \d+ (tokens|characters)")
TOO_MANY = re.compile(rb"batch size \d+ > maximum allowed batch size (\d+)")


class Info(msgspec.Struct):
    """The answer of `GET /info`."""

    model_id: str
    model_type: dict[str, Any]
    max_client_batch_size: int
    max_concurrent_requests: int | None = None
    version: str = ""

    @property
    def names(self) -> list[str]:
        """The names of all classes in their order; none where the server does not say."""
        kind = next(iter(self.model_type.values()), None)
        names = kind.get("id2label") if isinstance(kind, dict) else None
        names = names if isinstance(names, dict) else {}
        ordered = [names.get(str(index)) for index in range(len(names))]
        return [name for name in ordered if isinstance(name, str)] if None not in ordered else []


_decode = msgspec.json.Decoder(list[list[Pair]]).decode


class Tei(PlainDialect):
    """The dialect of TEI; what its members are for stands in `servers.dialect.Dialect`."""

    name = "tei"
    server = "TEI"
    path = "/predict"
    other_paths: tuple[str, ...] = ("/invocations",)
    cuts: Cuts = "when asked"
    pairs: TakesPairs = "taken"
    lacks: tuple[str, ...] = ('it applies a softmax always: several labels a text need request.activation = "sigmoid"',)

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for what it announces."""
        return (INFO,)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Return the model, the names of its classes, and the limits."""
        info = decoded(Info, replies.get(INFO))
        if info is None:
            return Served()
        is_other = "embedding" in info.model_type
        return Served(
            models=[ModelEntry(info.model_id)],
            names=info.names,
            texts=max(1, info.max_client_batch_size),
            texts_in_flight=info.max_concurrent_requests,
            version=info.version,
            problem=f"serves {info.model_id}, which gives embeddings, no classes" if is_other else "",
        )

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request."""
        options = {"truncate": truncate, "raw_scores": request.activation is not True}
        return body_of("inputs", texts_in_lists(texts), options | request.extra)

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:  # noqa: ARG002
        """Check the answer, and bring the values into class order."""
        return of_pairs(read(_decode, body), texts, facts, probs=probs)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Return the error that a status other than 200 stands for."""
        error = error_of(status, headers, body, key_variable, is_too_long=bool(TOO_LONG.search(body)))
        if most := TOO_MANY.search(body):
            return Rejected(str(error), status=status, most_texts=int(most[1]))
        if status == 424 and b"NaN" in body:  # noqa: PLR2004
            return Rejected(f'{error}; its softmax overflows, request.activation = "softmax" does not', status=status)
        if status == 424 and b"not a classifier" in body:  # noqa: PLR2004
            return Misconfigured(f"{error}; serve a classification model", status=status)
        return error
