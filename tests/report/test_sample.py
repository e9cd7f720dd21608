"""`classify sample` from outside, and what `classify report` makes of a sample that comes back filled in."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, complaint
from fake import FakeServer
from files import write
from labelled import LABELS, Labelled, blocks_of, made_up, write_labelled
from s3 import Bucket

from pipeline.report.sample import Draw, Row, typo_of

ROWS = [*made_up(3000, 1), Labelled(None, None, "too_long: 900 tokens", "spam", "a long one")]
TRUE = {row.text: row.truth or "" for row in ROWS}
FORMULAS = ('=1+1 "x"', "+49 30", "-1", "@SUM(A1)", "\tindented", "'quoted", "'=quoted", "\rreturn", "plain, text\n2")


def rows_of(path: Path) -> list[dict[str, str]]:
    """A sample as a spreadsheet reads it."""
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def fill_in(path: Path, truth: Callable[[dict[str, str]], str], delimiter: str = ",") -> None:
    """Label the rows of a sample, and save it as a spreadsheet does."""
    rows = rows_of(path)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(row | {"human_label": truth(row)} for row in rows)


def of_the_text(row: dict[str, str]) -> str:
    """What a person says who is never wrong."""
    return TRUE[row["text"]]


def said(done: Any) -> dict[str, Any]:
    """What a report in JSON says of a sample."""
    found: dict[str, Any] = json.loads(done.stdout)["sample"]
    return found


def test_a_sample_says_what_all_rows_are_worth(tmp_path: Path, classify: Command) -> None:
    """Drawn, filled in, and judged: the interval holds what the truth of all rows says, in every kind of report."""
    write_labelled(tmp_path / "out.parquet", ROWS)
    assert "s.csv: 200 of 3,000 labelled rows" in classify("sample", "out.parquet", "-o", "s.csv").stderr
    rows = rows_of(tmp_path / "s.csv")
    assert len(rows) == 200
    assert {row["human_label"] for row in rows} == {""}
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(3000)
    for row in rows:
        drawn = ROWS[int(row["row"]) - 1]
        assert (row["text"], row["label"], float(row["score"])) == (drawn.text, drawn.label, drawn.score)
    assert {row["label"] for row in rows} == {*LABELS}
    fill_in(tmp_path / "s.csv", of_the_text)
    done = classify("report", "out.parquet", "--truth-file", "s.csv", "-o", "r.html")
    assert "right, by a sample: " in done.stdout
    assert "What a sample says of all rows" in (tmp_path / "r.html").read_text()
    found = json.loads((tmp_path / "r.json").read_text())["sample"]
    real = np.mean([row.label == row.truth for row in ROWS if row.label])
    assert found["accuracy"][1] < real < found["accuracy"][2]
    assert (found["rows"], found["judged"], found["labelled"]) == (200, 200, 3000)
    assert [each["label"] for each in found["labels"]] == [*LABELS]
    classify("report", "out.parquet", "--truth-file", "s.csv", "-o", "r.md")
    assert "By a sample, **" in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "arrow", "parquet"])
def test_every_format_gives_the_same_rows(ending: str, tmp_path: Path, classify: Command) -> None:
    """The same seed draws the same rows whatever the blocks; another seed others; a filled in one is read of any."""
    write_labelled(tmp_path / f"out.{ending}", ROWS)
    write_labelled(tmp_path / "other.parquet", ROWS)
    drawn = {}
    for name, output, *more in ((f"out.{ending}", "a"), ("other.parquet", "b"), ("other.parquet", "c", "--seed", "2")):
        classify("sample", name, "-o", f"{output}.csv", *more)
        drawn[output] = [row | {"key": ""} for row in rows_of(tmp_path / f"{output}.csv")]
    assert drawn["a"] == drawn["b"]
    assert {row["row"] for row in drawn["b"]} != {row["row"] for row in drawn["c"]}
    fill_in(tmp_path / "a.csv", of_the_text)
    assert said(classify("report", f"out.{ending}", "--truth-file", "a.csv", "--json"))["judged"] == 200


def test_blocks_do_not_matter() -> None:
    """Rows are drawn by their number in their stratum."""
    drawn: list[list[Row]] = []
    for size in (1, 77, 5000):
        draw = Draw()
        for block in blocks_of(ROWS[-500:], size):
            draw.count(block)
        draw.draw(50, 1)
        for block in blocks_of(ROWS[-500:], size):
            draw.take(block, 1, "digest")
        drawn.append(draw.rows())
    assert drawn[0] == drawn[1] == drawn[2]


def test_no_cell_is_a_formula(tmp_path: Path, classify: Command) -> None:
    """An apostrophe before what a spreadsheet would run, which is taken away again; labels like numbers stay labels."""
    texts = [f"{text} and so on for a while" for text in FORMULAS]
    labels = ("-1", "+1", "=a", "'=b", "@c", "d")
    rows = [Labelled(labels[at % 6], 0.9, text=text) for at, text in enumerate(texts * 6)]
    rows = [row._replace(text=f"{row.text} {at}") for at, row in enumerate(rows)]
    write_labelled(tmp_path / "out.parquet", rows)
    classify("sample", "out.parquet", "-o", "s.csv")
    found = rows_of(tmp_path / "s.csv")
    assert len(found) == len(rows)
    for row in found:
        for name, cell in row.items():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (name, cell)
        drawn = rows[int(row["row"]) - 1]
        assert row["text"] in (drawn.text, f"'{drawn.text}")
    # A person types the label without an apostrophe, or copies the cell with it.
    fill_in(tmp_path / "s.csv", lambda row: row["label"] if int(row["row"]) % 2 else row["label"].removeprefix("'"))
    fits = [row for row in rows if row.label == "'=b"]
    done = said(classify("report", "out.parquet", "--truth-file", "s.csv", "--json"))
    assert fits
    assert done["judged"] == len(rows)
    assert done["accuracy"][0] > 0.9


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_label_studio(ending: str, tmp_path: Path, classify: Command) -> None:
    """Tasks with predictions go out; what comes back, as JSON or JSON-MIN, is read; cancelled annotations are not."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", f"t.{ending}", "--rows", "60")
    text = (tmp_path / f"t.{ending}").read_text()
    tasks = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
    assert len(tasks) == 60
    assert {*tasks[0]} == {"data", "predictions", "meta"}
    choice = tasks[0]["predictions"][0]["result"][0]
    assert (choice["from_name"], choice["to_name"], choice["type"]) == ("label", "text", "choices")
    assert choice["value"]["choices"] == [tasks[0]["data"]["predicted_label"]]
    small = []
    for number, task in enumerate(tasks):
        right = {"type": "choices", "value": {"choices": [TRUE[task["data"]["text"]]]}}
        wrong = {"type": "choices", "value": {"choices": ["nonsense"]}}
        task["annotations"] = [{"result": [right]}, {"result": [wrong], "was_cancelled": True}] if number else []
        small.append({"id": number} | task["data"] | ({"label": TRUE[task["data"]["text"]]} if number else {}))
    for name, items in (("full.json", tasks), ("small.json", small)):
        (tmp_path / name).write_text(json.dumps(items))
        found = said(classify("report", "out.csv", "--truth-file", name, "--json"))
        assert (found["judged"], found["not_filled_in"]) == (59, 1)
    tasks[7]["annotations"][0]["result"][0]["value"]["choices"].append("nonsense")
    small[7]["label"] = {"choices": ["nonsense", "other"]}
    for name, items in (("full.json", tasks), ("small.json", small)):
        (tmp_path / name).write_text(json.dumps(items))
        done = classify("report", "out.csv", "--truth-file", name, expect=2)
        assert "item 8 has several labels; choose one" in done.stderr


