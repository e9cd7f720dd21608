"""Promises that only a whole run of the command can keep: what is written, what is sent again, and what is not."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from commands import NOWHERE, Command, complaint, last_line, python, run_arguments, running, wait_until_answered
from fake import LABELS, Action, FakeServer, changed, label_of, probs_of, refuse, score_of, too_long
from files import record, rows_of, write

from pipeline.checkpoint import Lock
from pipeline.servers.model import CANARY

TEXTS = [f"text {n}" for n in range(400)]
QUICK = ("--set", "retry.base_delay_s=0.01", "--set", "retry.max_delay_s=0.05")


def labels(output: Path, prefix: str = "predicted_") -> list[str]:
    """The label of each row."""
    return [row[f"{prefix}label"] for row in rows_of(output)]


def sent(fake: FakeServer) -> set[str]:
    """The texts of rows that were sent since the last call."""
    texts = set(fake.texts) - set(CANARY)
    fake.requests.clear()
    return texts


# -- the output


def test_a_class_without_a_name_is_called_by_its_index(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The server names no class: each row has LABEL_<index> of its largest value."""
    write(tmp_path / "in.csv", TEXTS[:20])
    fake.labels = (None, None, None)
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    assert labels(tmp_path / "out.csv") == [f"LABEL_{LABELS.index(label_of(text))}" for text in TEXTS[:20]]


def test_without_activation_the_score_is_the_raw_logit(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`request.activation = false` reaches the server, and its numbers are kept as they are, above one and negative."""
    write(tmp_path / "in.parquet", TEXTS[:20])

    def logits(answer: dict[str, Any]) -> None:
        for item in answer["data"]:
            item["probs"] = [20 * math.log(value) + 15 for value in item["probs"]]

    def action(_: list[str]) -> Action | None:
        return changed(fake, logits) if fake.requests[-1].body.get("use_activation") is False else None

    fake.each = action
    raw = ("--set", "request.activation=false", "--set", "writer.probs=list")
    classify("run", "in.parquet", "-o", "out.parquet", "--url", fake.url, *raw)
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["predicted_score"] for row in rows] == [20 * math.log(score_of(text)) + 15 for text in TEXTS[:20]]
    assert all(row["predicted_score"] == max(row["predicted_probs"]) for row in rows)
    assert min(min(row["predicted_probs"]) for row in rows) < 0
    assert max(row["predicted_score"] for row in rows) > 1


def test_names_that_were_learned_are_in_the_record_and_not_in_the_schema(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """One column a class, by number; which class that is stands in the record, beside settings, counts and times."""
    write(tmp_path / "in.csv", TEXTS[:20])
    settings = ("--set", "writer.probs=columns", "--set", "server.headers.X-Token=s3cret")
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *settings)
    rows = rows_of(tmp_path / "out.csv")
    appended = ["predicted_label", "predicted_score", "predicted_error", *(f"predicted_prob_{n}" for n in range(3))]
    assert list(rows[0]) == ["id", "text", *appended]
    assert [[float(row[f"predicted_prob_{n}"]) for n in range(3)] for row in rows] == [*map(probs_of, TEXTS[:20])]
    kept = record(tmp_path / "out.csv")
    assert kept["model"]["names"] == {str(index): name for index, name in enumerate(LABELS)}
    assert (kept["model"]["id"], kept["rows"], kept["texts_sent"]) == ("fake", 20, 20 + len(CANARY))
    assert kept["settings"]["writer"]["probs"] == "columns"
    assert "s3cret" not in json.dumps(kept)
    assert kept["seconds"] > 0


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_a_column_without_any_text_is_said_loudly(
    name: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Every row is `empty`, and the last lines ask whether it is the right column; with one text they do not."""
    output = f"out{name[2:]}"
    write(tmp_path / name, ["", " ", "\t"])
    done = classify("run", name, "-o", output, "--url", fake.url)
    assert "ALL of them; is it the right column?" in done.stderr
    assert [row["predicted_error"] for row in rows_of(tmp_path / output)] == ["empty: no text"] * 3
    write(tmp_path / name, ["", " ", "a"])
    assert "right column" not in classify("run", name, "-o", output, "--url", fake.url).stderr


# -- exit codes

BROKEN = """
import sys
import pipeline.runs.publish
from pipeline.cli import main

def join(*_, **__):
    raise ZeroDivisionError("s3cret")

pipeline.runs.publish.join = join
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("source", ["in/a.csv", "in/"])
def test_a_bug_is_1_with_its_traceback(source: str, tmp_path: Path, fake: FakeServer) -> None:
    """And a request to report it; also among many files, where another one is bad; as JSON it is still one line."""
    write(tmp_path / "in/a.csv", TEXTS[:3])
    (tmp_path / "in/bad.csv").write_text("x\n1\n")
    command = ("run", str(tmp_path / source), "-o", f"{tmp_path}/out/", "--url", fake.url, "--quiet")
    done = python(BROKEN, *command)
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.splitlines()[-1] == "classify: this is a bug; please report it with its traceback"
    done = python(BROKEN, *command[:-1], "--log-json")
    event = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, event["exit_code"], event["event"]) == (1, 1, "error")
    assert "ZeroDivisionError" in event["traceback"]


def test_a_signal_comes_before_what_happened_to_single_files(tmp_path: Path, fake: FakeServer) -> None:
    """One file is held by another run (75), one is bad (2): who terminates the command gets 143."""
    for name in ("a", "held"):
        write(tmp_path / f"in/{name}.csv", [f"{name} {n}" for n in range(40)])
    (tmp_path / "in/bad.csv").write_text("x\n1\n")
    (tmp_path / "out").mkdir()
    fake.hold_after = 20
    sizes = ("--set", "request.rows=5", "--set", "request.concurrency=1")
    with (
        Lock(tmp_path / "out/.held.csv.lock"),
        running(tmp_path, "run", "in/", "-o", "out/", "--url", fake.url, *sizes) as process,
    ):
        wait_until_answered(fake, 20)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert "held.csv" in errors
    assert process.returncode == 143


# -- the same command again


def test_an_input_that_changed_is_done_again_if_its_output_is_complete(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Tonight's file in the place of last night's: the output is replaced, and nothing has to be said for it."""
    write(tmp_path / "in.csv", TEXTS[:30])
    classify(*run_arguments(fake))
    write(tmp_path / "in.csv", TEXTS[10:50])
    classify(*run_arguments(fake))
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS[10:50])]


