"""Bodies of answers as vLLM sends them: made up here, or recorded from a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parents[1] / "samples" / "vllm-0.32"


NAMES = ("bad", "fair", "good")


def sample(name: str) -> dict[str, Any]:
    """Return what a real vLLM 0.32 was asked and what it answered."""
    recorded: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return recorded


def item(index: int, probs: list[Any], **other: Any) -> dict[str, Any]:
    """One honest item; `other` makes it less so."""
    label = NAMES[probs.index(max(probs))] if "label" not in other else None
    return {"index": index, "label": label, "probs": probs, "num_classes": len(probs)} | other


def body(*items: dict[str, Any], **other: Any) -> bytes:
    """Return the bytes of an answer."""
    return json.dumps({"id": "c", "object": "list", "created": 1, "model": "m", "data": items} | other).encode()


BAD, FAIR, GOOD = [0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.125, 0.625]


TIE = [0.4, 0.4, 0.2]
