"""What is known of the model behind a server: what the server says of it, and what its answers have shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from pipeline.answers import Labels


class ModelEntry(msgspec.Struct):
    """One model as a server lists it; what changes from call to call (times, permissions) is not kept."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class Served(NamedTuple):
    """What a server announces before it has classified anything; a server that announces nothing is all defaults."""

    models: Sequence[ModelEntry] = ()
    names: Sequence[str] = ()  # of all classes, in class order
    texts: int | None = None  # the most that one request may have


class ModelFacts:
    """What the answers so far show of the model; every further answer must agree with it.

    Args:
        num_classes: how many classes the model has; 0 as long as nothing was answered.
        names: class index -> label, as far as it is known. A server may name only the top class of each text, so more
            names may be learned with every answer.
        given: class index -> label that the config gives; the server may have no name for such a class.
    """

    def __init__(
        self, num_classes: int = 0, names: Mapping[int, str] | None = None, given: Mapping[int, str] | None = None
    ) -> None:
        self.num_classes = num_classes
        self.given = dict(given or {})
        self.names = {**self.given, **(names or {})}
        self.model = ""  # the model's name in the latest answer, if answers name it
        self.labels = Labels()  # of all answers of this model
