"""Look before the run: config, input, output, server, model, one canary. Writes nothing."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path

from pipeline.config import PIPE, Config, describe, origin
from pipeline.endpoints import CANARY, Endpoints
from pipeline.limiter import ChunkSize
from pipeline.loader import Source, TextSpec, estimate_rows
from pipeline.output import place_output
from pipeline.progress import Progress
from pipeline.reuse import inspect, path_of
from pipeline.runner import open_input, urls_of
from pipeline.text import storable
from pipeline.writer import Layout


async def check(config: Config, progress: Progress) -> list[str]:
    """What a run with this config would meet, in lines.

    Raises:
        ClassifyError: the first thing that would stop it.
    """
    told = _told(config)
    async with open_input(config) as (source, spec):
        rows, exact = await asyncio.to_thread(estimate_rows, source, spec)
        return [
            *("config", *(f"  {line}" for line in describe(config))),
            *(
                "input",
                f"  {source.path}: {'' if exact else 'about '}{rows:,} rows, text from {', '.join(spec.columns)}",
            ),
            *("output", await asyncio.to_thread(_output, config, source)),
            *_stored_answers(config),
            *("server", *await _server(config, progress, source, spec)),
            *told,
            *("estimate", _estimate(config, rows)),
        ]


def _output(config: Config, source: Source) -> str:
    if config.writer.output == PIPE:
        return "  stdout: rows go out as they are answered"
    location = place_output(config, source.location).location
    return f"  {location}: {'exists' if location.exists() else 'will be made'}"


async def _server(config: Config, progress: Progress, source: Source, spec: TextSpec) -> list[str]:
    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=False)
        canary, facts = await endpoints.all[0].ask_canary()
        await asyncio.to_thread(source.check, spec, Layout(config, facts.num_classes).names)
        shown = ", ".join(endpoint.shown for endpoint in endpoints.all)
        names = ", ".join(facts.names.values()) or "none"
        return [
            f"  {shown}: model {endpoints.identity['model.id'] or '(unnamed)'}, {facts.num_classes} classes",
            f"  names seen so far: {names}",
            *(
                f"  {text!r}: {label} {score:.4f}"
                for text, label, score in zip(CANARY, canary.labels, canary.scores, strict=True)
            ),
        ]


def _estimate(config: Config, rows: int) -> str:
    per_request = ChunkSize(config.request.rows).rows
    wanted = min(rows, config.run.limit_rows or rows)
    return f"  about {math.ceil(wanted / per_request):,} requests of up to {per_request} texts"


def _stored_answers(config: Config) -> list[str]:
    if config.run.reuse is None:
        return []
    size = inspect(path_of(config.run.reuse))
    shown = "will be made" if size is None else f"{size / 1e9:.3f} GB of at most {config.run.reuse_max_gb:g}"
    return ["stored answers", f"  {path_of(config.run.reuse)}: {shown}"]


def _told(config: Config) -> list[str]:
    """Who would learn how the run ended, and what would keep them from it."""
    lines = []
    if path := config.run.metrics_file:
        from pipeline.outcome.metrics import may_replace

        there = "" if Path(path).absolute().parent.is_dir() else ": its directory does not exist"
        other = "" if may_replace(Path(path)) else ": is there, and no metrics file of ours"
        ending = "" if path.endswith(".prom") else ": node_exporter reads only files that end in .prom"
        lines.append(f"  metrics: {storable(path)}{there or other or ending}")
    if url := config.run.url_to_notify(dict(os.environ)):
        lines.append(f"  notification: {origin(url)}")
    return ["in the end", *lines] if lines else []