def test_a_sample_that_a_spreadsheet_has_saved_as_unicode_text(tmp_path: Path, classify: Command) -> None:
    """UTF-16 with tabs, whichever byte comes first."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", "s.csv", "--rows", "60")
    fill_in(tmp_path / "s.csv", lambda row: row["label"], delimiter="\t")
    text = (tmp_path / "s.csv").read_text(encoding="utf-8-sig")
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        (tmp_path / "u.txt").write_bytes(mark + text.encode(encoding))
        assert said(classify("report", "out.csv", "--truth-file", "u.txt", "--json"))["judged"] == 60


def test_argilla(tmp_path: Path, classify: Command) -> None:
    """Records with suggestions go out, in the form of `Record.from_dict`; records with responses come back."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", "a.json", "--rows", "60", "--for", "argilla")
    records = json.loads((tmp_path / "a.json").read_text())
    assert {*records[0]} == {"id", "fields", "metadata", "suggestions", "responses"}
    assert {*records[0]["suggestions"]["label"]} == {"value", "score", "agent"}
    for record in records[1:]:
        record["responses"] = {"label": [{"value": TRUE[record["fields"]["text"]], "user_id": "somebody"}]}
    records[1]["responses"]["label"] = [{"value": "spam", "user_id": "a", "status": "discarded"}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    found = said(classify("report", "out.csv", "--truth-file", "a.json", "--json"))
    assert (found["judged"], found["not_filled_in"]) == (58, 2)


def test_many_files_and_stores(tmp_path: Path, fake: FakeServer, bucket: Bucket, classify: Command) -> None:
    """Of a directory each row knows its file; an object in a store is an output, and a sample may be one."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.csv", [f"text {number} of {name}" for number in range(150)])
    classify("run", "in", "-o", "out/", "--url", fake.url)
    classify("sample", "out/", "-o", "s.csv", "--rows", "40")
    rows = rows_of(tmp_path / "s.csv")
    assert {row["file"] for row in rows} == {"out/a.csv", "out/b.csv"}
    assert all(row["text"] == f"text {int(row['row']) - 1} of {row['file'][4]}" for row in rows)
    fill_in(tmp_path / "s.csv", lambda row: row["label"], delimiter=";")
    found = said(classify("report", "out/", "--truth-file", "s.csv", "--json"))
    assert (found["judged"], found["accuracy"][0], found["accuracy"][2]) == (40, 1.0, 1.0)
    assert found["accuracy"][1] < 0.97
    bucket.put("out.parquet", write_labelled(tmp_path / "out.parquet", ROWS).read_bytes())
    base = f"s3://{bucket.name}"
    classify("sample", f"{base}/out.parquet", "-o", f"{base}/s.csv", env=bucket.environment)
    (tmp_path / "s.csv").write_bytes(bucket.get("s.csv") or b"")
    fill_in(tmp_path / "s.csv", of_the_text)
    bucket.put("s.csv", (tmp_path / "s.csv").read_bytes())
    arguments = ("report", f"{base}/out.parquet", "--truth-file", f"{base}/s.csv", "--json")
    assert said(classify(*arguments, env=bucket.environment))["judged"] == 200


def test_the_interval_is_judged(tmp_path: Path, classify: Command) -> None:
    """Below the wanted accuracy with the whole interval it fails; with a part of it nothing is sure."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", "s.csv")
    fill_in(tmp_path / "s.csv", of_the_text)
    asked = ("report", "out.csv", "--truth-file", "s.csv", "-o", "r.json", "--fail-on", "regression")
    for limit, code, mark in ((0.99, 5, "FAIL"), (0.5, 0, "ok  ")):
        done = classify(*asked, "--set", f"report.limits.min_accuracy={limit}", expect=code)
        assert f"{mark} Accuracy: " in done.stdout
    value = json.loads((tmp_path / "r.json").read_text())["sample"]["accuracy"][0]
    done = classify(*asked, "--set", f"report.limits.min_accuracy={value + 0.005}")
    assert "?    Accuracy: " in done.stdout


