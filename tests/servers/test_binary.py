"""`request.format = "binary"`: the outputs are those of JSON, and no answer is believed that is not like them."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from answers import labels_of
from commands import Command
from fake import LABELS, Action, FakeServer, cut, refuse, reply, reset, too_long
from files import rows_of, write
from hypothesis import given
from hypothesis import strategies as st
from spoken import APIS
from whole_runs import QUICK

from pipeline.config import Config, Loader, Request, Run, Server, Writer
from pipeline.errors import BadAnswer, Misconfigured, ModelChanged, OtherModel
from pipeline.monitoring.progress import Progress
from pipeline.runs import run
from pipeline.servers import endpoint
from pipeline.servers.dialects.vllm import Vllm
from pipeline.servers.dialects.vllm_binary import VllmBinary
from pipeline.servers.model import CANARY, ModelFacts
from pipeline.texts import escape_all

POISON, LONG = "poison", "very long"
TEXTS = [
    *(f'text {number}, with "quotes" and \\{{braces\\}}' for number in range(300)),
    "\\",
    "é😀\u2028\x07",
    *(f"{POISON} {number}" for number in range(3)),
    LONG,
    *(f"text {number % 7}" for number in range(40)),
]
MANY = tuple(f"class {number}" if number % 5 else None for number in range(28))  # some have no name


def outputs(folder: Path, server: FakeServer, kind: str, form: str, **request: Any) -> bytes:
    """Run in this process with the values of all classes, and return the output."""
    write(folder / f"in.{kind}", TEXTS)
    settings: dict[str, Any] = {"rows": 16, "concurrency": 4, **request}
    config = Config(
        loader=Loader(input=str(folder / f"in.{kind}")),
        writer=Writer(output=str(folder / f"out.{kind}"), probs="list"),
        server=Server(url=server.url, timeout_s=5, wait_s=30),
        request=Request(format=form, **settings),  # type: ignore[arg-type]
        retry=QUICK,
        run=Run(max_failed_rows="100%"),
    )
    asyncio.run(run(config, Progress("quiet")))
    return (folder / f"out.{kind}").read_bytes()


def paths(server: FakeServer) -> Counter[str]:
    """How many requests went where."""
    return Counter(seen.path for seen in server.requests)


def plain(body: bytes) -> Action:
    """Answer with these bytes, as the kind of answer that was asked for."""
    return reply(200, body, Content_Type="application/octet-stream")


def altered(server: FakeServer, change: Callable[[Any], Any]) -> Action:
    """The right values after `change` was done to them."""

    async def act(_: web.Request, texts: list[str]) -> web.StreamResponse:
        return server.pooled(texts, change)

    return act


def with_nan(values: Any) -> Any:
    """Make the last value none."""
    values[-1, -1] = np.nan
    return values


def faults(server: FakeServer, seed: int) -> Callable[[list[str]], Action | None]:
    """Fail three requests of ten after the canary, whichever way was asked."""
    drawn = random.Random(seed)
    ways: list[Callable[[], Action]] = [
        lambda: refuse(503, "queue is full"),
        reset,
        lambda: cut(server),
        lambda: reply(502, "<html>bad gateway</html>"),
        lambda: plain(b""),
        lambda: plain(b"{}" * 96),
        lambda: altered(server, lambda values: values[:-1]),
        lambda: altered(server, lambda values: values * 2),
        lambda: altered(server, with_nan),
    ]
    return lambda _: (
        drawn.choice(ways)() if server.answered.total() > 2 * len(CANARY) and drawn.random() < 0.3 else None
    )


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        pytest.param("csv", LABELS, id="csv"),
        pytest.param("jsonl", MANY, id="jsonl"),
        pytest.param("parquet", MANY, id="parquet"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("csv", MANY), ("jsonl", LABELS), ("parquet", LABELS))
        ),
    ],
)
def test_the_output_is_that_of_json_byte_for_byte(tmp_path: Path, kind: str, names: tuple[str | None, ...]) -> None:
    """With three requests of ten that fail, refused rows, a text that is too long, and classes without a name."""
    with FakeServer(labels=names) as server:
        server.rules += [(lambda text: text.startswith(POISON), reply(400, "no")), (LONG.__eq__, too_long())]
        expected = outputs(tmp_path / "json", server, kind, "json")
        assert paths(server)["/pooling"] == 0
        server.requests.clear()
        server.answered.clear()
        server.each = faults(server, seed=len(names))
        assert outputs(tmp_path / "binary", server, kind, "binary") == expected
        assert paths(server)["/pooling"] > 10


def test_a_class_is_named_by_classify_when_it_is_first_met(tmp_path: Path) -> None:
    """Names come from there alone, so a few requests are sent twice, and never one for each row."""
    with FakeServer(labels=MANY) as server:
        outputs(tmp_path, server, "jsonl", "binary", rows=4, concurrency=1)
        asked = [seen for seen in server.requests if seen.path == "/classify"]
        assert 2 <= len(asked) <= 1 + len(MANY) + 5
    labels = {row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl")}
    assert "class 1" in labels
    assert "LABEL_0" in labels


@given(
    values=st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1
    )
)
def test_a_float32_is_the_number_that_json_prints(values: list[list[float]]) -> None:
    """Scores, values and labels of any float32 are equal both ways, at a tie, too."""
    items = [
        {"index": index, "label": LABELS[row.index(max(row))], "probs": row, "num_classes": 3}
        for index, row in enumerate(values)
    ]
    answer = json.dumps({"data": items}).encode()
    facts = ModelFacts(3, dict(enumerate(LABELS)))
    facts.shown = {0, 1, 2}
    in_json = Vllm().decode(answer, len(values), facts)
    found = VllmBinary().decode(np.array(values, "<f4").tobytes(), len(values), facts)
    assert labels_of(found) == labels_of(in_json)
    assert found.scores.tolist() == in_json.scores.tolist()
    assert found.probs_or_nan(3).tolist() == in_json.probs_or_nan(3).tolist()


# The answers of vLLM 0.32 to the same texts by both ways.
RECORDED = base64.b64decode("4fRfP1V0WT3KnpM9WDoFP+pzjD7JLlI+YXCtPdYfcD7/SS4/")
PRINTED = [
    [0.8748303055763245, 0.05308947339653969, 0.07208019495010376],
    [0.5204215049743652, 0.27432185411453247, 0.2052565962076187],
    [0.0846870020031929, 0.23449644446372986, 0.6808165907859802],
]


def known() -> ModelFacts:
    """Return what is known of that model."""
    facts = ModelFacts(3, dict(enumerate(LABELS)))
    facts.shown, facts.sums_to_one = {0, 1, 2}, True
    return facts


def test_a_real_answer_has_the_values_that_classify_printed() -> None:
    """Two requests: the server itself rounds a little differently from one to the next."""
    found = VllmBinary().decode(RECORDED, 3, known())
    assert np.allclose(found.probs_or_nan(3), PRINTED, rtol=0, atol=1e-7)
    assert labels_of(found) == ["negative", "negative", "positive"]
    assert VllmBinary().decode(RECORDED, 3, known(), probs=False).probs is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", BadAnswer),
        (RECORDED[:-1], BadAnswer),
        (RECORDED[:-4], BadAnswer),
        (RECORDED + b"\0", BadAnswer),
        (RECORDED + b"\0" * 4, BadAnswer),
        (RECORDED + b"\0" * 12, OtherModel),
        (RECORDED[:24], OtherModel),
        (np.array([*PRINTED[:2], [0.5, 0.5, np.nan]], "<f4").tobytes(), BadAnswer),
        (np.array([*PRINTED[:2], [0.5, np.inf, 0]], "<f4").tobytes(), BadAnswer),
        (np.array([*PRINTED[:2], [0.5, 0.1, 0.1]], "<f4").tobytes(), BadAnswer),
        (np.array([*PRINTED[:2], [1.5, -0.5, 0]], "<f4").tobytes(), BadAnswer),
        (np.array(PRINTED, ">f4").tobytes(), BadAnswer),
        (np.array(PRINTED, "<f2").tobytes() * 2, BadAnswer),
        (b'{"data": [1, 2, 3], "model": "fak"}\n', BadAnswer),
    ],
)
def test_a_hostile_answer_gives_no_label(body: bytes, error: type[Exception]) -> None:
    """Short, long, of other classes, no numbers, other bytes, another softmax."""
    with pytest.raises(error):
        VllmBinary().decode(body, 3, known())


def test_a_request_has_the_fields_of_classify_and_the_form_of_the_answer() -> None:
    """What the config adds can't change that form."""
    asked = Request(activation=False, priority=1, extra={"truncation_side": "left", "embed_dtype": "float16"})
    sent = json.loads(VllmBinary().encode(escape_all(["a"]), "m", asked, truncate=True))
    as_classify = json.loads(Vllm().encode(escape_all(["a"]), "m", asked, truncate=True))
    form = {"task": "classify", "encoding_format": "bytes_only", "embed_dtype": "float32", "endianness": "little"}
    assert sent == as_classify | form


