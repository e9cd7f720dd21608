"""Thresholds: labels that are not sure, several labels a text, and the best classes, against a plain reference."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import answers_of
from commands import Command, complaint
from fake import LABELS, FakeServer, own_values_of, probs_of, refuse
from files import rows_of
from hypothesis import example, given
from hypothesis import strategies as st
from joining import joined, predictions_of
from killing import KILLED_AFTER_RENAME, finish, kill_group, start
from pyarrow import ipc

from pipeline.checkpoint import Checkpoint
from pipeline.config import Config, Request, Writer
from pipeline.errors import ConfigError
from pipeline.servers.embedded_apis import About, Api
from pipeline.thresholds import Thresholds, classes_compete, see_thresholds

NAMES = ("refund", "größe", 'a "b", c')
# Many are equal, and some are neighbours: only an exact comparison tells them apart.
VALUES = (0.0, 0.1, 0.3, 0.1 + 0.2, math.nextafter(0.3, 0), 0.5, math.nextafter(0.5, 1), 0.8, 1.0)
values = st.sampled_from(VALUES)
tables = st.dictionaries(st.sampled_from(NAMES), values).flatmap(
    lambda table: values.map(lambda default: {**table, "default": default})
)
Row = dict[str, Any]


def threshold(setting: Any, name: str) -> float:
    """The threshold of a label."""
    by_name: Row = setting if isinstance(setting, dict) else {"default": setting}
    return next((by_name[key] for key in (name, "default") if key in by_name), -math.inf)


def expected(probs: list[float] | None, label: str | None, setting: Row, names: Sequence[str] = NAMES) -> Row:
    """The appended columns of one row, but for the error, in plain Python."""
    row: Row = {"predicted_label": label, "predicted_score": None if probs is None else max(probs)}
    ranked = sorted(zip(names, probs or [], strict=False), key=lambda pair: -pair[1])  # equal ones in class order
    if setting.get("min_score") is not None:
        row["predicted_unsure"] = None if label is None else max(probs or []) < threshold(setting["min_score"], label)
        if row["predicted_unsure"] and setting.get("unsure_label"):
            row["predicted_label"] = setting["unsure_label"]
    if setting.get("multi_label") is not None:
        reached = [name for name, value in ranked if value >= threshold(setting["multi_label"], name)]
        row["predicted_labels"] = None if label is None else reached
    if setting.get("top_k") is not None:
        best = [{"label": name, "score": value} for name, value in ranked[: setting["top_k"]]]
        row["predicted_top"] = None if label is None else best
    return row


def read(path: Path) -> list[Row]:
    """The appended columns of an output as values; those of a CSV file are read by their kind."""
    found = rows_of(path)
    rows = [{name: value for name, value in row.items() if name.startswith("predicted_")} for row in found]
    if path.suffix == ".csv":
        kinds: Row = {"predicted_label": str, "predicted_error": str}
        rows = [
            {name: kinds.get(name, json.loads)(value) if value else None for name, value in row.items()} for row in rows
        ]
    for row in rows:
        row.pop("predicted_error")
    return rows


def write_input(path: Path, rows: int) -> None:
    """A file of some rows in the format of its ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": [f"text {row}" for row in range(rows)]}), path, row_group_size=4)
    elif path.suffix == ".csv":
        path.write_text("text\n" + "".join(f"text {row}\n" for row in range(rows)))
    else:
        path.write_text("".join(json.dumps({"text": f"text {row}"}) + "\n" for row in range(rows)))


