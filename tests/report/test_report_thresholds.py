"""Reports of outputs with thresholds: the model's own labels are judged, and those that are sure are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command, complaint
from fake import LABELS, FakeServer, label_of, score_of
from files import rows_of

from pipeline.report.document import Document

LEAST = 0.62
TEXTS = [f"text {number}" for number in range(120)]
ROWS = [(text, label_of(text) if number % 4 else LABELS[number % 3]) for number, text in enumerate(TEXTS)]
SURE = [(text, truth) for text, truth in ROWS if score_of(text) >= LEAST]
RIGHT = sum(label_of(text) == truth for text, truth in SURE)
NAMED = ("--set", f"writer.labels={json.dumps(LABELS)}")
REPLACED = ("--set", f"writer.min_score={LEAST}", "--set", "writer.unsure_label=unsure")


def labelled(name: str, fake: FakeServer, classify: Command, *arguments: str, folder: Path) -> Document:
    """Classify the rows into a file of this name, and return its report."""
    source = folder / f"in.{name.rpartition('.')[2]}"
    if source.suffix == ".csv":
        source.write_text("text,truth\n" + "".join(f"{text},{truth}\n" for text, truth in ROWS))
    elif source.suffix == ".jsonl":
        source.write_text("".join(json.dumps({"text": text, "truth": truth}) + "\n" for text, truth in ROWS))
    else:
        source = folder / "in.csv"
        source.write_text("text,truth\n" + "".join(f"{text},{truth}\n" for text, truth in ROWS))
    classify("run", source.name, "-o", name, "--url", fake.url, *arguments)
    return json.loads(classify("report", name, "--truth", "truth", "--json").stdout)  # type: ignore[no-any-return]


def judged(document: Document) -> dict[str, Any]:
    """What is said of labels, scores and truth."""
    return {key: document[key] for key in ("rows", "labels", "scores", "truth")}


@pytest.mark.parametrize(
    ("kept", "ending"),
    [
        ("writer.top_k=1", "csv"),
        ("writer.top_k=1", "parquet"),
        ("writer.probs=list", "csv"),
        ("writer.probs=list", "jsonl"),
        ("writer.probs=columns", "parquet"),
        ("named columns", "csv"),
        ("no label replaced", "jsonl"),
    ],
)
def test_the_label_of_the_model_is_judged(
    kept: str, ending: str, fake: FakeServer, tmp_path: Path, classify: Command
) -> None:
    """Replaced or not, the numbers are those of an output without thresholds, where the values say the label."""
    plain = labelled(f"plain.{ending}", fake, classify, folder=tmp_path)
    assert plain["kept"] is None
    more = {
        "named columns": (*NAMED, "--set", "writer.probs=columns", *REPLACED),
        "no label replaced": REPLACED[:2],
    }.get(kept, (*(NAMED if "top_k" in kept else ()), "--set", kept, *REPLACED))
    found = labelled(f"out.{ending}", fake, classify, *more, folder=tmp_path)
    if kept != "no label replaced":
        assert {row["predicted_label"] for row in rows_of(tmp_path / f"out.{ending}")} >= {"unsure"}
    assert judged(found) == judged(plain)
    accuracy = pytest.approx(RIGHT / len(SURE))
    sure = {key: value for key, value in found["kept"].items() if key != "accuracy"}
    assert sure == {"rows": len(SURE), "share": len(SURE) / len(ROWS), "truths": len(SURE)}
    assert found["kept"]["accuracy"][0] == accuracy


def test_a_row_whose_label_is_gone_is_not_judged(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Without the values of the classes only the rows that are sure say how often the model is right."""
    found = labelled("out.csv", fake, classify, *REPLACED, folder=tmp_path)
    assert (found["truth"]["rows"], found["kept"]["rows"]) == (len(SURE), len(SURE))
    assert found["truth"]["accuracy"][0] == pytest.approx(RIGHT / len(SURE))
    assert found["rows"]["labelled"] == len(ROWS)
    percent = f"{100 * len(SURE) / len(ROWS):.1f} % of the labels are sure, {len(SURE)} rows"
    shown = classify("report", "out.csv", "--truth", "truth", "-o", "r.md").stdout
    assert f"sure: {percent}; of these right: {100 * RIGHT / len(SURE):.1f} %\n" in shown
    assert f"; {percent}" in (tmp_path / "r.md").read_text()
    assert {entry["label"]: entry["rows"] for entry in found["labels"]}["unsure"] == len(ROWS) - len(SURE)


