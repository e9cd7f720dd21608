"""What only a real Infinity and a real SGLang show: how they refuse and fail, and that they agree with others."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import triton_models
from commands import Command
from files import record, rows_of, write
from serving import MOST_QUEUED, START_S, Real, ask, need

from pipeline.errors import Rejected
from pipeline.servers.dialects.infinity import Infinity
from pipeline.servers.dialects.sglang import Sglang

pytestmark = [pytest.mark.real, pytest.mark.time_limit(3 * START_S)]
NAMES = ("negative", "neutral", "positive")
REVIEWS = Path(__file__).parents[2] / "data" / "reviews.csv"
OVERLOADED = {"infinity": 429, "sglang": 503}


def reviews() -> list[str]:
    """Texts of the sample, and some that are hard to carry."""
    with REVIEWS.open(newline="", encoding="utf-8") as file:
        found = [row["review"] for row in csv.DictReader(file)]
    return [*found[:150], '","', "\\", "é\u2028😀", "]}", "a\x07b", "quite " * 20 + "good"]


def values_of(url: str, folder: Path, classify: Command, *options: str) -> tuple[list[str], Any]:
    """The labels of the sample, and the values of all classes, as a run writes them."""
    folder.mkdir()
    write(folder / "in.jsonl", reviews())
    settings = ["--set", "writer.probs=list", "--set", "writer.labels=" + json.dumps(NAMES), "--quiet"]
    classify("run", folder / "in.jsonl", "-o", folder / "out.jsonl", "--url", url, *settings, *options)
    rows = rows_of(folder / "out.jsonl")
    return [row["predicted_label"] for row in rows], np.array([row["predicted_probs"] for row in rows])


def test_one_model_is_the_same_through_all_servers(
    bert: Real, infinity: Real, sglang: Real, tmp_path: Path, classify: Command
) -> None:
    """The same weights behind vLLM, Infinity, SGLang and Triton: equal labels, each value within 1e-4 of vLLM's."""
    need("triton")
    labels, values = values_of(bert.url, tmp_path / "bert", classify, "--set", "request.too_long=truncate")
    assert set(labels) == set(NAMES)
    repository = triton_models.write_weights(tmp_path / "models", "tiny-bert", NAMES)
    with Real("triton", str(repository)) as triton:
        for other in (infinity, sglang, triton):
            named, found = values_of(other.url, tmp_path / other.kind, classify)
            assert named == labels, other.kind
            np.testing.assert_allclose(found, values, rtol=0, atol=1e-4, err_msg=other.kind)


@pytest.fixture(params=["infinity", "sglang"])
def server(request: pytest.FixtureRequest) -> Real:
    """Each of the two."""
    found: Real = request.getfixturevalue(request.param)
    return found


def test_recognised_and_overloaded(server: Real, bert: Real, tmp_path: Path, classify: Command) -> None:
    """More texts at a time than it takes: it refuses requests, and every row has the label that vLLM gives it."""
    texts = [f"text {number}, {'good' if number % 3 else 'awful'}" for number in range(4 * MOST_QUEUED)]
    write(tmp_path / "in.parquet", texts)
    assert f'(server.api = "{server.kind}")' in classify("check", "in.parquet", "--url", server.url).stdout
    sizes = ["--set", "request.rows=100", "--set", "request.concurrency=12"]
    classify("run", "in.parquet", "-o", "out.parquet", "--url", server.url, "--quiet", *sizes)
    assert f'/classify HTTP/1.1" {OVERLOADED[server.kind]}' in server.log()
    assert record(tmp_path / "out.parquet")["retries"] > 0
    classify("run", "in.parquet", "-o", "vllm.parquet", "--url", bert.url, "--quiet")
    rows, right = rows_of(tmp_path / "out.parquet"), rows_of(tmp_path / "vllm.parquet")
    for row, expected in zip(rows, right, strict=True):
        assert row["predicted_score"] == pytest.approx(expected["predicted_score"], abs=1e-4)
        assert {**row, "predicted_score": 0} == {**expected, "predicted_score": 0}


def refusal(server: Real, path: str, texts: list[str | None]) -> tuple[int, bytes]:
    """What it says of a request that it refuses."""
    body = json.dumps({"input": texts}).encode()
    answer = ask(server.url + path, "POST", body, {"Content-Type": "application/json"})
    return answer.status, json.dumps(answer.body, separators=(",", ":")).encode()


def test_the_guilty_text_is_named(infinity: Real, sglang: Real) -> None:
    """As the recorded refusals do: the place of the text in the request is found in what a real server says."""
    status, body = refusal(infinity, "/classify", ["good", None, "bad", "x" * 130_000])
    error = Infinity().refusal(status, {}, body, "")
    assert isinstance(error, Rejected)
    assert set(error.positions) == {1, 3}
    status, body = refusal(sglang, "/v1/classify", ["good", "bad", " \n"])
    error = Sglang().refusal(status, {}, body, "")
    assert isinstance(error, Rejected)
    assert list(error.positions) == [2]


def test_a_huge_text_costs_its_row(infinity: Real, tmp_path: Path, classify: Command) -> None:
    """Infinity refuses more characters than it takes, and says of which text: one request more, and one row without."""
    write(tmp_path / "in.jsonl", [*("good", "bad") * 10, "x" * 130_000, "fine"])
    classify("run", "in.jsonl", "-o", "out.jsonl", "--url", infinity.url, "--quiet", expect=3)
    failed = [row for row in rows_of(tmp_path / "out.jsonl") if row["predicted_error"]]
    assert [(row["id"], row["predicted_error"].partition(":")[0]) for row in failed] == [(20, "too_long")]


def test_the_label_default_is_no_label(tmp_path: Path, classify: Command) -> None:
    """A class without a name breaks SGLang's activation, which says 200 and "Default": that is no label."""
    need("sglang")
    write(tmp_path / "in.jsonl", reviews())
    names = {"id2label": {"7": "negative", "8": "neutral", "9": "positive"}}
    with Real("sglang", "tiny-bert", "--json-model-override-args", json.dumps(names)) as server:
        answer = ask(f"{server.url}/v1/classify", "POST", b'{"input": ["good"]}', {"Content-Type": "application/json"})
        assert answer.body["data"] == [{"index": 0, "label": "Default", "probs": [1.0], "num_classes": 1}]
        done = classify("run", "in.jsonl", "-o", "out.jsonl", "--url", server.url, expect=2)
    assert 'the server failed in its activation, and says so with the label "Default"' in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
