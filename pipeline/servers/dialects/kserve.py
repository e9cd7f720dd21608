"""KServe's protocol V1, that of TensorFlow Serving: `POST /v1/models/MODEL:predict`. Recorded from KServe 0.21.

- A request is `{"instances": [text, ...]}`, an answer `{"predictions": [...]}`. The Hugging Face runtime answers with
  class numbers alone, unless it was started with `--return_probabilities` (then {"0": 0.9, "1": 0.1}, rounded to four
  digits) or `--return_raw_logits`. It knows no names, cuts texts that are too long without a word, and applies a
  softmax always.
- `GET /v1/models` lists the names of the models.
- A refusal is 400, or 500 for anything else that is wrong with a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import BadAnswer
from pipeline.servers.dialects.scores import NO_SCORES, PlainDialect, body_of, of_items, of_named, read
from pipeline.servers.model import Cuts, ModelEntry, ModelFacts, Probe, Replies, Served, decoded
from pipeline.texts import Texts

MODELS = Probe("/v1/models")
WITHOUT_SCORES = f"the server {NO_SCORES}; start it with --return_probabilities"


class ModelNames(msgspec.Struct):
    """The answer of `GET /v1/models`, and of `GET /v2/models`."""

    models: list[str]


class Values(msgspec.Struct, gc=False):
    """The usual answer: for each text an object of numbers."""

    predictions: list[dict[str, float]]


class Predictions(msgspec.Struct, gc=False):
    """Any other answer."""

    predictions: list[Any]


_decode_values = msgspec.json.Decoder(Values).decode
_decode = msgspec.json.Decoder(Predictions).decode


class Kserve(PlainDialect):
    """The dialect of KServe V1; what its members are for stands in `servers.dialect.Dialect`."""

    name = "kserve"
    server = "KServe V1"
    path = "/v1/models/{model}:predict"
    cuts: Cuts = "unseen"
    lacks: tuple[str, ...] = (
        "it gives scores only if it was started with --return_probabilities",
        "it has no names of classes: writer.labels gives them",
        "it gives logits only if it was started with --return_raw_logits",
    )

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for the models."""
        return (MODELS,)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Return the models."""
        return Served(models=[ModelEntry(name) for name in model_names(replies.get(MODELS))])

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request."""
        return body_of("instances", texts.data[:-1], request.extra)

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:  # noqa: ARG002
        """Check the answer."""
        try:
            return of_named(_decode_values(body).predictions, texts, facts, probs=probs)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            items = read(_decode, body).predictions
        if items and all(isinstance(item, int) for item in items):
            raise BadAnswer(WITHOUT_SCORES)
        return of_items(items, texts, facts, probs=probs)


def model_names(body: bytes | None) -> list[str]:
    """Return the names that a list of KServe's form has; none if it is none."""
    found = decoded(ModelNames, body)
    return found.models if found else []
