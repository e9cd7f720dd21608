"""The command from outside: signals, resuming, streams, and secrets that appear nowhere."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from commands import Command, run_arguments, running, wait_until_answered
from fake import FakeServer, changed, label_of, probs_of, refuse, reply, score_of
from files import rows_of, write

TEXTS = [f"text {n}" for n in range(400)]


# -- interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_answered(
    number: signal.Signals, code: int, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """The run ends soon with 130 or 143 and one line; the next asks only what is missing, and finishes."""
    write(tmp_path / "in.csv", TEXTS)
    fake.latency_s = 0.15
    with running(tmp_path, *run_arguments(fake)) as process:
        wait_until_answered(fake, 100)
        began = time.monotonic()
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
        assert process.returncode == code, errors
        assert time.monotonic() - began < 10
    assert out == ""
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()
    assert (tmp_path / ".out.csv.checkpoint").exists()
    fake.latency_s = 0
    assert "resumed" in classify(*run_arguments(fake)).stderr
    rows = rows_of(tmp_path / "out.csv")
    assert [(row["text"], row["predicted_label"]) for row in rows] == [(text, label_of(text)) for text in TEXTS]
    twice = [text for text in TEXTS if fake.answered[text] > 1]
    assert len(twice) <= 20, "what was answered is asked again"


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path, fake: FakeServer) -> None:
    """`nohup classify run ...` survives the end of the terminal, and one started with & in a script survives Ctrl-C."""
    write(tmp_path / "in.csv", TEXTS)
    fake.latency_s = 0.05
    ignored = (signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]  # inherited by the child
    try:
        with running(tmp_path, *run_arguments(fake)) as process:
            wait_until_answered(fake, 100)
            for number in ignored:
                process.send_signal(number)
            _, errors = process.communicate(timeout=60)
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
    assert process.returncode == 0, errors
    assert len(rows_of(tmp_path / "out.csv")) == len(TEXTS)


def test_a_hanging_server_does_not_delay_the_end(tmp_path: Path, fake: FakeServer) -> None:
    """What is in flight is cancelled: a server that never answers can't hold the process."""
    write(tmp_path / "in.csv", TEXTS)
    fake.latency_s = 0.1
    with running(tmp_path, *run_arguments(fake)) as process:
        wait_until_answered(fake, 40)
        fake.latency_s = 3600
        time.sleep(0.5)
        began = time.monotonic()
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 143
        assert time.monotonic() - began < 3


def test_interrupted_while_waiting_for_the_server(tmp_path: Path, fake: FakeServer) -> None:
    """Ctrl-C is heard before any server is there."""
    write(tmp_path / "in.csv", TEXTS[:2])
    fake.down()
    with running(tmp_path, *run_arguments(fake), "--set", "server.start_wait_s=60") as process:
        assert process.stderr
        assert "wait" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        assert process.returncode == 130
    fake.up()


# -- again