def begin(tmp_path: Path, fake: FakeServer, classify: Command, *flags: str) -> set[str]:
    """A run whose server goes away when half of the rows are answered; gives these rows' texts."""
    write(tmp_path / "in.csv", TEXTS)
    fake.each = lambda _: refuse(500, "broken") if len(fake.answered) > 200 else None
    classify(*run_arguments(fake), *QUICK, "--set", "server.wait_s=0.3", *flags, expect=75)
    assert not (tmp_path / "out.csv").exists()
    fake.each = lambda _: None
    fake.requests.clear()
    return set(fake.answered) - set(CANARY)


def test_an_input_that_changed_is_not_mixed_with_what_was_begun(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Exit 2 that names it, nothing sent; with `run.on_changed_input = "restart"` all rows are those of now."""
    begin(tmp_path, fake, classify)
    write(tmp_path / "in.csv", [f"new {text}" for text in TEXTS])
    complaint(classify(*run_arguments(fake), expect=2), "input: was", "on_changed_input", "--restart")
    assert sent(fake) == set()
    classify(*run_arguments(fake), "--set", "run.on_changed_input=restart")
    assert labels(tmp_path / "out.csv") == [label_of(f"new {text}") for text in TEXTS]


def test_the_same_rows_at_another_path_are_the_same_input(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Moved, and with another time: what was begun is continued, and what is complete is complete."""
    answered = begin(tmp_path, fake, classify)
    moved = tmp_path / "elsewhere" / "moved.csv"
    moved.parent.mkdir()
    moved.write_bytes((tmp_path / "in.csv").read_bytes())
    (tmp_path / "in.csv").unlink()
    again = [*run_arguments(fake)]
    again[again.index("in.csv")] = str(moved)
    classify(*again)
    assert sent(fake) == set(TEXTS) - answered
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS)]
    moved.touch()
    fake.down()
    assert "complete already" in classify(*again).stderr
    fake.up()


