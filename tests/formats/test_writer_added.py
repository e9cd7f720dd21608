"""The columns that are added, in every format, and whole runs of the command over unusual files."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import answers_of
from commands import Command
from fake import FakeServer, label_of
from files import rows_of
from joining import ADDED, joined, predictions_of


def added_of(tmp_path: Path, source: str, out: str, **settings: Any) -> list[dict[str, Any]]:
    """Return the appended columns of three rows, the second of which failed, with CSV cells as values."""
    path = tmp_path / f"in.{source}"
    if source == "parquet":
        pq.write_table(pa.table({"text": ["a", "b", "c"]}), path)
    else:
        path.write_text("text\na\nb\nc\n" if source == "csv" else "".join(f'{{"text": "{x}"}}\n' for x in "abc"))
    predictions = predictions_of(3, failed=[1])
    predictions.truncated = frozenset({2})
    tally = joined(path, tmp_path / f"out.{out}", predictions, **settings)
    assert tally.labels == {"no": 2}
    assert tally.codes == {"rejected": 1}
    rows = rows_of(tmp_path / f"out.{out}")
    for row in rows:
        assert row.pop("text") in "abc"
    return [{name: _value(name, cell) for name, cell in row.items()} for row in rows] if out == "csv" else rows


def _value(name: str, cell: str) -> Any:
    if cell == "":
        return None
    return cell if name.endswith(("label", "error")) else json.loads(cell)


FORMATS = ["csv", "jsonl", "parquet"]


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_the_added_columns(source: str, out: str, tmp_path: Path) -> None:
    """Label, score and error come in this order; a failed row has its error and nulls, the others have no error."""
    assert added_of(tmp_path, source, out) == [
        dict(zip(ADDED, values, strict=True))
        for values in [("no", 0.5, None), (None, None, "rejected: no"), ("no", 0.501953125, None)]
    ]


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_probabilities_as_a_list(source: str, out: str, tmp_path: Path) -> None:
    """`probs = "list"` is a list in class order (JSON text in CSV), null where the row failed."""
    rows = added_of(tmp_path, source, out, probs="list", prefix="p_")
    assert [list(row) for row in rows] == [["p_label", "p_score", "p_error", "p_probs"]] * 3
    assert [row["p_probs"] for row in rows] == [[0.5, 0.5], None, [0.501953125, 0.498046875]]


@pytest.mark.parametrize("labels", [None, ["no", "yes"]])
@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_probabilities_as_columns(source: str, out: str, labels: list[str] | None, tmp_path: Path) -> None:
    """`probs = "columns"` has one column a class, numbered, or named by `labels`; then comes `truncated`."""
    rows = added_of(tmp_path, source, out, probs="columns", labels=labels, request={"too_long": "truncate"})
    first, second = (f"predicted_prob_{each}" for each in labels or (0, 1))
    assert [list(row) for row in rows] == [[*ADDED, first, second, "predicted_truncated"]] * 3
    assert [row[first] for row in rows] == [0.5, None, 0.501953125]
    assert [row[second] for row in rows] == [0.5, None, 0.498046875]
    assert [row["predicted_truncated"] for row in rows] == [False, False, True]


@pytest.mark.parametrize("delimiter", ["e", "-", "1", "9", ".", ";", "|"])
def test_a_delimiter_that_numbers_are_written_with(delimiter: str, tmp_path: Path) -> None:
    """A number that holds the file's delimiter stands in quotes, wherever it is added."""
    (tmp_path / "in.csv").write_text(f"id{delimiter}b\n7{delimiter}x\n8{delimiter}y\n")
    predictions = answers_of(["no", "no"], [0.99999, 0.91], [[0.99999, 1e-9], [0.91, 0.09]])
    joined(
        tmp_path / "in.csv",
        tmp_path / "out.csv",
        predictions,
        loader={"text_column": "b", "delimiter": delimiter},
        probs="columns",
    )
    rows = rows_of(tmp_path / "out.csv", delimiter=delimiter)
    assert [(float(row["predicted_score"]), float(row["predicted_prob_1"])) for row in rows] == [
        (0.99999, 1e-9),
        (0.91, 0.09),
    ]


def test_a_whole_run_keeps_bytes_and_compresses(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A compressed UTF-16 file goes through the command and comes out in its own encoding, its records untouched."""
    content = '"id";text\r\n01;"größe\n;"\r\n02;b'
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(content.encode("utf-16")))
    settings = ("--set", "loader.encoding=utf-16", "--set", "loader.delimiter=;")
    classify("run", "-i", "in.csv.gz", "-o", "out.csv.bz2", "--url", fake.url, *settings)
    lines = bz2.decompress((tmp_path / "out.csv.bz2").read_bytes()).decode("utf-16").split("\r\n")
    assert lines[0] == '"id";text;predicted_label;predicted_score;predicted_error'
    assert lines[1].startswith(f'01;"größe\n;";{label_of("größe" + chr(10) + ";")};')
    assert lines[2].startswith(f"02;b;{label_of('b')};")


def test_bad_inputs_stop_the_command_before_the_first_request(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Exit 2, one line, nothing sent and nothing written: no text, a name taken, a header twice, no such column."""
    pq.write_table(pa.table({"text": [1]}), tmp_path / "number.parquet")
    (tmp_path / "taken.csv").write_text("text,predicted_score\na,1\n")
    (tmp_path / "twice.csv").write_text("text,text\na,b\n")
    (tmp_path / "missing.jsonl").write_text('{"body": "a"}\n')
    for name in ("number.parquet", "taken.csv", "twice.csv", "missing.jsonl"):
        done = classify("run", "-i", name, "-o", "out.csv", "--url", fake.url, expect=2)
        assert len(done.stderr.strip().splitlines()) == 1
        assert name in done.stderr
    assert fake.requests == []
    assert not (tmp_path / "out.csv").exists()


def test_bad_lines_in_the_command(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A ragged line late in the file is exit 2 with file and line; skipped, it is counted in the run's record."""
    (tmp_path / "in.csv").write_text("id,text\n" + "1,a\n" * 20_000 + "2\n3,c\n")
    done = classify("run", "-i", "in.csv", "-o", "out.csv", "--url", fake.url, expect=2)
    assert "in.csv:20002:" in done.stderr
    skip = ("--set", "loader.on_bad_line=skip")
    classify("run", "-i", "in.csv", "-o", "new.csv", "--url", fake.url, *skip)
    assert len(rows_of(tmp_path / "new.csv")) == 20_001
    assert json.loads((tmp_path / ".new.csv.run.json").read_text())["skipped_lines"] == 1


def test_files_without_rows_in_the_command(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A header alone is exit 0; no bytes at all are exit 2, unless that is allowed; nothing is sent."""
    (tmp_path / "header.csv").write_text("id,text\n")
    (tmp_path / "empty.csv").write_text("")
    classify("run", "-i", "header.csv", "-o", "out.csv", "--url", fake.url)
    assert (tmp_path / "out.csv").read_text() == "id,text," + ",".join(ADDED) + "\n"
    classify("run", "-i", "empty.csv", "-o", "out2.csv", "--url", fake.url, expect=2)
    classify("run", "-i", "empty.csv", "-o", "out2.csv", "--url", fake.url, "--set", "run.allow_empty=true")
    assert rows_of(tmp_path / "out2.csv") == []
    assert fake.requests == []
