"""What has changed row by row: two outputs of the same input, read in step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from fake import FakeServer
from files import write
from hypothesis import given
from hypothesis import strategies as st
from labelled import LABELS, Labelled, blocks_of, made_up
from scipy.stats import binomtest, chi2

from pipeline.report.changes import Changes, in_step
from pipeline.report.measures import mcnemar

NAMES = (*LABELS, None)


def changes(now: Sequence[Labelled], then: Sequence[Labelled], sizes: tuple[int, int], examples: int = 3) -> Any:
    """What has changed, the files read in blocks of two sizes."""
    found = Changes(examples, {})
    for here, there in in_step(blocks_of(now, sizes[0]), blocks_of(then, sizes[1])):
        found.add(here, there)
    return found.as_member()


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES), st.floats(0, 1)), max_size=60
    ),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_every_number_is_that_of_the_rows(
    rows: list[tuple[str | None, str | None, str | None, float]], sizes: tuple[int, int]
) -> None:
    """Whatever the blocks: pairs of labels, scores, better and worse."""
    now = [Labelled(label, score, truth=truth, text=f"text {at}") for at, (label, _, truth, score) in enumerate(rows)]
    then = [Labelled(label, 0.5, truth=truth) for _, label, truth, _ in rows]
    found = changes(now, then, sizes)
    pairs = Counter((before, label) for label, before, _, _ in rows if label != before)
    assert found["rows"] == len(rows)
    assert found["changed"] == pairs.total()
    assert {(pair["then"], pair["now"]): pair["rows"] for pair in found["pairs"]} == pairs
    counts = [pair["rows"] for pair in found["pairs"]]
    assert counts == sorted(counts, reverse=True)
    same = [score - 0.5 for label, before, _, score in rows if label == before and label]
    assert found["scores"]["rows"] == len(same)
    assert found["scores"]["mean_change"] == (pytest.approx(np.mean(same), abs=1e-8) if same else None)
    assert found["scores"]["higher"] == sum(change > 0.05 for change in same)
    judged = [(before == truth, label == truth) for label, before, truth, _ in rows if label and before and truth]
    if rows:
        truth = found["truth"]
        assert (truth["rows"], truth["better"]) == (len(judged), judged.count((False, True)))
        assert (truth["worse"], truth["both_wrong"]) == (judged.count((True, False)), judged.count((False, False)))
    assert changes(now, then, (1000, 1000)) == found


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (0, 1), (3, 9), (12, 12), (600, 400), (499, 502), (900, 700)])
def test_mcnemar_is_that_of_scipy(better: int, worse: int) -> None:
    """Exact of few rows, chi-square with continuity correction of many."""
    found, rows = mcnemar(better, worse), better + worse
    if rows <= 1000:
        assert found["test"] == "exact"
        assert found["p"] == pytest.approx(binomtest(better, rows).pvalue if rows else 1.0, rel=1e-9)
    else:
        assert found["test"] == "chi-square"
        assert found["statistic"] == (abs(better - worse) - 1) ** 2 / rows
        assert found["p"] == pytest.approx(chi2.sf(found["statistic"], 1), rel=1e-9)


def test_the_rows_to_look_at_are_the_surest() -> None:
    """Worse ones and better ones, with what was said then; without examples there is no text."""
    then = [Labelled("spam", 0.5, truth="spam", text=f"row {at}") for at in range(100)]
    now = [row._replace(label="refund", score=at / 100) if at % 2 else row for at, row in enumerate(then)]
    found = changes(now, then, (7, 100), examples=1)["examples"]
    assert [row["row"] for row in found["worse"]] == [100, 98, 96, 94]
    assert (found["worse"][0]["then"], found["worse"][0]["then_score"], found["better"]) == ("spam", 0.5, [])
    back = changes(then, now, (100, 7), examples=1)["examples"]
    assert len(back["better"]) == 4
    assert "row 1" not in json.dumps(changes(now, then, (7, 100), examples=0))
    unknown, before = ([row._replace(truth=None) for row in rows] for rows in (now, then))
    assert [row["row"] for row in changes(unknown, before, (7, 100), examples=1)["examples"]["changed"]] == [
        52,
        54,
        56,
        58,
    ]


def test_files_of_other_lengths_are_read_to_their_ends() -> None:
    """Each row of both is passed on, also where one has more."""
    seen = Counter[str]()

    def counted(rows: int, name: str) -> Any:
        for block in blocks_of(made_up(rows, 1), 10):
            seen[name] += len(block.scores)
            yield block

    pairs = [len(here.scores) for here, _ in in_step(counted(95, "now"), counted(33, "then"))]
    assert (sum(pairs), seen["now"], seen["then"]) == (33, 95, 33)


def test_another_model_on_the_same_input(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Two runs of one input are compared row by row, in other formats too; another input is not, and that is said."""
    write(tmp_path / "in.csv", [f"text {number}" for number in range(500)])
    classify("run", "in.csv", "-o", "then.csv", "--url", fake.url)
    labels, fake.labels = fake.labels, tuple(f"new {label}" for label in fake.labels)
    fake.model = "other"
    classify("run", "in.csv", "-o", "now.parquet", "--url", fake.url)
    done = classify("report", "now.parquet", "--against", "then.csv", "-o", "r.md")
    assert "row by row: 500 rows (100.0 %) have another label: " in done.stdout
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["changes"]["left_out"] is None
    assert {(pair["then"], pair["now"]) for pair in found["changes"]["pairs"]} <= {(x, f"new {x}") for x in labels}
    assert sum(entry["rows"] for entry in found["labels"]) == 500
    assert found["drift"]["against"]["rows"]["all"] == 500
    assert "| then | now | rows | share |" in (tmp_path / "r.md").read_text()
    classify("report", "now.parquet", "--against", "then.csv", "-o", "r.html")
    assert "What has changed, row by row" in (tmp_path / "r.html").read_text()
    write(tmp_path / "in2.csv", [f"other text {number}" for number in range(500)])
    classify("run", "in2.csv", "-o", "other.csv", "--url", fake.url)
    done = classify("report", "now.parquet", "--against", "other.csv", "-o", "r.json")
    assert "row by row: left out, the outputs are of different inputs" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["changes"] == {
        "left_out": "the outputs are of different inputs"
    }
    (tmp_path / ".other.csv.run.json").unlink()
    assert "not a run record" in classify("report", "now.parquet", "--against", "other.csv", "-o", "r.json").stdout


def test_part_of_the_input_and_a_changed_output_are_left_out(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Rows are compared only where they are the same ones."""
    write(tmp_path / "in.csv", [f"text {number}" for number in range(50)])
    for name, *more in (("then.csv",), ("now.csv",), ("part.csv", "--limit-rows", "20")):
        classify("run", "in.csv", "-o", name, "--url", fake.url, *more)
    asked = ("report", "now.csv", "-o", "r.json", "--against")
    assert "row by row: 0 rows (0.0 %)" in classify(*asked, "then.csv").stdout
    assert "one output has more rows of the input" in classify(*asked, "part.csv").stdout
    lines = (tmp_path / "then.csv").read_text().splitlines(keepends=True)
    (tmp_path / "then.csv").write_text("".join(lines[:-1]))
    done = classify(*asked, "then.csv")
    assert "row by row: left out, the outputs have not the same number of rows" in done.stdout
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["rows"]["all"], found["drift"]["against"]["rows"]["all"]) == (50, 49)
