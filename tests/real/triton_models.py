"""Repositories of models for a real Triton: those that make numbers of a text, and one with weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from serving import HERE, home

NAMES = ("negative", "neutral: a bit", "positive")  # a colon, which its own answers divide names by
MOST_TEXTS = 24
CONFIG = """backend: "python"
max_batch_size: {most}
input [ {{ name: "text" data_type: TYPE_STRING dims: [ {text} ] }} ]
output [ {{ name: "probs" data_type: TYPE_FP32 dims: [ {values} ] {labels} }} ]
parameters {{ key: "folder" value {{ string_value: "{folder}" }} }}
"""
LABELS = 'label_filename: "labels.txt"'


def write_numbers(repository: Path) -> Path:
    """Write two models: "clf" batches and has names, "bare" does neither."""
    _write(repository / "clf", "numbers", NAMES, most=MOST_TEXTS, text="1", values="3", labels=LABELS)
    return _write(repository / "bare", "numbers", NAMES, most=0, text="-1", values="-1, 3", labels="")


def write_weights(repository: Path, model: str, names: tuple[str, ...]) -> Path:
    """Write a model of make_models.py."""
    values = {"most": MOST_TEXTS, "text": "1", "values": len(names), "labels": LABELS}
    return _write(repository / model, "weights", names, folder=home() / "models" / model, **values)


def _write(model: Path, kind: str, names: tuple[str, ...], folder: Path = Path(), **values: object) -> Path:
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG.format(folder=folder, **values))
    (model / "labels.txt").write_text("".join(f"{label}\n" for label in names))
    shutil.copy(HERE / "triton_backend" / f"{kind}.py", model / "1" / "model.py")
    return model.parent