def test_weights_are_counted_anew(tmp_path: Path, classify: Command) -> None:
    """Whatever a spreadsheet or a person makes of the columns beside the label, the numbers are the same."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", "s.csv")
    fill_in(tmp_path / "s.csv", lambda row: "" if int(row["row"]) % 3 else of_the_text(row))
    asked = ("report", "out.csv", "--truth-file", "s.csv", "--json")
    found = said(classify(*asked))
    rows = rows_of(tmp_path / "s.csv")
    for at, row in enumerate(rows):
        row |= {"weight": ("1000", "03. Apr", "", "2026-04-03")[at % 4], "stratum": "mine", "score": "x"}
    for name, kept in (("edited", rows), ("only those", [row for row in rows if row["human_label"]])):
        with (tmp_path / "s.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(kept)
        left_out = {"rows": len(kept), "not_filled_in": len(kept) - found["judged"]}
        assert said(classify(*asked)) == found | left_out, name


def test_a_class_that_was_never_predicted(tmp_path: Path, classify: Command) -> None:
    """Where not all names are known it is no mistake: its recall is 0, and it is named with its rows."""
    write_labelled(tmp_path / "out.csv", [row for row in ROWS if row.label != "spam"])
    classify("sample", "out.csv", "-o", "s.csv")
    fill_in(tmp_path / "s.csv", lambda row: "sw" if row["label"] == "refund" else row["label"])
    done = classify("report", "out.csv", "--truth-file", "s.csv", "-o", "r.md")
    assert "'sw' (row " in done.stdout
    assert "is taken for a class that the model never predicted" in done.stdout
    assert "is taken for a class that the model never predicted" in (tmp_path / "r.md").read_text()
    found = {each["label"]: each for each in json.loads((tmp_path / "r.json").read_text())["sample"]["labels"]}
    assert (found["sw"]["rows"], found["sw"]["recall"][0], found["refund"]["precision"][0]) == (0, 0.0, 0.0)
    # What looks like a typo is a class if somebody says so.
    fill_in(tmp_path / "s.csv", lambda row: "refunds" if row["label"] == "refund" else row["label"])
    asked = ("report", "out.csv", "--truth-file", "s.csv", "--json")
    complaint(classify(*asked, expect=2), "did you mean 'refund'?", "report.truth_map")
    assert said(classify(*asked, "--set", 'report.truth_map={"refunds"="refunds"}'))["judged"] == 200


@pytest.mark.parametrize(
    ("truth", "label"),
    [("biling", "billing"), ("sapm", "spam"), ("Spam", "spam"), ("sw", None), ("ham", None), ("LABEL_1", None)],
)
def test_what_looks_like_a_typo(truth: str, label: str | None) -> None:
    """Short names and numbered ones are close to each other and no typos."""
    assert typo_of(truth, {*LABELS, "LABEL_2", "sv"}) == label


def test_only_corrections_are_filled_in(tmp_path: Path, classify: Command) -> None:
    """Nothing is right then, and a line says why."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", "s.csv")
    hint = "every label that is filled in is another than the predicted one"
    asked = ("report", "out.csv", "--truth-file", "s.csv", "-o", "r.md")
    fill_in(tmp_path / "s.csv", of_the_text)
    assert hint not in classify(*asked).stdout
    fill_in(tmp_path / "s.csv", lambda row: of_the_text(row).replace(row["label"], ""))
    assert hint in classify(*asked).stdout


