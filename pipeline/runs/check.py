"""Look before the run: config, input, output, server, model, one canary. Writes nothing.

It is the first half of a run: the same files are opened and the same is decided. What stops the run stops the check, in
the same words and with the same exit code.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.checkpoint import Identity
from pipeline.config import PIPE, Config, cores_here, describe, origin
from pipeline.engines.channel import Begin, Ended, Notice, Probe
from pipeline.engines.engine import EngineWorker
from pipeline.engines.ray import RayEngine
from pipeline.errors import ClassifyError, RequestFailed, ServerGone, WorkerLost
from pipeline.formats.appended_columns import AppendedColumns
from pipeline.loader import dialect_of, estimate_rows
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.summary import closing_line
from pipeline.reuse import inspect, path_of
from pipeline.runs import planned
from pipeline.runs.file import MOST_DOUBTFUL, Look, look
from pipeline.runs.first_pass import urls_of
from pipeline.runs.open_rows import OF_ONE_FILE
from pipeline.runs.output import Next, lock_of_directory, see_same_model
from pipeline.runs.pipes import spooled
from pipeline.runs.plan import Pair, Plan
from pipeline.runs.reported import see_reportable
from pipeline.runs.totals import Totals
from pipeline.servers.dialect import BINARY
from pipeline.servers.endpoint import Endpoint
from pipeline.servers.limiter import BatchSize
from pipeline.servers.model import CANARY, ModelFacts
from pipeline.servers.pool import Endpoints
from pipeline.streams import storable
from pipeline.thresholds import COMPETE, classes_compete

MOST_NAMES = 30  # of classes that are named
PROBE_S = 60.0  # for a node to answer
MOST_BAD = 20  # files that can't be classified, of those that are named


async def check(config: Config, progress: Progress, show: Callable[[list[str]], None]) -> None:
    """Show what a run with this config would meet, in lines.

    Raises:
        ClassifyError: what would stop the run, or make its exit code another one than 0.
    """
    told, plan = _told(config), await planned(config, progress)
    async with spooled(config, plan) as (plan, _):
        await asyncio.to_thread(see_reportable, config, plan)
        look_at = _Looks(config, plan, progress)
        await asyncio.to_thread(look_at.open)
        stored = _stored_answers(config)  # before the server is asked: a wrong file ends a run before that, too
        server = await _server(config, progress, look_at)
        nodes = await _nodes(config, progress, look_at)
        show(
            [
                *("config", *(f"  {line}" for line in describe(config))),
                *("input", *look_at.inputs),
                *("output", *look_at.outputs),
                *stored,
                *("server", *server),
                *nodes,
                *told,
                *("estimate", _estimate(config, look_at)),
            ]
        )
        look_at.raise_if_failed()


class _Looks:
    """The files of a run, each looked at, and what is wrong with them."""

    def __init__(self, config: Config, plan: Plan, progress: Progress) -> None:
        self._config, self._plan = config, plan
        self._totals = Totals(config, plan, progress)
        self._bad: list[str] = []
        self._dialect: list[str] = []  # of the text file looked at last
        self._doubts: list[str] = []  # that the files have it
        self._rows, self._is_exact = 0, True
        self._ways = Counter[str]()
        self.all: list[tuple[Pair, Look]] = []
        self.open_rows = 0
        self.texts_per_request = 0  # 0: no server was asked

    def open(self) -> None:
        """Look at all files.

        Raises:
            ClassifyError: the only one can't be classified, or another run holds the directory of the outputs.
        """
        for folder in self._plan.folders:
            lock_of_directory(folder, self._config.run.state_dir).see_free()
        for pair in self._plan.pairs:
            try:
                seen = look(self._config, pair)
                rows, is_exact = estimate_rows(seen.source, seen.spec)
                if len(self._doubts) < MOST_DOUBTFUL:
                    self._dialect, doubts = dialect_of(seen.source)
                    self._doubts += doubts
            except ClassifyError as error:
                self.fail(pair, error)
                continue
            self.all.append((pair, seen))
            self._rows, self._is_exact = self._rows + rows, self._is_exact and is_exact
            if seen.record is not None:
                self._totals.add(seen.record)
            else:
                self.open_rows += max(0, min(rows, self._config.run.limit_rows or rows) - seen.answered)
            self._ways[seen.way] += 1

    def fail(self, pair: Pair, error: ClassifyError) -> None:
        """Note that a file can't be classified.

        Raises:
            ClassifyError: `error`, if it ends the run.
        """
        if self._plan.is_single or not isinstance(error, OF_ONE_FILE):
            raise error
        self._totals.fail(pair, error)
        self._bad.append(storable(str(error)))

    @property
    def inputs(self) -> list[str]:
        """What there is to read."""
        about = f"{'' if self._is_exact else 'about '}{self._rows:,} rows"
        if self._plan.is_single:
            _, seen = self.all[0]
            spec = seen.spec
            columns = f"text from {', '.join(spec.columns)}"
            if spec.pair is not None:
                own = [name for name in spec.columns if name != spec.pair] or spec.columns
                columns = f"pairs of text: {', '.join(own)} with {spec.pair}"
            texts = f"{seen.source.path}: {about}, {columns}"
            return [f"  {line}" for line in (texts, *self._dialect, *self._doubts)]
        more = len(self._bad) - MOST_BAD
        return [
            f"  {len(self._plan.pairs):,} files, {about}",
            *(f"  can't be classified: {each}" for each in self._bad[:MOST_BAD]),
            *([f"  and {more:,} more can't be classified"] if more > 0 else []),
            *(f"  {each}" for each in (*self._plan.left_out, *self._doubts)),
        ]

    @property
    def outputs(self) -> list[str]:
        """What becomes of the outputs."""
        if self._config.writer.output == PIPE:
            return ["  stdout: rows go out as they are answered"]
        if self._plan.is_single:
            _, seen = self.all[0]
            answered = f"{seen.answered:,} rows are answered, " if seen.answered else ""
            return [f"  {seen.output.location}: {answered}{seen.way}"]
        ways = ", ".join(f"{count:,} {way}" for way, count in self._ways.items())
        return [f"  {', '.join(map(str, self._plan.folders))}: {ways}"]

    def raise_if_failed(self) -> None:
        """Say what a run would say in its end.

        Raises:
            ClassifyError: a file can't be classified, or a complete output has more failed rows than allowed.
        """
        if code := self._totals.code:
            record = self.all[0][1].record if self._plan.is_single else None
            error = ClassifyError(closing_line(record) if record else self._totals.why(code))
            error.exit_code = code
            raise error


async def _server(config: Config, progress: Progress, looks: _Looks) -> list[str]:
    unfinished = [(pair, seen) for pair, seen in looks.all if seen.next is not Next.DONE]
    if not unfinished:
        return ["  not asked: there is nothing to send"]
    async with urls_of(config) as urls, Endpoints(config, urls, dict(os.environ), progress) as endpoints:
        await endpoints.connect(wait=False)
        endpoint = next(each for each in endpoints.all if not each.is_quarantined)
        try:
            canary, facts = await endpoint.ask_canary()
            shown_canary = endpoint.as_asked_for(canary)
        except RequestFailed as error:  # it has just answered
            raise ServerGone(endpoint.with_address(error)) from None
        for pair, seen in unfinished:
            try:
                see_same_model(str(seen.output.location), seen.begun, endpoints.identity)
                await asyncio.to_thread(seen.source.check, seen.spec, AppendedColumns(config, facts.num_classes).names)
            except ClassifyError as error:
                looks.fail(pair, error)
        looks.texts_per_request = endpoints.batch_size.texts
        shown = ", ".join(endpoint.shown for endpoint in endpoints.all)
        return [
            f"  {shown}: model {endpoints.identity['model.id'] or '(unnamed)'}, {_classes_of(facts)}",
            *_kind_of(endpoint),
            f"  {_names_of(facts)}",
            *(
                f"  {text!r}: {prediction.label} {prediction.score:.4f}"
                for text, prediction in zip(CANARY, shown_canary, strict=True)
            ),
            *_values_of(config, endpoints.identity),
        ]


async def _nodes(config: Config, progress: Progress, looks: _Looks) -> list[str]:
    """Have each node of a cluster see whether it could work.

    Raises:
        ClassifyError: one of them could not; the message names it.
    """
    if config.engine.name != "ray":
        return []
    unfinished = [pair.source for pair, seen in looks.all if seen.next is not Next.DONE]
    location = replace(unfinished[0], content=None) if unfinished else None
    async with RayEngine(config.engine, progress.notice) as engine:
        environment = engine.environment(dict(os.environ))
        begin = Begin(config, environment, str(Path.cwd()), config.server.urls, 1, is_answered=False)
        workers = config.workers_on(engine.cores)
        probed = [_probed(node, worker, Probe(begin, location)) for node, worker in engine.one_a_node()]
        return ["nodes", *(await asyncio.gather(*probed)), f"  {workers} workers"]


async def _probed(node: str, worker: EngineWorker, probe: Probe) -> str:
    try:
        async with asyncio.timeout(PROBE_S):
            channel, answer = await worker.start(), None
            if channel is not None:
                channel.send(probe)
                while isinstance(answer := await channel.receive(), Notice):
                    pass
            if answer is None:
                raise WorkerLost(f"node {node}: the probe {await worker.ended()}")
    except TimeoutError:
        raise WorkerLost(f"node {node}: no answer within {PROBE_S:g} s") from None
    finally:
        worker.kill()
    if isinstance(answer, Ended):
        assert answer.error is not None  # noqa: S101 - else it has probed
        raise answer.error.error(worker.where)
    return (
        f"  {node}: pyarrow {answer.pyarrow}, reads the input, meets model {answer.identity['model.id'] or '(unnamed)'}"
    )


def _kind_of(endpoint: Endpoint) -> Iterator[str]:
    """Yield what kind of server it is, what it announces, and what it can't do."""
    served, dialect = endpoint.served, endpoint.dialect
    yield f'  speaks {dialect.server}{f" {served.version}" if served.version else ""} (server.api = "{dialect.name}")'
    if dialect.name in BINARY:
        yield f"  answers in {'binary' if endpoint.binary else 'JSON'} (request.format)"
    limits = [
        f"{served.texts:,} texts in a request" if served.texts else "",
        f"{served.texts_in_flight:,} texts in flight" if served.texts_in_flight else "",
    ]
    if told := ", ".join(filter(None, limits)):
        yield f"  takes at most {told}"
    if dialect.cuts == "unseen":
        yield '  cuts texts that are too long, perhaps, and does not say which; with request.too_long = "split"'
        yield "  request.max_text_chars has them answered in parts"
    yield from (f"  {each}" for each in dialect.lacks)


