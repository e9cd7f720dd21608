"""Arrow batches in, the same batches with new columns out: values, order, pickles, processes, what is kept open."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import wait_until_answered
from fake import FakeServer, hang, label_of, probs_of, refuse, score_of, too_long
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import Classifier, Config, classifier, classify_batches, run
from pipeline.config import Loader, Request, Server, Writer
from pipeline.errors import ConfigError, InputError, Misconfigured, ModelChanged, ServerGone
from pipeline.servers.model import CANARY

NOBODY = "http://127.0.0.1:1"
ADDED = ["predicted_label", "predicted_score", "predicted_error"]
KINDS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.binary()]
SLOW = Request(rows=1, concurrency=1)


def batch_of(texts: list[str | None], kind: pa.DataType = KINDS[0], **columns: list[Any]) -> pa.RecordBatch:
    """A batch with the texts in a column of some type, after a column of numbers."""
    values = pa.array(texts, pa.string()).cast(kind)
    return pa.record_batch({"n": pa.array(range(len(texts)), pa.int64()), "text": values, **columns})


def expected(text: str | None) -> list[Any]:
    """What is added to a row."""
    if text is None or not text or text.isspace():
        return [None, None, "empty: no text"]
    return [label_of(text), score_of(text), None]


def added_to(batches: list[pa.RecordBatch | pa.Table]) -> list[list[Any]]:
    """What was added, row by row."""
    return [[row[name] for name in ADDED] for batch in batches for row in batch.select(ADDED).to_pylist()]


# -- values and order


@pytest.fixture(scope="module")
def quick() -> Iterator[FakeServer]:
    """One server for many examples."""
    with FakeServer() as server:
        yield server


TEXTS = st.none() | st.sampled_from(["", " ", "good", "a\0b", '"q"\n\\']) | st.text(st.characters(codec="utf-8"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_batches_get_what_their_rows_would_get(quick: FakeServer, data: st.DataObject) -> None:
    """Whatever the sizes, nulls, slices and types: the same batches, and in each row the answer of its text."""
    given: list[pa.RecordBatch | pa.Table] = []
    for texts in data.draw(st.lists(st.lists(TEXTS, max_size=12), max_size=6)):
        batch = batch_of(texts, data.draw(st.sampled_from(KINDS)))
        start = data.draw(st.integers(0, len(texts)))
        batch = batch.slice(start, data.draw(st.integers(0, len(texts))))
        pieces = data.draw(st.integers(0, 3))
        given.append(pa.Table.from_batches([batch] * pieces, batch.schema) if pieces else batch)
    request = Request(rows=data.draw(st.sampled_from([1, 3, "auto"])))
    made = list(classify_batches(iter(given), url=quick.url, config=Config(request=request)))
    assert [type(batch) for batch in made] == [type(batch) for batch in given]
    for before, after in zip(given, made, strict=True):
        after.validate(full=True)
        assert after.select(before.schema.names).equals(before, check_metadata=True)
        assert after.schema.names == [*before.schema.names, *ADDED]
        texts = before["text"].cast(pa.string()).to_pylist()
        assert added_to([after]) == [expected(text) for text in texts]


@pytest.mark.parametrize("probs", ["none", "list", "columns"])
@pytest.mark.parametrize("limit", ["error", "truncate", "split"])
@pytest.mark.parametrize("thresholds", [{}, {"min_score": 0.6, "unsure_label": "?", "multi_label": 0.3, "top_k": 2}])
def test_the_columns_are_those_of_a_file(
    probs: Any, limit: Any, thresholds: dict[str, Any], tmp_path: Path, fake: FakeServer
) -> None:
    """The same names, types and values as in the Arrow file that a run writes; errors of rows among them."""
    texts = ["good", "bad", None, "long", "refused", " ", "good"]
    fake.rules.append((lambda text: text == "refused", refuse(400, "no")))
    fake.each = lambda asked: (
        too_long() if "long" in asked and "truncate_prompt_tokens" not in fake.requests[-1].body else None
    )
    table = pa.Table.from_batches([batch_of(texts)]).replace_schema_metadata({"from": "us"})
    with pa.ipc.new_file(str(tmp_path / "in.arrow"), table.schema) as file:
        file.write_table(table)
    config = Config(
        loader=Loader(input=str(tmp_path / "in.arrow")),
        writer=Writer(
            output=str(tmp_path / "out.arrow"), probs=probs, prefix="x_", labels=[*map(str, fake.labels)], **thresholds
        ),
        server=Server(url=fake.url),
        request=Request(too_long=limit),
    )
    run(config)
    with Classifier(config) as classify:
        made = classify(table)
    there = pa.ipc.open_file(str(tmp_path / "out.arrow")).read_all()
    assert made.schema.equals(there.schema, check_metadata=True)
    assert made.to_pydict() == there.to_pydict()
    assert made["x_error"].null_count == (4 if limit == "truncate" else 3)


def test_an_empty_batch_has_its_columns_and_needs_no_server(fake: FakeServer) -> None:
    """So an engine that asks for the schema with no rows gets it; only columns of unknown classes need the server."""
    empty = batch_of([])
    labels = Config(writer=Writer(probs="columns", labels=["a", "b"]))
    for config, names in (
        (Config(), []),
        (Config(writer=Writer(probs="list")), ["predicted_probs"]),
        (labels, ["predicted_prob_a", "predicted_prob_b"]),
    ):
        made = Classifier(config, url=NOBODY)(empty)
        assert made.schema.names == ["n", "text", *ADDED, *names]
    unnamed = Config(writer=Writer(probs="columns"))
    with Classifier(unnamed, url=fake.url) as classify:
        asked = classify(empty)
        assert asked.schema.equals(classify(batch_of(["a"])).schema)
        assert asked.schema.names[-3:] == ["predicted_prob_0", "predicted_prob_1", "predicted_prob_2"]
    assert set(fake.texts) == {*CANARY, "a"}
    assert list(classify_batches([], url=NOBODY)) == []


def test_texts_are_made_as_for_a_file(tmp_path: Path, fake: FakeServer) -> None:
    """Of fields, of several columns, of a template; all settings from a TOML file, whose url may be another."""
    file = tmp_path / "night.toml"
    file.write_text(
        f'[server]\nurl = "{NOBODY}"\n[loader]\ninput = "gone.csv"\ntemplate = "{{title}}: {{body.text}}"\n'
    )
    batch = pa.record_batch({"title": ["a", None], "body": [{"text": "b"}, {"text": None}]})
    for text, sent in ((None, "a: b"), ("body.text", "b"), (["title", "body.text"], "a\nb")):
        [made] = classify_batches([batch], text, config=file, url=fake.url)
        assert added_to([made]) == [expected(sent), expected(None)]


# -- what is wrong


def test_what_is_wrong_is_named(fake: FakeServer) -> None:
    """A column that is missing, no text, or there already; a config; what is no batch. No text was sent."""
    batch = batch_of(["a"], predicted_prob_2=[1.0], predicted_error=["x"])
    classify = Classifier(text="txt", url=fake.url)
    with pytest.raises(InputError, match=r"^the batch: no column 'txt'; the columns are n, .*; did you mean 'text'\?$"):
        classify(batch)
    with pytest.raises(InputError, match=r"; name one with text=$"):
        Classifier(text="review", url=fake.url)(batch)
    with pytest.raises(InputError, match="the column 'n' is of type int64"):
        list(classify_batches([batch], "n", url=fake.url))
    with pytest.raises(InputError, match=r"'predicted_error' already; choose another writer\.prefix"):
        Classifier(url=fake.url)(batch)
    with pytest.raises(TypeError, match=r"a pyarrow\.RecordBatch or Table, not a dict"):
        Classifier(url=fake.url)({"text": ["a"]})
    assert fake.requests == []
    columns = Config(writer=Writer(probs="columns"))
    with (
        Classifier(columns, url=fake.url) as classify,
        pytest.raises(InputError, match="'predicted_prob_2' already"),
    ):
        classify(batch.drop_columns("predicted_error"))
    assert set(fake.texts) == set(CANARY)
    with pytest.raises(ConfigError, match="named twice"):
        classify_batches([], ["a", "a"])
    with pytest.raises(ConfigError, match="check the path"):
        Classifier("nowhere.toml")


def test_a_server_that_is_away_is_an_error_and_then_it_is_asked_again(fake: FakeServer) -> None:
    """The library's errors, as a file would have; what comes after one connects anew."""
    config = Config(server=Server(url=fake.url, start_wait_s=0, wait_s=0.5))
    fake.each = lambda _: refuse(401, "no such key")
    with Classifier(config) as classify:
        with pytest.raises(Misconfigured, match="401"):
            classify(batch_of(["a"]))
        fake.each = lambda _: None
        assert added_to([classify(batch_of(["a"]))]) == [expected("a")]
        fake.down()
        for _ in range(2):  # while it was connected, and when it can't be
            with pytest.raises(ServerGone):
                classify(batch_of(["b"]))
        fake.up()
        assert added_to([classify(batch_of(["b"]))]) == [expected("b")]


