"""Many files in one command: each as if it were alone, and one exit code that says what came of them all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import NOWHERE, Command, complaint, last_line, running
from fake import FakeServer, label_of, refuse
from files import hidden, record, seen, snapshot, write
from killing import finish, kill_group, start
from s3 import Bucket
from whole_runs import alone

from pipeline import run
from pipeline.checkpoint import Lock
from pipeline.config import Config, Loader, Server, Writer
from pipeline.errors import ClassifyError, OutputError
from pipeline.monitoring.progress import Progress
from pipeline.runs import planned
from pipeline.runs.file import RunFile
from pipeline.servers.model import CANARY

# Name -> texts; two files share some, one repeats its own, one has rows without a text, one has no rows.
TREE: dict[str, list[str]] = {
    "a.csv": [f"a {n} says something" for n in range(12)],
    "b.jsonl": ["again", "again", *(f"b {n}" for n in range(9)), "again"],
    "day=2026-11-23/c.csv.gz": ["", *(f"c {n} says something" for n in range(7)), " "],
    "day=2026-11-23/deep/er/d.parquet": [f"d {n}" for n in range(40)],
    "day=2026-11-24/e.jsonl.zst": ["again", *(f"e {n}" for n in range(5))],
    "f.tsv": [f"f {n}" for n in range(3)],
    "none.csv": [],
}
ROWS = sum(len(texts) for texts in TREE.values())
DISTINCT = {text for texts in TREE.values() for text in texts if text.strip()}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`TREE`, in a directory `in` of the command's directory."""
    for name, texts in TREE.items():
        write(tmp_path / "in" / name, texts)
    return tmp_path / "in"


def sent(server: FakeServer) -> Counter[str]:
    """How often each text was sent since the last look, without the canary."""
    texts = Counter(text for each in server.requests if tuple(each.texts) != CANARY for text in each.texts)
    server.requests.clear()
    return texts


# -- as if each were alone


def test_every_output_is_that_of_a_run_of_its_file_alone(
    tmp_path: Path, tree: Path, fake: FakeServer, classify: Command
) -> None:
    """All formats, nested: the same bytes under the same paths, a record each, their sum in the last line, no rest."""
    expected = alone(tree, fake, tmp_path / "alone")
    done = classify("run", "-i", "in", "-o", "out/", "--url", fake.url)
    out = tmp_path / "out"
    assert seen(out) == expected
    assert set(sent(fake)) == DISTINCT
    records = {name: record(out / name) for name in TREE}
    assert {name: each["rows"] for name, each in records.items()} == {name: len(texts) for name, texts in TREE.items()}
    empty = {name: sum(not text.strip() for text in texts) for name, texts in TREE.items()}
    assert {name: each["empty"] for name, each in records.items()} == empty
    assert {name: each["labelled"] + each["empty"] for name, each in records.items()} == {
        name: len(texts) for name, texts in TREE.items()
    }
    assert all(each["exit_code"] == 0 and each["is_whole"] and not each["files"] for each in records.values())
    assert all(each["input"].endswith(name) and each["output"].endswith(name) for name, each in records.items())
    assert records["b.jsonl"]["texts_sent"] == 10
    assert last_line(done).startswith(f"out/: {len(TREE)} files, {ROWS} rows in ")
    assert f"{ROWS - 2} labelled, 0 failed, 2 empty" in last_line(done)
    assert hidden(out, ".*.checkpoint*") == hidden(out, "*.tmp") == []


