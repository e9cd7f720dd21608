"""`classify report` from outside: outputs of every format, what they are compared with, and every way to say no."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command, complaint
from fake import FakeServer, label_of
from files import write
from labelled import Labelled, made_up, write_labelled
from s3 import Bucket

from pipeline.report.document import Document

TEXTS: list[str | None] = [*(f"text {number}" for number in range(300)), "", "text 7"]
ROWS = [*made_up(1500, 1), Labelled(None, None, "too_long: 900 tokens, the model takes 512", "spam", "a long one")]


def report(path: Path) -> Document:
    """A report's JSON."""
    found: Document = json.loads(path.read_text())
    return found


def numbers(found: Document) -> dict[str, Any]:
    """What does not depend on which file it was."""
    return {
        key: value for key, value in found.items() if key not in {"output", "digest", "started", "seconds", "files"}
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "arrow", "parquet"])
def test_every_format_gives_the_same_numbers(ending: str, tmp_path: Path, classify: Command) -> None:
    """An output is an output: the same rows, the same report, the rows that are shown among it."""
    for name in (f"out.{ending}", "reference.parquet"):
        write_labelled(tmp_path / name, ROWS)
        classify("report", name, "--truth", "truth", "-o", f"{name}.md")
    found = report(tmp_path / f"out.{ending}.json")
    assert numbers(found) == numbers(report(tmp_path / "reference.parquet.json"))
    assert found["rows"] == {"all": 1501, "labelled": 1500, "failed": 1, "empty": 0}
    assert found["text"] == "text"
    assert found["errors"][0]["examples"][0]["text"] == "a long one"


