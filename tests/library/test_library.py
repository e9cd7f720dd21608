"""The doors for Python: texts and files, their twins, their examples, and what a notebook needs of them."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import wait_until_answered
from fake import FakeServer, label_of, probs_of, refuse, score_of, too_long
from files import rows_of, write

import pipeline
from pipeline import (
    Config,
    Prediction,
    classifier,
    classify_frame,
    classify_frame_async,
    classify_texts,
    classify_texts_async,
    library,
    run,
    run_async,
)
from pipeline.config import Loader, Request, Server, Writer
from pipeline.errors import ServerGone

ROOT = Path(__file__).parents[2]
TEXTS = [f"text {n}" for n in range(40)]


def settings(tmp_path: Path, fake: FakeServer, output: str = "out.csv") -> Config:
    """A run of some files in a directory."""
    return Config(
        loader=Loader(input=str(tmp_path / "in.csv")),
        writer=Writer(output=str(tmp_path / output)),
        server=Server(url=fake.url, start_wait_s=0),
    )


# -- the examples


@pytest.mark.slow
def test_the_examples_of_the_docstrings_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every public function shows an example, and each does what it shows."""
    shutil.copytree(ROOT / "data", tmp_path / "data")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    found = [test for module in (library, classifier) for test in doctest.DocTestFinder().find(module) if test.examples]
    functions = {name for name in pipeline.__all__ if inspect.isfunction(getattr(pipeline, name))}
    assert {test.name.rpartition(".")[2] for test in found} == functions | {"Classifier"}
    assert doctest.testmod(library).failed == doctest.testmod(classifier).failed == 0


def test_all_that_is_public_is_typed_and_explained() -> None:
    """Each name of the package has a docstring; its functions name their arguments' types, and say what they raise."""
    for name in pipeline.__all__:
        member = getattr(pipeline, name)
        assert member.__doc__, name
        if inspect.isfunction(member):
            hints = inspect.get_annotations(member)
            assert set(hints) == {*inspect.signature(member).parameters, "return"}, name
            twin = name.removesuffix("_async")
            assert "Raises:" in getattr(pipeline, twin).__doc__
            assert inspect.iscoroutinefunction(member) == (twin != name)


# -- the twins


async def test_a_twin_gives_the_same(tmp_path: Path, fake: FakeServer) -> None:
    """In a new event loop, in one that is running, and without one: the same answers."""
    import pandas as pd

    frame = pd.DataFrame({"text": TEXTS})
    texts = await asyncio.to_thread(classify_texts, TEXTS, url=fake.url)
    assert texts == classify_texts(TEXTS, url=fake.url) == await classify_texts_async(TEXTS, url=fake.url)
    assert texts == [Prediction(label_of(text), score_of(text), probs_of(text)) for text in TEXTS]
    one = classify_frame(frame, "text", url=fake.url)
    pd.testing.assert_frame_equal(one, await classify_frame_async(frame, "text", url=fake.url))
    write(tmp_path / "in.csv", TEXTS)
    record = run(settings(tmp_path, fake))
    other = await run_async(settings(tmp_path, fake, "other.csv"))
    assert record.output_digest == other.output_digest
    assert (record.labelled, record.exit_code) == (len(TEXTS), 0)


def test_run_says_how_far_it_came(tmp_path: Path, fake: FakeServer) -> None:
    """A run that fails raises, with what is known of it; the same call goes on from there; again, nothing is spent."""
    write(tmp_path / "in.csv", TEXTS)
    config = settings(tmp_path, fake)
    fake.down()
    with pytest.raises(ServerGone) as caught:
        run(config)
    assert (caught.value.outcome.exit_code, caught.value.outcome.rows, caught.value.outcome.rows_total) == (75, 0, 40)
    fake.up()
    made = run(config)
    found = run(config)
    assert (made.already_complete, found.already_complete) == (False, True)
    assert (found.labels, found.output_digest) == (made.labels, made.output_digest)
    assert (found.requests, found.texts_sent, found.rows_per_s) == (0, 0, 0)
    assert found.started > made.started


def test_rows_that_fail_are_no_exception(tmp_path: Path, fake: FakeServer) -> None:
    """More than allowed: the output is complete, and the record carries code 3 and why."""
    write(tmp_path / "in.csv", TEXTS)
    fake.rules.append((lambda text: text == "text 7", refuse(400, "no")))
    record = run(settings(tmp_path, fake))
    assert (record.exit_code, record.error, record.rows_failed) == (3, "1 rows failed, 0 may", 1)
    assert len(rows_of(tmp_path / "out.csv")) == len(TEXTS)