@given(
    rows=st.lists(st.none() | st.tuples(values, values, values).map(list), max_size=9),
    tie=st.integers(0, 1),
    min_score=st.none() | values | tables | st.dictionaries(st.sampled_from(NAMES), values, min_size=1),
    unsure_label=st.none() | st.just("unsure, really"),
    multi_label=st.none() | values | tables,
    top_k=st.none() | st.integers(1, 4),
    probs=st.sampled_from(["none", "list", "columns"]),
    ending=st.sampled_from(["csv", "jsonl", "parquet"]),
)
@example(
    rows=[[0.3, 0.1 + 0.2, 0.3], None, [0.5, 0.5, 0.5], [0.1, 0.0, 0.1]],
    tie=1,
    min_score={"größe": 0.1 + 0.2, "default": 0.5},
    unsure_label="unsure, really",
    multi_label=0.3,
    top_k=2,
    probs="list",
    ending="parquet",
)
def test_every_format_holds_what_a_row_by_row_reference_says(
    *, rows: list[list[float] | None], tie: int, probs: str, ending: str, **setting: Any
) -> None:
    """Any values, thresholds and settings, from one format to all three, with failed rows between."""
    if setting["min_score"] is None:
        setting["unsure_label"] = None
    labels = []
    for row in rows:
        best = [name for name, value in zip(NAMES, row or [], strict=False) if row and value == max(row)]
        labels.append(best[-tie] if best else None)  # a server may name either of two that are equal
    errors = {at: "rejected: no" for at, row in enumerate(rows) if row is None}
    found = answers_of(labels, [None if row is None else max(row) for row in rows], rows, errors)
    wanted = [expected(row, label, setting) for row, label in zip(rows, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"in.{ending}"
        write_input(source, len(rows))
        for out in ("csv", "jsonl", "parquet"):
            output = Path(folder) / f"out.{out}"
            tally = joined(source, output, found, names=NAMES, probs=probs, labels=[*NAMES], **setting)
            shown = [{name: row[name] for name in each} for row, each in zip(read(output), wanted, strict=True)]
            assert shown == wanted, out
            assert tally.unsure == sum(each.get("predicted_unsure") is True for each in wanted)
            said = [each["predicted_label"] for each in wanted if each["predicted_label"] is not None]
            assert tally.labels == {name: said.count(name) for name in tally.labels}
            assert sum(tally.labels.values()) == len(said)


SETTING: Row = {"min_score": 0.52, "unsure_label": "unsure", "multi_label": 0.4, "top_k": 2}


@pytest.mark.parametrize("way", [{}, {"compression": "zstd"}], ids=str)
def test_the_types_are_lists_in_files_with_types(way: dict[str, Any], tmp_path: Path) -> None:
    """Copied or encoded anew, Parquet and Arrow have lists of strings and of structs, which other readers read."""
    write_input(tmp_path / "in.parquet", 10)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", predictions_of(10, [3]), **SETTING, **way)
    joined(tmp_path / "in.parquet", tmp_path / "out.arrow", predictions_of(10, [3]), **SETTING)
    schema = pq.read_schema(tmp_path / "out.parquet")
    pair = pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float64())])
    for found in (schema, ipc.open_file(tmp_path / "out.arrow").schema):
        kinds = [found.field(f"predicted_{name}").type for name in ("unsure", "labels", "top")]
        assert kinds == [pa.bool_(), pa.list_(pa.string()), pa.list_(pair)]
    table = pq.read_table(tmp_path / "out.parquet")
    assert ipc.open_file(tmp_path / "out.arrow").read_all().to_pylist() == table.to_pylist()
    assert duckdb.read_parquet(str(tmp_path / "out.parquet")).fetchall() == [
        tuple(row.values()) for row in table.to_pylist()
    ]
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["predicted_unsure"].tolist() == table["predicted_unsure"].to_pylist()
    assert frame["predicted_labels"][0].tolist() == table["predicted_labels"][0].as_py()
    assert [*frame["predicted_top"][9]] == table["predicted_top"][9].as_py()


def test_no_wrong_name_is_written_where_the_label_for_unsure_rows_is_a_class() -> None:
    """It is noticed at the latest when an answer has it: classes may appear late."""
    answers = answers_of(["yes", "unsure"], [0.9, 0.1])
    thresholds = Thresholds(Writer(min_score=0.5, unsure_label="unsure"))
    with pytest.raises(ConfigError, match="'unsure', and so is a class of the model"):
        thresholds.applied(answers)
    with pytest.raises(ConfigError, match="so is a class"):
        thresholds.names_with(answers.labels)


@pytest.mark.parametrize(
    ("activation", "canary", "compete"),
    [
        (True, [[0.25, 0.75], [0.5, 0.5]], True),
        (True, [[0.25, 0.7549], [0.5, 0.5]], True),
        (True, [[0.25, 0.75], [0.5, 0.7]], False),
        (True, [[-3.0, 4.0], [0.5, 0.5]], None),
        (True, [[0.7], [0.5]], None),
        (True, [], None),
        ("softmax", [[-3.0, 4.0]], True),
        ("sigmoid", [[-3.0, 4.0]], False),
        (False, [[0.25, 0.75]], None),
    ],
)
def test_whether_classes_compete(activation: Any, canary: list[list[float]], compete: bool | None) -> None:
    """Values that sum to 1, in all texts of the canary, or by what the config makes of them."""
    config = Config(request=Request(activation=activation))
    assert classes_compete(config, {"model.canary": canary, "model.num_classes": 2}) is compete


