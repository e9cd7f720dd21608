"""Whole files through real servers: what comes back is what the model says when it is asked row by row."""

from __future__ import annotations

import csv
import functools
import json
import math
import struct
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from files import rows_of as read
from files import write
from serving import START_S, Real, ask, home

from pipeline.batcher.parts import cut

pytestmark = [pytest.mark.real, pytest.mark.time_limit(START_S)]

REVIEWS = Path(__file__).parent.parent.parent / "data" / "reviews.csv"
TOO_LONG = "very " * 2000


def texts() -> list[str | None]:
    """The sample reviews, with an empty, a null and a too long text among them."""
    with REVIEWS.open(newline="", encoding="utf-8") as file:
        found = [row["review"] for row in csv.DictReader(file)]
    return [*found[:50], "", None, *found[50:100], TOO_LONG, *found[100:], " \n "]


def asked(url: str, body: dict[str, Any], path: str = "/classify") -> list[Any]:
    """What the server itself says to one request."""
    headers = {"Content-Type": "application/json"}
    answer = ask(f"{url}{path}", "POST", json.dumps(body).encode(), headers)
    assert answer.status == 200, answer.body
    return list(answer.body["data"])


@functools.cache
def label_and_score(server: Real, text: str) -> tuple[str, float]:
    """The label and score of one text: Infinity says them of every class, the others the label once and all values."""
    item = asked(server.url, {"input": [text]}, "/v1/classify" if server.kind == "sglang" else "/classify")[0]
    best = item[0] if isinstance(item, list) else {"label": item["label"], "score": max(item["probs"])}
    return best["label"], best["score"]


@pytest.fixture(params=["bert", "qwen"])
def url(request: pytest.FixtureRequest) -> str:
    """A real vLLM: an encoder, and a decoder whose labels are not ASCII."""
    return str(request.getfixturevalue(request.param).url)


@pytest.fixture(params=["bert", "qwen", "infinity", "sglang"])
def server(request: pytest.FixtureRequest) -> Real:
    """Each real server."""
    found: Real = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_gets_what_the_model_says_row_by_row(
    ending: str, server: Real, tmp_path: Path, classify: Command
) -> None:
    """Labels are equal, scores within 1e-4; empty and too long rows carry their code and cost no other row.

    Infinity cuts what is too long and does not say so: such a row has the label of the cut text.
    """
    write(tmp_path / f"in.{ending}", texts())
    cuts = server.kind == "infinity"
    said = classify("run", f"in.{ending}", "-o", f"out.{ending}", "--url", server.url, expect=0 if cuts else 3).stderr
    assert ("Infinity may cut texts that are too long" in said) == cuts
    rows = read(tmp_path / f"out.{ending}")
    assert [row["text"] or None for row in rows] == [text or None for text in texts()]
    for row, text in zip(rows, texts(), strict=True):
        if not (text or "").strip() or (text == TOO_LONG and not cuts):
            assert not row["predicted_label"]
            assert row["predicted_error"].startswith("too_long: " if text == TOO_LONG else "empty: ")
            continue
        label, score = label_and_score(server, text or "")
        assert row["predicted_label"] == label
        assert math.isclose(float(row["predicted_score"]), score, abs_tol=1e-4)
        assert not row["predicted_error"]


def test_cut_without_a_word_is_null(infinity: Real, tmp_path: Path, classify: Command) -> None:
    """Infinity does not say which texts it has cut, so no row says that it was or was not."""
    write(tmp_path / "in.parquet", texts())
    classify("run", "in.parquet", "-o", "out.parquet", "--url", infinity.url, "--set", "request.too_long=truncate")
    rows = read(tmp_path / "out.parquet")
    assert {row["predicted_truncated"] for row in rows} == {None}
    cut = next(row for row in rows if row["text"] == TOO_LONG)
    label, score = label_and_score(infinity, "very " * 512)
    assert cut["predicted_label"] == label
    assert math.isclose(cut["predicted_score"], score, abs_tol=1e-4)


def test_too_long_texts_are_cut_when_asked_for(url: str, tmp_path: Path, classify: Command) -> None:
    """Only the row that needs it is cut, and it is flagged; its label is that of the cut text."""
    write(tmp_path / "in.parquet", texts())
    classify("run", "in.parquet", "-o", "out.parquet", "--url", url, "--set", "request.too_long=truncate")
    rows = read(tmp_path / "out.parquet")
    assert [row["text"] for row in rows if row["predicted_truncated"]] == [TOO_LONG]
    cut = next(row for row in rows if row["predicted_truncated"])
    alone = asked(url, {"input": [TOO_LONG], "truncate_prompt_tokens": -1})[0]
    assert cut["predicted_label"] == alone["label"]
    assert math.isclose(cut["predicted_score"], max(alone["probs"]), abs_tol=1e-4)


def parts_of(url: str, text: str) -> list[str]:
    """The parts that a text is answered in, found by asking the server what it takes."""

    def is_taken(part: str) -> bool:
        body = json.dumps({"input": [part]}).encode()
        return ask(f"{url}/classify", "POST", body, {"Content-Type": "application/json"}).status == 200

    first = text
    while not is_taken(first):
        first, *others = cut(text, int(0.6 * len(first)))
    return [text] if first == text else [first, *(part for other in others for part in parts_of(url, other))]


