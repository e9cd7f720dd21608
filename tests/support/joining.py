"""A file joined with predictions made up here: the loader, a real checkpoint and the writer, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from answers import answers_of

from pipeline.answers import Answers
from pipeline.checkpoint import Checkpoint
from pipeline.config import Config, Loader, Request, Writer
from pipeline.formats.appended_columns import AppendedColumns, Tally
from pipeline.formats.source import TextSpec
from pipeline.loader import open_source
from pipeline.storage import Draft
from pipeline.texts import TextBlock
from pipeline.writer import join

ADDED = ("predicted_label", "predicted_score", "predicted_error")
LABELS = ("no", "yes")


def predictions_of(rows: int, failed: Sequence[int] = ()) -> Answers:
    """Row i is `no` or `yes` in turn with the score 0.5 + i / 1024, but for the rows that failed."""
    scores = [None if row in failed else 0.5 + row % 512 / 1024 for row in range(rows)]
    probs = [
        None if score is None else [score, 1 - score] if row % 2 == 0 else [1 - score, score]
        for row, score in enumerate(scores)
    ]
    labels = [None if row in failed else LABELS[row % 2] for row in range(rows)]
    return answers_of(labels, scores, probs, {row: "rejected: no" for row in failed if row < rows})


def texts_of(path: Path, **loader: Any) -> list[str | None]:
    """The texts of all rows, as they would be sent."""
    settings = Loader(input=str(path), **loader)
    spec, source = TextSpec(settings), open_source(settings)
    source.check(spec, [])
    return [text for block in source.texts(spec) for text in sent(block)]


def sent(block: TextBlock) -> list[str | None]:
    """The texts of a block as the server gets them, None for those that are not sent."""
    return [None if index in block.errors else json.loads(b'"%b"' % text) for index, text in enumerate(block.texts)]


def sendable(texts: Iterable[str | None]) -> list[str | None]:
    """Texts as `sent` gives them: blank ones are not sent."""
    return [None if text is None or not text or text.isspace() else text for text in texts]


def joined(
    source: Path,
    output: Path,
    predictions: Answers | None = None,
    *,
    rows: int | None = None,
    chunk_rows: int = 3,
    on_rows: Callable[[int], None] = lambda _: None,
    loader: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    names: Sequence[str] = LABELS,
    **writer: Any,
) -> Tally:
    """Write `source` with predictions (default: `predictions_of` all rows) to `output`."""
    config = Config(
        loader=Loader(input=str(source), **(loader or {})),
        writer=Writer(output=str(output), **writer),
        request=Request(**(request or {})),
    )
    opened, spec, layout = (
        open_source(config.loader),
        TextSpec(config.loader),
        AppendedColumns(config, len(names), names),
    )
    opened.check(spec, layout.names)
    blocks = list(opened.texts(spec))
    rows = sum(len(block.texts) for block in blocks) if rows is None else rows
    predictions = predictions_of(rows) if predictions is None else predictions
    checkpoint = Checkpoint(output.with_name(f"{output.name}.checkpoint"))
    for start in range(0, rows, chunk_rows):
        classes = len(names) if config.writer.needs_probs else 0
        checkpoint.add(start, blocks[0].position, predictions[start : min(rows, start + chunk_rows)], classes)
    checkpoint.flush()
    try:
        with Draft(output) as draft:
            tally = join(config, opened, checkpoint, layout, draft, rows=rows, on_rows=on_rows)
            draft.publish()
    finally:
        checkpoint.remove()
    return tally


def blocks_of(path: Path, **loader: Any) -> list[TextBlock]:
    """All text blocks of a file."""
    settings = Loader(input=str(path), **loader)
    return list(open_source(settings).texts(TextSpec(settings)))