def test_rows_that_are_not_filled_in_are_left_out(tmp_path: Path, classify: Command) -> None:
    """Whole strata may be: what remains is said, and the interval is wider."""
    write_labelled(tmp_path / "out.csv", ROWS)
    classify("sample", "out.csv", "-o", "s.csv")
    fill_in(tmp_path / "s.csv", of_the_text)
    all_rows = said(classify("report", "out.csv", "--truth-file", "s.csv", "--json"))
    fill_in(tmp_path / "s.csv", lambda row: "" if row["label"] == "spam" or int(row["row"]) % 2 else row["human_label"])
    done = classify("report", "out.csv", "--truth-file", "s.csv", "-o", "r.json")
    assert "rows are filled in; " in done.stdout
    found = json.loads((tmp_path / "r.json").read_text())["sample"]
    assert found["judged"] + found["not_filled_in"] == 200
    assert [each["precision"] for each in found["labels"] if each["label"] == "spam"] == [[None] * 3]
    width, before = (each["accuracy"][2] - each["accuracy"][1] for each in (found, all_rows))
    assert width > before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("human_label", "mine"), ("s.csv: no column 'human_label'",)),
        (lambda text: text.replace(",key", ",kee"), ("s.csv: no column 'key'",)),
        (lambda text: text.replace("HERE", "biling"), ("'biling' is no label of the model", "did you mean 'billing'?")),
        (
            lambda text: text.replace("HERE", "biling", 1).replace("HERE", "Refund"),
            ("'biling' is no label of the model, did you mean 'billing'? (row ", "did you mean 'refund'? (row "),
        ),
        (lambda text: text.replace("HERE", ""), ("no row has a label yet",)),
        (lambda text: text + text.splitlines()[1] + "\r\n", ("is there twice",)),
        (lambda text: text.replace("text ", "no text but another "), ("the text beside r1-", "sorted alone?")),
        (lambda text: text.replace(",r1-", ",x1-"), ("is no key of a sample",)),
        (lambda text: text.replace("text ", "täxt "), ("is not UTF-8",)),
        (lambda _: "[1, 2]", ("item 1 is no task or record of a sample",)),
        (lambda _: '{"data": {"text": "a"}, "annotations": []}', ("item 1 has no 'key'",)),
        (lambda _: "[{", ("is not valid JSON",)),
        (lambda _: "", ("s.csv: no column",)),
    ],
)
def test_a_sample_that_is_none_is_said_in_a_line(
    change: Callable[[str], str], words: tuple[str, ...], tmp_path: Path, classify: Command
) -> None:
    """What is wrong with it, and what to do; nothing is written."""
    texts = [row._replace(text=f"{row.text}, which is a long one") for row in made_up(300, 1)]
    write_labelled(tmp_path / "out.csv", texts)
    classify("sample", "out.csv", "-o", "s.csv", "--rows", "20")
    fill_in(tmp_path / "s.csv", lambda row: "HERE" if row["label"] == "billing" else "")
    changed = change((tmp_path / "s.csv").read_text("utf-8-sig"))
    (tmp_path / "s.csv").write_bytes(changed.encode("latin-1" if "täxt" in changed else "utf-8"))
    done = classify("report", "out.csv", "--truth-file", "s.csv", "-o", "r.json", expect=2)
    complaint(done, *words)
    assert not (tmp_path / "r.json").exists()