def test_an_output_is_read_as_its_record_says(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Prefix, text column, encoding and delimiter need not be said again; one without a header is read, too."""
    fake.labels = ("schlecht", "häßlich", "gut")
    body = "".join(f"text {number};{number}\n" for number in range(50))
    (tmp_path / "in.csv").write_bytes(f"größe;zahl\n{body}".encode("latin-1"))
    (tmp_path / "bare.csv").write_text(body)
    shared = ["--url", fake.url, "--set", "loader.delimiter=;", "--set", "loader.encoding=latin-1"]
    classify("run", "in.csv", "-o", "out.csv", "-t", "größe", *shared, "--set", "writer.prefix=p_")
    classify("run", "bare.csv", "-o", "bare_out.csv", "-t", "column_1", *shared, "--set", "loader.header=false")
    for name in ("out", "bare_out"):
        classify("report", f"{name}.csv", "-o", f"{name}.json")
        found = report(tmp_path / f"{name}.json")
        assert found["rows"]["labelled"] == 50
        assert {each["label"] for each in found["labels"]} <= {*fake.labels}
        assert found["labels"][0]["unsure"][0]["text"].startswith("text ")
        assert found["model"]["id"] == "fake"
        assert len(found["model"]["canary"]) == 4


def test_a_directory_is_one_report(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Its outputs are summed, what else is there is left out, and a row is told with its file."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in" / "a.csv", TEXTS)
    write(tmp_path / "in" / "deep" / "b.jsonl", TEXTS[:100])
    classify("run", "in", "-o", "out/", "--url", fake.url)
    (tmp_path / "out" / "notes.csv").write_text("a,b\n1,2\n")
    classify("report", "out/", "-o", "all.json")
    found = report(tmp_path / "all.json")
    assert (found["files"], found["rows"]["all"], found["rows"]["empty"]) == (2, 402, 1)
    texts = [*TEXTS[:300], "text 7", *TEXTS[:100]]
    assert found["labels"][0]["rows"] == max(
        sum(label_of(text or "") == each for text in texts) for each in fake.labels
    )
    shown = found["labels"][0]["unsure"][0]
    assert shown["file"] in ("out/a.csv", "out/deep/b.jsonl")
    classify("report", "out/a.csv", "out/deep/b.jsonl", "-o", "both.json")
    assert numbers(report(tmp_path / "both.json")) == numbers(found)
    classify("report", "out/*.csv", "-o", "glob.json", expect=2)
    (tmp_path / "out" / "notes.csv").unlink()
    classify("report", "out/*.csv", "-o", "glob.json")
    assert report(tmp_path / "glob.json")["rows"]["all"] == 302


def test_outputs_in_a_store(tmp_path: Path, bucket: Bucket, classify: Command) -> None:
    """The output, what it is compared with, and the report may all be objects."""
    now, then = (write_labelled(tmp_path / f"{seed}.parquet", made_up(500, seed)).read_bytes() for seed in (1, 2))
    bucket.put("now.parquet", now)
    bucket.put("then.parquet", then)
    base = f"s3://{bucket.name}"
    arguments = ("report", f"{base}/now.parquet", "--against", f"{base}/then.parquet", "-o", f"{base}/r.md")
    classify(*arguments, env=bucket.environment)
    assert b"Label shares" in (bucket.get("r.md") or b"")
    assert json.loads(bucket.get("r.json") or b"")["drift"]["against"]["rows"]["all"] == 500


def test_accuracy_drift_and_exit_codes(tmp_path: Path, classify: Command) -> None:
    """A worse night is a warning, and 5 if it is asked for; the terminal says each check, the JSON has the code."""
    write_labelled(tmp_path / "then.parquet", made_up(3000, 1))
    write_labelled(tmp_path / "now.parquet", made_up(3000, 2, accuracy=0.75))
    compare = ("report", "now.parquet", "--truth", "truth", "--against", "then.parquet")
    assert "WARN Accuracy against then: lost " in classify(*compare, "-o", "r.json").stdout
    done = classify(*compare, "-o", "r.json", "--fail-on", "drift,regression", expect=5)
    assert "FAIL Accuracy against then: lost " in done.stdout
    assert done.stdout.splitlines()[-1] == "now.parquet: 3,000 rows; do not use these labels without a look"
    found = report(tmp_path / "r.json")
    assert (found["verdict"], found["exit_code"]) == ("fail", 5)
    classify(*compare, "-o", "r.json", "--fail-on", "calibration")
    limits = ("--set", "report.limits.accuracy_drop=0.5", "--set", "report.limits.score_shift=0.9")
    assert "WARN" not in classify(*compare, "-o", "r.json", *limits).stdout


def test_a_report_stands_for_its_output(tmp_path: Path, classify: Command) -> None:
    """As what is compared with, and in the place of the output: drawn again, nothing is counted."""
    write_labelled(tmp_path / "then.parquet", made_up(1000, 1))
    write_labelled(tmp_path / "now.parquet", made_up(1000, 2))
    classify("report", "then.parquet", "--truth", "truth", "-o", "then.json")
    classify("report", "now.parquet", "--truth", "truth", "--against", "then.parquet", "-o", "a.json")
    (tmp_path / "then.parquet").unlink()
    classify("report", "now.parquet", "--truth", "truth", "--against", "then.json", "-o", "b.json")
    assert report(tmp_path / "a.json")["drift"]["labels"] == report(tmp_path / "b.json")["drift"]["labels"]
    (tmp_path / "now.parquet").unlink()
    done = classify("report", "b.json", "-o", "again.md", "--json")
    again = json.loads(done.stdout)
    assert numbers(again) == numbers(report(tmp_path / "b.json"))
    assert (tmp_path / "again.md").read_text().startswith("<!-- classify report -->\n### ✅ These labels fail no check")
    complaint(classify("report", "b.json", "--truth", "truth", expect=2), "is a report and has no rows")
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text().replace('"share":', '"shore":'))
    complaint(classify("report", "b.json", expect=2), "b.json: is a damaged report")


def test_the_last_nights_are_looked_up_in_the_history(tmp_path: Path, classify: Command) -> None:
    """The first night has nothing to be compared with; a failed one is not the next one's normal; no texts are kept."""
    asked = ("report", "out.parquet", "--against", "last 2", "--fail-on", "drift", "-o", "r.json")
    nights = [(made_up(2000, 1), 0), (made_up(2000, 2), 0), (made_up(2000, 3, (0, 0, 1, 9)), 5), (made_up(2000, 4), 0)]
    for at, (rows, code) in enumerate(nights):
        write_labelled(tmp_path / "out.parquet", rows)
        done = classify(*asked, expect=code)
        assert ("not compared: there is no last run yet in" in done.stdout) == (at == 0)
        classify(*asked, expect=code)  # the same night again is no other one
    found = report(tmp_path / "r.json")
    assert (found["drift"]["against"]["nights"], found["drift"]["against"]["rows"]["all"]) == (2, 4000)
    lines = (tmp_path / ".out.parquet.history.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["unjudged", "pass", "fail", "pass"]
    assert "text 1" not in "".join(lines)
    assert max(map(len, lines)) < 15_000
    (tmp_path / ".out.parquet.history.jsonl").write_text("\n".join([*lines[:2], "{broken", ""]))
    complaint(classify(*asked, expect=2), ".out.parquet.history.jsonl:3: is no line of a history", "remove the file")
    assert "{broken" in (tmp_path / ".out.parquet.history.jsonl").read_text()


def test_a_drawn_report_keeps_its_verdict(tmp_path: Path, classify: Command) -> None:
    """Whatever `fail_on` made it fail is not asked again where nothing is compared."""
    write_labelled(tmp_path / "then.csv", made_up(2000, 1))
    write_labelled(tmp_path / "now.csv", made_up(2000, 2, (0, 0, 1, 9)))
    classify("report", "now.csv", "--against", "then.csv", "--fail-on", "drift", "-o", "now.report.json", expect=5)
    classify("report", "now.report.json", "-o", "again.md", expect=5)
    assert "❌" in (tmp_path / "again.md").read_text()


@pytest.mark.slow
def test_what_is_compared_with_is_not_replaced(tmp_path: Path, classify: Command) -> None:
    """Else each night would be compared with the one before, unnoticed; nor is a file read that can't be a report."""
    write_labelled(tmp_path / "out.csv", made_up(100, 1))
    classify("report", "out.csv", "-o", "base.json")
    done = classify("report", "out.csv", "--against", "base.json", "-o", "base.json", expect=2)
    complaint(done, "base.json: is what the labels are compared with")
    (tmp_path / "zero.md").symlink_to("/dev/zero")
    complaint(classify("report", "out.csv", "-o", "zero.md", expect=2), "zero.md: is no regular file")
    kept = ("--set", "report.history=zero.md")
    complaint(classify("report", "out.csv", "-o", "a.md", *kept, expect=2), "zero.md: is no regular file")
    assert not (tmp_path / "a.md").exists()
    write_labelled(tmp_path / "none.csv", [])
    complaint(classify("report", "out.csv", "--against", "none.csv", expect=2), "none.csv: has no rows")


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.struct([("a", pa.int64())])], ids=str)
def test_a_truth_that_is_no_label(kind: pa.DataType, tmp_path: Path, classify: Command) -> None:
    """A list or a struct is a mistake of the person, not of the program."""
    write_labelled(tmp_path / "out.parquet", made_up(10, 1))
    table = pq.read_table(tmp_path / "out.parquet")
    pq.write_table(table.append_column("odd", pa.nulls(10, kind)), tmp_path / "out.parquet")
    complaint(classify("report", "out.parquet", "--truth", "odd", expect=2), "a truth of the type")


