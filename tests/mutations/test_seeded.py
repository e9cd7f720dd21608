"""The mutation list keeps up with the code, so that it can be run at any time."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutations.seeded import MUTATIONS, Mutation

PACKAGE = Path(__file__).parent.parent.parent / "pipeline"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_seeded_bug_has_its_place(mutation: Mutation) -> None:
    """The text that a seeded bug replaces stands once in its file."""
    assert (PACKAGE / mutation.file).read_text().count(mutation.old) == 1