def test_a_sample_belongs_to_its_output(tmp_path: Path, classify: Command, fake: FakeServer) -> None:
    """Neither another output nor one that has changed since is judged by it, also if its record does not know."""
    write(tmp_path / "in.csv", [f"text {number} that is long enough" for number in range(100)])
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    classify("sample", "out.csv", "-o", "s.csv", "--rows", "20")
    fill_in(tmp_path / "s.csv", lambda row: row["label"])
    asked = ("report", "out.csv", "--truth-file", "s.csv", "-o", "r.json")
    classify(*asked)
    changed = rows_of(tmp_path / "s.csv")[0]["text"]
    content = (tmp_path / "out.csv").read_text()
    (tmp_path / "out.csv").write_text(content.replace(changed, changed.replace("long", "lonk")))
    complaint(classify(*asked, expect=2), "of the output has changed since; draw a new sample")
    (tmp_path / "out.csv").write_text("".join(content.splitlines(keepends=True)[:5]))
    complaint(classify(*asked, expect=2), "has rows that the output has not")
    write_labelled(tmp_path / "other.csv", ROWS)
    complaint(classify("report", "other.csv", "--truth-file", "s.csv", expect=2), "is a sample of another output")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sample", "out.csv", "-o", "there.csv"), ("there.csv: exists, and may be filled in", "--overwrite")),
        (("sample", "out.csv", "-o", "s.xlsx"), ("a sample ends in .csv, .json, .jsonl",)),
        (("sample", "out.csv", "-o", "s.csv", "--for", "argilla"), ("--for argilla: the sample ends in .json",)),
        (("sample", "out.csv", "-o", "s.csv", "--rows", "0"), ("a number of rows is 1 to 1000000",)),
        (("sample", "out.csv", "-o", "s.csv", "--seed", "x"), ("a seed is a whole number",)),
        (("sample", "out.csv", "-o", "s.csv", "-t", "body"), ("the column of the text is not known",)),
        (("sample", "out.csv", "-o", "no/s.csv"), ("its directory does not exist",)),
        (("sample", "none.csv", "-o", "s.csv"), ("no row has a label",)),
        (("sample", "missing.csv", "-o", "s.csv"), ("missing.csv: no such file",)),
        (("report", "out.csv", "--truth-file", "s.csv"), ("s.csv: no such file", "`classify sample` wrote")),
        (("report", "out.csv", "--truth-file", "there.csv", "--truth", "truth"), ("choose one of them",)),
    ],
)
def test_what_can_not_be_drawn_is_said_in_a_line(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, classify: Command
) -> None:
    """A sample that somebody may have filled in is never replaced unasked."""
    write_labelled(tmp_path / "out.csv", ROWS[:30])
    write_labelled(tmp_path / "none.csv", ROWS[-1:])
    (tmp_path / "there.csv").write_text("hours of work")
    complaint(classify(*arguments, expect=2), *words)
    assert (tmp_path / "there.csv").read_text() == "hours of work"
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("there", ["out.jsonl", "link.jsonl", "in.csv", "notes.json", "record.json"])
def test_only_a_sample_is_replaced(there: str, tmp_path: Path, classify: Command) -> None:
    """With --overwrite, too: neither an output, however it is spelled, nor any other file."""
    write_labelled(tmp_path / "out.jsonl", ROWS[:30])
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    write_labelled(tmp_path / "in.csv", ROWS[:30])
    (tmp_path / "notes.json").write_text('{"data": "a year of work"}')
    (tmp_path / "record.json").write_text("[]")
    before = (tmp_path / there).read_bytes()
    done = classify("sample", "out.jsonl", "-o", f"./{there}", "--overwrite", expect=2)
    complaint(done, "choose another name")
    assert (tmp_path / there).read_bytes() == before
    for name in ("s.csv", "s.json", "s.jsonl"):
        for form in ["csv"] if name == "s.csv" else ["labelstudio", "argilla"]:
            classify("sample", "out.jsonl", "-o", name, "--overwrite", "--seed", "2", "--for", form)


