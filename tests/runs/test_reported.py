"""A run makes its report when its output is there: what it says, what it costs, and that it never costs the output."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, complaint, last_line
from fake import FakeServer, label_of, refuse
from files import rows_of, write
from prometheus_client.parser import text_string_to_metric_families
from receiving import Receiver

PRIVATE = "a text that nobody else may read"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody who wants to know how runs end."""
    with Receiver() as server:
        yield server


def texts(first: int, rows: int = 2000) -> list[str]:
    """The texts of a night."""
    return [f"{PRIVATE} {number}" for number in range(first, first + rows)]


def config(path: Path, fake: FakeServer, report: str, more: str = "") -> Path:
    """A config of a night, with a section `[report]`."""
    path.write_text(
        f'[loader]\ninput = "in.csv"\n[server]\nurl = "{fake.url}"\n[writer]\noutput = "out.csv"\n'
        f"[report]\n{report}\n[run]\n{more}\n"
    )
    return path


def record(tmp_path: Path) -> dict[str, Any]:
    """The record beside the output."""
    found: dict[str, Any] = json.loads((tmp_path / ".out.csv.run.json").read_text())
    return found


def test_three_nights(tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command) -> None:
    """The second has another mix, the third a broken model behind the old name: 0, 5, 5, told to all without a text."""
    report = 'output = [".html", ".md"]\nagainst = "last"\nfail_on = ["drift"]\nexamples = 0'
    more = f'metrics_file = "n.prom"\nnotify_url = "{receiver.url}"'
    nightly = config(tmp_path / "nightly.toml", fake, report, more)
    mixed = [text for text in texts(10_000, 20_000) if _is_positive(text)][:2000]
    nights = [(texts(0), "", 0), (mixed, "", 5), (texts(5000), "other weights, which are broken", 5)]
    for rows, weights, code in nights:
        write(tmp_path / "in.csv", rows)
        fake.weights = weights
        fake.answered.clear()
        done = classify("run", nightly, expect=code)
        sent = sum(fake.answered.values())
        assert len(rows_of(tmp_path / "out.csv")) == 2000
        kept = record(tmp_path)
        assert (kept["exit_code"], kept["report"]["verdict"]) == (code, "fail" if code else kept["report"]["verdict"])
        again = classify("run", nightly, expect=code)
        assert sum(fake.answered.values()) == sent
        assert "complete already" in last_line(again)
        if code:
            assert "FAIL Label shares: " in done.stderr or "FAIL The same model: " in done.stderr
            assert "; exit 5: the report fails: " in last_line(done)
        told = receiver.bodies[-1]
        assert (told["exit_code"], told["report"]["verdict"]) == (code, kept["report"]["verdict"])
        samples = _samples(tmp_path / "n.prom")
        failed = {check for (name, check, state), value in samples.items() if state == "fail" and value}
        assert failed == {check["id"] for check in kept["report"]["checks"] if check["state"] == "fail"}
        assert bool(failed) == bool(code)
        for path in ("out.report.html", "out.report.md", "out.report.json", ".out.csv.history.jsonl", "n.prom"):
            assert PRIVATE not in (tmp_path / path).read_text(), path
        assert PRIVATE not in json.dumps(receiver.bodies) + done.stderr
    found = json.loads((tmp_path / "out.report.json").read_text())
    assert (
        found["drift"]["against"]["started"]
        == json.loads((tmp_path / ".out.csv.history.jsonl").read_text().splitlines()[0])["started"]
    )


def _is_positive(text: str) -> bool:
    return label_of(text) == "positive"


