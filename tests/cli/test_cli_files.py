"""What a user can get wrong with files: one line that says what, where and what to do; exit code 2; nothing touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import NOWHERE, Command, complaint
from fake import FakeServer
from files import snapshot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small CSV."""
    path = tmp_path / "in.csv"
    path.write_text("id,review\n1,good\n2,bad\n")
    return path


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test works where the command does."""
    monkeypatch.chdir(tmp_path)


# -- the input


def test_an_input_that_cannot_be_read_is_named(classify: Command, tmp_path: Path, source: Path) -> None:
    """Missing, a directory, of unknown ending, or none at all: the file is named, and a way out where there is one."""
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "data.docx").write_bytes(b"PK")
    before = snapshot(tmp_path)
    complaint(classify("run", "-i", "gone.csv", *NOWHERE, expect=2), "gone.csv", "no such file")
    complaint(classify("run", "-i", "folder.csv", *NOWHERE, expect=2), "folder.csv", "directory")
    complaint(classify("run", "-i", "data.docx", *NOWHERE, expect=2), "data.docx", ".parquet")
    complaint(classify("run", *NOWHERE, expect=2), "--input")
    complaint(classify("run", "gone.toml", *NOWHERE, expect=2), "gone.toml")
    complaint(classify("run", source, "-i", source, *NOWHERE, expect=2), "in.csv")
    assert snapshot(tmp_path) == before


def test_a_wrong_column_names_those_that_are_there(classify: Command, tmp_path: Path, source: Path) -> None:
    """CSV, JSONL and Parquet: the column that was asked for, the columns there are, and the likely one."""
    (tmp_path / "in.jsonl").write_text('{"id": 1, "review": "a"}\n' * 3)
    pq.write_table(pa.table({"id": [1], "review": ["a"]}), tmp_path / "in.parquet")
    before = snapshot(tmp_path)
    for name in (source.name, "in.jsonl", "in.parquet"):
        done = classify("run", "-i", name, "-t", "reveiw", *NOWHERE, expect=2)
        complaint(done, name, "'reveiw'", "id, review", "did you mean 'review'")
    complaint(classify("run", "-i", source, *NOWHERE, expect=2), "'text'", "id, review", "--text-column")
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("source")
def test_a_text_column_that_is_named_twice_is_a_mistake(classify: Command) -> None:
    """Each text would be sent twice over; `check` says the same."""
    for command in ("run", "check"):
        done = classify(command, "-i", "in.csv", "-t", "review", "-t", "id", "-t", "review", *NOWHERE, expect=2)
        complaint(done, "the text column 'review' is named twice")


def test_a_wrong_delimiter_is_guessed(classify: Command, tmp_path: Path) -> None:
    """A header that is one cell with semicolons in it leads to loader.delimiter."""
    (tmp_path / "in.csv").write_text("id;text\n1;a\n")
    complaint(classify("run", "-i", "in.csv", *NOWHERE, expect=2), "loader.delimiter", ";")


def test_a_text_column_of_another_type_is_named(classify: Command, tmp_path: Path) -> None:
    """A column of integers is no text: said with its type."""
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "in.parquet")
    complaint(classify("run", "-i", "in.parquet", *NOWHERE, expect=2), "in.parquet", "'text'", "int64", "string")


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", ("empty.csv", "empty", "allow_empty")),
        ("bad.parquet", b"PAR1 but no more", ("bad.parquet", "Parquet")),
        ("bad.csv.gz", b"no gzip", ("bad.csv.gz", "gzip")),
        ("bad.jsonl", b'{"text": "a"}\n[1]\n', ("bad.jsonl:2", "JSON")),
        ("ragged.csv", b"id,text\n1,a\n2\n", ("ragged.csv:3", "on_bad_line")),
        ("latin.csv", b"id,text\n1,gr\xfc\xdfe\n", ("latin.csv:2", "loader.encoding")),
        ("open.csv", b'id,text\n1,"never closed\n', ("open.csv:2", "quote")),
        ("twice.csv", b"text,text\na,b\n", ("twice.csv", "'text'", "twice")),
        ("done.csv", b"text,predicted_label\na,b\n", ("done.csv", "'predicted_label'", "writer.prefix")),
    ],
)
def test_a_broken_input_is_named_with_its_line(
    name: str, content: bytes, words: tuple[str, ...], classify: Command, fake: FakeServer
) -> None:
    """What is wrong in the file is said with file and line, and what to do."""
    Path(name).write_bytes(content)
    complaint(classify("run", "-i", name, "-o", "out.jsonl", "--url", fake.url, expect=2), *words)
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("in.csv", b"id,text\r\n"), ("in.jsonl", b""), ("in.parquet", None), ("in.tsv", b"text\n")]
)
def test_no_rows_are_no_mistake(
    name: str, content: bytes | None, classify: Command, tmp_path: Path, fake: FakeServer
) -> None:
    """A header without rows gives a header or schema with the new columns, and nothing is sent."""
    if content is None:
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    classify("run", "-i", name, "-o", "out.parquet", "--url", fake.url)
    assert fake.requests == []
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    assert "predicted_label" in pq.read_schema(tmp_path / "out.parquet").names


# -- the output


def test_the_output_is_never_the_input(classify: Command, tmp_path: Path, source: Path) -> None:
    """By name, another spelling, a symlink, a hard link or a directory: exit 2, always, and the input is untouched."""
    (tmp_path / "link.csv").symlink_to("in.csv")
    (tmp_path / "hard.csv").hardlink_to(source)
    (tmp_path / "sub").mkdir()
    before = snapshot(tmp_path)
    for output in ("in.csv", "./in.csv", "sub/../in.csv", source, "link.csv", "hard.csv", ".", "./"):
        done = classify("run", "-i", "in.csv", "-t", "review", "-o", output, "--overwrite", *NOWHERE, expect=2)
        complaint(done, "is the input")
    done = classify("run", "-i", "link.csv", "-t", "review", "-o", "in.csv", *NOWHERE, expect=2)
    complaint(done, "is the input")
    assert snapshot(tmp_path) == before


def test_an_output_without_a_place_is_named(classify: Command, tmp_path: Path, source: Path) -> None:
    """Its directory is missing or a file, or its ending names no format: nothing is made."""
    before = snapshot(tmp_path)
    text = ("run", "-i", source.name, "-t", "review", *NOWHERE)
    complaint(classify(*text, "-o", "gone/out.csv", expect=2), "gone", "does not exist")
    complaint(classify(*text, "-o", "out.xlsx", expect=2), "out.xlsx", ".parquet")
    complaint(classify(*text, "-o", "in.csv/out.csv", expect=2), "in.csv")
    complaint(classify(*text, "-o", "in.csv/", expect=2), "in.csv")
    assert snapshot(tmp_path) == before


def test_an_output_that_is_not_ours_stays(classify: Command, tmp_path: Path, source: Path, fake: FakeServer) -> None:
    """A file of somebody else is refused, untouched, before anything is sent; --overwrite replaces it."""
    (tmp_path / "out.csv").write_text("precious")
    text = ("run", "-i", source.name, "-t", "review", "-o", "out.csv", "--url", fake.url)
    complaint(classify(*text, expect=2), "out.csv", "--overwrite")
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert fake.requests == []
    classify(*text, "--overwrite")
    assert (tmp_path / "out.csv").read_text().startswith("id,review,predicted_label")


def test_our_output_that_was_edited_stays(classify: Command, tmp_path: Path, source: Path, fake: FakeServer) -> None:
    """Somebody's corrections in our output are not overwritten by the next run."""
    text = ("run", "-i", source.name, "-t", "review", "-o", "out.csv", "--url", fake.url)
    classify(*text)
    with (tmp_path / "out.csv").open("a") as file:
        file.write("3,mine,x,1,\n")
    complaint(classify(*text, expect=2), "out.csv", "--overwrite")
    assert (tmp_path / "out.csv").read_text().endswith("3,mine,x,1,\n")