def test_values_that_classify_does_not_give_end_a_run_before_its_first_row(tmp_path: Path) -> None:
    """Classes in another order; numbers that are a little off; another form."""
    changes: list[Callable[[Any], Any]] = [lambda values: values[:, ::-1], lambda values: values + 0.01, np.float64]
    for change in changes:
        with FakeServer() as server:
            server.each = lambda _, server=server, change=change: (  # type: ignore[misc]
                altered(server, change) if server.requests[-1].path == "/pooling" else None
            )
            with pytest.raises(Misconfigured, match=r'gives no binary answers .* set request.format = "json"'):
                outputs(tmp_path, server, "jsonl", "binary")
            assert set(server.texts) == {*CANARY}


def test_a_server_without_binary_answers_is_told_before_the_first_row(tmp_path: Path, classify: Command) -> None:
    """An old vLLM has no such path, or refuses the form; others are asked nothing at all."""
    write(tmp_path / "in.csv", TEXTS)
    words = ("run", "in.csv", "-t", "text", "--set", "request.format=binary")
    with FakeServer(has_pooling=False) as server:
        said = classify(*words, "--url", server.url, expect=2).stderr
        assert "gives no binary answers (HTTP 404 for /pooling): set request.format" in said
        server.has_pooling = True
        server.each = lambda _: refuse(400, "encoding_format") if server.requests[-1].path == "/pooling" else None
        assert "(HTTP 400 for /pooling)" in classify(*words, "--url", server.url, expect=2).stderr
        assert set(server.texts) == {*CANARY}
    with FakeServer(api=APIS["tei"]) as server:
        said = classify(*words, "--url", server.url, expect=2).stderr
        assert 'speaks TEI, which gives no binary answers: this is for vLLM alone; set request.format = "json"' in said
        assert server.requests == []


