"""The rows of a file that have no answers yet, as the first pass knows them, here or in a worker."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import Feed
from pipeline.checkpoint import Identity
from pipeline.config import Config
from pipeline.errors import ClassifyError, OutputHeld, UserError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.source import Source, TextSpec
from pipeline.monitoring.progress import Counts
from pipeline.runs.output import see_same_model
from pipeline.servers.pool import Endpoints

OF_ONE_FILE = (UserError, OutputHeld)  # errors that concern one file, and not the others of a run


@dataclass(eq=False)
class OpenRows(ABC):
    """Rows of a file that are to be answered: where they are read, and, in each class, where their answers go."""

    config: Config
    source: Source
    spec: TextSpec
    identity: Identity
    feed: Feed = field(init=False)
    unanswered: int = field(init=False, default=0)  # rows of chunks that were sent and not answered yet
    is_adopted: bool = field(init=False, default=False)  # its model is known to be the one that answers
    is_read: bool = field(init=False, default=False)  # no more chunks will come
    error: ClassifyError | None = field(init=False, default=None)  # why no more chunks came

    @property
    @abstractmethod
    def wanted(self) -> int | None:
        """The rows that the output will have, as far as that is known."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """The output, in messages."""

    @abstractmethod
    def store(self, chunk: Chunk, answers: Answers, spent: Counts, num_classes: int, now_s: float) -> None:
        """Keep the answers of a chunk's rows; `num_classes` > 0: with the values of all classes."""

    @abstractmethod
    def keep(self) -> None:
        """Make what was stored durable."""

    async def have_room(self) -> None:  # noqa: B027 - a default
        """Wait until more answers can be taken; a file takes any number."""

    @abstractmethod
    def keep_identity(self) -> None:
        """Keep `identity`, before the answers that come after this."""

    @abstractmethod
    def keep_facts(self) -> None:
        """Keep what was learned of model and input with the next answers."""

    async def adopt(self, endpoints: Endpoints) -> None:
        """See that the model that answers is the one whose answers the file has already.

        Raises:
            CheckpointMismatch: it is another one. InputError: the file has a column of the appended ones.
        """
        see_same_model(self.shown, self.identity, endpoints.identity)
        added = AppendedColumns(self.config, endpoints.facts.num_classes).names
        if added != AppendedColumns(self.config, 0).names:
            await asyncio.to_thread(self.source.check, self.spec, added)
        self.identity = endpoints.identity | self.identity
        # The names of classes that earlier answers gave are checked in every answer of this run, too.
        endpoints.facts.names.update({int(index): name for index, name in self.identity["model.names"].items()})
        self.keep_identity()
        self.is_adopted = True

    def know(self, names: Mapping[int, str]) -> None:
        """Keep the names of classes, and what was learned of the input, if the model is that of this file."""
        if self.is_adopted:
            self.identity["model.names"] = {str(index): name for index, name in names.items()}
            self.keep_facts()