def test_a_sample_is_drawn_of_labels_of_the_model(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Rows whose label is gone are neither drawn nor counted as wrong; with the best classes none is gone."""
    for more, gone in ((REPLACED, len(ROWS) - len(SURE)), ((*NAMED, "--set", "writer.top_k=1", *REPLACED), 0)):
        labelled(output := f"{gone}.csv", fake, classify, *more, folder=tmp_path)
        done = classify("sample", output, "-o", "s.csv", "--rows", "60", "--overwrite")
        assert (f"{gone} rows that are not sure are left out" in done.stderr) == bool(gone)
        drawn = (tmp_path / "s.csv").read_text("utf-8-sig").splitlines()
        cells = [line.split(",") for line in drawn[1:]]
        assert {row[3] for row in cells} == {*LABELS}
        filled = [",".join([*row[:5], label_of(row[2]), *row[6:]]) for row in cells]
        (tmp_path / "s.csv").write_text("\n".join([drawn[0], *filled]))
        shown = classify("report", output, "--truth-file", "s.csv", "-o", "r.md").stdout
        assert "right, by a sample: 100.0 %" in shown
        for text in (shown, (tmp_path / "r.md").read_text()):
            assert (f"{gone} rows that are not sure are left out" in text) == bool(gone)
        sample = json.loads((tmp_path / "r.json").read_text())["sample"]
        assert (sample["judged"], sample["labelled"]) == (60, len(ROWS) - gone)


def test_rows_whose_label_is_gone_have_not_changed(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Neither better nor worse, whichever of the two outputs lacks the label."""
    labelled("then.csv", fake, classify, *REPLACED, folder=tmp_path)
    labelled("now.csv", fake, classify, folder=tmp_path)
    for now, then in (("now.csv", "then.csv"), ("then.csv", "now.csv")):
        asked = ("report", now, "--truth", "truth", "--against", then, "-o", "r.json")
        gone = len(ROWS) - len(SURE)
        assert f"{gone} rows that are not sure are left out" in classify(*asked).stdout
        changes = json.loads((tmp_path / "r.json").read_text())["changes"]
        assert (changes["rows"], changes["changed"], changes["pairs"]) == (len(SURE), 0, [])
        truth = changes["truth"]
        assert (truth["rows"], truth["better"], truth["worse"]) == (len(SURE), 0, 0)


def test_a_file_without_a_header(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """The columns are found by their place, the last ones, those of thresholds among them."""
    (tmp_path / "in.csv").write_text("".join(f"{text},{truth}\n" for text, truth in ROWS))
    bare = ("-t", "column_1", "--set", "loader.header=false")
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *bare, *NAMED, "--set", "writer.top_k=2", *REPLACED)
    found = json.loads(classify("report", "out.csv", "--truth", "column_2", "--json").stdout)
    right = sum(label_of(text) == truth for text, truth in ROWS)
    assert found["truth"]["accuracy"][0] == pytest.approx(right / len(ROWS))
    assert found["kept"]["rows"] == len(SURE)


@pytest.mark.slow
def test_a_page_shows_how_many_are_sure_and_a_changed_file_is_told(
    fake: FakeServer, tmp_path: Path, classify: Command
) -> None:
    """A tile of the page; values that somebody has taken out are no traceback."""
    labelled("out.csv", fake, classify, *NAMED, "--set", "writer.top_k=1", *REPLACED, folder=tmp_path)
    classify("report", "out.csv", "--truth", "truth", "-o", "page.html")
    tile = f"sure by its score</span><b>{100 * len(SURE) / len(ROWS):.1f}\u00a0%</b>"
    assert tile in (tmp_path / "page.html").read_text()
    text = (tmp_path / "out.csv").read_text()
    (tmp_path / "out.csv").write_text(text.replace('"[{""label""', '"[{""name""'))
    done = classify("report", "out.csv", "--truth", "truth", expect=2)
    complaint(done, "predicted_top: a row that is not sure has no values of classes")