def test_names_of_the_truth_can_be_translated(tmp_path: Path, classify: Command) -> None:
    """Where no value of the truth is a label, three of both are shown, and the key that says what they are called."""
    rows = [row._replace(truth={"spam": "0", "refund": "1"}.get(row.truth or "", "2")) for row in made_up(300, 1)]
    write_labelled(tmp_path / "out.csv", rows)
    done = classify("report", "out.csv", "--truth", "truth", expect=2)
    complaint(done, "no value of the truth 'truth' is a label", "'2', ", "'billing'", "report.truth_map")
    mapped = ("--set", 'report.truth_map={"0"="spam", "1"="refund"}')
    done = classify("report", "out.csv", "--truth", "truth", "-o", "r.json", *mapped)
    assert "macro F1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("out.csv", "--truth", "trut"), ("no column 'trut'", "did you mean 'truth'?")),
        (("missing.csv",), ("missing.csv: no such file",)),
        (("in.csv",), ("no column 'predicted_label'", "is it an output of `classify run`?")),
        (("out.csv", "--against", "missing.csv"), ("missing.csv: there is nothing to compare with",)),
        (("out.csv", "-o", "r.pdf"), ("report.output ends in .html, .md, .json", "'r.pdf'")),
        (("out.csv", "--fail-on", "drfit"), ("report.fail_on[0]: expected an array of", "drift", "not 'drfit'")),
        (("out.csv", "--set", "report.limits.shift=1"), ("report.limits.shift: there is no such check",)),
        (("out.csv", "--set", "report.limits.ece=x"), ("report.limits.ece: expected a number",)),
        (("out.csv", "--set", "report.limits.ece=50"), ("is a share from 0 to 1",)),
        (("out.csv", "other.csv"), ("several outputs: name the report with --output",)),
        (("out.csv", "-o", "in.json"), ("in.json: exists, and is no report",)),
        (("out.csv", "-o", "no/r.json"), ("no/r.json: its directory does not exist",)),
        (("empty",), ("empty: no output of a run is there",)),
        (("old.json",), ("is a report of version 0", "make it anew")),
    ],
)
def test_what_can_not_be_done_is_said_in_a_line(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, classify: Command
) -> None:
    """What is wrong, and what to type instead; nothing is written."""
    write_labelled(tmp_path / "out.csv", made_up(30, 1))
    write_labelled(tmp_path / "other.csv", made_up(30, 1))
    write(tmp_path / "in.csv", ["a"])
    (tmp_path / "in.json").write_text('[{"text": "a"}]')
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.json").write_text('{"version": 0, "rows": {}, "labels": [], "scores": {}, "truth": null}')
    before = {path.name for path in tmp_path.iterdir()}
    complaint(classify("report", *arguments, expect=2), *words)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"state"}