def test_raw_logits_have_no_bands(tmp_path: Path, classify: Command) -> None:
    """Strata are labels then, and the estimate is by label alone."""
    rows = [Labelled(LABELS[at % 4], at / 10 - 20, truth=LABELS[at % 4], text=f"row {at}") for at in range(400)]
    write_labelled(tmp_path / "out.csv", rows)
    classify("sample", "out.csv", "-o", "s.csv", "--rows", "40")
    assert {row["stratum"] for row in rows_of(tmp_path / "s.csv")} == {*LABELS}
    fill_in(tmp_path / "s.csv", lambda row: row["label"])
    found = said(classify("report", "out.csv", "--truth-file", "s.csv", "--json"))
    assert [each["from"] for each in found["bands"]] == [None]
    assert found["accuracy"][0] == 1.0


def test_labels_that_are_numbers(tmp_path: Path, classify: Command) -> None:
    """A spreadsheet makes 1 of 1.0, and both are the same label; `truth_map` says what others are called."""
    rows = [Labelled(f"{at % 3}.0", 0.9, text=f"row {at}") for at in range(60)]
    write_labelled(tmp_path / "out.csv", rows)
    classify("sample", "out.csv", "-o", "s.csv")
    fill_in(
        tmp_path / "s.csv", lambda row: "two" if row["label"] == "2.0" else row["label"][: int(row["row"]) % 2 or 3]
    )
    asked = ("report", "out.csv", "--truth-file", "s.csv", "--json")
    assert said(classify(*asked, "--set", 'report.truth_map={"two"="2"}'))["accuracy"] == [1.0, 1.0, 1.0]