def test_the_same_command_again_sends_nothing(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A complete output is said to be complete, without a server; the recorded code comes back."""
    write(tmp_path / "in.csv", TEXTS[:30])
    classify(*run_arguments(fake))
    sent, content = len(fake.requests), (tmp_path / "out.csv").read_bytes()
    fake.down()
    done = classify(*run_arguments(fake))
    fake.up()
    assert "complete" in done.stderr
    assert len(fake.requests) == sent
    assert (tmp_path / "out.csv").read_bytes() == content


def test_the_code_of_failed_rows_comes_back(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """More failed rows than allowed: 3, and 3 again without asking; the checkpoint stays for --retry-failed."""
    write(tmp_path / "in.csv", TEXTS[:30])
    fake.rules.append((lambda text: text == "text 7", refuse(400, "no")))
    classify(*run_arguments(fake), expect=3)
    assert (tmp_path / ".out.csv.checkpoint").exists()
    sent = len(fake.requests)
    classify(*run_arguments(fake), expect=3)
    assert len(fake.requests) == sent
    fake.rules.clear()
    classify(*run_arguments(fake), "--retry-failed")
    assert [row["predicted_label"] for row in rows_of(tmp_path / "out.csv")] == [label_of(text) for text in TEXTS[:30]]
    assert not (tmp_path / ".out.csv.checkpoint").exists()


def test_a_few_rows_first(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """--limit-rows gives the first rows; a larger limit and none go on from there without asking twice."""
    write(tmp_path / "in.csv", TEXTS[:60])
    for limit in (25, 40, None):
        classify(*run_arguments(fake), *(("--limit-rows", limit) if limit else ()))
        rows = [(row["text"], row["predicted_label"]) for row in rows_of(tmp_path / "out.csv")]
        assert rows == [(text, label_of(text)) for text in TEXTS[: limit or 60]]
    asked = Counter(fake.texts)
    assert {asked[text] for text in TEXTS[:60]} == {1}


# -- the streams


def test_quiet_and_stdout_stay_empty(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Stdout carries data only, and a run to a file has none there; --quiet shows no bar."""
    write(tmp_path / "in.csv", TEXTS[:3])
    for flags in ((), ("--quiet",)):
        done = classify("run", "-i", "in.csv", "-o", f"out{len(flags)}.csv", "--url", fake.url, *flags)
        assert done.stdout == ""
        assert "\r" not in done.stderr


def test_log_json_is_json(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Every line of stderr is one JSON object: all well, complete already, waiting, a mistake in config or usage."""
    write(tmp_path / "in.csv", TEXTS[:3])
    good = ("run", "-i", "in.csv", "-o", "out.csv", "--url", fake.url, "--log-json")
    said = [classify(*good).stderr, classify(*good).stderr]
    away = ("--url", "http://127.0.0.1:1", "-o", "o.csv", "--set", "server.start_wait_s=0.6")
    said.append(classify(*good, *away, "--url", "http://127.0.0.1:1", expect=None).stderr)
    said.append(classify("run", "-i", "gone.csv", "--log-json", expect=2).stderr)
    said.append(classify("run", "-i", "in.csv", "--set", "x.y=1", "--log-json", expect=2).stderr)
    said.append(classify("run", "--quiet", "--log-json", expect=2).stderr)
    for stderr in said:
        events = [json.loads(line) for line in stderr.splitlines()]
        assert events
        for event in events:
            assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)
            assert event["level"] in ("info", "warning", "error")
            assert event["event"] in ("notice", "progress", "finished", "error")
    last = [json.loads(stderr.splitlines()[-1]) for stderr in said]
    assert [event["exit_code"] for event in last] == [0, 0, 0, 2, 2, 2]
    assert last[0]["record"]["rows"] == last[1]["record"]["rows"] == 3
    assert last[0]["message"].startswith("out.csv: 3 rows")
    assert json.loads(said[2].splitlines()[0])["event"] == "notice"
    assert last[3]["record"]["error"].startswith("gone.csv: no such file")


def test_text_shows_label_score_and_all_values(fake: FakeServer, classify: Command) -> None:
    """As a table, and as one JSON object a text with full precision."""
    texts = ["good", "a second\ntext, «größe» 😀"]
    table = classify("text", *texts, "--url", fake.url).stdout
    for text in texts:
        assert label_of(text) in table
        assert f"{score_of(text):.4f}" in table
        assert all(f"{value:.4f}" in table for value in probs_of(text))
    lines = [json.loads(line) for line in classify("text", *texts, "--json", "--url", fake.url).stdout.splitlines()]
    for text, line in zip(texts, lines, strict=True):
        assert line["text"] == text
        assert (line["label"], line["score"]) == (label_of(text), score_of(text))
        assert line["probs"] == probs_of(text)


def test_an_empty_text_is_no_failure(fake: FakeServer, classify: Command) -> None:
    """A blank text is not sent, is shown as empty, and does not count as failed."""
    done = classify("text", " ", "good", "--json", "--url", fake.url)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["error"].startswith("empty")
    assert second["label"] == label_of("good")
    assert " " not in fake.texts


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_text_of_odd_bytes_is_no_bug(flags: tuple[str, ...], fake: FakeServer, classify: Command) -> None:
    """An argument that is no UTF-8 is `not_text`: said, not crashed upon."""
    strict = {"PYTHONIOENCODING": "utf-8:strict"}  # as in any locale but C
    done = classify("text", os.fsdecode(b"gr\xfc\xdfe"), *flags, "--url", fake.url, expect=3, env=strict)
    assert "not_text" in done.stdout


@pytest.mark.parametrize("command", ["text", "check"])
def test_a_reader_that_has_seen_enough_is_no_bug(command: str, tmp_path: Path, fake: FakeServer) -> None:
    """`classify text ... | head -0`: exit 0 and nothing on stderr."""
    write(tmp_path / "in.csv", TEXTS[:2])
    arguments = ("text", "a") if command == "text" else ("check", "-i", "in.csv")
    with running(tmp_path, *arguments, "--url", fake.url) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0


# -- secrets

SECRETS = {"VLLM_API_KEY": "k3y-s3cret", "GATEWAY": "h3ader-s3cret"}


class Echo(FakeServer):
    """A gateway that repeats what it was sent when it refuses."""

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": f"no such route for {dict(request.headers)}"}, status=404)


@pytest.mark.parametrize("mode", ["well", "key refused", "row refused", "down", "json"])
def test_secrets_appear_nowhere(mode: str, tmp_path: Path, classify: Command) -> None:
    """Key, header values and URL password are in no stream and in no file, whatever happens and is echoed back."""
    write(tmp_path / "in.csv", TEXTS[:5])
    (tmp_path / "c.toml").write_text(
        '[loader]\ninput = "in.csv"\n[writer]\noutput = "out.csv"\n[run]\nmax_failed_rows = 1\n'
        '[server]\nheaders = { X-Gate = "env:GATEWAY", X-Plain = "pl4in-s3cret" }\n'
    )
    known = tmp_path / "c.toml"
    echoed = f"Bearer {SECRETS['VLLM_API_KEY']} {SECRETS['GATEWAY']} pl4in-s3cret"
    with Echo() as server:
        if mode == "key refused":
            server.each = lambda _: refuse(401, f"wrong key: {echoed}")
        if mode == "row refused":
            server.rules.append((lambda text: text == "text 3", refuse(400, f"refused with {echoed}")))
        if mode == "down":
            server.down()
        flags = ("--log-json",) if mode == "json" else ()
        common = (known, "--url", server.url, "--set", "server.start_wait_s=0", *flags)
        said = [
            classify("check", *common, env=SECRETS, expect=None),
            classify("run", *common, env=SECRETS, expect=None),
        ]
        if mode == "well":
            assert [done.returncode for done in said] == [0, 0]
            assert server.requests[-1].headers["Authorization"] == f"Bearer {SECRETS['VLLM_API_KEY']}"
            assert server.requests[-1].headers["X-Gate"] == SECRETS["GATEWAY"]
        if mode == "down":
            server.up()
    for done in said:
        assert "s3cret" not in done.stdout + done.stderr
    leaks = [path.name for path in tmp_path.iterdir() if path != known and b"s3cret" in path.read_bytes()]
    assert leaks == []


@pytest.mark.slow
def test_a_key_in_another_spelling_is_masked_in_the_error_of_a_row(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """A refusal as .NET and PHP write JSON, and an answer that quotes the key as a label."""
    write(tmp_path / "in.csv", TEXTS[:5])
    said = b'{"error": {"message": "bad input (key ab\\u002Bcd\\/ef=s3cret)"}}'
    fake.rules.append((lambda text: text == "text 3", reply(400, said)))
    mixed = changed(fake, lambda answer: answer["data"][0].update(label="ab+cd/ef=s3cret"))
    fake.rules.append((lambda text: text == "text 4", mixed))
    run = ("run", "-i", "in.csv", "-o", "out.jsonl", "--url", fake.url, "--set", "request.rows=1")
    done = classify(*run, expect=3, env={"VLLM_API_KEY": "ab+cd/ef=s3cret"})
    first, second = [row["predicted_error"] for row in rows_of(tmp_path / "out.jsonl")[3:]]
    assert first == "rejected: HTTP 400: bad input (key ***)"
    assert "named '***'" in second
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"s3cret" not in kept + (done.stdout + done.stderr).encode()


@pytest.mark.parametrize("is_up", [True, False])
def test_the_password_of_a_url_appears_nowhere(
    is_up: bool, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """It is sent, and shown as ***."""
    write(tmp_path / "in.csv", TEXTS[:5])
    if not is_up:
        fake.down()
    url = fake.url.replace("//", "//me:pa55-s3cret@") + "/classify?token=qu3ry-s3cret"
    settings = ("--set", "server.start_wait_s=0", "--set", "run.max_failed_rows=1")
    fake.rules.append((lambda text: text == "text 3", refuse(400, "no")))
    for command in ("check", "run"):
        done = classify(command, "-i", "in.csv", "-o", "out.csv", "--url", url, *settings, expect=0 if is_up else 75)
        assert "s3cret" not in done.stdout + done.stderr
    if is_up:
        assert fake.requests[-1].headers["Authorization"].startswith("Basic ")
    else:
        fake.up()
    assert not [path.name for path in tmp_path.iterdir() if b"s3cret" in path.read_bytes()]
