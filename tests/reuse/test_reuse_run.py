"""Whole runs that share a file of answers send only what is new, and are right in any case."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from commands import Command, complaint
from fake import LABELS, Action, FakeServer, changed, label_of, refuse, score_of, too_long
from files import rows_of, write
from killing import finish, kill_group, start
from whole_runs import assert_all_right, classified

from pipeline import RunRecord
from pipeline.config import Config, Loader, Request, Run, Server, Writer
from pipeline.errors import Misconfigured, ReuseError
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.summary import summary
from pipeline.runs import run
from pipeline.servers.model import CANARY

TEXTS = [f"text {number} of some length" for number in range(3000)]


def run_once(folder: Path, texts: list[Any], server: FakeServer, **sections: Any) -> RunRecord:
    """Forget what was asked and run over the texts from the start, with the answers in `folder`."""
    server.requests.clear()
    settings: Run = sections.pop("run", None) or Run()
    settings = msgspec.structs.replace(settings, reuse=str(folder / "r"), restart=True)
    return classified(folder, texts, server, run=settings, **sections)


def classified_with(folder: Path, server: FakeServer, writer: Writer) -> None:
    """Classify texts into an output of its own, and return the record."""
    server.requests.clear()
    config = Config(
        loader=Loader(input=str(folder / "in.jsonl")),
        writer=writer,
        server=Server(url=server.url),
        run=Run(reuse=str(folder / "r"), restart=True),
    )
    asyncio.run(run(config, Progress("quiet")))


def sent(server: FakeServer) -> list[str]:
    """The texts that were sent, without the canary."""
    return [text for seen in server.requests if tuple(seen.texts) != CANARY for text in seen.texts]


def assert_sent(server: FakeServer, expected: list[str]) -> None:
    """Each of these once; besides one text at most for each class that the canary does not show."""
    counted = Counter(sent(server))
    assert not Counter(expected) - counted
    assert (counted - Counter(expected)).total() <= len(LABELS) - len({label_of(text) for text in CANARY})


# -- what is sent


def test_the_second_night_sends_only_what_is_new(tmp_path: Path, fake: FakeServer) -> None:
    """With 1 % of the rows changed that 1 %, many to a request; the output is what it would be without."""
    texts = [f"text {number}" for number in range(10_000)]
    first = run_once(tmp_path, texts, fake)
    assert (len(sent(fake)), first.reused_rows) == (10_000, 0)
    for number in range(0, 10_000, 100):
        texts[number] = f"new {number}"
    second = run_once(tmp_path, texts, fake)
    assert_all_right(tmp_path, texts)
    assert_sent(fake, texts[::100])
    assert second.reused_rows == 9900
    assert "9,900 reused" in "\n".join(summary(second))
    assert "reused" not in "\n".join(summary(first))
    assert max(len(seen.texts) for seen in fake.requests) >= 80
    kept = (tmp_path / "out.jsonl").read_bytes()
    classified(tmp_path, texts, fake, run=Run(restart=True))
    assert (tmp_path / "out.jsonl").read_bytes() == kept


def test_the_third_time_nothing_is_sent(tmp_path: Path, fake: FakeServer) -> None:
    """But the canary, and a text for each class that the canary does not show; even with --restart."""
    for _ in range(3):
        record = run_once(tmp_path, TEXTS, fake)
    assert_all_right(tmp_path, TEXTS)
    assert_sent(fake, [])
    assert record.reused_rows == len(TEXTS)


def test_other_files_and_columns_share_the_answers(tmp_path: Path, fake: FakeServer) -> None:
    """Rows in another order, twice, and between rows without a text: each gets what belongs to its text."""
    run_once(tmp_path, TEXTS[:500], fake)
    mixed: list[Any] = []
    for number in range(400):
        mixed += [TEXTS[499 - number], None, TEXTS[number], f"new {number % 7}", "  ", 5]
    record = run_once(tmp_path, mixed, fake, run=Run(max_failed_rows=400))
    assert_sent(fake, [f"new {number}" for number in range(7)])
    for text, row in zip(mixed, rows_of(tmp_path / "out.jsonl"), strict=True):
        if not isinstance(text, str) or not text.strip():
            assert (row["predicted_label"], row["predicted_error"][:5]) in ((None, "empty"), (None, "not_t"))
        else:
            assert (row["predicted_label"], row["predicted_score"]) == (label_of(text), score_of(text))
    assert (record.reused_rows, record.empty, record.failed) == (800, 800, {"not_text": 400})


def test_probabilities_come_from_there_as_they_were(tmp_path: Path, fake: FakeServer) -> None:
    """A list of them is the same list; a run that wants none takes the labels alone."""
    writer = Writer(output=str(tmp_path / "out.jsonl"), probs="list")
    write(tmp_path / "in.jsonl", TEXTS)
    lists = []
    for _ in range(2):
        classified_with(tmp_path, fake, writer)
        lists.append([row["predicted_probs"] for row in rows_of(tmp_path / "out.jsonl")])
    assert_sent(fake, [])
    assert lists[0] == lists[1]
    assert [max(row) for row in lists[1]] == [score_of(text) for text in TEXTS]
    run_once(tmp_path, TEXTS, fake)
    assert_sent(fake, [])
    assert_all_right(tmp_path, TEXTS)


# -- whose answers


def to_logits(answer: dict[str, Any]) -> None:
    """The answer of a server that was asked for raw values."""
    for item in answer["data"]:
        item["probs"] = [20 * value - 10 for value in item["probs"]]


def test_another_model_gets_no_answer(tmp_path: Path, fake: FakeServer) -> None:
    """Another name, other weights behind the same name, raw values: asked anew; the first is still known."""
    run_once(tmp_path, TEXTS, fake)
    fake.model = "other"
    run_once(tmp_path, TEXTS, fake)
    assert len(sent(fake)) == len(TEXTS)
    fake.weights = "new "
    run_once(tmp_path, TEXTS, fake)
    assert len(sent(fake)) == len(TEXTS)
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl")] == [label_of("new " + t) for t in TEXTS]
    fake.model, fake.weights = "fake", ""
    fake.each = lambda _: changed(fake, to_logits)
    run_once(tmp_path, TEXTS, fake, request=Request(activation=False))
    assert len(sent(fake)) == len(TEXTS)
    fake.each = lambda _: None
    run_once(tmp_path, TEXTS, fake)
    assert_sent(fake, [])
    assert_all_right(tmp_path, TEXTS)


def test_a_class_that_got_another_name_has_it_in_every_row(tmp_path: Path, fake: FakeServer) -> None:
    """The canary shows nothing of it; one text for each such class is asked, and no row has the old name."""
    fake.labels = tuple("abcdefgh")
    run_once(tmp_path, TEXTS, fake)
    fake.labels = tuple("aBcdefgh")
    shown = {fake.answer([text])["data"][0]["label"] for text in CANARY}
    assert "B" not in shown
    record = run_once(tmp_path, TEXTS, fake)
    assert len(sent(fake)) <= 8 - len(shown)
    assert (record.labels.get("b"), record.labels["B"] > 0) == (None, True)
    right = [fake.answer([text])["data"][0]["label"] for text in TEXTS]
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl")] == right


@pytest.mark.parametrize("labels", [None, ["no", "so-so", "yes"]], ids=["none", "given"])
def test_a_server_that_names_no_classes_is_not_asked_again(
    labels: list[str] | None, tmp_path: Path, fake: FakeServer
) -> None:
    """The classes are named by number, or as the config says."""
    fake.labels = (None, None, None)
    run_once(tmp_path, TEXTS, fake)
    classified_with(tmp_path, fake, Writer(output=str(tmp_path / "out.jsonl"), labels=labels))
    assert sent(fake) == []
    names = labels or ["LABEL_0", "LABEL_1", "LABEL_2"]
    expected = [names[LABELS.index(label_of(text))] for text in TEXTS]
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.jsonl")] == expected


# -- what is not kept


def test_errors_and_cut_texts_are_asked_again(tmp_path: Path, fake: FakeServer) -> None:
    """A refused text may be accepted by the next run; the answer to a truncated text is not that of the whole one."""
    fake.rules = [(lambda text: text == TEXTS[7], refuse(400, "no")), (lambda text: text == TEXTS[8], too_long())]
    record = run_once(tmp_path, TEXTS, fake, run=Run(max_failed_rows=5))
    assert record.failed == {"rejected": 1, "too_long": 1}
    fake.rules = []

    def too_long_unless_cut(texts: list[str]) -> Action | None:
        is_cut = "truncate_prompt_tokens" in fake.requests[-1].body
        return too_long() if TEXTS[8] in texts and not is_cut else None

    fake.each = too_long_unless_cut
    for _ in range(2):
        run_once(tmp_path, TEXTS, fake, request=Request(too_long="truncate"))
        row = rows_of(tmp_path / "out.jsonl")[8]
        assert (row["predicted_label"], row["predicted_truncated"]) == (label_of(TEXTS[8]), True)
        assert TEXTS[8] in sent(fake)
    assert TEXTS[7] not in sent(fake)


def test_a_server_that_refuses_all_that_is_new_stops_the_run(tmp_path: Path, fake: FakeServer) -> None:
    """Rows that others paid for are no sign that it is well."""
    texts = [f"text {number}" for number in range(20_000)]
    run_once(tmp_path, texts, fake)
    fake.rules = [(lambda text: text.startswith("new"), refuse(400, "no"))]
    with pytest.raises(Misconfigured, match="the first 32 rows failed"):
        run_once(tmp_path, texts + [f"new {number}" for number in range(200)], fake)


# -- several runs, kills, and a file that fails


def command(folder: Path, name: str, server: FakeServer, *more: str) -> list[str]:
    """The command line of a run with small requests."""
    sizes = ["--set", "request.rows=16", "--set", "request.concurrency=4", "--quiet"]
    reuse = ["--set", f"run.reuse={folder / 'r'}"]
    return ["run", str(folder / "in.jsonl"), "-o", str(folder / name), "--url", server.url, *sizes, *reuse, *more]


def test_two_runs_at_once_share_the_file(tmp_path: Path, fake: FakeServer) -> None:
    """Both end well, their outputs are the same, and a third run sends nothing."""
    write(tmp_path / "in.jsonl", TEXTS)
    both = [start(command(tmp_path, name, fake)) for name in ("a.jsonl", "b.jsonl")]
    for each in both:
        assert "stored answers" not in each.communicate(timeout=100)[1].decode()
        assert each.returncode == 0
    fake.requests.clear()
    assert finish(command(tmp_path, "c.jsonl", fake))[0] == 0
    assert_sent(fake, [])
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    assert a == b == c


@pytest.mark.slow
def test_killed_runs_leave_what_they_were_told(tmp_path: Path, fake: FakeServer) -> None:
    """A kill -9 loses the last seconds of what was to be kept, no more; resumed and done anew, all rows are right."""
    write(tmp_path / "in.jsonl", TEXTS)
    fake.latency_s = 0.2
    process = start(command(tmp_path, "a.jsonl", fake))
    while len(fake.answered) < 1500:
        time.sleep(0.01)
    kill_group(process)
    fake.latency_s = 0
    assert finish(command(tmp_path, "a.jsonl", fake))[0] == 0
    fake.requests.clear()
    assert finish(command(tmp_path, "b.jsonl", fake))[0] == 0
    assert len(sent(fake)) < 2500
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    fake.requests.clear()
    assert finish(command(tmp_path, "c.jsonl", fake))[0] == 0
    assert_sent(fake, [])
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_file_that_is_not_ours_stops_the_run_before_anything_is_asked(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """One line, exit 2, nothing sent, the file untouched; `check` says so, too, and makes none where there is none."""
    write(tmp_path / "in.jsonl", TEXTS)
    assert f"{tmp_path / 'r'}: will be made" in classify("check", *command(tmp_path, "a.jsonl", fake)[1:]).stdout
    assert not (tmp_path / "r").exists()
    fake.requests.clear()
    (tmp_path / "r").write_text("id,text\n")
    for name in ("run", "check"):
        done = classify(name, *command(tmp_path, "a.jsonl", fake)[1:], expect=2)
        complaint(done, str(tmp_path / "r"), "run.reuse")
    assert fake.requests == []
    assert (tmp_path / "r").read_text() == "id,text\n"
    (tmp_path / "r").unlink()
    classify(*command(tmp_path, "a.jsonl", fake))
    assert f"{tmp_path / 'r'}: 0.000 GB" in classify("check", *command(tmp_path, "a.jsonl", fake)[1:]).stdout


def test_a_file_that_fails_costs_no_row(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Damage found on the way, or a full disk: a notice, and the run asks for everything and ends well."""
    texts = [f"text {number}" for number in range(20_000)]
    run_once(tmp_path, texts, fake)
    content = bytearray((tmp_path / "r").read_bytes())
    content[len(content) // 3 :] = os.urandom(len(content) - len(content) // 3)
    (tmp_path / "r").write_bytes(content)
    done = classify(*command(tmp_path, "a.jsonl", fake, "--set", "request.rows=1000"))
    assert "damaged" in done.stderr
    assert "going on without stored answers" in done.stderr
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    with closing(sqlite3.connect(tmp_path / "r")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]


@pytest.mark.slow
def test_a_file_that_another_program_keeps_costs_no_row(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The run goes on without it, and says so."""
    run_once(tmp_path, TEXTS, fake)
    with closing(sqlite3.connect(tmp_path / "r", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        done = classify(*command(tmp_path, "a.jsonl", fake))
    assert "locked; going on without stored answers" in done.stderr
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_the_path_in_a_config_is_relative_to_it(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """As all paths there; `~` is the home directory, and the bound is checked."""
    write(tmp_path / "in.jsonl", TEXTS[:5])
    (tmp_path / "sub").mkdir()
    config = tmp_path / "sub" / "config.toml"
    config.write_text(f'[loader]\ninput = "../in.jsonl"\n[server]\nurl = "{fake.url}"\n[run]\nreuse = "../r.sqlite"\n')
    classify("run", config)
    assert (tmp_path / "r.sqlite").exists()
    classify("run", config, "--restart", "--set", "run.reuse=~/r", env={"HOME": str(tmp_path)})
    assert (tmp_path / "r").exists()
    done = classify("run", config, "--set", "run.reuse_max_gb=0", expect=2)
    complaint(done, "run.reuse_max_gb", "0.01")
    record = json.loads((tmp_path / ".in_labelled.jsonl.run.json").read_text())
    assert (record["reused_rows"], record["settings"]["run"]["reuse"]) == (0, str(tmp_path / "r"))


@pytest.mark.slow
def test_answers_of_a_run_that_was_resumed_serve_the_next(tmp_path: Path, fake: FakeServer) -> None:
    """`--limit-rows` first, the rest later, another output after that: each text is sent once."""
    write(tmp_path / "in.jsonl", TEXTS)
    assert finish(command(tmp_path, "a.jsonl", fake, "--limit-rows", "1000"))[0] == 0
    assert finish(command(tmp_path, "a.jsonl", fake))[0] == 0
    assert finish(command(tmp_path, "b.jsonl", fake))[0] == 0
    assert len(sent(fake)) <= len(TEXTS) + 2 * len(LABELS)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_library_call_fails_as_the_command_does(tmp_path: Path, fake: FakeServer) -> None:
    """`run(Config)` raises ReuseError, which is a person's business."""
    (tmp_path / "r").write_text("not ours")
    with pytest.raises(ReuseError) as caught:
        run_once(tmp_path, TEXTS[:5], fake)
    assert caught.value.exit_code == 2