def test_the_same_command_again_sends_nothing_and_needs_no_server(
    tmp_path: Path, tree: Path, fake: FakeServer, classify: Command
) -> None:
    """Complete files are skipped; what changed, what is new and what was taken away is done, and nothing else."""
    arguments = ("run", "in", "-o", "out/")
    classify(*arguments, "--url", fake.url)
    before, changed = snapshot(tmp_path / "out"), {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/**/*")}
    done = classify(*arguments, *NOWHERE)
    assert f"{len(TREE)} files ({len(TREE)} complete already)" in last_line(done)
    assert snapshot(tmp_path / "out").keys() == before.keys()
    assert {path: path.stat().st_mtime_ns for path in changed if not path.name.endswith(".lock")} == {
        path: time for path, time in changed.items() if not path.name.endswith(".lock")
    }
    sent(fake)
    write(tree / "day=2026-11-23/c.csv.gz", ["another text", "c 1 says something"])
    write(tree / "day=2026-11-25/new.csv", ["a new one"])
    (tmp_path / "out/f.tsv").unlink()
    done = classify(*arguments, "--url", fake.url)
    assert set(sent(fake)) == {"another text", "c 1 says something", "a new one", *TREE["f.tsv"]}
    assert f"{len(TREE) + 1} files ({len(TREE) - 2} complete already)" in last_line(done)
    assert seen(tmp_path / "out") == alone(tree, fake, tmp_path / "alone")


@pytest.mark.usefixtures("tree")
def test_every_output_may_have_another_format(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """writer.format writes all files in one format, with its ending, whatever they were; the paths stay."""
    classify("run", "in/", "-o", "out/", "--url", fake.url, "--set", "writer.format=parquet")
    tables = {name: pq.read_table(tmp_path / "out" / name) for name in seen(tmp_path / "out")}
    assert {name: table["text"].to_pylist() for name, table in tables.items()} == {
        str(Path(name).parent / f"{Path(name).name.split('.')[0]}.parquet"): texts for name, texts in TREE.items()
    }
    for table in tables.values():
        texts, labels = table["text"].to_pylist(), table["predicted_label"].to_pylist()
        assert labels == [label_of(text) if text.strip() else None for text in texts]


def test_a_glob_several_files_and_a_config_name_them_too(
    tmp_path: Path, tree: Path, fake: FakeServer, classify: Command
) -> None:
    """-i repeated, a pattern that the shell did not touch, a list in a config that is relative to the config."""
    classify("run", "-i", "in/*.csv", "-i", tree / "b.jsonl", "-o", "one/", "--url", fake.url)
    assert sorted(seen(tmp_path / "one")) == ["a.csv", "b.jsonl", "none.csv"]
    (tmp_path / "job").mkdir()
    (tmp_path / "job/c.toml").write_text(
        '[loader]\ninput = ["../in/day=*/**/*.csv.gz", "../in/a.csv"]\n[writer]\noutput = "../two/"\n'
    )
    classify("run", "job/c.toml", "--url", fake.url)
    assert sorted(seen(tmp_path / "two")) == ["a.csv", "day=2026-11-23/c.csv.gz"]
    classify("run", tree, "--url", fake.url)
    assert sorted(seen(tmp_path / "in_labelled")) == sorted(TREE)


def test_an_output_directory_inside_the_input_is_not_read(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`-i . -o labelled/`, night after night: the second night finds nothing new."""
    write(tmp_path / "a.csv", ["x"])
    write(tmp_path / "deep/b.csv", ["y"])
    classify("run", "-i", ".", "-o", "labelled/", "--url", fake.url)
    classify("run", "-i", ".", "-o", "labelled/", *NOWHERE)
    assert sorted(seen(tmp_path / "labelled")) == ["a.csv", "deep/b.csv"]


@pytest.mark.parametrize(
    ("inputs", "output"), [(["in"], "in/"), (["in/a.csv", "in/b.csv"], "./in/../in/"), (["in/*.csv"], "in")]
)
def test_the_output_is_never_the_input(inputs: list[str], output: str, tmp_path: Path, classify: Command) -> None:
    """The directory of the inputs as output is exit 2, as for one file; it says why, and all inputs are untouched."""
    write(tmp_path / "in/a.csv", ["x"])
    write(tmp_path / "in/b.csv", ["y"])
    named = [word for each in inputs for word in ("-i", each)]
    before = seen(tmp_path)
    done = classify("run", *named, "-o", output, "--overwrite", *NOWHERE, expect=2)
    assert "is the input" in done.stderr
    assert seen(tmp_path) == before


# Names what a run opens, renames and connects to, as the interpreter tells it.
AUDITED = """
import sys

def hook(event, given):
    if event == "sqlite3.connect":
        print("sqlite", given[0], file=log)
    elif event == "os.rename":
        print("rename", given[0], given[1], file=log)

log = open("audit.log", "w", buffering=1)
sys.addaudithook(hook)
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_small_new_file_gets_no_checkpoint_and_its_record_comes_first(tmp_path: Path, fake: FakeServer) -> None:
    """No database is made for it; its record appears before it does, so that a kill in between leaves nothing alien."""
    names = [f"f{n}.csv" for n in range(20)]
    for name in names:
        write(tmp_path / "in" / name, [f"{name} {n}" for n in range(5)])
    command = [sys.executable, "-c", AUDITED, "run", "in", "-o", "out/", "--url", fake.url, "--quiet"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
    told = [line.split() for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [words for words in told if words[0] == "sqlite"] == []
    appeared = [Path(words[2]).name for words in told if words[0] == "rename"]
    assert (appeared.pop(0), appeared.pop()) == (".classify.run.json", ".classify.run.json")  # of the whole
    assert sorted(appeared) == sorted([*names, *(f".{name}.run.json" for name in names)])
    assert all(appeared.index(f".{name}.run.json") < appeared.index(name) for name in names)


# -- what is wrong with one file


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Two good files among all kinds of bad ones."""
    folder = tmp_path / "in"
    write(folder / "good.csv", ["one", "two"])
    write(folder / "z/good.jsonl", ["three"])
    (folder / "bad_line.jsonl").write_text('{"text": "never mind"}\n[1]\n')
    (folder / "column.csv").write_text("id,review\n1,a\n")
    (folder / "cut.parquet").write_bytes(b"PAR1 but no more")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "done.csv").write_text("text,predicted_label\na,b\n")
    return folder


BAD = ("bad_line.jsonl:2", "column.csv", "cut.parquet", "empty.csv", "done.csv")


@pytest.mark.usefixtures("broken")
def test_a_bad_file_is_named_and_does_not_stop_the_others(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Exit 2; a line for each bad file, and their number in the last; again: the same, and nothing is sent."""
    done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    said = done.stderr.splitlines()
    for name in BAD:
        assert len([line for line in said[:-1] if f"in/{name}" in line]) == 1, done.stderr
    assert last_line(done).startswith("out/: 7 files (5 failed), 3 rows in ")
    assert "exit 2: 5 of 7 files failed: " in last_line(done)
    assert sorted(seen(tmp_path / "out")) == ["good.csv", "z/good.jsonl"]
    assert {"one", "two", "three"} <= set(sent(fake))
    again = classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    assert not {"one", "two", "three"} & set(sent(fake))
    assert "7 files (2 complete already, 5 failed)" in last_line(again)
    (tmp_path / "in/empty.csv").unlink()
    (tmp_path / "in/bad_line.jsonl").unlink()
    classify("run", "in", "-o", "out/", *NOWHERE, expect=2)
    for name in ("column.csv", "cut.parquet", "done.csv"):
        (tmp_path / "in" / name).unlink()
    classify("run", "in", "-o", "out/", *NOWHERE)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "csv.gz"])
def test_a_file_that_changes_meanwhile_is_named(kind: str, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Its rows are no longer those that were answered: nothing is written of it, and the other one is complete."""
    write(tmp_path / "in" / f"a.{kind}", ["a one", "a two"])
    path = write(tmp_path / "in" / f"b.{kind}", ["b one", "b two"])

    def change(texts: list[str]) -> None:
        if "b one" in texts:
            write(path, ["c one", "c two"])

    fake.each = change
    done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    assert f"in/b.{kind}: changed while it was read, so nothing was written; --restart" in done.stderr
    assert set(seen(tmp_path / "out")) == {f"a.{kind}"}
    classify("run", "in", "-o", "out/", "--url", fake.url, "--restart")
    assert seen(tmp_path / "out") == alone(tmp_path / "in", fake, tmp_path / "alone")


@pytest.mark.usefixtures("broken")
def test_check_lists_the_bad_files_and_writes_nothing(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """All of them, the sum of rows, the output's place, the server; nothing is made."""
    (tmp_path / "in/bad_line.jsonl").unlink()  # what is further down in a file, a look does not find
    before = snapshot(tmp_path)
    done = classify("check", "in", "-o", "out/", "--url", fake.url, expect=None)
    for name in ("column.csv", "cut.parquet", "empty.csv", "done.csv"):
        assert len([line for line in done.stdout.splitlines() if f"in/{name}" in line]) == 1, done.stdout
    assert "6 files, 3 rows" in done.stdout
    assert "  out/: 2 will be made" in done.stdout.splitlines()
    assert "model fake, 3 classes" in done.stdout
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "state").exists()


def test_an_output_that_is_not_ours_is_one_bad_file(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A file of somebody else, or a directory, in one output's place: named, untouched, and the others are done."""
    for name in ("a.csv", "b.csv", "c.csv", "d.csv"):
        write(tmp_path / "in" / name, [name])
    (tmp_path / "out/b.csv").mkdir(parents=True)
    (tmp_path / "out/c.csv").write_text("precious")
    done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    assert "4 files (2 failed)" in last_line(done)
    assert [line for line in done.stderr.splitlines()[:-1] if "out/c.csv" in line and "--overwrite" in line]
    assert [line for line in done.stderr.splitlines()[:-1] if "out/b.csv" in line]
    assert set(seen(tmp_path / "out")) == {"a.csv", "c.csv", "d.csv"}
    assert (tmp_path / "out/c.csv").read_text() == "precious"
    assert set(sent(fake)) == {"a.csv", "d.csv"}
    (tmp_path / "out/b.csv").rmdir()
    classify("run", "in", "-o", "out/", "--url", fake.url, "--overwrite")
    assert set(sent(fake)) == {"b.csv", "c.csv"}


def test_no_file_is_exit_2_or_no_work(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Nothing matches: one line, nothing is made; with run.allow_empty it is a night without work or server."""
    (tmp_path / "in").mkdir()
    complaint(classify("run", "in/*.csv", "-o", "out/", *NOWHERE, expect=2), "in/*.csv")
    assert not (tmp_path / "out").exists()
    done = classify("run", "in/*.csv", "-o", "out/", "--set", "run.allow_empty=true", *NOWHERE)
    assert "0 files" in last_line(done)
    write(tmp_path / "in/a.csv", ["a"])
    done = classify(
        "run", "-i", "in/a.csv", "-i", "gone.csv", "-i", "x*.csv", "-o", "out/", "--url", fake.url, expect=2
    )
    assert "3 files (2 failed)" in last_line(done)
    assert sorted(seen(tmp_path / "out")) == ["a.csv"]


# -- the exit code of several


def test_failed_rows_of_one_file_are_its_own(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """3 beats 0, is recorded, comes again without a server; --retry-failed asks for the failed rows and no others."""
    for name in ("a.csv", "b.csv", "c.csv"):
        write(tmp_path / "in" / name, [f"{name} {n}" for n in range(6)])
    expected = alone(tmp_path / "in", fake, tmp_path / "alone")
    fake.rules.append((lambda text: text in ("b.csv 2", "b.csv 5"), refuse(400, "I don't like it")))
    done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=3)
    assert "1 of 3 files failed: in/b.csv" in last_line(done)
    assert "16 labelled, 2 failed" in last_line(done)
    assert [record(tmp_path / "out" / name)["exit_code"] for name in ("a.csv", "b.csv", "c.csv")] == [0, 3, 0]
    assert hidden(tmp_path / "out", "*.checkpoint") == [".b.csv.checkpoint"]
    assert "3 complete already" in last_line(classify("run", "in", "-o", "out/", *NOWHERE, expect=3))
    fake.rules.clear()
    sent(fake)
    classify("run", "in", "-o", "out/", "--url", fake.url, "--retry-failed")
    assert sent(fake) == {"b.csv 2": 1, "b.csv 5": 1}
    assert seen(tmp_path / "out") == expected
    assert hidden(tmp_path / "out", "*.checkpoint*") == []


def test_retrying_with_cut_texts_leaves_the_other_files_alone(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """What is done with a text that is too long makes no difference to a file without one, then and later."""
    for name in ("a.csv", "b.csv", "c.csv"):
        write(tmp_path / "in" / name, [f"{name} {n}" for n in range(6)])
    fake.rules.append((lambda text: text == "b.csv 2", refuse(400, "I don't like it")))
    classify("run", "in", "-o", "out/", "--url", fake.url, expect=3)
    others = {name: data for name, data in seen(tmp_path / "out").items() if name != "b.csv"}
    fake.rules.clear()
    sent(fake)
    cut = ("--set", "request.too_long=truncate")
    classify("run", "in", "-o", "out/", "--url", fake.url, "--retry-failed", *cut)
    assert sent(fake) == {"b.csv 2": 1}
    assert {name: data for name, data in seen(tmp_path / "out").items() if name != "b.csv"} == others
    for later in (cut, ("--retry-failed", *cut), ()):
        assert "3 complete already" in last_line(classify("run", "in", "-o", "out/", *NOWHERE, *later))


def test_of_several_codes_the_first_that_matters_is_told(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """2 beats 3, and 75 beats 2: all of them are named, and what can be done is done."""
    for name in ("failing.csv", "held.csv", "good.csv"):
        write(tmp_path / "in" / name, [name])
    (tmp_path / "in/bad.csv").write_text("x\n1\n")
    fake.rules.append((lambda text: text == "failing.csv", refuse(400, "I don't like it")))
    (tmp_path / "out").mkdir()
    with Lock(tmp_path / "out/.held.csv.lock"):
        done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=75)
    assert f"pid {os.getpid()}" in last_line(done)
    assert "in/held.csv" in last_line(done)
    assert [line for line in done.stderr.splitlines()[:-1] if "in/bad.csv" in line]
    assert sorted(seen(tmp_path / "out")) == ["failing.csv", "good.csv"]
    sent(fake)
    done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    assert sent(fake) == {"held.csv": 1}
    assert "in/bad.csv" in last_line(done)
    (tmp_path / "in/bad.csv").unlink()
    assert "in/failing.csv" in last_line(classify("run", "in", "-o", "out/", *NOWHERE, expect=3))


def slow(folder: Path, server: FakeServer, files: int) -> tuple[str, ...]:
    """Many files, and a command that asks for one at a time, alone: some two or three a second."""
    for n in range(files):
        write(folder / f"{n:02}.csv", [f"file {n} row {row}" for row in range(4)])
    server.latency_s = 0.2
    one_by_one = ("--set", "request.concurrency=1", "--set", "request.rows=4")
    return ("run", "in", "-o", "out/", "--url", server.url, *one_by_one)


@pytest.mark.slow
def test_the_deadline_keeps_what_is_complete(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Exit 4, also where a file was bad; the next night goes on, asks for nothing twice, and says 2 for the bad one."""
    arguments = slow(tmp_path / "in", fake, 30)
    (tmp_path / "in/00_bad.csv").write_text("x\n1\n")
    done = classify(*arguments, "--set", "run.deadline=2s", expect=4)
    assert "the deadline 2s came" in last_line(done)
    complete = seen(tmp_path / "out")
    assert 0 < len(complete) < 30
    fake.latency_s = 0
    classify(*arguments, expect=2)
    assert len(seen(tmp_path / "out")) == 30
    assert complete.items() <= seen(tmp_path / "out").items()
    assert {times for text, times in fake.answered.items() if text not in CANARY} == {1}


def test_an_output_that_is_held_comes_before_the_deadline(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Of 75 and 4 it is 75: the order of CONTRACT section 4."""
    arguments = slow(tmp_path / "in", fake, 30)
    (tmp_path / "out").mkdir()
    with Lock(tmp_path / "out/.00.csv.lock"):
        done = classify(*arguments, "--set", "run.deadline=1s", expect=75)
    assert [line for line in done.stderr.splitlines() if "00.csv" in line]


# -- again, otherwise


def test_a_limit_is_one_of_each_file(tmp_path: Path, tree: Path, fake: FakeServer, classify: Command) -> None:
    """--limit-rows cuts every file; later the whole of each is done, and the first rows are not paid for again."""
    expected = alone(tree, fake, tmp_path / "alone")
    arguments = ("run", "in", "-o", "out/", "--url", fake.url)
    done = classify(*arguments, "--limit-rows", "3")
    assert f"{3 * 6} rows" in last_line(done)
    assert [record(tmp_path / "out" / name)["rows"] for name in sorted(TREE)] == [3, 3, 3, 3, 3, 3, 0]
    first = {text for texts in TREE.values() for text in texts[:3]}
    assert set(sent(fake)) == first - {""}
    assert "7 complete already" in last_line(classify("run", "in", "-o", "out/", "--limit-rows", "3", *NOWHERE))
    classify(*arguments)
    assert set(sent(fake)) & first <= {"again"}  # it comes back in a later row
    assert seen(tmp_path / "out") == expected
    assert hidden(tmp_path / "out", "*.checkpoint*") == []


@pytest.mark.usefixtures("tree")
def test_restart_does_every_file_again(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """--restart forgets what is complete and what was begun; the outputs are the same bytes."""
    arguments = ("run", "in", "-o", "out/", "--url", fake.url)
    classify(*arguments)
    first, before = sent(fake), seen(tmp_path / "out")
    classify(*arguments, "--restart")
    assert sent(fake).keys() == first.keys()
    assert seen(tmp_path / "out") == before
    assert hidden(tmp_path / "out", "*.checkpoint*") == []


def test_another_model_continues_no_file_of_the_old_one(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The unfinished file is refused and named, complete and new ones are not; the old model then finishes it."""
    for name, rows in (("a.csv", 2), ("b.csv", 30)):
        write(tmp_path / "in" / name, [f"{name} {n}" for n in range(rows)])
    expected = alone(tmp_path / "in", fake, tmp_path / "alone")
    arguments = ("run", "in", "-o", "out/", "--url", fake.url)
    classify(*arguments, "--limit-rows", "10")
    write(tmp_path / "in/c.csv", ["c.csv 0"])
    sent(fake)
    model, labels = fake.model, fake.labels
    fake.model, fake.labels = "another", ("one", "two", "three")
    done = classify(*arguments, expect=2)
    refusal = [line for line in done.stderr.splitlines()[:-1] if "out/b.csv" in line]
    assert len(refusal) == 1
    assert "model.id" in refusal[0]
    assert "--restart" in refusal[0]
    assert "3 files (1 complete already, 1 failed)" in last_line(done)
    assert sent(fake) == {"c.csv 0": 1}
    fake.model, fake.labels = model, labels
    classify(*arguments)
    assert sent(fake) == {f"b.csv {n}": 1 for n in range(10, 30)}
    assert expected.items() <= seen(tmp_path / "out").items()


def test_answers_are_reused_across_files(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """run.reuse: tonight's new files send only what no file of last night has had, and say how much that was."""
    write(tmp_path / "one/a.csv", [f"text {n}" for n in range(50)])
    write(tmp_path / "one/b.jsonl", [f"other {n}" for n in range(50)])
    write(tmp_path / "two/c.parquet", [f"text {n}" for n in range(25, 75)])
    write(tmp_path / "two/d.csv", [f"other {n}" for n in range(50)])
    expected = alone(tmp_path / "two", fake, tmp_path / "alone")
    options = ("--url", fake.url, "--set", "run.reuse=answers")
    classify("run", "one", "-o", "out1/", *options)
    sent(fake)
    done = classify("run", "two", "-o", "out2/", *options)
    texts = sent(fake)
    new = {f"text {n}" for n in range(50, 75)}
    assert new <= set(texts)
    assert texts.total() <= len(new) + 1  # one, to learn the name of the class that the canary does not show
    assert int(re.findall(r"(\d+) reused", last_line(done))[0]) >= 74
    assert record(tmp_path / "out2/d.csv")["reused_rows"] >= 49
    assert seen(tmp_path / "out2") == expected


# -- days


def test_every_day_of_a_range_is_run_and_finished_ones_are_skipped(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """A day that is missing is named (2) or passed over; when it comes, it alone is done."""
    for day in (1, 3, 4):
        write(tmp_path / f"in/2026-11-0{day}.csv", [f"day {day}"])
    arguments = ("run", "in/{date}.csv", "-o", "out/{date:%Y/%m}/{date}.csv", "--date", "2026-11-01..2026-11-03")
    done = classify(*arguments, "--url", fake.url, expect=2)
    assert "in/2026-11-02.csv: no such file" in last_line(done)
    assert sorted(seen(tmp_path / "out")) == ["2026/11/2026-11-01.csv", "2026/11/2026-11-03.csv"]
    assert sent(fake) == {"day 1": 1, "day 3": 1}
    classify(*arguments, *NOWHERE, "--set", "run.allow_empty=true")
    write(tmp_path / "in/2026-11-02.csv", ["day 2"])
    done = classify(*arguments, "--url", fake.url)
    assert "3 files (2 complete already)" in last_line(done)
    assert sent(fake) == {"day 2": 1}


def test_a_directory_a_day(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Partitions by `{date}`: each day in its directory, each locked; one day of the range alone afterwards is done."""
    for day in ("2026-11-01", "2026-11-02"):
        for name in ("a.csv", "deep/b.jsonl"):
            write(tmp_path / f"in/day={day}" / name, [f"{day} {name}"])
    arguments = ("run", "in/day={date}/", "-o", "out/{date:%d}/")
    classify(*arguments, "--date", "2026-11-01..2026-11-02", "--url", fake.url)
    assert sorted(seen(tmp_path / "out")) == ["01/a.csv", "01/deep/b.jsonl", "02/a.csv", "02/deep/b.jsonl"]
    classify(*arguments, "--date", "2026-11-02", *NOWHERE)
    with Lock(tmp_path / "out/02/.classify.lock"):
        classify(*arguments, "--date", "2026-11-01..2026-11-02", *NOWHERE, expect=75)
        classify(*arguments, "--date", "2026-11-01", *NOWHERE)


async def test_the_day_is_that_of_the_start(tmp_path: Path) -> None:
    """A run that plans after midnight is still that of the evening: the clock of its start decides."""
    for days in (0, 1, 40):
        progress = Progress("quiet")
        progress.started -= timedelta(days=days)
        day = datetime.now().date() - timedelta(days=days)  # noqa: DTZ005 - a day is meant in local time
        config = Config(loader=Loader(input=str(tmp_path / "{date}.csv")), writer=Writer(output="{date:%d}.csv"))
        (pair,) = (await planned(config, progress)).pairs
        assert str(pair.source) == str(tmp_path / f"{day}.csv")
        assert str(pair.output) == f"{day:%d}.csv"


# -- two at once


def test_two_runs_never_write_into_one_directory(tmp_path: Path, fake: FakeServer) -> None:
    """The second is told at once who holds it (75), before it meets a server; the first goes on undisturbed."""
    arguments = slow(tmp_path / "in", fake, 12)
    absolute = ["run", str(tmp_path / "in"), "-o", f"{tmp_path / 'out'}/", *arguments[4:]]
    fake.hold_after = 9
    process = start(absolute)
    while fake.answered.total() < 9:
        time.sleep(0.01)
    code, errors = finish([*absolute[:4], "--url", "http://127.0.0.1:1"])
    assert code == 75
    assert len(errors.splitlines()) == 1
    assert f"pid {process.pid} " in errors
    assert process.poll() is None
    fake.hold_after = None
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert {times for text, times in fake.answered.items() if text not in CANARY} == {1}


# -- what is said


@pytest.mark.usefixtures("broken")
def test_machines_get_json_lines_and_nothing_else(fake: FakeServer, classify: Command) -> None:
    """--log-json: a notice for each bad file, then the record of the command, which lists them; no line is words."""
    done = classify("run", "in", "-o", "out/", "--url", fake.url, "--log-json", expect=2)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert len([each for each in events if each["event"] == "notice"]) == len(BAD)
    assert events[-1]["event"] == "finished"
    assert events[-1]["exit_code"] == 2
    whole = events[-1]["record"]
    assert {"all": 7, "complete already": 0, "failed": 5}.items() <= whole["files"].items()
    assert {(each["input"], each["exit_code"]) for each in whole["failed_files"]} == {
        (f"in/{name.partition(':')[0]}", 2) for name in BAD
    }
    assert whole["rows"] == whole["labelled"] == 3
    assert whole["labels"] == Counter(label_of(text) for text in ("one", "two", "three"))


@pytest.mark.usefixtures("tree")
def test_quiet_says_only_what_came_of_it(fake: FakeServer, classify: Command) -> None:
    """--quiet: no progress, only the closing lines; stdout stays empty."""
    fake.latency_s = 0.3
    done = classify("run", "in", "-o", "out/", "--url", fake.url, "--quiet")
    assert done.stdout == ""
    head, *_, closing = done.stderr.splitlines()
    assert head.startswith("label ")
    assert closing.startswith("out/: 7 files, ")


def test_more_bad_files_than_anybody_reads_are_counted(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Twenty are told one by one, all are in the record, and the last line stays one that can be read."""
    for n in range(60):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/bad{n:02}.csv").write_text("x\n1\n")
    write(tmp_path / "in/good.csv", ["good"])
    done = classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    assert len(done.stderr.splitlines()) < 25
    assert "60 of 61 files failed: " in last_line(done)
    assert len(last_line(done)) < 1500
    assert sorted(seen(tmp_path / "out")) == ["good.csv"]


# -- stores


@pytest.fixture
def stored(tree: Path, bucket: Bucket) -> Iterator[Bucket]:
    """`TREE` below `in/` of a bucket as well; no upload is left unfinished in the end."""
    for name in TREE:
        bucket.put(f"in/{name}", (tree / name).read_bytes())
    bucket.put("in/_SUCCESS", b"")
    yield bucket
    assert bucket.uploads() == []


def outputs_in(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    """What stands below a prefix, without our own files."""
    keys = [key for key in bucket.keys() if key.startswith(prefix) and "/." not in key]  # noqa: SIM118 - it is no dict
    return {key.removeprefix(prefix): bucket.get(key) or b"" for key in keys}


@pytest.mark.slow
def test_from_store_to_store_is_as_from_disk_to_disk(
    tmp_path: Path, tree: Path, stored: Bucket, fake: FakeServer, classify: Command
) -> None:
    """The same relative keys and bytes, a record beside each, nothing kept here; the second night sends nothing."""
    expected = alone(tree, fake, tmp_path / "alone")
    arguments = ("run", stored.uri("in/"), "-o", stored.uri("out/"))
    classify(*arguments, "--url", fake.url, env=stored.environment)
    assert outputs_in(stored, "out/") == expected
    records = [key for key in stored.keys() if key.startswith("out/") and "/." in key]  # noqa: SIM118 - it is no dict
    assert len(records) == len(TREE) + 1  # and that of the whole
    assert list((tmp_path / "state/classify").iterdir()) == []
    done = classify(*arguments, *NOWHERE, env=stored.environment)
    assert f"{stored.uri('out/')}: {len(TREE)} files ({len(TREE)} complete already)" in last_line(done)
    elsewhere = {**stored.environment, "XDG_STATE_HOME": str(tmp_path / "elsewhere")}
    stored.put("in/f.tsv", b"id\ttext\n1\tchanged\n")
    sent(fake)
    classify(*arguments, "--url", fake.url, env=elsewhere)
    assert sent(fake) == {"changed": 1}


def test_a_store_on_one_side_only(
    tmp_path: Path, tree: Path, stored: Bucket, fake: FakeServer, classify: Command
) -> None:
    """A pattern in a store to a directory here, and a directory here to a store: the same bytes, bad files named."""
    expected = alone(tree, fake, tmp_path / "alone")
    sending = ("--url", fake.url)
    classify("run", stored.uri("in/day=*"), "-o", "days/", *sending, env=stored.environment)
    assert seen(tmp_path / "days") == {name: expected[name] for name in TREE if name.startswith("day=")}
    (tree / "bad.csv").write_text("x\n1\n")
    done = classify("run", "in", "-o", stored.uri("up/"), *sending, expect=2, env=stored.environment)
    assert "in/bad.csv" in last_line(done)
    assert outputs_in(stored, "up/") == expected


@pytest.mark.usefixtures("tree")
def test_a_store_that_is_not_there_is_told_once(bucket: Bucket, fake: FakeServer, classify: Command) -> None:
    """No such bucket: exit 2, nothing is sent; a store that can't be reached: 75. One line, not one a file."""
    run_in = ("run", "in", "--url", fake.url)
    environment = bucket.environment
    done = classify(*run_in, "-o", "s3://nobody-has-it/out/", expect=2, env=environment)
    complaint(done, "no bucket nobody-has-it")
    environment = {**bucket.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    complaint(classify(*run_in, "-o", bucket.uri("out/"), expect=75, env=environment), "try again later")
    assert fake.requests == []


@pytest.mark.slow
def test_two_runs_never_write_below_one_prefix(
    tmp_path: Path, fake: FakeServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one machine the second is told at once who holds the prefix (75)."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    arguments = slow(tmp_path / "in", fake, 12)
    absolute = ["run", str(tmp_path / "in"), "-o", bucket.uri("out/"), *arguments[4:]]
    fake.hold_after = 9
    process = start(absolute)
    while fake.answered.total() < 9:
        time.sleep(0.01)
    code, errors = finish([*absolute[:4], "--url", "http://127.0.0.1:1"])
    assert code == 75
    assert f"pid {process.pid} " in errors
    kill_group(process)
    fake.hold_after, fake.latency_s = None, 0
    assert finish(absolute)[0] == 0
    assert len(outputs_in(bucket, "out/")) == 12


@pytest.mark.slow
def test_the_total_counts_files_that_are_not_opened_yet(tmp_path: Path, fake: FakeServer) -> None:
    """The rows of all files are estimated by their bytes: the last of 60 may be the largest."""
    for number in range(60):
        write(tmp_path / f"in/{number:02}.csv", [f"text {number}"])
    write(tmp_path / "in/99.csv", [f"text {number}" for number in range(20_000)])
    fake.hold_after = 8
    with running(tmp_path, "run", "in", "-o", "out/", "--url", fake.url, "--log-json") as process:
        assert process.stderr
        line = next(line for line in process.stderr if '"progress"' in line)
        process.kill()
    assert 15_000 < json.loads(line)["rows_total"] < 40_000


def test_a_commit_that_fails_does_not_hide_a_worse_failure(
    tmp_path: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code of a run that an error ends is that of the worst of its files, whatever ended it."""
    write(tmp_path / "in/a.csv", ["a"])
    write(tmp_path / "in/b.csv", [f"text {number}" for number in range(40_000)])
    fake.hold_after = 8

    def fail(_: RunFile) -> None:
        raise OutputError("out/b.csv: can't be written")

    monkeypatch.setattr(RunFile, "commit_if_free", fail)
    config = Config(
        loader=Loader(input=str(tmp_path / "in")),
        writer=Writer(output=f"{tmp_path}/out/"),
        server=Server(url=fake.url),
    )
    (tmp_path / "out").mkdir()
    with Lock(tmp_path / "out/.a.csv.lock"), pytest.raises(ClassifyError, match="can't be written; 1 of 2") as ended:
        run(config)
    assert ended.value.exit_code == 75


def test_what_a_directory_holds_and_is_not_read_is_said_once(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Hidden files of a known format, as macOS and Jupyter make them, and files of no known one; not our own."""
    for name in ("a.csv", "._a.csv", ".ipynb_checkpoints/a.csv", "in_labelled/b.csv"):
        write(tmp_path / "in" / name, ["a"])
    for name in ("notes.txt", "_SUCCESS", "y.txt"):
        (tmp_path / "in" / name).touch()
    said = "in: left out: ._a.csv, .ipynb_checkpoints/a.csv, notes.txt and 1 more: they are hidden, or"
    for _ in range(2):
        done = classify("run", "in", "-o", "in/in_labelled/", "--url", fake.url)
        assert done.stderr.count("left out") == 1
        assert said in done.stderr
    assert said in classify("check", "in", "-o", "in/in_labelled/", "--url", fake.url).stdout


def test_status_of_a_directory_knows_what_was_not_classified(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """A file that can't be opened has no output, and a killed run had files that it did not come to."""
    write(tmp_path / "in/a.csv", ["a"])
    (tmp_path / "in/b.csv").write_text("other\nb\n")
    classify("run", "in", "-o", "out/", "--url", fake.url, expect=2)
    shown = classify("status", "out").stdout
    assert "out: incomplete, 1 rows\nfiles: 1 complete, 1 not classified\n" in shown
    assert "not classified: in/b.csv: no column 'text'" in shown
    write(tmp_path / "in/b.csv", ["b"])
    classify("run", "in", "-o", "out/", "--url", fake.url)
    assert "out: complete, 2 rows\nfiles: 2 complete\n" in classify("status", "out").stdout
    for name in "cd":
        write(tmp_path / f"in/{name}.csv", [name])
    fake.hold_after, last = fake.answered.total(), tmp_path / "out/.classify.run.json"
    ended = last.read_text()
    with running(tmp_path, "run", "in", "-o", "out/", "--url", fake.url):
        until = time.monotonic() + 20
        while not classify("status", "out").stdout.startswith("out: running, 2 rows\n") or last.read_text() == ended:
            assert time.monotonic() < until, "the run does not begin"
    fake.hold_after = None
    assert classify("status", "out").stdout.startswith("out: interrupted, 2 rows\n")
    assert "goes on from here" in classify("status", "out").stdout