def test_thresholds_of_raw_logits_may_be_any_number() -> None:
    """Only where the values of a model are from 0 to 1 must thresholds be."""
    model: Row = {"model.num_classes": 2, "model.names": {"0": "no", "1": "yes"}}
    for canary, activation in (([[3.0, -4.0]], True), ([[0.5, 0.5]], False)):
        config = Config(writer=Writer(min_score=-3, multi_label=7), request=Request(activation=activation))
        see_thresholds(config, model | {"model.canary": canary})
    with pytest.raises(ConfigError, match=r"writer.min_score is -3, and the values of this model are from 0 to 1"):
        see_thresholds(Config(writer=Writer(min_score=-3)), model | {"model.canary": [[0.5, 0.5]]})


class BestOnly(Api):
    """A home-made server that gives one label and its score."""

    def answer(self, tree: Any, rows: Sequence[Sequence[float]], about: About) -> Any:  # noqa: ARG002
        """See `Api.answer`."""
        return [{"label": about.labels[[*row].index(max(row))], "score": max(row)} for row in rows]


NAMED = ("--set", f"writer.labels={json.dumps(LABELS)}")


def settings(**setting: Any) -> list[str]:
    """The settings of the writer as they are typed."""
    typed = []
    for name, value in setting.items():
        text = json.dumps(value)
        if isinstance(value, dict):
            text = "{" + ", ".join(f"{json.dumps(key)} = {json.dumps(each)}" for key, each in value.items()) + "}"
        typed += ["--set", f"writer.{name}={text}"]
    return typed


MISTAKES: list[tuple[Row, tuple[str, ...]]] = [
    ({"min_score": "high"}, ("writer.min_score: expected a float or a table, not str",)),
    ({"min_score": {"neutral": True}}, ("writer.min_score.neutral: expected a number",)),
    ({"multi_label": {}}, ("writer.multi_label is an empty table",)),
    ({"min_score": 80}, ("writer.min_score is 80", "from 0 to 1")),
    ({"min_score": {"neutrl": 0.5}}, ("writer.min_score names 'neutrl'", "did you mean 'neutral'?")),
    ({"multi_label": {"x": 0.5, "default": 0.5}}, ("no such class; there are 'negative', 'neutral', 'positive'",)),
    ({"multi_label": {"neutral": 0.5}}, ("no threshold for 'negative', 'positive'", "or default")),
    ({"unsure_label": "?"}, ("writer.unsure_label needs writer.min_score",)),
    ({"unsure_label": " ", "min_score": 0.5}, ("writer.unsure_label is blank",)),
    ({"unsure_label": "neutral", "min_score": 0.5}, ("writer.unsure_label is 'neutral', which is a class",)),
    ({"top_k": 0}, ("writer.top_k: expected an integer at least 1",)),
    ({"top": 3}, ("unknown key writer.top; did you mean writer.top_k?",)),
    ({"labels": None, "top_k": 2}, ("writer.top_k needs the names", "told 2 of 3", "writer.labels='[", "config.json")),
    ({"labels": None, "multi_label": 0.5}, ("writer.multi_label needs the names of all classes",)),
    ({"labels": None, "min_score": {"positive": 0.5}}, ("writer.min_score names 'positive'", "writer.labels=")),
]


@pytest.mark.parametrize(("setting", "words"), MISTAKES, ids=lambda value: str(value)[:60])
def test_mistakes_are_told_before_the_first_row_is_sent(
    setting: Row, words: tuple[str, ...], fake: FakeServer, tmp_path: Path, classify: Command
) -> None:
    """What a user types wrong ends with exit code 2, what is wrong, and what to type."""
    write_input(tmp_path / "in.csv", 3)
    named = () if "labels" in setting else NAMED
    typed = settings(**{name: value for name, value in setting.items() if name != "labels"})
    done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *named, *typed, expect=2)
    complaint(done, *words)
    assert not any(text.startswith("text ") for text in fake.texts)
    assert not (tmp_path / "out.csv").exists()