def test_a_run_begun_in_json_goes_on_in_binary(tmp_path: Path, classify: Command) -> None:
    """And back: the values are equal, so the form is no part of what a checkpoint belongs to."""
    write(tmp_path / "in.csv", TEXTS[:200])
    with FakeServer() as server:
        words = ("run", "in.csv", "-t", "text", "--url", server.url, "--set", "request.rows=10")
        classify(*words, "-o", "whole.csv")
        server.requests.clear()
        for form, rows in (("json", 60), ("binary", 120), ("json", 200)):
            classify(*words, "-o", "out.csv", "--limit-rows", rows, "--set", f"request.format={form}")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    in_json = Counter(text for seen in server.requests if seen.path == "/classify" for text in seen.texts)
    in_binary = [text for seen in server.requests if seen.path == "/pooling" for text in seen.texts]
    assert {in_json[text] for text in TEXTS[:60]} == {1}
    assert not {*in_binary} & {*TEXTS[:60]}
    assert {*TEXTS[70:110]} <= {*in_binary}


def test_a_look_says_which_form_answers_have(tmp_path: Path, classify: Command) -> None:
    """`check` asks both ways."""
    write(tmp_path / "in.csv", TEXTS)
    with FakeServer() as server:
        for form, shown in (("auto", "JSON"), ("binary", "binary")):
            words = ("check", "in.csv", "-t", "text", "--url", server.url, "--set", f"request.format={form}")
            assert f"answers in {shown} (request.format)" in classify(*words).stdout


def test_a_server_is_compared_again_when_it_is_met_again(tmp_path: Path) -> None:
    """After a broken connection, before any further answer is believed."""
    with FakeServer() as server:
        broken: list[int] = []

        def once(_: list[str]) -> Action | None:
            if server.answered.total() > 100 and not broken:
                broken.append(len(server.requests))
                return reset()
            return None

        server.each = once
        outputs(tmp_path, server, "jsonl", "binary", concurrency=1)
        later = [(seen.path, seen.texts == [*CANARY]) for seen in server.requests[broken[0] :]]
    assert later[:3] == [("/pooling", False), ("/classify", True), ("/pooling", True)]
    assert later.count(("/pooling", True)) == 1


@pytest.mark.parametrize("change", ["model", "labels"])
def test_a_model_with_other_names_is_noticed_by_the_answers_in_json(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A binary answer names nothing, so one request in a while is answered in JSON."""
    monkeypatch.setattr(endpoint, "NAMED_EVERY_S", 0.05)
    with FakeServer(latency_s=0.02) as server:

        def exchange(_: list[str]) -> None:
            if server.answered.total() > 100:
                setattr(server, change, "other" if change == "model" else LABELS[::-1])

        server.each = exchange
        with pytest.raises(ModelChanged):
            outputs(tmp_path, server, "jsonl", "binary", concurrency=1, rows=4)


def test_after_a_pause_rows_wait_for_an_answer_that_names_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a connection may idle: all that is sent then is answered in JSON, as every request once was."""
    monkeypatch.setattr(endpoint, "NAMED_EVERY_S", 0.0)
    monkeypatch.setattr(endpoint, "KEEP_ALIVE_S", 0.0)
    with FakeServer() as server:
        outputs(tmp_path, server, "jsonl", "binary")
        assert paths(server)["/pooling"] == 1  # the canary's
