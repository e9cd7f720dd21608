"""Whole runs through every dialect: the same rows give the same outputs, whatever the server speaks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from fake import LABELS, Action, FakeServer, changed, cut, label_of, refused, reply, reset
from files import rows_of, write
from spoken import APIS
from whole_runs import QUICK, classified

from pipeline.config import Config, Loader, Request, Run, Server, Writer
from pipeline.errors import ClassifyError, Misconfigured
from pipeline.monitoring.progress import Progress
from pipeline.runs import run
from pipeline.servers.embedded_apis import About, Api, Cause, HfApi, InfinityApi, OipApi, SglangApi, TeiApi

POISON = "poison"
TEXTS = [
    *(f'text {number}, with "quotes", [brackets] and \\{{braces\\}}' for number in range(60)),
    ",",
    "],[",
    '","',
    "\\",
    "é😀\u2028\x07",
    *(f"{POISON} {number}" for number in range(3)),
    *(f"text {number % 7}" for number in range(40)),
]


def is_poison(text: str) -> bool:
    """Whether a fake refuses a text."""
    return text.startswith(POISON)


def outputs(folder: Path, server: FakeServer, kind: str, texts: list[str], **sections: Any) -> Path:
    """Run in this process with the values of all classes, and return the output."""
    server_key = "auto" if server.api is None else server.api.name
    config = Config(
        loader=Loader(input=str(write(folder / f"in.{kind}", texts))),
        writer=Writer(output=str(folder / f"out.{kind}"), probs="columns", labels=list(LABELS)),
        server=Server(url=server.url, api=server_key, timeout_s=5, wait_s=30),  # type: ignore[arg-type]
        request=Request(rows=16, concurrency=4, answer="predictions"),
        retry=QUICK,
        run=Run(max_failed_rows="100%"),
        **sections,
    )
    asyncio.run(run(config, Progress("quiet")))
    return folder / f"out.{kind}"


def faults(server: FakeServer, seed: int) -> Callable[[list[str]], Action | None]:
    """Fail three requests of ten: too busy, broken connections, half an answer, none of the protocol, broken inside."""
    drawn = random.Random(seed)
    ways: list[Callable[[], Action]] = [
        lambda: refused(server, "overloaded"),
        reset,
        lambda: cut(server),
        lambda: changed(server, lambda _: {"something": "else"}),
        lambda: reply(502, "<html>bad gateway</html>"),
    ]
    # At the start, what is no answer of the protocol is taken for another server.
    return lambda _: drawn.choice(ways)() if server.answered and drawn.random() < 0.3 else None


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, list[dict[str, Any]]]]:
    """The output by a vLLM without faults: of the sound texts its bytes, of all the rows; by format."""
    found = {}
    for kind in ("csv", "jsonl", "parquet"):
        with FakeServer() as server:
            sound = [text for text in TEXTS if not is_poison(text)]
            whole = outputs(tmp_path_factory.mktemp("sound"), server, kind, sound).read_bytes()
            server.rules.append((is_poison, reply(400, "no")))
            found[kind] = whole, rows_of(outputs(tmp_path_factory.mktemp("all"), server, kind, TEXTS))
    return found


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("spoken", APIS)
def test_the_same_rows_give_the_same_bytes_through_every_dialect(
    spoken: str, kind: str, tmp_path: Path, expected: dict[str, tuple[bytes, list[dict[str, Any]]]]
) -> None:
    """With three requests of ten that fail; and poison rows cost themselves."""
    with FakeServer(api=APIS[spoken], most_texts=8) as server:
        server.each = faults(server, seed=len(spoken))
        sound = [text for text in TEXTS if not is_poison(text)]
        assert outputs(tmp_path / "sound", server, kind, sound).read_bytes() == expected[kind][0]
        server.each = lambda _: None
        server.rules.append((is_poison, refused(server, "not_understood", is_poison)))
        rows = rows_of(outputs(tmp_path / "all", server, kind, TEXTS))
    assert [bool(row["predicted_error"]) for row in rows] == [is_poison(text) for text in TEXTS]
    for row, right in zip(rows, expected[kind][1], strict=True):
        assert {**row, "predicted_error": None} == {**right, "predicted_error": None}


def sizes(server: FakeServer) -> list[int]:
    """How many texts the requests had, without the canary's."""
    return [len(seen.texts) for seen in server.requests if "This is great, I love it." not in seen.texts]


