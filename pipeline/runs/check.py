"""Look before the run: config, input, output, server, model, one canary. Writes nothing."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.config import PIPE, Config, describe, origin
from pipeline.errors import InputError, RequestFailed, ServerGone, UserError
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.formats.source import Source, TextSpec
from pipeline.loader import dialect_of, estimate_rows
from pipeline.monitoring.progress import Progress
from pipeline.reuse import inspect, path_of
from pipeline.runs import planned
from pipeline.runs.file import MOST_DOUBTFUL, open_checked, output_of
from pipeline.runs.first_pass import urls_of
from pipeline.runs.pipes import spooled
from pipeline.runs.plan import Pair
from pipeline.servers.endpoint import CANARY
from pipeline.servers.limiter import BatchSize
from pipeline.servers.pool import Endpoints
from pipeline.streams import storable
from pipeline.writer import check_types

MOST_BAD = 20  # files that can't be classified, of those that are named


async def check(config: Config, progress: Progress, show: Callable[[list[str]], None]) -> None:
    """Show what a run with this config would meet, in lines; of many files, name those that can't be classified.

    Raises:
        ClassifyError: the first thing that would stop it. InputError: bad ones among many files, when all was shown.
    """
    told, plan = _told(config), await planned(config, progress)
    bad, dialect, doubts = list[str](), list[str](), list[str]()
    first: tuple[Source, TextSpec, str] | None = None
    rows, exact = 0, True
    async with spooled(config, plan) as (plan, _):
        for pair in plan.pairs:
            try:
                source, spec, output = await asyncio.to_thread(_open, config, pair)
                found, is_exact = await asyncio.to_thread(estimate_rows, source, spec)
            except UserError as error:
                if plan.is_single:
                    raise
                bad.append(storable(str(error)))
                continue
            first = first or (source, spec, output)
            if len(doubts) < MOST_DOUBTFUL:
                dialect, found_doubts = await asyncio.to_thread(dialect_of, source)
                doubts += found_doubts
            rows, exact = rows + found, exact and is_exact
        about = f"{'' if exact else 'about '}{rows:,} rows"
        inputs, outputs = [f"{len(plan.pairs):,} files, {about}"], [str(folder) for folder in plan.folders]
        inputs += [f"can't be classified: {each}" for each in bad[:MOST_BAD]]
        if len(bad) > MOST_BAD:
            inputs.append(f"and {len(bad) - MOST_BAD:,} more can't be classified")
        if plan.is_single and first:
            source, spec, output = first
            inputs, outputs = [f"{source.path}: {about}, text from {', '.join(spec.columns)}", *dialect], [output]
        inputs += doubts
        lines = [
            *_section("config", describe(config)),
            *_section("input", inputs),
            *_section("output", outputs),
            *_section("stored answers", _stored_answers(config)),
            *_section("server", await _server(config, progress, first[0], first[1]) if first else []),
            *_section("in the end", told),
            *_section("estimate", [_estimate(config, rows)]),
        ]
    show(lines)
    if bad:
        raise InputError(f"{len(bad):,} of {len(plan.pairs):,} files can't be classified; mend them, or leave them out")


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _open(config: Config, pair: Pair) -> tuple[Source, TextSpec, str]:
    """Return the input, what its texts are made of, and what is said of its output, which can hold its columns."""
    if pair.trouble is not None:
        raise pair.trouble
    source, spec = open_checked(config, pair.source)
    if config.writer.output == PIPE:
        return source, spec, "stdout: rows go out as they are answered"
    config, output = output_of(config, pair, source)
    check_types(config, source)
    return source, spec, f"{output.location}: {'exists' if output.location.exists() else 'will be made'}"


async def _server(config: Config, progress: Progress, source: Source, spec: TextSpec) -> list[str]:
    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=False)
        endpoint = next(each for each in endpoints.all if not each.is_quarantined)
        try:
            canary, facts = await endpoint.ask_canary()
        except RequestFailed as error:  # it has just answered
            raise ServerGone(endpoint.with_address(error)) from None
        await asyncio.to_thread(source.check, spec, AppendedColumns(config, facts.num_classes).names)
        shown = ", ".join(endpoint.shown for endpoint in endpoints.all)
        names = ", ".join(facts.names.values()) or "none"
        return [
            f"{shown}: model {endpoints.identity['model.id'] or '(unnamed)'}, {facts.num_classes} classes",
            f"names seen so far: {names}",
            *(
                f"{text!r}: {prediction.label} {prediction.score:.4f}"
                for text, prediction in zip(CANARY, canary, strict=True)
            ),
        ]


def _estimate(config: Config, rows: int) -> str:
    per_request = BatchSize(config.request.rows).texts
    wanted = min(rows, config.run.limit_rows or rows)
    return f"about {math.ceil(wanted / per_request):,} requests of up to {per_request} texts"


def _stored_answers(config: Config) -> list[str]:
    if config.run.reuse is None:
        return []
    size = inspect(path_of(config.run.reuse))
    shown = "will be made" if size is None else f"{size / 1e9:.3f} GB of at most {config.run.reuse_max_gb:g}"
    return [f"{path_of(config.run.reuse)}: {shown}"]


def _told(config: Config) -> list[str]:
    """Who would learn how the run ended, and what would keep them from it."""
    lines = []
    if path := config.run.metrics_file:
        from pipeline.monitoring.metrics import may_replace

        there = "" if Path(path).absolute().parent.is_dir() else ": its directory does not exist"
        other = "" if may_replace(Path(path)) else ": is there, and no metrics file of ours"
        ending = "" if path.endswith(".prom") else ": node_exporter reads only files that end in .prom"
        lines.append(f"metrics: {storable(path)}{there or other or ending}")
    if url := config.run.url_to_notify(dict(os.environ)):
        lines.append(f"notification: {origin(url)}")
    return lines
