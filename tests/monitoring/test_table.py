"""The table of labels at the end of a run and of a report, in any terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from commands import Command, last_line
from fake import FakeServer, label_of, refuse, score_of
from files import write

from pipeline.monitoring.record import RunRecord, encode_record, read_record
from pipeline.monitoring.table import LabelRow, label_table
from pipeline.scores import COARSE_BINS
from pipeline.storage import locate

TEXTS = [f"text {n}" for n in range(60)]


def test_each_column_says_what_it_should() -> None:
    """Numbers are right-aligned, bars have eighths, and the shades are the shares below 0.5, 0.9, 0.99 and above."""
    rows = [
        LabelRow("refund", 1_500, 0.75, 0.987, [0.1, 0.1, 0.2, 0.3, 0.3], 0.031, 0.9),
        LabelRow("spam", 500, 0.25, 0.5, [0.5, 0.5, 0, 0, 0], -0.031),
    ]
    assert label_table(rows, 10, blocks=True) == [
        "label    rows   share              change  median  ░<.5 ▒ ▓ █≥.99  right",
        "refund  1,500  75.0 %  ██████████    +3.1   0.987  ░▒▒▒▓▓▓███       90 %",
        "spam      500  25.0 %  ███▍          -3.1   0.500  ░░░░░▒▒▒▒▒",
    ]
    assert label_table(rows, 1, blocks=False) == [
        "label    rows   share              change  median  .<.5 - = #>=.99  right",
        "refund  1,500  75.0 %  ##########    +3.1   0.987  .---===###        90 %",
        "and 1 more labels: 500 rows",
    ]


def test_columns_that_nobody_knows_are_left_out() -> None:
    """Of raw logits there are neither medians nor bands."""
    head, row = label_table([LabelRow("a", 1, 1.0)], 10, blocks=True)
    assert head.split() == ["label", "rows", "share"]
    assert row.split() == ["a", "1", "100.0", "%", "██████████"]


@pytest.mark.parametrize("label", ["x" * 500, "日本語" * 30, "a\u202eb\x1b[31m\n", "é" * 3, "\ud800"])
def test_labels_of_any_kind_keep_the_columns_straight(label: str) -> None:
    """Long ones are cut, wide characters take two columns, and nothing reaches the terminal that it would obey."""
    lines = label_table([LabelRow(label, 7, 0.5), LabelRow("b", 7, 0.5)], 10, blocks=True)
    assert not re.search(r"[\x00-\x1f\u202e]", "".join(lines))
    wide = sum("\u3000" < char < "\ua000" for char in lines[1])
    assert lines[1].index("7  50.0 %") + wide == lines[2].index("7  50.0 %")
    assert max(len(line) for line in lines) < 80


def record_of(path: Path) -> RunRecord:
    """The record beside an output."""
    record = read_record(locate(str(path.with_name(f".{path.name}.run.json"))), RunRecord)
    assert record
    return record


def test_a_run_ends_with_its_labels(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The record has rows by label and score, the terminal the table, what to type next, and the last line as ever."""
    write(tmp_path / "in.csv", [*TEXTS, "", TEXTS[0]])
    fake.rules.append((lambda text: text == "text 7", refuse(400, "too many tokens: 900 of 512")))
    done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, "--set", "request.rows=100", expect=3)
    record = record_of(tmp_path / "out.csv")
    assert {label: sum(counts) for label, counts in record.scores.items()} == record.labels
    assert {len(counts) for counts in record.scores.values()} == {COARSE_BINS}
    lines = done.stderr.splitlines()
    assert lines[0].split()[:3] == ["label", "rows", "share"]
    labels = [line.split()[:2] for line in lines[1 : 1 + len(record.labels)]]
    assert labels == [[label, str(rows)] for label, rows in record.labels.items()]
    scores, shared, failed = lines[1 + len(labels) : 4 + len(labels)]
    assert re.fullmatch(r"scores: 1 % below 0\.\d+, 10 % below .*, median .*; .* % below 0\.5", scores)
    assert shared == "shared: 1 rows repeat the text of another row, which was sent once"
    assert failed.startswith("failed: 1 rows (")
    assert last_line(done).startswith("out.csv: 62 rows in ")


def test_low_scores_name_the_report(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Where a fifth of the scores is below 0.5, the next command is the one that says which of them are right."""
    texts = [str(number) for number in range(9000)]
    sure, low = ([text for text in texts if (score_of(text) >= 0.5) == is_sure] for is_sure in (True, False))
    sure = sure[: 3 * len(low)]
    for name, texts, is_told in (("sure", sure, False), ("low", sure + low, True)):
        write(tmp_path / f"{name}.csv", texts)
        done = classify("run", f"{name}.csv", "-o", f"{name}_out.csv", "--url", fake.url)
        assert (f"`classify report {name}_out.csv --truth COLUMN`" in done.stderr) == is_told
        assert ("`--set writer.min_score=SCORE` marks the rows below it" in done.stderr) == is_told
    done = classify("run", "low.csv", "-o", "set.csv", "--url", fake.url, "--set", "writer.min_score=0.7")
    assert "--truth COLUMN` says from which score on labels are right\n" in done.stderr


def test_texts_that_are_too_long_name_the_setting(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A row that the model can't take is cut on request."""
    write(tmp_path / "in.csv", TEXTS)
    message = "This model's maximum context length is 512 tokens, your request has 900 input tokens"
    fake.rules.append((lambda text: text == "text 7", refuse(400, message)))
    done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, expect=3)
    assert "--retry-failed --set request.too_long=truncate" in done.stderr


def test_files_are_summed(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The record of a directory has the labels and scores of all its files."""
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        write(tmp_path / "in" / name, TEXTS)
    done = classify("run", "in", "-o", "out/", "--url", fake.url, "--log-json")
    record = json.loads(done.stderr.splitlines()[-1])["record"]
    each = record_of(tmp_path / "out" / "a.csv").scores
    assert record["scores"] == {label: [2 * rows for rows in counts] for label, counts in each.items()}
    assert {label: sum(counts) for label, counts in record["scores"].items()} == record["labels"]
    assert sum(label_of(text) == "neutral" for text in TEXTS) * 2 == record["labels"]["neutral"]


def test_lists_of_numbers_stand_on_one_line(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A record of many bins can still be read by a person; what looks like a list in a text stays as it is."""
    write(tmp_path / "in.csv", TEXTS)
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    record = msgspec.structs.replace(record_of(tmp_path / "out.csv"), host="[\n  1,\n  2\n]", error="[ 1, 2 ]")
    encoded = encode_record(record)
    assert msgspec.json.decode(encoded, type=RunRecord) == record
    assert len(encoded.splitlines()) < 250
