"""A second dialect needs nothing but itself: another path, another answer, limits of its own, through the same code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np
import pytest
from aiohttp import web
from answers import labels_of
from fake import LABELS, label_of, probs_of, score_of

from pipeline.answers import Answers
from pipeline.batcher.batcher import Batcher
from pipeline.batcher.cutter import Chunk
from pipeline.batcher.feed import chunks_of
from pipeline.config import Config, Request
from pipeline.errors import BadAnswer, Misconfigured, RequestFailed
from pipeline.monitoring.progress import Counts, Progress
from pipeline.servers.dialect import Dialect
from pipeline.servers.model import Cuts, ModelEntry, ModelFacts, Probe, Replies, Served, TakesPairs
from pipeline.servers.pool import Endpoints
from pipeline.servers.refusal import error_of
from pipeline.texts import Texts

MODEL, MOST = "team/bert", 4


class Pairs:
    """A server that answers with pairs of label and score, best first, and takes few texts."""

    name = "pairs"
    server = "Pairs"
    path = "/models/{model}:predict"
    other_paths: tuple[str, ...] = ()
    headers: Mapping[str, str] = {"Content-Type": "application/json; charset=utf-8"}
    cuts: Cuts = "when asked"
    pairs: TakesPairs = "never"
    lacks: tuple[str, ...] = ()

    def probes(self, replies: Replies, model: str | None) -> Sequence[Probe]:  # noqa: ARG002
        """Ask for /info."""
        return (Probe("/info"),)

    def served(self, replies: Replies, model: str | None) -> Served:  # noqa: ARG002
        """Read all that /info says."""
        info = json.loads(replies[Probe("/info")] or b"")
        return Served(models=[ModelEntry(id=info["id"])], names=info["names"], texts=info["texts"])

    def encode(
        self,
        texts: Texts,
        model: str | None,  # noqa: ARG002
        request: Request,  # noqa: ARG002
        *,
        truncate: bool = False,  # noqa: ARG002
    ) -> bytes:
        """Send each text in a list of its own."""
        return json.dumps({"inputs": [[text] for text in json.loads(b"[%b]" % bytes(texts.data[:-1]))]}).encode()

    def decode(
        self,
        body: bytes,
        texts: int,
        facts: ModelFacts,
        model: str = "",  # noqa: ARG002
        *,
        probs: bool = True,  # noqa: ARG002
    ) -> Answers:
        """Bring the scores into class order."""
        rows = [{pair["label"]: pair["score"] for pair in row} for row in json.loads(body)]
        if len(rows) != texts or any(set(row) != set(facts.names.values()) for row in rows):
            raise BadAnswer("other texts or classes")
        facts.num_classes = len(facts.names)
        values = np.array([[row[facts.names[index]] for index in range(facts.num_classes)] for row in rows])
        ids = facts.labels.ids_of([max(row, key=row.__getitem__) for row in rows])
        return Answers(facts.labels, ids, values.max(axis=1), values)

    def largest_answer(self, texts: int, facts: ModelFacts) -> int:  # noqa: ARG002
        """Allow a thousand bytes a text."""
        return 1_000 * texts

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, key_variable: str
    ) -> RequestFailed | Misconfigured:
        """Mean by a status what most servers mean."""
        return error_of(status, headers, body, key_variable)

    def cannot(self, request: Request, canary: Answers) -> str | None:  # noqa: ARG002
        """Have no logits."""
        return None if request.activation else "gives no logits; leave request.activation = true"


@pytest.fixture
async def asked() -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Run a server of that kind; yield its base URL and the requests it was sent."""
    seen: list[web.Request] = []

    async def info(_: web.Request) -> web.Response:
        return web.json_response({"id": MODEL, "names": LABELS, "texts": MOST})

    async def predict(request: web.Request) -> web.Response:
        seen.append(request)
        texts = [text for (text,) in (await request.json())["inputs"]]
        assert len(texts) <= MOST
        rows = [sorted(zip(probs_of(text), LABELS, strict=True), reverse=True) for text in texts]
        return web.json_response([[{"label": label, "score": score} for score, label in row] for row in rows])

    app = web.Application()
    for prefix in ("", "/below"):
        app.router.add_get(f"{prefix}/info", info)
        app.router.add_post(f"{prefix}/models/{{model}}:predict", predict)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


def endpoints_at(url: str, config: Config) -> Endpoints:
    """Make the endpoints of a run whose server speaks `Pairs`."""
    dialect: Dialect = Pairs()
    return Endpoints(config, [url], {}, Progress("quiet"), dialect=dialect)


async def test_texts_are_classified_in_another_dialect(asked: tuple[str, list[web.Request]]) -> None:
    """The model's name goes into the path, the names of classes are known at once, and the announced limit binds."""
    (base, seen), texts, config = asked, [f"text {n}" for n in range(30)], Config(request=Request(rows=10))
    found: dict[int, Answers] = {}

    def store(chunk: Chunk, _: Answers, of_rows: Answers, __: Counts) -> None:
        found[chunk.first_row] = of_rows

    async with endpoints_at(f"{base}/below/models/team%2Fbert:predict", config) as endpoints:
        await endpoints.connect()
        assert endpoints.identity["model.names"] == {str(index): name for index, name in enumerate(LABELS)}
        await Batcher(endpoints, config.request, config.retry, Progress("quiet"), store).run(
            chunks_of(texts, config.request)
        )
    answers = Answers.joined([found[first] for first in sorted(found)])
    assert labels_of(answers) == [*map(label_of, texts)]
    assert answers.scores.tolist() == [*map(score_of, texts)]
    assert {request.headers["Content-Type"] for request in seen} == {"application/json; charset=utf-8"}
    assert {request.raw_path for request in seen} == {"/below/models/team%2Fbert:predict"}


async def test_what_a_server_cannot_do_is_told_before_any_row_is_sent(asked: tuple[str, list[web.Request]]) -> None:
    """Only the canary was asked, at the path that belongs to a base URL."""
    base, seen = asked
    async with endpoints_at(base, Config(request=Request(activation=False))) as endpoints:
        with pytest.raises(Misconfigured, match="gives no logits"):
            await endpoints.connect()
    assert [request.raw_path for request in seen] == ["/models/team%2Fbert:predict"]