def test_what_changes_no_answer_may_change_in_the_middle(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Another server, other sizes, patience, prefix and format: only what is open is sent."""
    answered = begin(tmp_path, fake, classify)
    with FakeServer() as other:
        changes = (
            *("request.rows=7", "request.concurrency=3", "request.max_chars=1000", "server.timeout_s=9"),
            *("retry.attempts=3", "writer.prefix=p_", "writer.format=jsonl", "request.too_long=truncate"),
        )
        sets = [flag for each in changes for flag in ("--set", each)]
        classify("run", "in.csv", "-o", "out.csv", "--url", other.url, *sets)
        assert sent(other) == set(TEXTS) - answered
    rows = [json.loads(line) for line in (tmp_path / "out.csv").read_text().splitlines()]
    assert [row["p_label"] for row in rows] == [*map(label_of, TEXTS)]


def test_what_changes_answers_is_refused_by_name(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Other texts, another model, other numbers: exit 2, what is different, and no row is sent; then it goes on."""
    answered = begin(tmp_path, fake, classify)
    for flags, named in (
        (("-t", "id"), "loader.text_column"),
        (("--set", "loader.template={id} {text}"), "loader.template"),
        (("--set", "request.activation=false"), "activation"),
        (("--set", "request.extra={a=1}"), "extra"),
        (("--set", "server.model_version=v2"), "model_version"),
        (("--set", "writer.probs=list"), "probabilities"),
    ):
        said = complaint(classify(*run_arguments(fake), *flags, expect=2), named, "--restart")
        assert "was begun differently" in said
    for change in ({"model": "other"}, {"weights": "other"}, {"labels": ("x", "y", "z")}, {"labels": ("x", "y")}):
        with FakeServer(**change) as other:
            complaint(classify(*run_arguments(other), expect=2), "out.csv", "model")
            assert sent(other) == set()
    assert sent(fake) == set()
    classify(*run_arguments(fake))
    assert sent(fake) == set(TEXTS) - answered


def test_answers_to_cut_texts_are_not_mixed_with_whole_ones(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Begun with `too_long = "truncate"`, it does not go on without, once a text was cut."""
    fake.rules.append(
        (
            lambda text: text == TEXTS[3] and "truncate_prompt_tokens" not in fake.requests[-1].body,
            too_long(),
        )
    )
    begin(tmp_path, fake, classify, "--set", "request.too_long=truncate")
    complaint(classify(*run_arguments(fake), expect=2), "request.too_long", "--restart")
    assert sent(fake) == set()
    classify(*run_arguments(fake), "--set", "request.too_long=truncate")
    assert [row["predicted_truncated"] for row in rows_of(tmp_path / "out.csv")].count("true") == 1


# -- servers


def test_the_canary_is_all_that_a_start_costs(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Once, with at most eight texts, before any row."""
    write(tmp_path / "in.csv", TEXTS)
    classify(*run_arguments(fake))
    assert fake.requests[0].texts == list(CANARY)
    assert len(CANARY) <= 8
    assert fake.texts.count(CANARY[0]) == 1


def test_what_may_pass_is_tried_again(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Each status that may be another one the next time costs time, and no row."""
    write(tmp_path / "in.csv", TEXTS)
    statuses = [408, 424, 425, 429, 500, 502, 503, 504, 529]

    def action(texts: list[str]) -> Action | None:
        return refuse(statuses.pop(), "later") if statuses and texts != list(CANARY) else None

    fake.each = action
    done = classify(*run_arguments(fake), *QUICK)
    assert statuses == []
    assert "0 failed" in last_line(done)
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS)]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_turns_a_run_away_is_left_out(
    status: int, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """In the middle of a run: the other one does the rest; where no other is left, the exit code is 2."""
    write(tmp_path / "in.csv", TEXTS)
    turned_away: list[int] = []

    def action(texts: list[str]) -> Action | None:
        if texts == list(CANARY) or len(fake.answered) < 50:
            return None
        turned_away.append(len(texts))
        return refuse(status, "go away")

    fake.each = action
    with FakeServer(latency_s=0.02) as other:
        done = classify(*run_arguments(fake), "--url", other.url)
    assert len(turned_away) == 1
    assert f"HTTP {status}" in done.stderr
    assert "going on without it" in done.stderr
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS)]
    fake.answered.clear()
    assert f"HTTP {status}" in classify(*run_arguments(fake), "--restart", expect=2).stderr.splitlines()[-1]


def test_a_server_that_was_away_is_asked_again(tmp_path: Path, fake: FakeServer) -> None:
    """One of two goes away and comes back: meanwhile nothing is lost, and then it gets work again."""
    write(tmp_path / "in.csv", TEXTS)
    fake.latency_s = 0.02
    with FakeServer(latency_s=0.02) as other, running(tmp_path, *run_arguments(fake), "--url", other.url) as process:
        wait_until_answered(other, 40)
        other.down()
        fake.hold_after = fake.answered.total() + 40
        wait_until_answered(fake, fake.hold_after)
        before = other.answered.total()
        other.up()
        wait_until_answered(other, before + 40)
        fake.hold_after = None
        assert process.wait(30) == 0
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS)]


def test_a_tls_error_is_a_mistake(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """No waiting would help: exit 2 at once, and the address."""
    write(tmp_path / "in.csv", TEXTS[:2])
    url = fake.url.replace("http:", "https:")
    began = time.monotonic()
    complaint(classify("run", "in.csv", "-o", "out.csv", "--url", url, expect=2), url, "ssl")
    assert time.monotonic() - began < 10


ODD: dict[str, Any] = {
    "its name": lambda answer: answer.update(model="somebody else"),
    "a class's name": lambda answer: [item.update(label=f"new {item['label']}") for item in answer["data"]] and None,
    "its classes": lambda answer: (
        [item.update(probs=[*item["probs"], 0.0], num_classes=len(item["probs"]) + 1) for item in answer["data"]]
        and None
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_an_answer_that_the_canary_does_not_confirm_is_asked_for_again(
    what: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """One answer is of another model, by its own account, and the canary knows nothing of it: the run goes on."""
    write(tmp_path / "in.csv", TEXTS)
    odd: list[str] = []

    def action(texts: list[str]) -> Action | None:
        if odd or texts == list(CANARY) or len(fake.answered) < 100:
            return None
        odd.extend(texts)
        return changed(fake, ODD[what])

    fake.each = action
    classify(*run_arguments(fake), *QUICK)
    assert odd
    assert fake.texts.count(CANARY[0]) == 2
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS)]


@pytest.mark.parametrize("what", ODD)
def test_an_answer_that_the_canary_confirms_stops_the_run(
    what: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """From one answer on, all are of another model: exit 2, and nothing of it is stored."""
    write(tmp_path / "in.csv", TEXTS)
    before = set[str]()

    def action(texts: list[str]) -> Action | None:
        if len(fake.answered) < 100:
            before.update(texts)
            return None
        return changed(fake, ODD[what])

    fake.each = action
    assert "another model" in classify(*run_arguments(fake), *QUICK, expect=2).stderr
    fake.each = lambda _: None
    sent(fake)
    classify(*run_arguments(fake))
    assert sent(fake) == set(TEXTS) - before
    assert labels(tmp_path / "out.csv") == [*map(label_of, TEXTS)]


# -- memory and disks


@pytest.mark.slow
def test_what_is_in_flight_is_bounded(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """At most 64 MiB of text, however many requests may be sent at once; a row beyond that travels alone."""
    mib = 1 << 20
    sizes = [4 * mib - 6] * 20 + [70 * mib] + [4 * mib] * 2
    with (tmp_path / "in.jsonl").open("w") as file:
        for n, size in enumerate(sizes):
            file.write(f'{{"text": "{n:06}{"x" * size}"}}\n')
    held, seen = list[int](), list[tuple[int, int]]()
    last_came = 0.0

    async def hold(_: web.Request, texts: list[str]) -> web.StreamResponse:
        nonlocal last_came
        size, last_came = sum(map(len, texts)), time.monotonic()
        held.append(size)
        seen.append((sum(held), len(held)))
        while time.monotonic() - last_came < 1:  # noqa: ASYNC110 - until no more come, which no event tells
            await asyncio.sleep(0.05)
        held.remove(size)
        return web.json_response(fake.answer(texts))

    fake.each = lambda texts: None if texts == list(CANARY) else hold
    many = ("--set", "request.rows=1", "--set", "request.concurrency=100")
    classify("run", "in.jsonl", "-o", "out.jsonl", "--url", fake.url, *many)
    assert 32 * mib < max(size for size, count in seen if count > 1) <= 64 * mib
    assert [count for size, count in seen if size > 64 * mib] == [1]
    assert len(labels(tmp_path / "out.jsonl")) == len(sizes)


MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "pipeline", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", ["jsonl", *(pytest.param(each, marks=pytest.mark.slow) for each in ("csv", "parquet"))]
)
def test_memory_does_not_grow_with_the_file(ending: str, tmp_path: Path, fake: FakeServer) -> None:
    """Six times the rows, 90 MB of texts more, and the process is not half of that larger."""
    peaks = []
    for rows in (6_000, 36_000):
        source = write(tmp_path / f"{rows}.{ending}", [f"{n} {'x' * 3000}" for n in range(rows)])
        sizes = ("--set", "request.rows=64", "--set", "request.concurrency=4", "--quiet")
        run = ("run", str(source), "-o", f"{tmp_path}/out{rows}.{ending}", "--url", fake.url, *sizes)
        done = python(MEASURED, *run)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) << 10)  # from KiB
        fake.requests.clear()
    assert peaks[1] - peaks[0] < 45 << 20


@pytest.mark.slow
@pytest.mark.parametrize(("full", "kib"), [("before the output fits", 600), ("before the checkpoint fits", 100)])
def test_a_full_disk_is_not_now_and_costs_nothing_twice(
    full: str, kib: int, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Files can't grow beyond a bound: exit 75, what fitted is kept, and the same command finishes with room."""
    texts = [f"{n} {'x' * 2000}" for n in range(400)]
    fake.latency_s = 0.1  # commits come in between
    write(tmp_path / "in.csv", texts)
    arguments = [sys.executable, "-m", "pipeline", *run_arguments(fake)]
    limited = ["bash", "-c", f'ulimit -f {kib}; exec "$@"', "bash", *arguments]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()
    answered = sent(fake)
    fake.latency_s = 0
    classify(*run_arguments(fake))
    again = answered & sent(fake)
    assert again == set() if full == "before the output fits" else len(again) < len(answered) < len(texts)
    assert labels(tmp_path / "out.csv") == [*map(label_of, texts)]


@pytest.mark.parametrize("size", [10, 2000])
def test_an_input_that_vanishes_is_named(size: int, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """While its rows are classified: exit 2, nothing is written; when it is back, the answers still count."""
    texts = [f"{n} {'x' * size}" for n in range(400)]  # files that are read once into memory, and others
    content = write(tmp_path / "in.csv", texts).read_bytes()

    def vanish(asked: list[str]) -> None:
        if asked != list(CANARY):
            (tmp_path / "in.csv").unlink(missing_ok=True)

    fake.each = vanish
    complaint(classify(*run_arguments(fake), expect=2), "in.csv")
    assert not (tmp_path / "out.csv").exists()
    assert sent(fake) == set(texts)
    fake.each = lambda _: None
    (tmp_path / "in.csv").write_bytes(content)
    classify(*run_arguments(fake))
    assert sent(fake) == set()
    assert labels(tmp_path / "out.csv") == [*map(label_of, texts)]


def test_a_directory_that_takes_no_file_is_a_mistake(tmp_path: Path, classify: Command) -> None:
    """In a directory that can't be written to, the exit code is 2 before any server is asked, for every user."""
    write(tmp_path / "in.csv", TEXTS[:2])
    complaint(classify("run", "in.csv", "-o", "/sys/out.csv", *NOWHERE, expect=2), "/sys")
