"""What a run takes from the file of `run.reuse`, and what it gives to it.

A file that can't be used stops the run before anything is asked; one that fails later costs a notice, never the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from pipeline.answers import Answers
from pipeline.batcher.cutter import Chunk, Reused
from pipeline.checkpoint import Identity
from pipeline.config import Config
from pipeline.errors import ClassifyError, DiskTrouble
from pipeline.monitoring.progress import SHOW_EVERY_S, Progress
from pipeline.reuse import Found, Reuse, path_of
from pipeline.servers.model import ModelFacts
from pipeline.servers.pool import Endpoints
from pipeline.texts import TextBlock, Texts

Ask = Callable[[Texts], Awaitable[Answers]]


class Reusing:
    """The stored answers in one run; without `run.reuse` nothing is ever known, and nothing kept.

    Raises:
        ReuseError: the file is damaged, not ours, or can't be written.
    """

    def __init__(self, config: Config, progress: Progress) -> None:
        self._config, self._progress = config, progress
        self._store: Reuse | None = None
        self._is_used = False

    async def __aenter__(self) -> Self:
        settings = self._config.run
        if settings.reuse is not None:
            try:
                self._store = await asyncio.to_thread(
                    Reuse, path_of(settings.reuse), max_bytes=int(settings.reuse_max_gb * 1e9)
                )
            except DiskTrouble as error:
                self._give_up(error)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._store is not None:
            try:
                await asyncio.shield(asyncio.to_thread(self._store.close, keep=self._is_used))
            except ClassifyError as failed:
                self._give_up(failed)

    async def begin(self, identity: Identity, endpoints: Endpoints, ask: Ask) -> None:
        """Bind the stored answers to the model, now that it is known. `ask` answers a few texts."""
        self._facts: ModelFacts = endpoints.facts
        self._ask = ask
        if self._store is None:
            return
        identity, keep_probs = identity | endpoints.identity, self._config.writer.needs_probs is not None
        try:
            await asyncio.to_thread(self._store.bind, identity, self._facts.num_classes, keep_probs=keep_probs)
            self._is_used = True
        except DiskTrouble as error:
            self._give_up(error)

    async def look_up(self, block: TextBlock, rows: range) -> Reused | None:
        """Look up the stored answers of some texts of a block; None without `run.reuse`."""
        if self._store is None:
            return None
        if not self._is_used:
            return Reused.nothing(len(rows))  # the chunk that was begun may have rows that are known
        try:
            found = await asyncio.to_thread(self._store.find, block.texts[rows.start : rows.stop])
        except ClassifyError as error:
            self._give_up(error)
            return Reused.nothing(len(rows))
        await self._learn_names(found, block, rows)
        return Reused(found.keys, found.answers(self._names, self._facts.labels))

    async def _learn_names(self, found: Found, block: TextBlock, rows: range) -> None:
        """Ask for one text of each class whose name is not known yet; else all of that class would have to be sent."""
        names = self._names
        unnamed = [rows[at] for index, at in found.examples().items() if index not in names]
        if unnamed:
            await self._ask(Texts.joined([block.texts[row : row + 1] for row in unnamed]))

    @property
    def _names(self) -> Mapping[int, str]:
        """What the classes are called: by the answers of this run, or by number if the server has no names."""
        facts = self._facts
        return facts.names or {index: f"LABEL_{index}" for index in range(facts.num_classes)}

    def remember(self, chunk: Chunk, answers: Answers) -> None:
        """Keep the answers to the texts of a chunk, which passed all checks."""
        if self._store is not None and self._is_used and chunk.keys:
            self._store.remember(chunk.keys, answers, self._names)

    async def keep_committing(self) -> None:
        """Until cancelled. Apart from the checkpoint's commits, which must not wait for these."""
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            if self._store is not None and self._is_used:
                try:
                    await asyncio.to_thread(self._store.flush)
                except ClassifyError as error:
                    self._give_up(error)

    def _give_up(self, error: ClassifyError) -> None:
        self._is_used = False
        self._progress.notice(f"{error}; going on without stored answers")
