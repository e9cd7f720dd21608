"""The finished front of a run that is going on, and the pipe that it leaves through."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.checkpoint import Checkpoint, Slab
from pipeline.errors import DiskTrouble, ReaderGone
from pipeline.writer.columns import slice_of

LOOK_S = 0.05
STDOUT = 1


class Front:
    """The predictions of a checkpoint that is being filled, in the order of the rows, each as soon as it has its turn.

    `ids` are the labels' ids, more of which may come; `labels` are their names by id. What `tick`, called often,
    raises ends the waiting.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ids: Mapping[str, int],
        num_classes: int,
        is_done: Callable[[], bool],
        tick: Callable[[], None],
    ) -> None:
        self.labels: list[str] = []
        self._checkpoint, self._ids, self._num_classes = checkpoint, ids, num_classes
        self._is_done, self._tick = is_done, tick
        self._slab = Slab(np.empty(0, np.int32), np.empty(0), None, {}, frozenset())
        self._from = self._row = 0

    def take(self, rows: int) -> Slab:
        """The predictions of the next rows, at least one and at most `rows`; of none, when no more will come."""
        while self._from == len(self._slab.labels):
            was_done = self._is_done()  # what is not there after that will never be
            slab = self._checkpoint.slab_at(self._row, self._num_classes)
            if slab is not None:
                self._slab, self._from = slab, 0
                self._row += len(slab.labels)
                self.labels += list(self._ids)[len(self.labels) :]
            elif was_done:
                return self._slab._replace(labels=self._slab.labels[:0])
            else:
                self._tick()
                time.sleep(LOOK_S)
        start, self._from = self._from, min(self._from + rows, len(self._slab.labels))
        return slice_of(self._slab, start, self._from)


class Pipe:
    """Standard output in the place of a draft. It never waits for its reader without calling `tick`."""

    path = "standard output"

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def write_text(self) -> Pipe:
        """The stream to write to."""
        return self

    def write(self, content: bytes | memoryview) -> None:
        """Write all of it.

        Raises:
            ReaderGone: nobody reads any more. DiskTrouble: it goes to a file, and the disk is full.
        """
        left = memoryview(content)
        while left:
            self._tick()
            if not select.select([], [STDOUT], [], LOOK_S)[1]:
                continue
            try:
                # So much a pipe takes at once when it takes anything.
                left = left[os.write(STDOUT, left[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise ReaderGone from None
            except OSError as error:
                raise DiskTrouble(f"standard output can't be written: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Whoever reads it has it."""