def test_too_long_texts_are_answered_in_parts(url: str, tmp_path: Path, classify: Command) -> None:
    """The values are the means of what the server says of each part alone, by length; short rows have one part."""
    write(tmp_path / "in.jsonl", [*texts()[:8], TOO_LONG])
    (model,) = ask(f"{url}/v1/models").body["data"]
    settings = [
        "request.too_long=split",
        "writer.probs=list",
        f"writer.labels={home() / 'models' / model['id']}/config.json",
    ]
    classify(
        "run", "in.jsonl", "-o", "out.jsonl", "--url", url, *(word for each in settings for word in ("--set", each))
    )
    *short, long = read(tmp_path / "out.jsonl")
    assert {row["predicted_parts"] for row in short} == {1}
    parts = parts_of(url, TOO_LONG)
    assert long["predicted_parts"] == len(parts) > 1
    answers = [asked(url, {"input": [part]})[0]["probs"] for part in parts]
    for index, value in enumerate(long["predicted_probs"]):
        mean = sum(len(part) * probs[index] for part, probs in zip(parts, answers, strict=True)) / len(TOO_LONG)
        assert math.isclose(value, mean, abs_tol=1e-4)


def test_raw_logits_and_all_values(url: str, tmp_path: Path, classify: Command) -> None:
    """Without activation the values are logits, all of them in class order, and the score is the largest."""
    write(tmp_path / "in.jsonl", texts()[:40])
    raw = ["--set", "request.activation=false", "--set", "writer.probs=list"]
    classify("run", "in.jsonl", "-o", "out.jsonl", "--url", url, *raw)
    for row in read(tmp_path / "out.jsonl"):
        alone = asked(url, {"input": [row["text"]], "use_activation": False})[0]
        assert row["predicted_label"] == alone["label"]
        assert row["predicted_score"] == max(row["predicted_probs"])
        assert abs(sum(row["predicted_probs"]) - 1) > 1e-3
        for value, expected in zip(row["predicted_probs"], alone["probs"], strict=True):
            assert math.isclose(value, expected, abs_tol=1e-4)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("settings", [(), ("request.activation=false",), ("request.too_long=truncate",)])
def test_binary_answers_give_the_output_of_json(
    ending: str, settings: tuple[str, ...], url: str, tmp_path: Path, classify: Command
) -> None:
    """Labels and errors are equal; values are, too, but for what the server itself rounds differently."""
    write(tmp_path / f"in.{ending}", texts())
    more = [word for each in (*settings, "request.rows=8", "writer.probs=list") for word in ("--set", each)]
    is_cut = "request.too_long=truncate" in settings
    for form in ("json", "binary"):
        words = ("run", f"in.{ending}", "-o", f"{form}.{ending}", "--url", url, "--set", f"request.format={form}")
        classify(*words, *more, expect=0 if is_cut else 3)
    in_json, in_binary = (read(tmp_path / f"{form}.{ending}") for form in ("json", "binary"))
    for row, other in zip(in_json, in_binary, strict=True):
        numbers = [json.loads(str(each.pop("predicted_probs") or "[0]").replace("None", "0")) for each in (row, other)]
        assert numbers[1] == pytest.approx(numbers[0], abs=1e-5)
        score, other_score = (float(each.pop("predicted_score") or 0) for each in (row, other))
        assert other_score == pytest.approx(score, abs=1e-5)
        assert row == other
    assert any(row["predicted_error"] for row in in_binary) or is_cut


def test_the_same_request_gets_the_same_numbers_both_ways(url: str) -> None:
    """`/pooling` takes all fields of `/classify`, and its float32 are the numbers that JSON prints."""
    headers = {"Content-Type": "application/json"}
    form = {"task": "classify", "encoding_format": "bytes_only", "embed_dtype": "float32", "endianness": "little"}
    for fields in ({}, {"use_activation": False}, {"truncate_prompt_tokens": -1, "truncation_side": "left"}):
        body: dict[str, Any] = {"input": ["I love it"], "priority": 0, **fields}
        probs = asked(url, body)[0]["probs"]
        request = urllib.request.Request(f"{url}/pooling", json.dumps(body | form).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            found = struct.unpack(f"<{len(probs)}f", answer.read())
        assert [*found] == probs


def test_a_look_at_a_served_model(url: str, tmp_path: Path, classify: Command) -> None:
    """`classify text` and `classify check` say what is served and what it answers."""
    write(tmp_path / "in.csv", texts())
    shown = classify("text", "I love it", "плохо", "--url", url, "--json").stdout.splitlines()
    labels = [json.loads(line)["label"] for line in shown]
    data = asked(url, {"input": ["I love it", "плохо"]})
    assert labels == [item["label"] for item in data]
    seen = classify("check", "in.csv", "--url", url).stdout
    assert f"{data[0]['num_classes']} classes" in seen
    assert not list(tmp_path.glob("*labelled*"))


def test_another_model_does_not_finish_what_one_has_begun(
    bert: Real, qwen: Real, tmp_path: Path, classify: Command
) -> None:
    """A checkpoint of one model is refused to another, and the difference is named."""
    write(tmp_path / "in.csv", texts())
    classify(
        "run",
        "in.csv",
        "-o",
        "out.csv",
        "--url",
        bert.url,
        "--limit-rows",
        "60",
        expect=3 if TOO_LONG in texts()[:60] else 0,
    )
    refused = classify("run", "in.csv", "-o", "out.csv", "--url", qwen.url, expect=2).stderr
    assert "model.num_classes: was 3, now 5" in refused
