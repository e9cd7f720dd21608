"""A run of the real pipeline whose answers go into memory instead of the checkpoint, to see what the checkpoint costs.

python without_checkpoint.py {memory|real} INPUT OUTPUT URL   `real`: the same driver with the real checkpoint
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator

import numpy as np

from pipeline import Config, run
from pipeline.answers import Predictions
from pipeline.checkpoint import Checkpoint, Slab
from pipeline.config import Loader, Server, Writer
from pipeline.runs import output
from pipeline.texts import Position

kept: dict[int, tuple[array[int], array[float]]] = {}


class InMemory(Checkpoint):
    """Keeps labels and scores, packed: two million Python objects would cost more than the checkpoint does.

    Only what a run writes once (its identity) still goes into the file.
    """

    def add(self, first_row: int, place: Position, predictions: Predictions, num_classes: int) -> None:  # noqa: ARG002
        """Keep the predictions."""
        assert not predictions.errors
        assert not num_classes
        for name in dict.fromkeys(predictions.labels):
            assert name is not None
            self.label_ids.setdefault(name, len(self.label_ids))
        ids = [self.label_ids[name or ""] for name in predictions.labels]
        kept[first_row] = (array("i", ids), array("d", predictions.scores))

    def flush(self) -> None:
        """Nothing waits."""

    def slabs(self, num_classes: int) -> Iterator[Slab]:  # noqa: ARG002
        """What was kept, in the order of the rows."""
        for first_row in sorted(kept):
            ids, scores = kept[first_row]
            yield Slab(np.frombuffer(ids, np.int32), np.frombuffer(scores, np.float64), None, {}, frozenset())


if __name__ == "__main__":
    which, source, target, url = sys.argv[1:]
    if which == "memory":
        output.Checkpoint = InMemory  # type: ignore[attr-defined]
    run(Config(loader=Loader(input=source), server=Server(url=url), writer=Writer(output=target)))
