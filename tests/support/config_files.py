"""Config files, and the message of one that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load
from pipeline.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def refusal(settings: dict[str, Any], path: Path | None = None) -> str:
    """The message of a config that is refused."""
    with pytest.raises(ConfigError) as caught:
        load(str(path) if path else None, settings)
    message = str(caught.value)
    assert message.isprintable()
    assert "$" not in message, "paths and patterns of the library that checks are not the user's words"
    return message


def toml(tmp_path: Path, text: str, name: str = "c.toml") -> Path:
    """A config file."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
