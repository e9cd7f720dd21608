"""A server of one's own, that takes texts in a list and answers with a list: LitServe, BentoML, Ray Serve, FastAPI ...

`request.field` names the list of texts in the request, `request.answer` the way to the list of answers. What an item
may be stands in `scores.of_items`. Nothing else is known of such a server: limits and cutting are its own matter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.answers import Answers
from pipeline.config import Request
from pipeline.errors import BadAnswer
from pipeline.servers.dialects.scores import PlainDialect, body_of, of_items, read
from pipeline.servers.model import Cuts, ModelFacts
from pipeline.texts import Texts

_decode = msgspec.json.Decoder().decode


class OwnJson(PlainDialect):
    """The dialect "json"; what its members are for stands in `servers.dialect.Dialect`.

    Args:
        field: the member of the request that holds the texts.
        answer: the members of the answer to go down, with dots between them; empty if it is a list.
    """

    name = "json"
    server = "JSON"
    path = "/predict"
    cuts: Cuts = "unseen"
    lacks: tuple[str, ...] = ("it gives no logits", "its limits are not known")

    def __init__(self, field: str = "inputs", answer: str = "") -> None:
        self._field, self._answer = field, answer

    def encode(self, texts: Texts, model: str | None, request: Request, *, truncate: bool = False) -> bytes:  # noqa: ARG002
        """Return the body of one request."""
        return body_of(self._field, texts.data[:-1], request.extra)

    def decode(self, body: bytes, texts: int, facts: ModelFacts, model: str = "", *, probs: bool = True) -> Answers:  # noqa: ARG002
        """Check the answer, and bring the values into class order."""
        tree: Any = read(_decode, body)
        for name in filter(None, self._answer.split(".")):
            if not isinstance(tree, dict) or name not in tree:
                there = f"it has {', '.join(map(str, tree))}" if isinstance(tree, dict) else "it is no object"
                raise BadAnswer(f"the answer has no {self._answer!r}: {there}; correct request.answer")
            tree = tree[name]
        if isinstance(tree, dict) and not self._answer:
            raise BadAnswer(
                f"the answer is an object with {', '.join(map(str, tree))}; request.answer says which it is in"
            )
        return of_items(tree, texts, facts, probs=probs)

    def cannot(self, request: Request, canary: Answers) -> str | None:  # noqa: ARG002
        """Return that nothing is known of logits, if they are asked for."""
        return None if request.activation is True else "gives what it gives; leave request.activation = true"
