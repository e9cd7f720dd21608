"""The recipes are run as they stand, with a server that behaves as the model they are for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
from commands import Command
from fake import FakeServer

PAGE = (Path(__file__).parents[2] / "pipeline" / "docs" / "recipes.md").read_text(encoding="utf-8")


def block(kind: str, heading: str) -> str:
    """The first block of a kind below a heading."""
    below = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{kind}\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)
    assert found, f"{heading}: no {kind}"
    return found[1]


def test_moderation(tmp_path: Path, classify: Command) -> None:
    """Several labels, one, none, and no answer; equal is enough, and what is to be looked at is found."""
    heading = "Moderation: several labels a text"
    comments = {
        "you idiot, I will find you": [0.9, 0.1, 0.4, 0.2, 0.95, 0.0],
        "what a nice day": [0.01, 0.0, 0.02, 0.19, 0.03, 0.0],
        "damn": [0.4, 0.0, 0.5, 0.0, 0.1, 0.0],
        "": [],
    }
    (tmp_path / "comments.jsonl").write_text("".join(json.dumps({"comment": text}) + "\n" for text in comments))
    names = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    others = [0.6, 0.1, 0.1, 0.1, 0.1, 0.3]
    with FakeServer(labels=names, values_of=lambda text, _: comments.get(text, others)) as server:
        config = block("toml", heading).replace("http://localhost:8000", server.url)
        (tmp_path / "moderation.toml").write_text(config)
        checked = classify("check", "moderation.toml").stdout
        classify("run", "moderation.toml")
    told = re.search(r"\*(the values [^*]*)\*", PAGE)
    assert told
    assert told[1] in checked
    table = pq.read_table(tmp_path / "moderated.parquet")
    assert table["predicted_labels"].to_pylist() == [["insult", "toxic", "threat"], [], ["obscene"], None]
    assert table["predicted_top"].to_pylist()[1] == [{"label": "threat", "score": 0.19}]
    scope: dict[str, object] = {}
    exec(block("python", heading), scope)  # noqa: S102 - our own page
    flagged = scope["flagged"]
    assert callable(flagged)
    assert flagged(table)["comment"].to_pylist() == ["you idiot, I will find you", "damn", ""]
