"""Look before the run: config, input, output, server, model, one canary. Writes nothing."""

from __future__ import annotations

import math
import os

from pipeline.config import Config, describe
from pipeline.endpoints import CANARY, Endpoints
from pipeline.limiter import ChunkSize
from pipeline.loader import estimate_rows
from pipeline.output import place_output
from pipeline.progress import Progress
from pipeline.reuse import inspect, path_of
from pipeline.runner import open_input, urls_of
from pipeline.writer import Layout


async def check(config: Config, progress: Progress) -> list[str]:
    """What a run with this config would meet, in lines.

    Raises:
        ClassifyError: the first thing that would stop it.
    """
    lines = ["config", *(f"  {line}" for line in describe(config))]
    source, spec = open_input(config)
    place = place_output(config)
    rows, exact = estimate_rows(source, spec)
    lines += [
        "input",
        f"  {source.path}: {'' if exact else 'about '}{rows:,} rows, text from {', '.join(spec.columns)}",
        "output",
        f"  {place.path}: {'exists' if place.path.exists() else 'will be made'}",
        *_stored_answers(config),
        "server",
    ]
    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=False)
        canary, facts = await endpoints.all[0].ask_canary()
        source.check(spec, Layout(config, facts.num_classes).names)
        shown = ", ".join(endpoint.shown for endpoint in endpoints.all)
        names = ", ".join(facts.names.values()) or "none"
        lines += [
            f"  {shown}: model {endpoints.identity['model.id'] or '(unnamed)'}, {facts.num_classes} classes",
            f"  names seen so far: {names}",
            *(
                f"  {text!r}: {label} {score:.4f}"
                for text, label, score in zip(CANARY, canary.labels, canary.scores, strict=True)
            ),
        ]
    per_request = ChunkSize(config.request.rows).rows
    wanted = min(rows, config.run.limit_rows or rows)
    lines += ["estimate", f"  about {math.ceil(wanted / per_request):,} requests of up to {per_request} texts"]
    return lines


def _stored_answers(config: Config) -> list[str]:
    if config.run.reuse is None:
        return []
    size = inspect(path_of(config.run.reuse))
    shown = "will be made" if size is None else f"{size / 1e9:.3f} GB of at most {config.run.reuse_max_gb:g}"
    return ["stored answers", f"  {path_of(config.run.reuse)}: {shown}"]
