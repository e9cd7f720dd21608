"""A real Triton, which speaks the Open Inference Protocol: what it announces and refuses, and runs through it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import triton_models
from commands import Command
from fake import probs_of
from files import rows_of, write
from serving import Real, need

pytestmark = pytest.mark.real
TEXTS = [*(f"text {number}, „quoted“" for number in range(300)), "", None, '","', "\\", "é😀", "x" * 50_000, "]}"]
LABELS = list(triton_models.NAMES)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a Triton."""
    need("triton")
    with Real("triton", str(triton_models.write_numbers(tmp_path_factory.mktemp("triton")))) as server:
        yield server.url


def expected(text: str) -> tuple[str, float]:
    """Label and score of a text: the values travel as float32."""
    values = [float(np.float32(value)) for value in probs_of(text)]
    return LABELS[values.index(max(values))], max(values)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_row_gets_its_label(url: str, kind: str, classify: Command, tmp_path: Path) -> None:
    """Through a model that takes 24 texts a request; empty and null ones are not sent."""
    write(tmp_path / f"in.{kind}", TEXTS)
    options = ["--url", url, "--model", "clf", "--set", "writer.probs=list", "--quiet"]
    done = classify("run", f"in.{kind}", "-o", f"out.{kind}", *options)
    assert "0 failed" in done.stderr
    for text, row in zip(TEXTS, rows_of(tmp_path / f"out.{kind}"), strict=True):
        if text:
            label, score = expected(text)
            assert row["predicted_label"] == label
            assert float(row["predicted_score"]) == pytest.approx(score, abs=1e-7)
        else:
            assert (row["predicted_error"] or "").startswith("empty")


def test_it_is_recognised_and_its_limit_is_known(url: str, classify: Command, tmp_path: Path) -> None:
    """Names come from the label file; without one the config has them."""
    write(tmp_path / "in.csv", TEXTS)
    shown = classify("check", "in.csv", "--url", url, "--model", "clf").stdout
    assert 'speaks Triton 2.51.0 (server.api = "oip")' in shown
    assert f"takes at most {triton_models.MOST_TEXTS} texts in a request" in shown
    assert "names: negative, neutral: a bit, positive (order: as the server has them)" in shown
    assert "names seen so far: none" in classify("check", "in.csv", "--url", url, "--model", "bare").stdout
    done = classify("check", "in.csv", "--url", url, expect=2)
    assert "serves bare, clf; choose one with --model" in done.stderr


def test_a_text_that_the_model_refuses_costs_its_row(url: str, classify: Command, tmp_path: Path) -> None:
    """Triton says 500 to what a model raises: the row is blamed after the canary has passed."""
    write(tmp_path / "in.jsonl", ["good", "refuse me", *(f"text {number}" for number in range(40))])
    options = ["--url", url, "--model", "clf", "--quiet", "--set", "retry.base_delay_s=0.01"]
    classify("run", "in.jsonl", "-o", "out.jsonl", *options, expect=3)
    failed = [row for row in rows_of(tmp_path / "out.jsonl") if row["predicted_error"]]
    assert [(row["text"], row["predicted_error"].partition(":")[0]) for row in failed] == [
        ("refuse me", "server_error")
    ]


def test_killed_and_started_again_it_finishes_the_run(tmp_path: Path) -> None:
    """The run waits for the server; nothing is lost, and every label is right."""
    need("triton")
    texts = [f"text {number}" for number in range(6000)]
    write(tmp_path / "in.jsonl", texts)
    with Real("triton", str(triton_models.write_numbers(tmp_path / "models"))) as server:
        options = ["--url", server.url, "--model", "clf", "--quiet", "--set", "request.rows=4"]
        command = [sys.executable, "-m", "pipeline", "run", "in.jsonl", "-o", "out.jsonl", *options]
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as run:
            while not (tmp_path / ".out.jsonl.checkpoint").exists():
                time.sleep(0.01)
            server.kill()
            server.start()
            _, said = run.communicate(timeout=100)
    assert run.returncode == 0, said
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["predicted_label"] for row in rows] == [expected(text)[0] for text in texts]
