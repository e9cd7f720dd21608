"""What somebody found who meant harm, so that it stays mended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import FakeServer, label_of, refuse, reply

from pipeline.checkpoint import Checkpoint
from pipeline.servers.model import CANARY


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small CSV."""
    path = tmp_path / "in.csv"
    path.write_text("text\n" + "".join(f"text {n}\n" for n in range(300)))
    return path


def test_a_busy_server_never_blames_a_row(source: Path, fake: FakeServer, classify: Command) -> None:
    """Retry-After beyond every budget: nobody is blamed, the run ends with 75 and goes on later."""
    fake.each = lambda texts: None if texts == list(CANARY) else refuse(503, "busy", Retry_After="3600")
    arguments = ["run", source.name, "--url", fake.url, "--set", "server.wait_s=1"]
    assert "no server answered for 1 s" in classify(*arguments, expect=75).stderr
    assert len(fake.requests) < 20
    fake.each = lambda _: None
    classify(*arguments)


def test_names_of_the_config_stand_in_for_those_the_server_lacks(
    source: Path, fake: FakeServer, classify: Command
) -> None:
    """Null labels and writer.labels: the rows get the config's names."""
    fake.labels = (None, None, None)
    names = 'writer.labels=["negative","neutral","positive"]'
    classify("run", source.name, "-o", "out.jsonl", "--url", fake.url, "--set", names)
    rows = [json.loads(line) for line in source.with_name("out.jsonl").read_text().splitlines()]
    assert [row["predicted_label"] for row in rows] == [label_of(row["text"]) for row in rows]


@pytest.mark.parametrize("labels", ['["negative","neutral"]', '["neutral","negative","positive"]'])
def test_names_that_do_not_fit_the_model_are_refused(
    labels: str, source: Path, fake: FakeServer, classify: Command
) -> None:
    """Too few or in another order: exit 2 before the first row, naming writer.labels."""
    flags = ["--set", f"writer.labels={labels}", "--set", "writer.probs=columns"]
    assert "writer.labels" in classify("run", source.name, "--url", fake.url, *flags, expect=2).stderr
    assert "text 1" not in fake.texts


def test_a_server_s_words_fit_into_every_encoding(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """An error message that latin-1 can't hold is spelled out; the file is written."""
    (tmp_path / "in.csv").write_bytes("text\ncaf\xe9\npoison\n".encode("latin-1"))
    fake.rules.append((lambda text: text == "poison", refuse(400, "не надо 😀")))
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, "--set", "loader.encoding=latin-1", expect=3)
    lines = (tmp_path / "out.csv").read_bytes().decode("latin-1").splitlines()
    assert lines[1].startswith("café,")
    assert "\\u043d" in lines[2]