def test_a_server_that_names_its_classes_needs_no_labels(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Where the canary happens to show all, too; other servers say them before."""
    write_input(tmp_path / "in.csv", 3)
    fake.labels = ("no", "yes")
    classify("run", "in.csv", "-o", "two.csv", "--url", fake.url, *settings(top_k=1))
    assert read(tmp_path / "two.csv")[0]["predicted_top"][0]["label"] in fake.labels
    classify("run", "in.csv", "-o", "tei.csv", "--url", "embedded", "--api", "tei", *settings(top_k=2, multi_label=0.5))
    for row in read(tmp_path / "tei.csv"):
        assert row["predicted_top"][0]["label"] == row["predicted_label"]
        assert len(row["predicted_top"]) == 2


@pytest.mark.slow
def test_a_column_that_the_input_has_is_refused(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """The new columns are named before the first request, as all others are; another prefix helps."""
    (tmp_path / "in.csv").write_text("text,predicted_unsure,predicted_labels,predicted_top\na,,,\n")
    for setting in ({"min_score": 0.5}, {"multi_label": 0.5}, {"top_k": 1}):
        done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *NAMED, *settings(**setting), expect=2)
        complaint(done, "predicted_", "writer.prefix")
    assert not fake.texts
    classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *NAMED, *settings(**SETTING, prefix="p_"))
    assert [*rows_of(tmp_path / "out.csv")[0]][-3:] == ["p_unsure", "p_labels", "p_top"]


def test_a_dialect_without_quotes_is_asked_before(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Lists have commas; where a cell can't hold them nothing is sent."""
    (tmp_path / "in.csv").write_text("text\na\n")
    shared = ("run", "in.csv", "-o", "out.csv", "--url", fake.url, *NAMED, "--set", "loader.quoting=none")
    for setting, key in (({"multi_label": 0.5}, "multi_label"), ({"top_k": 1}, "top_k")):
        complaint(classify(*shared, *settings(**setting), expect=2), f"can't hold writer.{key}; set loader.escape")
    done = classify(*shared, *settings(min_score=0.5, unsure_label="a, b"), expect=2)
    complaint(done, "can't hold writer.unsure_label")
    assert not fake.texts
    classify(*shared, *settings(**SETTING), "--set", "loader.escape='\\'")
    assert (tmp_path / "out.csv").read_text().count("\\,")


def test_names_that_an_encoding_lacks_are_escaped_in_lists(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """JSON has escapes for them, so a class that is no label of a row costs nothing."""
    fake.labels = ("schlecht", "gut 👍")
    fake.values_of = lambda _, classes: [0.75, *[0.25] * (classes - 1)]
    (tmp_path / "in.csv").write_bytes("text\ngrün\n".encode("latin-1"))
    shared = ("run", "in.csv", "-o", "out.csv", "--url", fake.url, "--set", "loader.encoding=latin-1")
    model = tmp_path / "config.json"
    model.write_text(json.dumps({"id2label": {"0": "schlecht", "1": "gut 👍"}}))
    done = classify(*shared, "--set", "writer.labels=config.json", *settings(top_k=2), expect=2)
    complaint(done, "'gut 👍' can't be written in latin-1")
    fake.values_of = lambda text, _: [0.75, 0.25] if text in ("grün", "ok") else [0.25, 0.75]
    classify(*shared, *settings(top_k=2))
    assert b"\\ud83d\\udc4d" in (tmp_path / "out.csv").read_bytes()
    (line,) = pd.read_csv(tmp_path / "out.csv", encoding="latin-1")["predicted_top"]
    assert [pair["label"] for pair in json.loads(line)] == ["schlecht", "gut 👍"]


OTHER: Row = {"min_score": {"default": 0.75, "neutral": 1.0}, "unsure_label": "?", "multi_label": 0.25, "top_k": 3}


def check_rows(path: Path, setting: Row, rows: int) -> None:
    """See that an output is what the reference says of `text 0`, `text 1` ... by the fake's model of several labels."""
    wanted = []
    for row in range(rows):
        probs = own_values_of(f"text {row}")
        wanted.append(expected(probs, LABELS[probs.index(max(probs))], setting, LABELS))
    assert read(path) == wanted


def rows_kept(checkpoint: Path) -> int:
    """The rows that a checkpoint has, 0 if there is none yet."""
    if not checkpoint.exists():
        return 0
    with closing(Checkpoint(checkpoint, read_only=True)) as opened:
        return opened.counts()[0]


def sent_rows(fake: FakeServer) -> int:
    """How many rows were sent, canaries not counted."""
    return sum(text.startswith("text ") for text in fake.texts)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_killed_and_run_with_other_thresholds_only_the_rest_is_sent(
    ending: str, fake: FakeServer, tmp_path: Path
) -> None:
    """Thresholds are no part of what a checkpoint belongs to: what was answered is used as it is."""
    write_input(tmp_path / f"in.{ending}", 200)
    output, fake.values_of, fake.hold_after = tmp_path / f"out.{ending}", own_values_of, 100
    shared = ["run", str(tmp_path / f"in.{ending}"), "-o", str(output), "--url", fake.url, *NAMED, "--quiet"]
    shared += ["--set", "request.rows=20", "--set", "request.concurrency=2"]
    first = start([*shared, *settings(multi_label=0.5, min_score=0.5)])
    checkpoint, until = tmp_path / f".out.{ending}.checkpoint", time.monotonic() + 60
    while rows_kept(checkpoint) < 60:
        assert time.monotonic() < until
        time.sleep(0.05)
    kill_group(first)
    kept, before, fake.hold_after = rows_kept(checkpoint), sent_rows(fake), None
    code, said = finish([*shared, *settings(**OTHER)])
    assert code == 0, said
    assert sent_rows(fake) - before == 200 - kept
    check_rows(output, OTHER, 200)


def test_killed_while_it_is_published_it_is_joined_again_without_a_server(fake: FakeServer, tmp_path: Path) -> None:
    """All is answered, the output is there, and its checkpoint, too."""
    write_input(tmp_path / "in.jsonl", 50)
    shared = [
        "run",
        str(tmp_path / "in.jsonl"),
        "-o",
        str(tmp_path / "out.jsonl"),
        "--url",
        fake.url,
        *NAMED,
        "--quiet",
    ]
    fake.values_of = own_values_of
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_RENAME, *shared, *settings(multi_label=0.5, min_score=0.5)],
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    fake.down()
    code, said = finish([*shared, *settings(**OTHER)])
    assert code == 0, said
    check_rows(tmp_path / "out.jsonl", OTHER, 50)


def test_a_complete_output_with_failed_rows_is_joined_again(
    fake: FakeServer, tmp_path: Path, classify: Command
) -> None:
    """Its checkpoint is there: nothing is sent, and the counts are those of the new thresholds."""
    write_input(tmp_path / "in.csv", 20)
    fake.values_of = own_values_of
    fake.rules.append((lambda text: text == "text 7", refuse(400, "no")))
    shared = ("run", "in.csv", "-o", "out.csv", "--url", fake.url, *NAMED)
    classify(*shared, *settings(min_score=0.5, top_k=1), expect=3)
    fake.down()
    done = classify(*shared, *settings(**OTHER), expect=3)
    rows = read(tmp_path / "out.csv")
    unsure = sum(row["predicted_unsure"] is True for row in rows)
    assert f"{unsure} unsure" in done.stderr.splitlines()[-1]
    assert (rows[7]["predicted_label"], rows[7]["predicted_unsure"], rows[7]["predicted_labels"]) == (None, None, None)
    record = json.loads((tmp_path / ".out.csv.run.json").read_text())
    assert (record["unsure"], record["labelled"], record["labels"].get("?", 0)) == (unsure, 19, unsure)
    complaint(classify(*shared, *settings(**{**OTHER, "unsure_label": "neutral"}), expect=2), "which is a class")


def test_a_complete_output_is_made_again_and_stored_answers_are_not_sent(
    fake: FakeServer, tmp_path: Path, classify: Command
) -> None:
    """Its answers are gone with its checkpoint, which is said; `run.reuse` has them. The same again does nothing."""
    write_input(tmp_path / "in.csv", 20)
    fake.values_of = own_values_of
    shared = ("run", "in.csv", "-o", "out.csv", "--url", fake.url, *NAMED, "--set", "run.reuse=answers.sqlite")
    classify(*shared, *settings(min_score=0.5, multi_label=0.5))
    assert sent_rows(fake) == 20
    checked = classify("check", *shared[1:], *settings(**OTHER))
    assert "out.csv: is made again with other thresholds" in checked.stdout
    done = classify(*shared, *settings(**OTHER))
    assert "is made again with other thresholds; only run.reuse keeps the answers" in done.stderr
    assert sent_rows(fake) == 20
    check_rows(tmp_path / "out.csv", OTHER, 20)
    assert "complete already" in classify(*shared, *settings(**OTHER)).stderr
    done = classify(*shared, *settings(**OTHER), "--set", "writer.prefix=p_", expect=2)
    complaint(done, "writer.prefix: was 'predicted_', now 'p_'")
    done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *NAMED, *settings(min_score=0.5), expect=2)
    complaint(done, "probabilities kept: was True, now False")


