"""What the two passes of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.checkpoint import Checkpoint, Identity
from pipeline.config import Config
from pipeline.limiter import ChunkSize
from pipeline.loader import Source, TextSpec
from pipeline.output import OutputPlace
from pipeline.progress import Progress

SHOW_EVERY_S = 0.25  # and commit: with the time a commit takes, far less than a second of answers can be lost


@dataclass
class Context:
    """One run: from what, to where, what is known of it."""

    config: Config
    source: Source
    spec: TextSpec
    place: OutputPlace
    checkpoint: Checkpoint
    identity: Identity
    progress: Progress
    environment: dict[str, str]
    total: int | None = field(init=False)  # rows in the input, once that is known
    sizes: ChunkSize = field(init=False)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.sizes = ChunkSize(self.config.request.rows)
        # What was learned of the model goes on counting; the rest was compared by `OutputPlace.decide`.
        self.identity = (self.checkpoint.get("identity") or {}) | self.identity
        known = self.source.total_rows
        self.total = self.checkpoint.get("total_rows") if known is None else known

    @property
    def wanted(self) -> int | None:
        """How many rows the output will have, as far as that is known."""
        known = [count for count in (self.total, self.config.run.limit_rows) if count is not None]
        return min(known, default=None)