def test_a_label_that_is_no_text_or_score_is_said(tmp_path: Path, classify: Command) -> None:
    """A column of another program that is called like ours."""
    (tmp_path / "out.csv").write_text("predicted_label,predicted_score,predicted_error\na,much,\n")
    complaint(classify("report", "out.csv", expect=2), "the column 'predicted_score' holds no numbers")


def test_files_without_rows_have_a_report(tmp_path: Path, classify: Command) -> None:
    """It says that there is nothing."""
    for name in ("out.csv", "out.parquet"):
        write_labelled(tmp_path / name, [])
        done = classify("report", name, "-o", "r.json", "--truth", "truth")
        assert done.stdout.splitlines()[-1].startswith(f"{name}: 0 rows; too little to judge these labels by")


def test_without_matplotlib_all_but_the_page_works(tmp_path: Path, classify: Command) -> None:
    """The numbers are the default then, and a page says what to install before anything is read."""
    write_labelled(tmp_path / "out.csv", made_up(30, 1))
    for name in ("matplotlib", "jinja2"):  # as if they were not installed
        (tmp_path / "hidden" / name).mkdir(parents=True)
    code = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'jinja2' else f(n, *a)"
    )
    shutil.rmtree(tmp_path / "hidden")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(code)
    env = {"PYTHONPATH": f"{tmp_path / 'hidden'}:{Path(__file__).parents[2]}"}
    done = classify("report", "out.csv", env=env)
    assert "report: out.report.json" in done.stderr
    classify("report", "out.csv", "-o", "r.md", env=env)
    complaint(
        classify("report", "missing.csv", "-o", "r.html", env=env, expect=2), 'pip install "classify-pipeline[report]"'
    )


@pytest.mark.slow
def test_a_terminal_without_blocks_gets_plain_characters(tmp_path: Path, classify: Command) -> None:
    """Whatever it can show, the numbers are there."""
    write_labelled(tmp_path / "out.csv", made_up(300, 1))
    done = classify("report", "out.csv", "--json", env={"PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)["rows"]["all"] == 300
    assert not (tmp_path / "out.report.json").exists()
    done = classify("report", "out.csv", "-o", "r.json", env={"PYTHONIOENCODING": "ascii"})
    assert "##########" in done.stdout
    assert done.stdout.isascii()