def test_an_announced_limit_is_never_exceeded(tmp_path: Path) -> None:
    """TEI: 32 texts a request, and no more in flight over all requests than it says."""
    texts = [f"text {number}" for number in range(400)]
    in_flight: Counter[str] = Counter()
    with FakeServer(api=TeiApi(), texts_in_flight=70, latency_s=0.02) as server:

        def watch(some: list[str]) -> None:
            in_flight["most"] = max(in_flight["most"], server._held_texts + len(some))

        server.each = watch
        record = classified(tmp_path, texts, server, request=Request(concurrency=16))
    assert (record.labelled, record.retries) == (400, 0)
    assert max(sizes(server)) == 32
    assert 32 < in_flight["most"] <= 70


class SmallInfinity(InfinityApi):
    """An Infinity that was started with INFINITY_MAX_CLIENT_BATCH_SIZE=40."""

    most_texts = 40


class ReservedTriton(OipApi):
    """A Triton that announces no limit: a gateway hides the config of its model."""

    def about(self, about: About) -> Mapping[str, Any]:
        """Leave out the config."""
        return {path: said for path, said in super().about(about).items() if not path.endswith("config")}


@pytest.mark.parametrize("api", [SmallInfinity(), ReservedTriton("triton")])
def test_a_refusal_for_the_number_of_texts_shrinks_requests_at_once(api: Api, tmp_path: Path) -> None:
    """No row is blamed, and one request is lost for each that was in flight; then all are as large as they may be."""
    texts = [f"text {number}" for number in range(3000)]
    with FakeServer(api=api, most_texts=40) as server:
        record = classified(tmp_path, texts, server, request=Request(concurrency=2))
    assert record.labelled == 3000
    assert max(sizes(server)) == 40
    assert sizes(server).count(40) >= 40
    assert record.requests <= 3000 / 32 + 8


@pytest.mark.parametrize("api", [InfinityApi(), SglangApi()])
def test_a_refusal_that_names_the_guilty_text_costs_one_request(api: Api, tmp_path: Path) -> None:
    """The others are asked for again at once, and only they."""
    texts = [f"text {number}" for number in range(64)]
    texts[41] = POISON
    cause: Cause = "too_long" if api.name == "infinity" else "empty"
    with FakeServer(api=api) as server:
        server.rules.append((is_poison, refused(server, cause, is_poison)))
        record = classified(
            tmp_path, texts, server, request=Request(rows=64, concurrency=1), run=Run(max_failed_rows=1)
        )
    assert sizes(server) == [64, 63]
    (row,) = [row for row in rows_of(tmp_path / "out.jsonl") if row["predicted_error"]]
    assert row["id"] == 41
    assert record.failed == {"too_long" if cause == "too_long" else "rejected": 1}
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl") if row["id"] != 41] == [
        label_of(text) for text in texts if text != POISON
    ]


def test_a_position_that_is_none_is_no_reason_to_stop(tmp_path: Path) -> None:
    """A server that names a text which is not there has the request halved, as others have."""
    texts = [f"text {number}" for number in range(20)]
    texts[3] = POISON
    words = '{"object":"error","message":"Input at index 99 cannot be empty"}'
    with FakeServer(api=SglangApi()) as server:
        server.rules.append((is_poison, reply(400, words)))
        record = classified(tmp_path, texts, server, run=Run(max_failed_rows=1))
    assert (record.labelled, record.failed) == (19, {"rejected": 1})


@pytest.mark.slow
def test_no_row_is_blamed_for_a_dead_gpu_that_says_400(tmp_path: Path) -> None:
    """The pipeline of Hugging Face says 400 to everything then: the canary tells, and the run waits."""
    texts = [f"text {number}" for number in range(50)]
    with FakeServer(api=HfApi()) as server:
        broken = {"left": 25}

        def each(_: list[str]) -> Action | None:
            if server.answered.total() < 8 or broken["left"] <= 0:
                return None
            broken["left"] -= 1
            return reply(400, '{"error": "it failed"}')

        server.each = each
        record = classified(tmp_path, texts, server, request=Request(rows=8, concurrency=1))
    assert (record.labelled, record.failed) == (50, {})