def test_rows_that_fail_are_no_exception(fake: FakeServer) -> None:
    """Not even if they are all there are, from the first on."""
    fake.rules.append((lambda text: text.startswith("bad"), refuse(400, "no")))
    with Classifier(url=fake.url) as classify:
        made = classify(batch_of([f"bad {n}" for n in range(40)]))
        assert set(made["predicted_error"].to_pylist()) == {"rejected: HTTP 400: no"}
        assert added_to([classify(batch_of(["good"]))]) == [expected("good")]


def test_another_model_after_a_pause_is_noticed(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two batches hours may pass: the canary is asked again, and what it says is compared."""
    with Classifier(url=fake.url) as classify:
        classify(batch_of(["a"]))
        classify(batch_of(["b"]))
        assert sum(CANARY[0] in seen.texts for seen in fake.requests) == 1
        monkeypatch.setattr(classifier, "IDLE_S", 0.0)
        classify(batch_of(["c"]))
        assert sum(CANARY[0] in seen.texts for seen in fake.requests) == 2
        fake.weights = "new"
        with pytest.raises(ModelChanged):
            classify(batch_of(["d"]))
    assert "d" not in fake.texts


# -- ahead of time, and cancelled


def test_the_next_batches_are_sent_while_one_is_awaited(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads ahead up to a number of rows, never without end; a batch is given when the next one is under way."""
    read: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(12):
            read.append(number)
            yield batch_of([f"{number} {row}" for row in range(10)])

    with Classifier(url=fake.url) as classify:
        monkeypatch.setattr(classifier, "ROWS_AHEAD", 30)
        fake.hold_after = len(CANARY)
        threading.Timer(0.5, lambda: setattr(fake, "hold_after", None)).start()
        stream = classify.stream(batches())
        next(stream)
        assert read == [0, 1, 2, 3]
        assert sum(1 for _ in stream) == 11
    monkeypatch.setattr(classifier, "ROWS_AHEAD", 10**9)
    monkeypatch.setattr(classifier, "BYTES_AHEAD", 1)
    read.clear()
    stream = classify.stream(batches())
    for number in range(3):
        next(stream)
        assert read[-1] == number + 1
    stream.close()
    classify.close()


def test_an_iterator_that_is_closed_sends_nothing_more(fake: FakeServer) -> None:
    """What is in flight is cancelled, and the connection too; the same for an error of the reader's own."""
    fake.hold_after = len(CANARY) + 5
    batches = [batch_of([f"{number} {row}" for row in range(5)]) for number in range(100)]
    iterator = classify_batches(batches, url=fake.url, config=Config(request=SLOW))
    assert added_to([next(iterator)]) == [expected(text) for text in batches[0]["text"].to_pylist()]
    iterator.close()
    asked = len(fake.requests)
    fake.hold_after = None
    time.sleep(0.2)
    assert len(fake.requests) == asked <= 1 + 5 + 1

    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches[:3]
        raise ValueError("of the reader")

    with pytest.raises(ValueError, match="of the reader"):
        list(classify_batches(broken(), url=fake.url, config=Config(request=SLOW)))
    asked = len(fake.requests)
    time.sleep(0.2)
    assert len(fake.requests) == asked


INTERRUPTED = """
import signal, sys, time
import pyarrow as pa
from pipeline import Classifier, Config
from pipeline.config import Request

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background begin with it ignored
classify = Classifier(Config(request=Request(rows=1, concurrency=1)), url=sys.argv[1])
try:
    classify(pa.record_batch({"text": [f"text {n}" for n in range(400)]}))
except KeyboardInterrupt:
    print("stopped", flush=True)
    time.sleep(1)
"""


def test_an_interrupt_cancels(fake: FakeServer) -> None:
    """From then on nothing is sent, and the process ends."""
    fake.latency_s = 0.05
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, fake.url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        wait_until_answered(fake, 8)
        process.send_signal(2)
        assert process.stdout.readline() == "stopped\n"
        answered = fake.answered.total()
        assert process.wait(20) == 0
    assert answered <= fake.answered.total() <= answered + 1 < 400


# -- processes, pickles, threads


WORKER = """
import pickle, sys
import pyarrow as pa
classify = pickle.loads(bytes.fromhex(sys.argv[1]))
for text in sys.argv[2:]:
    print(classify(pa.record_batch({"text": [text]}))["predicted_label"][0])
"""


def work(pickled: bytes, *texts: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Classify texts in another process, one batch each."""
    command = [sys.executable, "-W", "error", "-c", WORKER, pickled.hex(), *texts]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def test_a_pickle_works_in_another_process(fake: FakeServer) -> None:
    """Also of one that is connected here; each worker reads its own key, and meets the server once."""
    config = Config(
        server=Server(url=fake.url, headers={"X-Token": "env:TOKEN_OF_WORKER"}, api_key_env="KEY_OF_WORKER")
    )
    with Classifier(url=fake.url) as connected:
        connected(batch_of(["a"]))
        assert work(pickle.dumps(connected), "b").stdout == f"{label_of('b')}\n"
    pickled = pickle.dumps(Classifier(config))
    fake.requests.clear()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work, pickled, "c", "d", TOKEN_OF_WORKER=f"t{n}", KEY_OF_WORKER=f"k{n}") for n in range(2)]
    for done in (each.result() for each in both):
        assert (done.stdout, done.returncode) == (f"{label_of('c')}\n{label_of('d')}\n", 0), done.stderr
        assert done.stderr == ""
    seen = {(each.headers["X-Token"], each.headers["Authorization"]) for each in fake.requests}
    assert seen == {("t0", "Bearer k0"), ("t1", "Bearer k1")}
    assert sum(CANARY[0] in each.texts for each in fake.requests) == 2
    missing = work(pickled, "e")
    assert "server.headers.X-Token: the environment has no variable TOKEN_OF_WORKER" in missing.stderr


def test_no_secret_is_in_a_pickle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: FakeServer) -> None:
    """Values of variables are not read before the worker reads them; what is in the config itself is refused."""
    monkeypatch.setenv("VLLM_API_KEY", "s3cret")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "negative", "1": "neutral", "2": "positive"}}))
    config = Config(
        loader=Loader(input="s3://user:s3cret@bucket/key"),
        server=Server(url=fake.url, headers={"X-Token": "env:VLLM_API_KEY"}),
        writer=Writer(output="s3://user:s3cret@bucket/out", labels=str(tmp_path / "config.json")),
    )
    with Classifier(config) as classify:
        classify(batch_of(["a"]))
        pickled = pickle.dumps(classify)
    assert b"s3cret" not in pickled
    assert b"VLLM_API_KEY" in pickled
    assert str(tmp_path).encode() not in pickled  # a worker need not have the file
    for server in (
        Server(headers={"X-Token": "s3cret"}),
        Server(url=["http://a", "http://user:s3cret@b"]),
        Server(url="http://a/classify?key=s3cret"),
        Server(proxy="http://user:s3cret@c"),
    ):
        with pytest.raises(ConfigError, match="may hold a secret") as caught:
            pickle.dumps(Classifier(Config(server=server)))
        assert "s3cret" not in str(caught.value)


def test_all_of_a_process_share_one_pool(fake: FakeServer) -> None:
    """From any thread, of any copy: the server is met once, until the last has closed it; then it is met again."""

    def met() -> int:
        return sum(CANARY[0] in seen.texts for seen in fake.requests)

    first = Classifier(url=fake.url)
    copies = [pickle.loads(pickle.dumps(first)) for _ in range(4)]  # noqa: S301 - our own
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda classify, n: classify(batch_of([f"text {n}"])), copies * 4, range(16)))
    assert added_to(made) == [expected(f"text {n}") for n in range(16)]
    first(batch_of(["a"]))
    assert met() == 1
    assert sum(thread.name == "classify" for thread in threading.enumerate()) == 1
    for each in copies:
        each.close()
    first(batch_of(["b"]))
    assert met() == 1
    first.close()
    first.close()
    first(batch_of(["c"]))
    assert met() == 2
    first.close()


def test_a_fork_connects_on_its_own(fake: FakeServer) -> None:
    """The thread of its parent is not there, and the sockets of its parent are not for it."""
    with Classifier(url=fake.url) as classify:
        classify(batch_of(["a"]))
        code = """if True:
            import os, sys, warnings
            import pyarrow as pa
            from pipeline import Classifier
            classify = Classifier(url=sys.argv[1])
            batch = pa.record_batch({"text": ["b"]})
            label = classify(batch)["predicted_label"][0].as_py()
            warnings.simplefilter("ignore")
            child = os.fork()
            print(classify(batch)["predicted_label"][0].as_py() == label, flush=True)
            if child:
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
        done = subprocess.run([sys.executable, "-c", code, fake.url], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\nTrue\n", 0), done.stderr
    assert sum(CANARY[0] in seen.texts for seen in fake.requests) == 3


def test_a_process_ends_whatever_is_open(fake: FakeServer) -> None:
    """Neither a connection, nor a request in flight of an iterator that nobody reads any more, holds it up."""
    fake.rules.append((lambda text: text == "stuck", hang()))
    code = """if True:
        import sys, pyarrow as pa
        from pipeline import Classifier
        batches = [pa.record_batch({"text": [text]}) for text in ("a", "stuck", "b")]
        stream = Classifier(url=sys.argv[1]).stream(batches)
        print(next(stream).num_rows)"""
    command = [sys.executable, "-W", "error", "-c", code, fake.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode, done.stderr) == ("1\n", 0, "")


def test_probabilities_come_in_class_order(fake: FakeServer) -> None:
    """As one list."""
    config = Config(writer=Writer(probs="list"))
    [made] = classify_batches([batch_of(["a", None])], url=fake.url, config=config)
    assert made["predicted_probs"].to_pylist() == [probs_of("a"), None]