def test_a_directory_that_takes_no_file_is_named(classify: Command, tmp_path: Path, source: Path) -> None:
    """A read-only directory is exit 2."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    done = classify("run", "-i", source.name, "-t", "review", "-o", "closed/out.csv", *NOWHERE, expect=2)
    complaint(done, "closed")


def test_another_run_holds_the_output(classify: Command, tmp_path: Path, source: Path) -> None:
    """Exit 75 and the holder's process; the holder's files are left alone."""
    from pipeline.checkpoint import Lock

    with Lock(tmp_path / ".out.csv.lock"):
        done = classify("run", "-i", source.name, "-t", "review", "-o", "out.csv", *NOWHERE, expect=75)
    complaint(done, f"pid {os.getpid()}")


def test_a_checkpoint_of_another_run_is_refused(classify: Command, tmp_path: Path, source: Path) -> None:
    """Garbage in the checkpoint's place is exit 2 with the way out, and --restart takes that way."""
    (tmp_path / ".out.csv.checkpoint").write_bytes(b"garbage" * 1000)
    text = ("run", "-i", source.name, "-t", "review", "-o", "out.csv", *NOWHERE)
    complaint(classify(*text, expect=2), ".out.csv.checkpoint", "--restart")
    assert "--restart" not in classify(*text, "--restart", expect=75).stderr


# -- what reaches a terminal


ODD = "ü\x1b[2J\x9b1m\u202e"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_text_can_be_shown_in_any_encoding(
    encoding: str, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """What an encoding lacks and what a terminal would obey is escaped: of texts, columns, labels, and file names."""
    fake.labels = ("eins \x1b[31m", "zwei \u20ac", "drei \U0001f600")
    name = f"in {ODD}.csv"
    (tmp_path / name).write_text(f'id,"text {ODD}"\n1,a\n2,b\n', encoding="utf-8")
    fresh = {"PYTHONIOENCODING": encoding}
    given = ("-i", name, "-t", f"text {ODD}", "--url", fake.url)
    said = [
        classify("text", ODD, "a", "b", "c", "--url", fake.url, env=fresh),
        classify("text", ODD, "a", "b", "c", "--url", fake.url, "--json", env=fresh),
        classify("check", *given, env=fresh),
        classify("run", *given, "-o", f"out {ODD}.csv", env=fresh),
        classify("status", f"out {ODD}.csv", env=fresh),
        classify("run", "-i", name, "-t", "nein\x1b[2J", "--url", fake.url, env=fresh, expect=2),
    ]
    shown = "".join(done.stdout + done.stderr for done in said)
    assert not [character for character in shown if character in "\x1b\x9b\u202e"]
    assert [json.loads(line)["text"] for line in said[1].stdout.splitlines()] == [ODD, "a", "b", "c"]
    labels = {json.loads(line)["label"] for line in said[1].stdout.splitlines()}
    assert labels <= set(fake.labels)


@pytest.mark.slow
def test_a_deleted_working_directory_is_a_message(tmp_path: Path) -> None:
    """Relative paths mean nothing there: exit 2 and what to do, whatever first looks at one."""
    (tmp_path / "in.csv").write_text("text\na\n")
    inside = tmp_path / "gone"
    reuse = ["run", "-i", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "--set", "run.reuse=r"]
    for words in (["status", "."], ["run", "-i", ".", "-o", "out/"], reuse):
        inside.mkdir()
        code = "import os, sys; os.rmdir(os.getcwd()); from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=inside, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
