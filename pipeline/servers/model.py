"""What is known of the model behind a server: what the server says of it, and what its answers have shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from pipeline.answers import Labels

# Fixed texts whose answers tell models apart, and a sick server from a poisonous row. Short: every model takes them.
CANARY = ("This is great, I love it.", "Terrible. Never again!", "Das Paket kam am Montag an.", "ok")


# What becomes of a text that is too long: refused, or cut where that is asked for; always refused; or cut without a
# word, so that it can't be known which texts were.
Cuts = Literal["when asked", "never", "unseen"]


# Whether pairs of texts can be sent: or only for logits, or not at all.
TakesPairs = Literal["taken", "for logits", "never"]


class ModelEntry(msgspec.Struct):
    """One model as a server lists it; what changes from call to call (times, permissions) is not kept."""

    id: str
    root: str | None = None
    max_model_len: int | None = None
    # Of other gateways these may be anything.
    parent: Any = None  # of an adapter: the id of its base model
    owned_by: Any = None  # the kind of server
    capabilities: Any = None  # of Infinity: what a model can be asked for


class Probe(NamedTuple):
    """A question that a server answers before it is sent any row.

    Args:
        path: beside the base URL; empty for the path of requests.
        body: what is posted; None for a GET.
        is_optional: whatever is wrong with the answer, it only says nothing. Else a server that is busy is waited for.
    """

    path: str
    body: bytes | None = None
    is_optional: bool = False


Replies = Mapping[Probe, bytes | None]  # the bodies of what was answered with 200, None for other answers
Decoded = TypeVar("Decoded")


def decoded(kind: type[Decoded], body: bytes | None) -> Decoded | None:
    """Decode what a server says of itself; None if it says nothing, or something of another form."""
    try:
        return msgspec.json.decode(body or b"", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Served(NamedTuple):
    """What a server announces before it has classified anything; a server that announces nothing is all defaults."""

    models: Sequence[ModelEntry] = ()
    names: Sequence[str] = ()  # of all classes, in class order
    texts: int | None = None  # the most that one request may have
    texts_in_flight: int | None = None  # the most that all requests may have together
    version: str = ""  # of the server
    dialect: Any = None  # how this model is asked, where that depends on what was announced
    problem: str = ""  # why it can't be asked, as the end of a sentence about it


class ModelFacts:
    """What the answers so far show of the model; every further answer must agree with it.

    Args:
        num_classes: how many classes the model has; 0 as long as nothing was answered.
        names: class index -> label, as far as it is known. A server may name only the top class of each text, so more
            names may be learned with every answer.
        given: class index -> label that the config gives; the server may have no name for such a class.
        preferred: names in the order to use for a server that gives its classes in none.
    """

    def __init__(
        self,
        num_classes: int = 0,
        names: Mapping[int, str] | None = None,
        given: Mapping[int, str] | None = None,
        preferred: Sequence[str] = (),
    ) -> None:
        self.num_classes = num_classes
        self.given = dict(given or {})
        self.names = {**self.given, **(names or {})}
        self.preferred = preferred
        self.order: Literal["server", "config", "name"] = "server"  # who says which class is which index
        self.sums_to_one: bool | None = None  # the values of each text; None: not known, or not looked at
        self.gives: Literal["", "all", "best"] = ""  # of each text: the values of all classes, or only the largest
        self.model = ""  # the model's name in the latest answer, if answers name it
        self.shown: set[int] = set()  # classes of which the server has said the name, or that it has none: for `BINARY`
        self.labels = Labels()  # of all answers of this model

    def adopt(self, canary: ModelFacts) -> None:
        """Take over what the canary has shown of the same model."""
        self.num_classes, self.model, self.order = canary.num_classes, canary.model, canary.order
        self.sums_to_one, self.gives = canary.sums_to_one, canary.gives
        self.names.update(canary.names)
        self.shown |= canary.shown