def test_a_cut_text_is_counted(tmp_path: Path, fake: FakeServer) -> None:
    """With `too_long = "truncate"` the record says of how many rows the text was cut."""
    fake.each = lambda texts: (
        too_long() if "text 7" in texts and "truncate_prompt_tokens" not in fake.requests[-1].body else None
    )
    write(tmp_path / "in.csv", TEXTS)
    config = settings(tmp_path, fake)
    record = run(
        Config(loader=config.loader, writer=config.writer, server=config.server, request=Request(too_long="truncate"))
    )
    assert (record.truncated, record.labelled, record.exit_code) == (1, 40, 0)


# -- texts


def test_no_text_asks_nobody() -> None:
    """An empty list has no predictions, whether a server is there or not."""
    assert classify_texts([], url="http://127.0.0.1:1") == []


def test_one_string_is_a_mistake() -> None:
    """Its characters are not what anybody wants to have classified."""
    with pytest.raises(TypeError, match="a list of strings"):
        classify_texts("great", url="http://127.0.0.1:1")


def test_what_is_no_text_is_not_sent(fake: FakeServer) -> None:
    """Numbers, booleans, bytes, lists, half surrogate pairs: `not_text`; numpy's strings are strings."""
    values: list[Any] = ["a", 1, True, b"b", ["c"], 2.5, "\ud800", None, " ", np.str_("d")]
    predictions = classify_texts(values, url=fake.url)
    errors = [prediction.error for prediction in predictions]
    assert errors == [
        None,
        "not_text: a number",
        "not_text: a boolean",
        "not_text: no string",
        "not_text: no string",
        "not_text: a number",
        "not_text: a string with half a surrogate pair",
        "empty: no text",
        "empty: no text",
        None,
    ]
    assert (predictions[0].label, predictions[-1].label) == (label_of("a"), label_of("d"))
    assert sorted(text for text in fake.texts if len(text) == 1) == ["a", "d"]


def test_a_key_is_read_from_the_environment(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for files."""
    monkeypatch.setenv("VLLM_API_KEY", "k3y")
    classify_texts(["a"], url=fake.url)
    assert {seen.headers["Authorization"] for seen in fake.requests} == {"Bearer k3y"}


# -- progress


@pytest.mark.parametrize("has_loop", [False, True])
def test_a_bar_is_shown_if_it_is_wanted(
    tmp_path: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str], *, has_loop: bool
) -> None:
    """Nothing is said without `progress`, neither of texts nor of files; with it a bar that reaches the end."""

    async def inside(wanted: bool) -> None:
        classify_texts(TEXTS, url=fake.url, progress=wanted)
        run(settings(tmp_path, fake, f"{wanted}.csv"), progress=wanted)

    def outside(wanted: bool) -> None:
        classify_texts(TEXTS, url=fake.url, progress=wanted)
        run(settings(tmp_path, fake, f"{wanted}.csv"), progress=wanted)

    write(tmp_path / "in.csv", TEXTS)
    for wanted in (False, True):
        asyncio.run(inside(wanted)) if has_loop else outside(wanted)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("100%") >= 2 if wanted else err == ""


NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
from pipeline import classify_texts
print(len(classify_texts(["a", "b"], url=sys.argv[1], progress=True)))
"""


def test_a_notebook_without_widgets_gets_a_bar_of_characters(fake: FakeServer) -> None:
    """Where ipywidgets are missing, the bar is text, and no warning gets in the way, be it an error."""
    command = [sys.executable, "-W", "error", "-c", NOTEBOOK, fake.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "100%" in done.stderr
    assert "Warning" not in done.stderr


STOPPED = """
import asyncio, signal, sys, time
from pipeline import Config, classify_texts
from pipeline.config import Request

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background begin with it ignored

async def cell():
    slow = Config(request=Request(rows=1, concurrency=1))
    classify_texts([f"text {n}" for n in range(400)], url=sys.argv[1], config=slow)

try:
    asyncio.new_event_loop().run_until_complete(cell())
except KeyboardInterrupt:
    print("stopped", flush=True)
    time.sleep(1.5)
"""


@pytest.mark.slow
def test_the_stop_button_stops(fake: FakeServer) -> None:
    """An interrupt inside a running loop cancels the work in its thread: from then on nothing is sent."""
    fake.latency_s = 0.1
    command = [sys.executable, "-c", STOPPED, fake.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        wait_until_answered(fake, 8)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"
        answered = sum(fake.answered.values())
        assert process.wait(20) == 0
    assert answered <= sum(fake.answered.values()) <= answered + 1 < 400