def test_what_was_cut_without_a_word_is_not_known(classify: Command, tmp_path: Path) -> None:
    """The column is null, never false; it is said once, before any row is sent."""
    write(tmp_path / "in.jsonl", ["a", "b"])
    for api in (InfinityApi(), HfApi()):
        with FakeServer(api=api) as server:
            arguments = ["run", "in.jsonl", "-o", "out.jsonl", "--url", server.url, "--overwrite", "--restart"]
            done = classify(*arguments, "--quiet", "--set", "request.too_long=truncate")
        assert {row["predicted_truncated"] for row in rows_of(tmp_path / "out.jsonl")} == {None}
        assert done.stderr.count("does not say which; predicted_truncated is null") == 1
    with FakeServer(api=TeiApi()) as server:
        arguments = ["run", "in.jsonl", "-o", "tei.jsonl", "--url", server.url, "--set", "request.too_long=truncate"]
        assert "does not say" not in classify(*arguments, "--quiet").stderr
        assert {row["predicted_truncated"] for row in rows_of(tmp_path / "tei.jsonl")} == {False}


def test_who_gives_the_order_of_classes_belongs_to_a_run(classify: Command, tmp_path: Path) -> None:
    """A run that was begun with classes by name is not finished with an order of the config."""
    write(tmp_path / "in.jsonl", [f"text {number}" for number in range(40)])
    with FakeServer(api=InfinityApi()) as server:
        command = ["run", "in.jsonl", "-o", "out.jsonl", "--url", server.url, "--quiet", "--set", "writer.probs=list"]
        classify(*command, "--limit-rows", 10)
        names = '["positive", "neutral", "negative"]'
        done = classify(*command, "--set", f"writer.labels={names}", expect=2)
        assert "was written differently" in done.stderr or "model.order" in done.stderr or "model.names" in done.stderr
        classify(*command)
    assert len(rows_of(tmp_path / "out.jsonl")) == 40


@pytest.mark.parametrize("api", [TeiApi(), OipApi("triton"), ReservedTriton("triton")])
def test_a_model_that_takes_one_text_at_a_time_is_used(api: Api, tmp_path: Path) -> None:
    """The canary is sent in as many requests, whether the limit is announced or not."""
    texts = [f"text {number}" for number in range(20)]
    with FakeServer(api=api, most_texts=1) as server:
        output = outputs(tmp_path, server, "jsonl", texts)
        assert {len(seen.texts) for seen in server.requests} == {1}
    assert [row["predicted_label"] for row in rows_of(output)] == [*map(label_of, texts)]


class BestOnly(HfApi):
    """A server of one's own around the pipeline, which does not know its parameters."""

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """Return the best pair of each text."""
        return super().answer({}, rows, about)


def test_a_server_with_only_the_best_class_is_used_for_that(tmp_path: Path) -> None:
    """No values of classes, so none may be asked for; labels and scores are right."""
    with FakeServer(api=BestOnly()) as server:
        texts = [f"text {number}" for number in range(30)]
        record = classified(tmp_path, texts, server)
        assert record.labelled == 30
        assert [row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl")] == [*map(label_of, texts)]
        with pytest.raises(Misconfigured, match=r"only the best class of each text; leave writer\.probs"):
            outputs(tmp_path / "probs", server, "csv", texts)


def test_an_endpoint_of_another_kind_takes_part_if_it_has_the_same_model(tmp_path: Path) -> None:
    """Each has its dialect; names, order and numbers decide."""
    texts = [f"text {number}" for number in range(300)]
    with FakeServer(api=SglangApi()) as one, FakeServer() as other:
        record = classified(tmp_path, texts, one, other, request=Request(rows=8, concurrency=2))
        assert record.labelled == 300
        assert record.model["server"] in ("sglang 0.5.23", "vllm")
        assert min(len(one.requests), len(other.requests)) > 1
    with (
        FakeServer(api=InfinityApi()) as one,
        FakeServer() as other,
        pytest.raises(ClassifyError, match=r"model\.order"),
    ):
        classified(tmp_path / "two", texts, one, other)
