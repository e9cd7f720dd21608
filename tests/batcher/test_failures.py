"""A sick server costs time, a bad row costs one row: whole runs against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import functools
import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from fake import (
    Action,
    FakeServer,
    changed,
    cut,
    hang,
    label_of,
    refuse,
    reply,
    reset,
    too_long,
)
from files import rows_of, write
from whole_runs import assert_all_right, classified

from pipeline.config import Request, Run, Server
from pipeline.errors import ClassifyError, Misconfigured, ModelChanged, ServerGone
from pipeline.servers.model import CANARY


def begins(word: str, text: str) -> bool:
    """Whether a text is one of those."""
    return text.startswith(word)


def doubled(answer: dict[str, Any]) -> None:
    """Two items with one index."""
    answer["data"][0]["index"] = answer["data"][-1]["index"] if len(answer["data"]) > 1 else 7


def faults(fake: FakeServer) -> list[Action]:
    """What servers and those in front of them do on a bad day."""
    return [
        refuse(500, "internal"),
        refuse(503, "busy"),
        refuse(429, "slow down", Retry_After="0"),
        reset(),
        cut(fake),
        changed(fake, lambda answer: answer["data"].pop() and None),
        reply(200, '{"data": [{"index": 0, "label"', Content_Type="application/json"),
        reply(200, "<html>502 Bad Gateway</html>", Content_Type="text/html"),
        changed(fake, doubled),
        hang(0.2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [4000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_server_that_fails_often_gets_every_row_right_in_the_end(rows: int, tmp_path: Path, fake: FakeServer) -> None:
    """Three requests in ten meet a fault of some kind: every row right, none marked failed."""
    texts = [f"text {n}" for n in range(rows)]
    draw, wrong = random.Random(3), faults(fake)
    fake.each = lambda asked: draw.choice(wrong) if len(asked) != len(CANARY) and draw.random() < 0.3 else None
    record = classified(tmp_path, texts, fake, request=Request(rows=rows // 100))
    assert_all_right(tmp_path, texts)
    assert record.exit_code == 0
    assert record.retries > 10


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "bad"), [(2000, 1), pytest.param(20_000, 6, marks=pytest.mark.slow)])
def test_poison_rows_carry_their_reason_and_cost_nobody_else(
    rows: int, bad: int, tmp_path: Path, fake: FakeServer
) -> None:
    """Some rows of each of seven kinds, and texts that are none: exactly those carry their code."""
    texts: list[Any] = [f"text {n}" for n in range(rows)]
    kinds: dict[str, tuple[str, Action]] = {
        "p400": ("rejected", refuse(400, "no")),
        "p413": ("rejected", refuse(413, "too large")),
        "p422": ("rejected", refuse(422, "no")),
        "plong": ("too_long", too_long()),
        "pcrash": ("server_error", reset()),
        "phang": ("timeout", hang()),
        "pnan": ("bad_answer", changed(fake, lambda answer: answer["data"][0].update(probs=[math.nan] * 3))),
    }
    expected: dict[int, str] = {}
    draw = random.Random(5)
    for word, (code, action) in kinds.items():
        fake.rules.append((functools.partial(begins, word), action))
        for row in draw.sample(range(10, rows), bad):
            texts[row], expected[row] = f"{word} {row}", code
    texts[rows - 1], expected[rows - 1] = "p400 at the end", "rejected"
    nothing = {1: None, 2: "", 3: " \n", 4: 5, 5: "\ud800"}
    for place, value in nothing.items():
        texts[place] = value
        expected[place] = "empty" if place < 4 else "not_text"
    record = classified(tmp_path, texts, fake, server=Server(url=fake.url, timeout_s=1, wait_s=60))
    assert record.exit_code == 3
    for line, text, n in zip(rows_of(tmp_path / "out.jsonl"), texts, range(rows), strict=True):
        if n in expected:
            assert str(line["predicted_error"]).split(":")[0] == expected[n], (n, text, line)
            assert line["predicted_label"] is None
        else:
            assert line["predicted_label"] == label_of(text), n
            assert line["predicted_error"] is None


@pytest.mark.parametrize("poison", [1, 3])
def test_isolation_costs_no_more_requests_than_it_must(poison: int, tmp_path: Path, fake: FakeServer) -> None:
    """A refused request of n texts with p bad rows costs at most 1 + 2p*ceil(log2 n) requests more."""
    texts = [f"text {n}" for n in range(256)]
    for n in range(poison):
        texts[n * 100 + 7] = f"poison {n}"
    fake.rules.append((lambda text: text.startswith("poison"), refuse(400, "no")))
    classified(tmp_path, texts, fake, request=Request(rows=256))
    canaries = fake.texts.count(CANARY[0])
    assert len(fake.requests) - canaries - 1 <= 1 + 2 * poison * 8


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (refuse(400, "no"), "rejected"),
        (refuse(500, "broken"), "server_error"),
        (hang(), "timeout"),
        (reply(200, "{}"), "bad_answer"),
    ],
)
def test_a_file_of_one_bad_row_ends_with_its_reason(
    action: Action, code: str, tmp_path: Path, fake: FakeServer
) -> None:
    """A row that fails alone is to blame when the canary passes, in a file of one row too."""
    fake.rules.append((lambda text: text == "poison", action))
    record = classified(tmp_path, ["poison"], fake, server=Server(url=fake.url, timeout_s=0.3))
    assert record.failed == {code: 1}
    assert rows_of(tmp_path / "out.jsonl")[0]["predicted_error"].startswith(f"{code}: ")


def test_too_long_texts_are_cut_only_where_needed(tmp_path: Path, fake: FakeServer) -> None:
    """With too_long = truncate only the row that needs it is sent with truncate_prompt_tokens, and flagged."""
    texts = [f"text {n}" for n in range(50)]
    texts[17] = "long one"

    def action(asked: list[str]) -> Action | None:
        return too_long() if "long one" in asked and not fake.requests[-1].body.get("truncate_prompt_tokens") else None

    fake.each = action
    record = classified(tmp_path, texts, fake, request=Request(too_long="truncate"))
    assert record.exit_code == 0
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows if row["predicted_truncated"]] == [17]
    cut_requests = [seen for seen in fake.requests if "truncate_prompt_tokens" in seen.body]
    assert [(seen.texts, seen.body["truncate_prompt_tokens"]) for seen in cut_requests] == [(["long one"], -1)]


@pytest.mark.slow
def test_a_row_that_crashes_the_server_does_so_a_few_times_only(tmp_path: Path, fake: FakeServer) -> None:
    """After a crash suspects are tried alone: the guilty row is found, the others get their labels."""
    texts = [f"text {n}" for n in range(2000)]
    texts[700] = "crash"
    crashes = 0

    def restart() -> None:
        fake.down()
        time.sleep(0.3)
        fake.up()

    async def crash(_: Any, __: list[str]) -> Any:
        nonlocal crashes
        crashes += 1
        threading.Thread(target=restart).start()
        await asyncio.sleep(5)

    fake.rules.append((lambda text: text == "crash", crash))
    record = classified(tmp_path, texts, fake, request=Request(rows=64))
    assert record.failed == {"server_error": 1}
    # Once among others, once a level of halving, twice alone, and once again on a new connection after the first.
    assert crashes <= 1 + 6 + 2 + 1
    rows = rows_of(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows if row["predicted_error"]] == [700]


def test_a_server_that_refuses_everything_is_soon_left_in_peace(tmp_path: Path, fake: FakeServer) -> None:
    """When nothing has succeeded, the run stops with 2 long before two requests a row."""
    fake.each = lambda asked: None if asked == list(CANARY) else refuse(400, "prompts are not supported")
    with pytest.raises(Misconfigured, match="none was answered"):
        classified(tmp_path, [f"text {n}" for n in range(20_000)], fake)
    assert len(fake.requests) < 1000


def test_a_server_that_comes_back_in_time_costs_only_time(tmp_path: Path, fake: FakeServer) -> None:
    """Down in the middle of a run and up again: exit 0, every row right."""
    texts = [f"text {n}" for n in range(3000)]
    fake.latency_s = 0.02

    def outage() -> None:
        while len(fake.answered) < 500:
            time.sleep(0.005)
        fake.down()
        time.sleep(0.7)
        fake.up()

    thread = threading.Thread(target=outage)
    thread.start()
    classified(tmp_path, texts, fake, request=Request(rows=32))
    thread.join()
    assert_all_right(tmp_path, texts)


@pytest.mark.slow
def test_a_dead_server_ends_the_run_and_the_next_one_finishes(tmp_path: Path, fake: FakeServer) -> None:
    """Nobody answers for wait_s: exit 75; what was answered is kept and not asked for again."""
    texts = [f"text {n}" for n in range(3000)]
    fake.latency_s = 0.1  # with four in flight some three seconds: it is down long before the end
    thread = threading.Thread(target=down_after, args=(fake, 500))
    thread.start()
    with pytest.raises(ServerGone, match="no server answered for 1 s"):
        classified(
            tmp_path, texts, fake, server=Server(url=fake.url, wait_s=1), request=Request(rows=32, concurrency=4)
        )
    thread.join()
    assert not (tmp_path / "out.jsonl").exists()
    fake.up()
    before = set(fake.answered)
    fake.answered.clear()
    classified(tmp_path, texts, fake, request=Request(rows=32))
    assert_all_right(tmp_path, texts)
    assert len(before & set(fake.answered) - set(CANARY)) <= 16 * 32


def down_after(server: FakeServer, texts: int) -> None:
    """Close the port once so many texts are answered."""
    wait_until(lambda: len(server.answered) > texts)
    server.down()


def wait_until(condition: Callable[[], bool]) -> None:
    """Look often until it holds."""
    while not condition():  # the test's time limit ends it
        time.sleep(0.005)


def test_one_of_two_endpoints_may_die(tmp_path: Path, fake: FakeServer) -> None:
    """Its work goes to the other one; every row is right."""
    texts = [f"text {n}" for n in range(5000)]
    with FakeServer(latency_s=0.01) as other:
        fake.latency_s = 0.01
        thread = threading.Thread(target=down_after, args=(other, 500))
        thread.start()
        classified(tmp_path, texts, fake, other, request=Request(rows=32))
        thread.join()
        assert_all_right(tmp_path, texts)
        assert len(other.answered) > 400
        other.up()


def test_two_endpoints_share_the_work(tmp_path: Path) -> None:
    """The least loaded one is asked, so two equal servers get about the same."""
    texts = [f"text {n}" for n in range(5000)]
    with FakeServer(latency_s=0.03, slots=4) as one, FakeServer(latency_s=0.03, slots=4) as other:
        classified(tmp_path, texts, one, other, request=Request(rows=16, concurrency=8))
        assert_all_right(tmp_path, texts)
        assert min(len(one.answered), len(other.answered)) > 1800


def test_two_endpoints_must_serve_one_model(tmp_path: Path, fake: FakeServer) -> None:
    """Different weights behind one name are found before the first row is sent."""
    with FakeServer(weights="other") as other, pytest.raises(ModelChanged, match="another model"):
        classified(tmp_path, ["a"], fake, other)


@pytest.mark.parametrize("change", [{"weights": "x"}, {"labels": ("a", "b", "c")}, {"labels": ("a", "b")}])
def test_a_server_restarted_with_another_model_stops_the_run(
    change: dict[str, Any], tmp_path: Path, fake: FakeServer
) -> None:
    """Exit 2 and no mixed output: nothing of the other model is kept."""
    texts = [f"text {n}" for n in range(4000)]
    fake.latency_s = 0.02

    def restart() -> None:
        wait_until(lambda: len(fake.answered) > 500)
        fake.down()
        for name, value in change.items():
            setattr(fake, name, value)
        fake.up()

    thread = threading.Thread(target=restart)
    thread.start()
    with pytest.raises(ModelChanged):
        classified(tmp_path, texts, fake, request=Request(rows=32))
    thread.join()
    assert not (tmp_path / "out.jsonl").exists()
    fake.weights, fake.labels = "", ("negative", "neutral", "positive")
    classified(tmp_path, texts, fake, request=Request(rows=32))
    assert_all_right(tmp_path, texts)


def test_retry_after_is_obeyed(tmp_path: Path, fake: FakeServer) -> None:
    """The server says when to come back, and nobody comes earlier."""
    seen: list[float] = []

    def action(asked: list[str]) -> Action | None:
        if asked == list(CANARY):
            return None
        seen.append(time.monotonic())
        return refuse(429, "later", Retry_After="1") if len(seen) == 1 else None

    fake.each = action
    classified(tmp_path, ["one"], fake)
    assert seen[1] - seen[0] >= 1


def test_a_key_that_is_taken_away_stops_the_run(tmp_path: Path, fake: FakeServer) -> None:
    """401 in the middle: that endpoint is dropped, and when none is left the exit code is 2."""
    fake.each = lambda asked: None if asked == list(CANARY) else refuse(401, "no")
    with pytest.raises(Misconfigured, match="VLLM_API_KEY"):
        classified(tmp_path, [f"text {n}" for n in range(100)], fake)


def test_the_same_text_is_sent_once(tmp_path: Path, fake: FakeServer) -> None:
    """Rows with the same text share one request, and each gets the label, or the error."""
    fake.rules.append((lambda text: text == "bad", refuse(400, "no")))
    texts = ["a", "b", "a", "bad", "a", "bad", "c"] * 20
    record = classified(tmp_path, texts, fake, run=Run(max_failed_rows="50%"))
    assert record.exit_code == 0
    assert record.failed == {"rejected": 40}
    assert fake.answered["a"] == 1
    assert record.shared_rows == len(texts) - 4
    rows = rows_of(tmp_path / "out.jsonl")
    assert all((row["predicted_label"] == label_of(row["text"])) == (row["text"] != "bad") for row in rows)


def test_the_same_text_is_sent_once_where_a_chunk_could_be_cut_at_once(tmp_path: Path, fake: FakeServer) -> None:
    """As many rows as a request has texts, two of them alike: one is sent for both, and another fills its place."""
    classified(tmp_path, ["a", "b", "a", "c", "d", "e", "f", "g"], fake, request=Request(rows=4))
    assert fake.answered["a"] == 1
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl")] == [label_of(t) for t in "abacdefg"]


def test_secrets_are_nowhere_to_be_found(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Neither the key, nor a header's value, nor a password in a url is in any file or stream."""
    fake.api_key = "s3cret-key"
    write(tmp_path / "in.jsonl", ["a", "b", "poison"])
    fake.rules.append((lambda text: text == "poison", refuse(400, "no")))
    url = fake.url.replace("http://", "http://user:s3cret-url@")
    done = classify(
        *("run", "in.jsonl", "-o", "out.jsonl", "--url", url, "--set", "server.headers.X-Token=env:TOKEN"),
        expect=3,
        env={"VLLM_API_KEY": "s3cret-key", "TOKEN": "s3cret-header"},
    )
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"s3cret" not in kept
    assert "s3cret" not in done.stdout + done.stderr
    assert fake.requests[-1].headers["X-Token"] == "s3cret-header"
    assert fake.requests[-1].headers["Authorization"] == "Bearer s3cret-key"


def test_errors_have_the_exit_codes_of_the_readme() -> None:
    """The class is the decision, and the exit code is the class's."""
    codes = {each.exit_code for each in (Misconfigured("x"), ModelChanged("x"))}
    assert (codes, ServerGone("x").exit_code, issubclass(ServerGone, ClassifyError)) == ({2}, 75, True)