def _samples(path: Path) -> dict[tuple[str, str, str], float]:
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            if sample.name.startswith("classify_report"):
                found[sample.name, sample.labels["check"], sample.labels.get("state", "")] = sample.value
    return found


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ('output = ".html"\ntruth = "truht"', ("no column 'truht'", "did you mean 'truth'?")),
        ('output = ".json"\nagainst = "none.csv"', ("none.csv: there is nothing to compare with",)),
        ('output = "none/r.html"', ("none/r.html: its directory does not exist",)),
        ('fail_on = ["drift"]\nhistory = "none/h.jsonl"', ("none/h.jsonl: its directory does not exist",)),
    ],
)
def test_what_can_not_be_reported_is_said_before_the_first_request(
    report: str, words: tuple[str, ...], tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Nothing is paid for first, and a check says the same."""
    (tmp_path / "in.csv").write_text("text,truth\na,b\n")
    nightly = config(tmp_path / "n.toml", fake, report)
    said = [complaint(classify(command, nightly, expect=2), *words) for command in ("run", "check")]
    assert said[0].partition(" (")[0] == said[1].partition(" (")[0]
    assert not fake.requests
    assert not (tmp_path / "out.csv").exists()


def test_standard_output_can_not_be_reported(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Its rows are gone when they are written."""
    write(tmp_path / "in.csv", ["a"])
    done = classify("run", "in.csv", "-o", "-", "--url", fake.url, "--set", "report.output=.json", expect=2)
    complaint(done, "standard output can't be read again")


@pytest.mark.parametrize(("fail_on", "code"), [("[]", 0), ('["drift"]', 5)])
def test_a_report_that_can_not_be_written_costs_no_output(
    fail_on: str, code: int, tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """It is one line; what could not be checked has not passed. Once it can be written, the same command does it."""
    write(tmp_path / "in.csv", texts(0, 300))
    (tmp_path / "r.json").write_text('{"mine": 1}')
    nightly = config(tmp_path / "n.toml", fake, f'output = "r.md"\nfail_on = {fail_on}')
    done = classify("run", nightly, expect=code)
    assert "the output is complete, but its report can't be made: " in done.stderr
    assert "r.json: exists, and is no report" in done.stderr
    assert len(rows_of(tmp_path / "out.csv")) == 300
    assert (tmp_path / "r.json").read_text() == '{"mine": 1}'
    (tmp_path / "r.json").unlink()
    fake.requests.clear()
    classify("run", nightly)
    assert not fake.requests
    assert (tmp_path / "r.md").exists()
    assert record(tmp_path)["exit_code"] == 0


def test_other_settings_make_another_report(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The output stays, nothing is sent; without a section the code is that of the run again."""
    write(tmp_path / "in.csv", texts(0, 300))
    limits = 'output = ".json"\nfail_on = ["drift"]\nlimits = { one_label = 0.01 }'
    done = classify("run", config(tmp_path / "n.toml", fake, limits), expect=5)
    assert "FAIL Not all one label: " in done.stderr
    fake.requests.clear()
    classify("run", config(tmp_path / "n.toml", fake, limits), expect=5)
    classify("run", config(tmp_path / "n.toml", fake, limits.replace("0.01", "0.9")))
    classify("run", config(tmp_path / "n.toml", fake, limits), expect=5)
    classify("run", config(tmp_path / "n.toml", fake, ""))
    assert not fake.requests


def test_failed_rows_count_for_more(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """3 before 5: what failed explains what drifted; the report is there all the same."""
    write(tmp_path / "in.csv", texts(0, 300))
    fake.rules.append((lambda text: text.endswith("7"), refuse(400, "no")))
    limits = 'output = ".md"\nfail_on = ["drift"]\nlimits = { one_label = 0.01 }'
    done = classify("run", config(tmp_path / "n.toml", fake, limits), expect=3)
    assert "FAIL Not all one label: " in done.stderr
    assert "rejected" in json.loads((tmp_path / "out.report.json").read_text())["errors"][0]["code"]


def test_a_directory_has_one_report(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """All files of a night together, also when all were complete; its name is that of the directory."""
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "b.csv"):
        write(tmp_path / "in" / name, texts(0, 200))
    arguments = ("run", "in", "-o", "out/", "--url", fake.url, "--set", "report.output=.json")
    strict = ("--set", 'report.fail_on=["drift"]', "--set", "report.limits.one_label=0.01")
    classify(*arguments)
    assert json.loads((tmp_path / "out.report.json").read_text())["rows"]["all"] == 400
    for _ in range(2):
        assert "exit 5" in last_line(classify(*arguments, *strict, expect=5))
    kept = json.loads((tmp_path / "out" / ".classify.run.json").read_text())
    assert (kept["exit_code"], kept["report"]["verdict"]) == (5, "fail")
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {"a.csv", "b.csv"}


def test_a_config_is_reported_by_hand(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """`classify report CONFIG.toml` is what its section says, of the output as it stands."""
    write(tmp_path / "in.csv", texts(0, 200))
    nightly = config(tmp_path / "n.toml", fake, 'output = "r.md"\nexamples = 0')
    classify("run", nightly)
    first = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").unlink()
    done = classify("report", nightly)
    assert "report: " in done.stderr
    assert json.loads((tmp_path / "r.json").read_text()) == first


def test_interrupted_while_it_is_reported(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The output is there, and the same command makes the report. A kill leaves the same: nothing is half written."""
    write(tmp_path / "in.csv", texts(0, 200))
    nightly = config(tmp_path / "n.toml", fake, 'output = ".md"')
    code = (
        "import os, signal, pipeline.runs.reported as r; from pipeline.cli import main\n"
        "def stop(*a):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"r.write_report = stop\nmain(['run', {str(nightly)!r}])"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    assert len(rows_of(tmp_path / "out.csv")) == 200
    assert not (tmp_path / "out.report.md").exists()
    fake.requests.clear()
    done = classify("run", nightly)
    assert not fake.requests
    assert re.search(r"^report: .*out\.report\.md$", done.stderr, re.MULTILINE)
    assert (tmp_path / "out.report.md").exists()
