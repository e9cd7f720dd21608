"""A shortened run of the fuzzing of all formats, and that it notices what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import label_of
from loaders import CASES, fuzz


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_generated_files_have_the_cells_that_other_readers_find(kind: str, tmp_path: Path) -> None:
    """After a run to each output format, each with the label of its own text."""
    assert fuzz(kind, 50, 1, tmp_path) == []


def test_cells_that_differ_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses the cells of a column, and a label of another row, are differences."""
    monkeypatch.setattr("pipeline.formats.jsonl.to_json", lambda column, _: [None] * len(column))
    monkeypatch.setattr("loaders.label_of", lambda text: "other" if text == "a" else label_of(text))
    found = fuzz("csv", 5, 1, tmp_path)
    assert any(".jsonl row" in each for each in found)
    assert not any(".parquet row" in each and "label" not in each for each in found)
