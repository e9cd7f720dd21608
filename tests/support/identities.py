"""The identity of a run: the settings and the model that its answers belong to."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.checkpoint import Identity, identity_of
from pipeline.config import load

MODEL: Identity = {
    "model.id": "m",
    "model.root": None,
    "model.max_model_len": 512,
    "model.num_classes": 2,
    "model.names": {"0": "no"},
    "model.canary": [[0.25, 0.75], [0.5, 0.5]],
}


def identity(settings: dict[str, Any] | None = None, digest: str = "1-ab", **model: Any) -> Identity:
    """The identity of a run, as it is kept in the checkpoint (JSON) and compared."""
    whole = identity_of(load(None, settings or {}), digest) | MODEL
    whole |= {f"model.{key}": value for key, value in model.items()}
    again: Identity = msgspec.json.decode(msgspec.json.encode(whole))
    return again