def _classes_of(facts: ModelFacts) -> str:
    return f"{facts.num_classes} classes" if facts.num_classes else "classes not known"


def _names_of(facts: ModelFacts) -> str:
    """Say which names are known, and where their order comes from."""
    more = len(facts.names) - MOST_NAMES
    shown = [*facts.names.values()][:MOST_NAMES] + ([f"and {more:,} more"] if more > 0 else [])
    names = ", ".join(shown) or "none"
    if len(facts.names) < facts.num_classes or not facts.names:
        return f"names seen so far: {names}"
    order = {"server": "as the server has them", "config": "that of writer.labels", "name": "by name"}[facts.order]
    return f"names: {names} (order: {order})"


def _values_of(config: Config, model: Identity) -> Iterator[str]:
    """Yield what the canary says of the values, as far as it matters for thresholds."""
    compete = classes_compete(config, model)
    if compete is not None:
        yield f"  {COMPETE}" if compete else "  the values of a text do not sum to 1: each class is judged by itself"
    if config.request.activation is False:
        yield "  the values are raw logits, and so are the thresholds of writer.min_score and writer.multi_label"


def _estimate(config: Config, looks: _Looks) -> str:
    request = config.request
    per_request = looks.texts_per_request or BatchSize(request.rows, request.manners).texts
    at_once = f"{request.concurrency} at once"
    if request.concurrency == "auto":
        at_once = "as many at once as " + ("the server needs" if request.manners == "fair" else "others leave")
    if config.is_spread and config.engine.name != "ray":
        at_once += f", from {config.workers_on(cores_here())} workers"
    return f"  about {math.ceil(looks.open_rows / per_request):,} requests of up to {per_request} texts, {at_once}"


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
        from pipeline.monitoring.metrics import may_replace

        there = "" if Path(path).absolute().parent.is_dir() else ": its directory does not exist"
        other = "" if may_replace(Path(path)) else ": is there, and no metrics file of ours"
        ending = "" if path.endswith(".prom") else ": node_exporter reads only files that end in .prom"
        lines.append(f"  metrics: {storable(path)}{there or other or ending}")
    if url := config.run.url_to_notify(dict(os.environ)):
        lines.append(f"  notification: {origin(url)}")
    return ["in the end", *lines] if lines else []
