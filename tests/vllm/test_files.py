"""Whole files through a real vLLM: what comes back is what the model says when it is asked row by row."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from serving import START_S, ask

pytestmark = [pytest.mark.vllm, pytest.mark.time_limit(START_S)]

REVIEWS = Path(__file__).parent.parent.parent / "data" / "reviews.csv"
TOO_LONG = "very " * 2000


def texts() -> list[str]:
    """The sample reviews, with an empty and a too long text among them."""
    with REVIEWS.open(newline="", encoding="utf-8") as file:
        found = [row["review"] for row in csv.DictReader(file)]
    return [*found[:50], "", *found[50:100], TOO_LONG, *found[100:], " \n "]


def write(path: Path, rows: list[str]) -> None:
    """One file of these texts, in the format of the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"n": range(len(rows)), "text": rows}), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["n", "text"], *enumerate(rows)])
    else:
        path.write_text("".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(rows)))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the server itself says to one request."""
    headers = {"Content-Type": "application/json"}
    answer = ask(f"{url}/classify", "POST", json.dumps(body).encode(), headers)
    assert answer.status == 200
    return list(answer.body["data"])


@pytest.fixture(params=["bert_url", "qwen_url"])
def url(request: pytest.FixtureRequest) -> str:
    """A real server: an encoder, and a decoder whose labels are not ASCII."""
    return str(request.getfixturevalue(request.param))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_gets_what_the_model_says_row_by_row(ending: str, url: str, tmp_path: Path, classify: Command) -> None:
    """Labels are equal, scores within 1e-4; empty and too long rows carry their code and cost no other row."""
    write(tmp_path / f"in.{ending}", texts())
    classify("run", f"in.{ending}", "-o", f"out.{ending}", "--url", url, expect=3)
    rows = read(tmp_path / f"out.{ending}")
    assert [row["text"] or "" for row in rows] == texts()
    for row, text in zip(rows, texts(), strict=True):
        if not text.strip() or text == TOO_LONG:
            assert row["predicted_label"] is None
            assert str(row["predicted_error"]).startswith("too_long: " if text == TOO_LONG else "empty: ")
            continue
        alone = asked(url, {"input": [text]})[0]
        assert row["predicted_label"] == alone["label"]
        assert math.isclose(float(str(row["predicted_score"])), max(alone["probs"]), abs_tol=1e-4)
        assert row["predicted_error"] is None


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
    bert_url: str, qwen_url: str, tmp_path: Path, classify: Command
) -> None:
    """A checkpoint of one model is refused to another, and the difference is named."""
    write(tmp_path / "in.csv", texts())
    classify(
        "run",
        "in.csv",
        "-o",
        "out.csv",
        "--url",
        bert_url,
        "--limit-rows",
        "60",
        expect=3 if TOO_LONG in texts()[:60] else 0,
    )
    refused = classify("run", "in.csv", "-o", "out.csv", "--url", qwen_url, expect=2).stderr
    assert "model.num_classes: was 3, now 5" in refused
