"""vLLM's `POST /pooling` with `bytes_only`: the values of `/classify` as float32, in a body of nothing else.

Read in the source of 0.32 and 0.33, recorded from 0.32:

- A request has the fields of `/classify`, and `task`, `encoding_format`, `embed_dtype` and `endianness`. A server that
  does not know `bytes_only` refuses it, and one that does not know the field answers with JSON.
- An answer is texts x classes float32 numbers of four bytes, in the order of the texts. `/classify` prints the same
  numbers so that they are read back exactly, so both ways give equal values.
- Nothing in it says how many texts or classes there are, or how the model or a class is called. What `/classify` has
  named before is used; the label there is that of the first of the largest values.
- A refusal is that of `/classify`.
"""

from __future__ import annotations

import numpy as np

from pipeline.answers import NO_LABEL, Answers
from pipeline.config import Request
from pipeline.errors import BadAnswer, OtherModel
from pipeline.servers.dialects.scores import ANSWER_BYTES, ROUNDING, body_of
from pipeline.servers.dialects.vllm import Vllm, fields_of
from pipeline.servers.model import ModelFacts
from pipeline.texts import Texts

FORM = {"task": "classify", "encoding_format": "bytes_only", "embed_dtype": "float32", "endianness": "little"}
FLOAT = np.dtype("<f4")


class VllmBinary(Vllm):
    """The other way to ask a vLLM server whose classes `/classify` has shown."""

    path = "/pooling"

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:
        """Return the body of one request; `request.extra` can't change the form of the answer."""
        return body_of("input", texts.data[:-1], fields_of(model, request, truncate=truncate) | FORM)

    def decode(
        self,
        body: bytes,
        texts: int,
        facts: ModelFacts,
        model: str = "",  # noqa: ARG002 - the answer does not name it
        *,
        probs: bool = True,
    ) -> Answers:
        """Check the answer; a text whose class no answer of `/classify` has shown yet gets no label."""
        row_bytes = FLOAT.itemsize * texts
        if len(body) != row_bytes * facts.num_classes:
            if body and len(body) % row_bytes == 0:
                raise OtherModel(f"{len(body) // row_bytes} classes where the model had {facts.num_classes}")
            raise BadAnswer(f"{len(body)} bytes for {texts} texts of {facts.num_classes} classes")
        values = np.frombuffer(body, FLOAT).reshape(texts, facts.num_classes)
        if not np.isfinite(values).all():
            raise BadAnswer("a value is no finite number")
        if facts.sums_to_one and (values.min() < 0 or abs(values.sum(axis=1, dtype=np.float64) - 1).max() > ROUNDING):
            raise BadAnswer("the values of a text do not sum to 1, as those of all others do")
        best = values.argmax(axis=1)
        ids = np.full(facts.num_classes, NO_LABEL, np.int32)
        for index in facts.shown.intersection(best.tolist()):
            ids[index] = facts.labels.id_of(facts.names.get(index, f"LABEL_{index}"))
        scores = values[np.arange(texts), best].astype(np.float64)
        return Answers(facts.labels, ids[best], scores, values.astype(np.float64) if probs else None)

    def largest_answer(self, texts: int, facts: ModelFacts) -> int:
        """Return how many bytes an honest answer has, and some more, so that one of another model is seen as that."""
        return ANSWER_BYTES + FLOAT.itemsize * texts * facts.num_classes