def test_bytes_that_are_no_text_are_spelled_out_in_text_formats(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Parquet may hold strings that are no UTF-8; CSV and JSONL get their escapes, the row its error."""
    broken = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken}), tmp_path / "in.parquet")
    for ending in ("csv", "jsonl"):
        classify("run", "in.parquet", "-o", f"out.{ending}", "--url", fake.url, expect=3)
        assert "xff" in (tmp_path / f"out.{ending}").read_text()
        assert "not_text" in (tmp_path / f"out.{ending}").read_text()


def test_what_can_be_read_only_once_is_refused(tmp_path: Path, classify: Command) -> None:
    """A FIFO would be waited for, for ever."""
    os.mkfifo(tmp_path / "in.csv")
    assert "no regular file" in classify("run", "in.csv", expect=2).stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(closed: str, source: Path, fake: FakeServer) -> None:
    """Some schedulers start programs without them."""
    command = f"{sys.executable} -m pipeline run {source} -o {source.parent}/out.csv --url {fake.url} {closed}"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0
    assert len((source.parent / "out.csv").read_text().splitlines()) == 301


@pytest.mark.slow
def test_the_exit_code_does_not_depend_on_who_listens(source: Path, fake: FakeServer) -> None:
    """Standard error that is full or has no reader changes no exit code."""
    run = f"{sys.executable} -m pipeline run"
    for command, code in (
        (f"{run} nofile.csv 2>/dev/full", 2),
        (f"set -o pipefail; {run} nofile.csv 2>&1 | true", 2),
        (f"{run} {source} --url {fake.url} 2>/dev/full", 0),
        (f"{sys.executable} -m pipeline check {source} --url {fake.url} >/dev/full", 75),
    ):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), command


def test_a_redirect_shows_no_key(source: Path, fake: FakeServer, classify: Command) -> None:
    """A Location that repeats the key, or holds a password, is masked."""
    fake.each = lambda _: reply(302, "", Location="http://u:pw@other/classify?key=s3cret-key")
    shown = classify("run", source.name, "--url", fake.url, env={"VLLM_API_KEY": "s3cret-key"}, expect=2).stderr
    assert "other/classify" in shown
    assert "s3cret" not in shown
    assert "pw" not in shown


def test_labels_are_data_for_the_file_and_harmless_for_the_terminal(
    source: Path, fake: FakeServer, classify: Command
) -> None:
    """A label with an escape sequence or a formula is written as it is, and shown as its escape."""
    fake.labels = ("\x1b[31mred", '=HYPERLINK("x")', "a\nb")
    done = classify("run", source.name, "-o", "out.parquet", "--url", fake.url)
    assert "\x1b" not in done.stderr
    labels = pq.read_table(source.with_name("out.parquet"))["predicted_label"].to_pylist()
    assert set(labels) == set(fake.labels)


def test_what_was_published_before_a_kill_is_ours(source: Path, fake: FakeServer, classify: Command) -> None:
    """Killed between the rename and the record: the plain command and --restart both know the output."""
    arguments = ["run", source.name, "-o", "out.csv", "--url", fake.url]
    classify(*arguments, "--limit-rows", 200)  # keeps its checkpoint, which knows the output's digest
    source.with_name(".out.csv.run.json").unlink()
    classify(*arguments, "--restart")
    assert len(source.with_name("out.csv").read_text().splitlines()) == 301


def test_a_checkpoint_that_a_kill_left_behind_goes_the_next_time(
    source: Path, fake: FakeServer, classify: Command
) -> None:
    """Killed between the record and the clean-up: the next run finds it complete and cleans up."""
    arguments = ["run", source.name, "-o", "out.csv", "--url", fake.url]
    classify(*arguments)
    record = json.loads(source.with_name(".out.csv.run.json").read_text())
    left = Checkpoint(source.with_name(".out.csv.checkpoint"))
    left.put(published=record["output_digest"], identity=record["identity"])
    left.close()
    assert "complete already" in classify(*arguments).stderr
    assert not left.path.exists()


def test_retrying_never_shortens_an_output(source: Path, fake: FakeServer, classify: Command) -> None:
    """--retry-failed with a smaller --limit-rows is refused."""
    fake.rules.append((lambda text: text == "text 7", refuse(400, "no")))
    arguments = ["run", source.name, "-o", "out.csv", "--url", fake.url]
    classify(*arguments, expect=3)
    assert "--limit-rows" in classify(*arguments, "--retry-failed", "--limit-rows", 60, expect=2).stderr
    source.with_name(".out.csv.checkpoint").unlink()
    assert "checkpoint is gone" in classify(*arguments, "--retry-failed", expect=2).stderr


def test_names_that_are_too_long_or_no_text_are_no_bugs(source: Path, fake: FakeServer, classify: Command) -> None:
    """A name that leaves no room for those beside it is refused; one of odd bytes is taken."""
    assert "too long" in classify("run", source.name, "-o", "x" * 240 + ".csv", "--url", fake.url, expect=2).stderr
    odd = os.fsdecode(b"odd\xff.csv")
    (source.parent / odd).write_text("text\na\n")
    classify("run", odd, "--url", fake.url)
    assert "1 complete" in classify("status", ".").stdout