def test_standard_output_and_many_files(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Rows go to a pipe as in a file, though labels come late; the counts of many files are summed."""
    fake.values_of = own_values_of
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_input(tmp_path / "in" / f"{name}.jsonl", 30)
    shared = ("--url", fake.url, "--set", "request.rows=3", *NAMED, *settings(**OTHER))
    piped = classify("run", "in/a.jsonl", "-o", "-", *shared)
    (tmp_path / "piped.jsonl").write_text(piped.stdout)
    check_rows(tmp_path / "piped.jsonl", OTHER, 30)
    metrics = ("--set", "run.metrics_file=m.prom")
    done = classify("run", "in", "-o", "out/", *shared, *metrics)
    check_rows(tmp_path / "out" / "b.jsonl", OTHER, 30)
    unsure = 2 * sum(row["predicted_unsure"] for row in read(tmp_path / "piped.jsonl"))
    assert f", {unsure} unsure, " in done.stderr.splitlines()[-1]
    assert f"{float(unsure)}" in next(
        line for line in (tmp_path / "m.prom").read_text().splitlines() if line.startswith("classify_rows_unsure{")
    )


@pytest.mark.slow
def test_files_without_labels(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Without a row, or with empty texts alone, there is nothing that names classes, and nothing to name."""
    (tmp_path / "none.csv").write_text("text\n")
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    for name, named in (("none.csv", ()), ("empty.jsonl", NAMED)):
        for ending in ("csv", "parquet"):
            classify("run", name, "-o", f"{name}.{ending}", "--url", fake.url, *named, *settings(**SETTING))
    assert sent_rows(fake) == 0
    names = ["text", *(f"predicted_{each}" for each in ("label", "score", "error", "unsure", "labels", "top"))]
    assert pq.read_schema(tmp_path / "none.csv.parquet").names == names
    (row,) = pq.read_table(tmp_path / "empty.jsonl.parquet").to_pylist()
    assert [*row.values()] == ["", None, None, "empty: no text", None, None, None]


def test_check_says_what_thresholds_can_mean(fake: FakeServer, tmp_path: Path, classify: Command) -> None:
    """Whether classes compete, or thresholds are logits; a run for several labels says the first, too."""
    write_input(tmp_path / "in.csv", 3)
    competing = "the values of a text sum to 1: these classes compete, and no two can be over 0.5"
    assert f"\n  {competing}\n" in classify("check", "in.csv", "--url", fake.url).stdout
    shared = ("run", "in.csv", "--url", fake.url, *NAMED, *settings(multi_label=0.5))
    assert f"writer.multi_label: {competing}; of a model" in classify(*shared, "-o", "1.csv").stderr
    fake.values_of = own_values_of
    checked = classify("check", "in.csv", "--url", fake.url).stdout
    assert "do not sum to 1: each class is judged by itself" in checked
    assert "compete" not in checked + classify(*shared, "-o", "2.csv").stderr
    fake.values_of = lambda text, classes: [9 * value - 4 for value in probs_of(text, classes)]
    checked = classify("check", "in.csv", "--url", fake.url, "--set", "request.activation=false").stdout
    assert "the values are raw logits, and so are the thresholds of writer.min_score" in checked


def test_a_server_that_gives_the_best_class_only_is_refused(tmp_path: Path, classify: Command) -> None:
    """It has no values of the other classes; `min_score` needs none."""
    write_input(tmp_path / "in.csv", 3)
    with FakeServer(api=BestOnly()) as server:
        shared = ("run", "in.csv", "-o", "out.csv", "--url", f"{server.url}/predict", "--api", "json", *NAMED)
        complaint(classify(*shared, *settings(top_k=2), expect=2), "gives only the best class", "leave writer.top_k")
        classify(*shared, *settings(min_score={"default": 0.6, "neutral": 0.7}))
    for row in read(tmp_path / "out.csv"):
        least = 0.7 if row["predicted_label"] == "neutral" else 0.6
        assert row["predicted_unsure"] is (row["predicted_score"] < least)
