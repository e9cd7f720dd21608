"""A run of the real pipeline whose answers go into memory instead of the checkpoint, to see what the checkpoint costs.

python without_checkpoint.py {memory|real} INPUT OUTPUT URL   `real`: the same driver with the real checkpoint
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pipeline import Config, run
from pipeline.answers import Answers
from pipeline.checkpoint import Checkpoint
from pipeline.config import Loader, Server, Writer
from pipeline.runs import file, output
from pipeline.texts import Position

kept: dict[int, Answers] = {}


class InMemory(Checkpoint):
    """Keeps labels and scores in memory; only what a run writes once (its identity) still goes into the file."""

    def add(self, first_row: int, position: Position, answers: Answers, num_classes: int) -> None:  # noqa: ARG002
        """Keep the answers."""
        kept[first_row] = Answers(self.labels, answers.ids_in(self.labels), answers.scores)

    def flush(self) -> None:
        """Do nothing: nothing waits."""

    def answers(self, num_classes: int) -> Iterator[Answers]:  # noqa: ARG002
        """Yield what was kept, in the order of the rows."""
        return (kept[first_row] for first_row in sorted(kept))


if __name__ == "__main__":
    which, source, target, url = sys.argv[1:]
    if which == "memory":
        output.Checkpoint = file.Checkpoint = InMemory  # type: ignore[attr-defined]
    run(Config(loader=Loader(input=source), server=Server(url=url), writer=Writer(output=target)))
