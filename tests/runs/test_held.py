"""A report that fails holds the new output: the last one stays until a person has looked, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, complaint, last_line
from fake import FakeServer, label_of, refuse
from files import rows_of, write
from prometheus_client.parser import text_string_to_metric_families
from receiving import Receiver
from s3 import Bucket
from warm import Warm

ROWS = 300
GATE = """against = "last"
fail_on = ["drift"]
on_fail = "hold"
examples = 0
output = ".md"
limits = { one_label = 1, score_shift = 1, label_shift = 0.1 }"""
STRICT = 'fail_on = ["drift"]\non_fail = "hold"\noutput = ".md"\nlimits = { one_label = 0.01 }'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody who wants to know how runs end."""
    with Receiver() as server:
        yield server


def texts(first: int, label: str | None = None, rows: int = ROWS) -> list[str]:
    """The texts of a night; of one `label` only, or of any."""
    numbered = (f"text {number}" for number in range(first, first + 100 * rows))
    return [text for text in numbered if label in (None, label_of(text))][:rows]


def config(path: Path, fake: FakeServer, report: str = GATE, more: str = "", source: str = "in.csv") -> Path:
    """A config of a night that holds what fails."""
    target = "out.csv" if source == "in.csv" else "out/"
    path.write_text(
        f'[loader]\ninput = "{source}"\n[server]\nurl = "{fake.url}"\n[writer]\noutput = "{target}"\n'
        f"[report]\n{report}\n[run]\n{more}\n"
    )
    return Path(path.name)


def record(path: Path) -> dict[str, Any]:
    """The run record of a file."""
    found: dict[str, Any] = json.loads(path.with_name(f".{path.name}.run.json").read_text())
    return found


def shown(folder: Path) -> set[str]:
    """The outputs in a directory that a reader sees."""
    return {path.name for path in folder.iterdir() if path.suffix == ".csv" and path.name[0] not in "._"}


def labels(path: Path, count: int = ROWS) -> set[str]:
    """The labels of a file; each row has the label of its own text."""
    rows = rows_of(path)
    assert all(row["predicted_label"] == label_of(row["text"]) for row in rows)
    assert len(rows) == count
    return {row["predicted_label"] for row in rows}


def history(tmp_path: Path, name: str = ".out.csv.history.jsonl") -> list[dict[str, Any]]:
    """The nights in the history, the oldest first."""
    return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]


def metric(path: Path, name: str) -> float:
    """The value of a metric."""
    families = text_string_to_metric_families(path.read_text())
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


def test_nights_that_are_held(tmp_path: Path, fake: FakeServer, receiver: Receiver, classify: Command) -> None:
    """0, 5, 5: the readers keep the first night; the third is accepted, and is what the fourth is compared with."""
    nightly = config(tmp_path / "n.toml", fake, more=f'metrics_file = "n.prom"\nnotify_url = "{receiver.url}"')
    out, held = tmp_path / "out.csv", tmp_path / "out.held.csv"
    write(tmp_path / "in.csv", texts(0))
    classify("run", nightly)
    first, first_record, first_report = out.read_bytes(), record(out), (tmp_path / "out.report.md").read_bytes()
    assert shown(tmp_path) == {"in.csv", "out.csv"}
    assert metric(tmp_path / "n.prom", "classify_output_held") == 0
    for label in ("positive", "negative"):
        write(tmp_path / "in.csv", texts(10_000, label))
        done = classify("run", nightly, expect=5)
        assert "; exit 5: the report fails: " in last_line(done)
        for words in ("held as out.held.csv", "`classify accept out.csv`", "--restart"):
            assert words in last_line(done)
        assert "report: out.report.held.md" in done.stderr
        assert (out.read_bytes(), record(out)) == (first, first_record)
        assert (tmp_path / "out.report.md").read_bytes() == first_report
        assert labels(held) == {label}
        assert metric(tmp_path / "n.prom", "classify_output_held") == 1
        assert receiver.bodies[-1]["held"]["output"] == "out.held.csv"
        assert "held as out.held.csv" in receiver.bodies[-1]["text"]
        fake.requests.clear()
        again = classify("run", nightly, expect=5)
        assert not fake.requests, "nothing is paid for again"
        assert "complete already" in last_line(again)
        assert "held as out.held.csv" in last_line(again)
        assert "held as out.held.csv" in classify("check", nightly, expect=5).stdout
        status = classify("status", "out.csv").stdout
        assert status.startswith("out.csv: held, ")
        assert "`classify accept out.csv`" in status
    assert "accepted" in classify("accept", "out.csv").stderr
    assert "accepted already" in classify("accept", "out.csv").stderr
    assert labels(out) == {"negative"}
    assert shown(tmp_path) == {"in.csv", "out.csv"}
    assert not list(tmp_path.glob("*.held*")) + list(tmp_path.glob(".*.held*"))
    assert (record(out)["exit_code"], record(out)["held"]) == (0, None)
    assert (tmp_path / "out.report.md").read_bytes() != first_report
    assert [bool(night.get("accepted")) for night in history(tmp_path)] == [False, False, True]
    fake.requests.clear()
    assert "complete already" in last_line(classify("run", nightly))
    assert not fake.requests
    accepted = record(out)["started"]
    write(tmp_path / "in.csv", texts(60_000, "negative"))
    classify("run", nightly)
    found = json.loads((tmp_path / "out.report.json").read_text())
    assert found["drift"]["against"]["started"] == accepted
    assert labels(out) == {"negative"}


def hold_one(tmp_path: Path, fake: FakeServer, classify: Command) -> Path:
    """A first night that is in its place, and a second that is held; returns the config."""
    nightly = config(tmp_path / "n.toml", fake)
    write(tmp_path / "in.csv", texts(0))
    classify("run", nightly)
    write(tmp_path / "in.csv", texts(10_000, "positive"))
    classify("run", nightly, expect=5)
    fake.requests.clear()
    return nightly


def test_what_is_held_can_be_thrown_away(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The output stays as it was; the same input is classified again, and nothing is left to accept."""
    nightly = hold_one(tmp_path, fake, classify)
    before = (tmp_path / "out.csv").read_bytes()
    assert "discarded" in classify("accept", "--discard", "out.csv").stderr
    assert (tmp_path / "out.csv").read_bytes() == before
    assert not list(tmp_path.glob("*.held*")) + list(tmp_path.glob(".*.held*"))
    complaint(classify("accept", "out.csv", expect=2), "out.csv: nothing is held here")
    assert "complete" in classify("status", "out.csv").stdout
    classify("run", nightly, expect=5)
    assert fake.requests


def test_the_next_night_replaces_what_is_held(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """A good night is published, and nothing is held any more."""
    nightly = hold_one(tmp_path, fake, classify)
    write(tmp_path / "in.csv", texts(50_000))
    classify("run", nightly)
    assert len(labels(tmp_path / "out.csv")) > 1
    assert not list(tmp_path.glob("*.held*")) + list(tmp_path.glob(".*.held*"))
    complaint(classify("accept", "out.csv", expect=2), "nothing is held here")


def test_restart_classifies_again_what_is_held(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """It is forgotten as any output is, and judged again."""
    nightly = hold_one(tmp_path, fake, classify)
    before = (tmp_path / "out.csv").read_bytes()
    classify("run", nightly, "--restart", expect=5)
    assert fake.requests
    assert (tmp_path / "out.csv").read_bytes() == before
    assert labels(tmp_path / "out.held.csv") == {"positive"}


@pytest.mark.parametrize("report", ["", GATE.replace("hold", "publish"), GATE.replace("shift = 0.1", "shift = 1")])
def test_other_settings_put_it_in_place(report: str, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Without holding, or with limits that it does not break, what was paid for is published; nothing is sent."""
    hold_one(tmp_path, fake, classify)
    nightly = config(tmp_path / "n.toml", fake, report)
    done = classify("run", nightly, expect=5 if "publish" in report else 0)
    assert "complete already, was held, is put in its place now: 300 rows" in last_line(done)
    assert not fake.requests
    assert labels(tmp_path / "out.csv") == {"positive"}
    assert not list(tmp_path.glob("*.held*")) + list(tmp_path.glob(".*.held*"))
    done = classify("run", nightly, expect=5 if "publish" in report else 0)
    assert "complete already, nothing to do: 300 rows" in last_line(done)
    assert not fake.requests


def test_failed_rows_are_tried_again_where_they_are_held(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """3 counts for more than 5, and is held all the same; after the acceptance the checkpoint still has the answers."""
    write(tmp_path / "in.csv", texts(0))
    fake.rules.append((lambda text: text.endswith("77"), refuse(400, "no")))
    nightly = config(tmp_path / "n.toml", fake, STRICT)
    assert "held as out.held.csv" in last_line(classify("run", nightly, expect=3))
    assert not (tmp_path / "out.csv").exists()
    fake.rules.clear()
    classify("run", nightly, "--retry-failed", expect=5)
    assert labels(tmp_path / "out.held.csv")
    classify("accept", "out.csv")
    assert labels(tmp_path / "out.csv")


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Neither where an output would be held, before the first request, nor where it would be accepted."""
    write(tmp_path / "in.csv", texts(0))
    (tmp_path / "out.held.csv").write_text("mine")
    nightly = config(tmp_path / "n.toml", fake, STRICT)
    for command in ("run", "check"):
        complaint(classify(command, nightly, expect=2), "out.held.csv: exists, and was not made by this program")
    assert not fake.requests
    (tmp_path / "out.held.csv").unlink()
    classify("run", nightly, expect=5)
    (tmp_path / "out.csv").write_text("mine")
    complaint(classify("accept", "out.csv", expect=2), "out.csv: was not made by this program, or changed since")
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_a_report_that_can_not_be_made_holds(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """What could not be checked has not passed; when it can be, the same command publishes it."""
    write(tmp_path / "in.csv", texts(0))
    (tmp_path / "r.json").write_text('{"mine": 1}')
    nightly = config(tmp_path / "n.toml", fake, STRICT.replace(".md", "r.md").replace("0.01", "1"))
    assert "held as out.held.csv" in last_line(classify("run", nightly, expect=5))
    assert shown(tmp_path) == {"in.csv", "out.held.csv"}
    (tmp_path / "r.json").unlink()
    fake.requests.clear()
    classify("run", nightly)
    assert not fake.requests
    assert shown(tmp_path) == {"in.csv", "out.csv"}


def test_standard_output_is_not_held(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Its rows are gone before they can be judged, which is said before the first request."""
    write(tmp_path / "in.csv", ["a"])
    gate = ("--set", 'report.fail_on=["drift"]', "--set", "report.on_fail=hold")
    done = classify("run", "in.csv", "-o", "-", "--url", fake.url, *gate, expect=2)
    complaint(done, "standard output is not held: it is gone when its report is made")
    assert not fake.requests
    done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, *gate[2:], expect=2)
    complaint(done, 'report.on_fail = "hold" needs report.fail_on')


def hold_directory(tmp_path: Path, fake: FakeServer, classify: Command) -> Path:
    """A first night of two files that is in its place, and a second that is held; returns the config."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    nightly = config(tmp_path / "n.toml", fake, source="in/")
    for label, code in ((None, 0), ("positive", 5)):
        write(tmp_path / "in" / "a.csv", texts(0 if code == 0 else 10_000, label))
        write(tmp_path / "in" / "sub" / "b.csv", texts(50_000, label))
        classify("run", nightly, expect=code)
    fake.requests.clear()
    return nightly


def test_a_directory_is_held_as_a_whole(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Its readers see last night's files and no others; all that the run made is accepted together."""
    nightly = hold_directory(tmp_path, fake, classify)
    out = tmp_path / "out"
    files = {out / "a.csv": out / ".held" / "a.csv", out / "sub" / "b.csv": out / ".held" / "sub" / "b.csv"}
    assert {path for path in out.rglob("*.csv") if ".held" not in path.parts} == {*files}
    for path, held in files.items():
        assert len(labels(path)) > 1
        assert labels(held) == {"positive"}
    again = classify("run", nightly, expect=5)
    assert not fake.requests
    assert "held as out/.held" in last_line(again)
    assert "`classify accept out/`" in last_line(again)
    assert classify("status", "out").stdout.startswith("out: held, ")
    assert "600 rows" in classify("report", "out").stdout
    assert "600 rows" in classify("accept", "out").stderr
    assert "accepted already" in classify("accept", "out/").stderr
    assert all(labels(path) == {"positive"} for path in files)
    assert not (out / ".held").exists()
    assert "complete already" in last_line(classify("run", nightly))
    assert not fake.requests
    assert classify("status", "out").stdout.startswith("out: complete, ")
    assert json.loads((tmp_path / ".out.history.jsonl").read_text().splitlines()[-1])["accepted"]


def test_a_directory_is_thrown_away_as_a_whole(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The files of last night stay."""
    hold_directory(tmp_path, fake, classify)
    classify("accept", "--discard", "out")
    assert not (tmp_path / "out" / ".held").exists()
    assert len(labels(tmp_path / "out" / "a.csv")) > 1
    assert "held" not in classify("status", "out").stdout.splitlines()[0]


def test_files_by_day(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Each day has an output of its own: those of a run are held and accepted together."""
    days = ("2026-11-21", "2026-11-22")
    many = [text for first in range(0, 400_000, 10_000) for text in texts(first)]
    write(tmp_path / "in-2026-11-21.csv", many)
    write(tmp_path / "in-2026-11-22.csv", texts(0))  # small: it is written first
    nightly = tmp_path / "n.toml"
    nightly.write_text(
        f'[loader]\ninput = "in-{{date}}.csv"\n[server]\nurl = "{fake.url}"\n[writer]\noutput = "out-{{date}}.csv"\n'
        f"[report]\n{STRICT.replace('.md', 'r.md')}\n"
    )
    done = classify("run", nightly.name, "--date", "..".join(days), expect=5)
    assert "`classify accept out-2026-11-21.csv out-2026-11-22.csv`" in last_line(done)
    assert not list(tmp_path.glob("out-2026-11-2?.csv"))
    classify("accept", *(f"out-{day}.csv" for day in days))
    assert labels(tmp_path / "out-2026-11-21.csv", len(many))
    assert labels(tmp_path / "out-2026-11-22.csv")
    assert not list(tmp_path.glob("*.held*"))


def test_objects_of_a_store(tmp_path: Path, bucket: Bucket, fake: FakeServer, classify: Command) -> None:
    """They are copied in the store, and readers see the old object or the new one."""
    nightly = config(tmp_path / "n.toml", fake)
    arguments = ("run", nightly, "-o", bucket.uri("x/out.csv"), "--set", "run.state_dir=state")
    write(tmp_path / "in.csv", texts(0))
    classify(*arguments, env=bucket.environment)
    first = bucket.get("x/out.csv")
    write(tmp_path / "in.csv", texts(10_000, "positive"))
    done = classify(*arguments, expect=5, env=bucket.environment)
    assert f"`classify accept {bucket.uri('x/out.csv')} --set run.state_dir=state`" in last_line(done)
    held = bucket.get("x/out.held.csv")
    assert held not in (None, first)
    assert bucket.get("x/out.csv") == first
    classify("accept", bucket.uri("x/out.csv"), "--set", "run.state_dir=state", env=bucket.environment)
    assert bucket.get("x/out.csv") == held
    assert not [key for key in set(bucket.keys()) if "held" in key]
    fake.requests.clear()
    classify(*arguments, env=bucket.environment)
    assert not fake.requests


def test_a_directory_in_a_store(tmp_path: Path, bucket: Bucket, fake: FakeServer, classify: Command) -> None:
    """A bucket itself, too: what is held is in it, where readers of directories do not look."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", texts(0))
    nightly = config(tmp_path / "n.toml", fake, STRICT.replace(".md", "r.md"), source="in/")
    classify("run", nightly, "-o", bucket.uri(""), expect=5, env=bucket.environment)
    assert ".held/a.csv" in set(bucket.keys())
    assert "a.csv" not in set(bucket.keys())
    classify("accept", bucket.uri(""), env=bucket.environment)
    assert "a.csv" in set(bucket.keys())
    assert ".held/a.csv" not in set(bucket.keys())


def test_a_held_file_that_was_changed_is_not_replaced(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """Somebody has mended a row by hand: no command takes it for its own, and each says so."""
    nightly = hold_one(tmp_path, fake, classify)
    held = tmp_path / "out.held.csv"
    mended = held.read_text() + "mended,positive,1\n"
    held.write_text(mended)
    for command in (("run", nightly), ("check", nightly), ("accept", "out.csv")):
        complaint(classify(*command, expect=2), "out.held.csv: was changed since it was held; move it away, or ")
    config(tmp_path / "n.toml", fake, "")
    complaint(classify("run", nightly, expect=2), "or replace it with --overwrite")
    write(tmp_path / "in.csv", texts(50_000))
    complaint(classify("run", config(tmp_path / "n.toml", fake), expect=2), "out.held.csv: was changed since")
    assert held.read_text() == mended
    assert not fake.requests
    status = classify("status", "out.csv").stdout
    assert status.startswith("out.csv: held, but changed since, ")
    assert "`classify accept out.csv --discard`" in status
    assert "discarded" in classify("accept", "out.csv", "--discard").stderr
    assert not left_over(tmp_path)
    classify("run", nightly)
    assert len(labels(tmp_path / "out.csv")) > 1


def test_overwrite_replaces_a_held_file_that_was_changed(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The person has said so."""
    nightly = hold_one(tmp_path, fake, classify)
    (tmp_path / "out.held.csv").write_text("mine")
    classify("run", nightly, "--overwrite", expect=5)
    assert labels(tmp_path / "out.held.csv") == {"positive"}


@pytest.mark.parametrize("name", ["a.csv", "sub/b.csv"])
def test_a_changed_file_of_a_held_directory(name: str, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """None of the files is accepted, and none replaced, as long as one is not what was held."""
    nightly = hold_directory(tmp_path, fake, classify)
    held = tmp_path / "out" / ".held" / name
    held.write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.csv")}
    for command in (("run", nightly), ("check", nightly), ("accept", "out/")):
        done = classify(*command, expect=2)
        assert f"out/.held/{name}: was changed since it was held; move it away, or " in done.stdout + done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.csv")} == before
    assert not fake.requests
    assert len(history(tmp_path, ".out.history.jsonl")) == 2
    assert classify("status", "out").stdout.startswith("out: held, but changed since, ")
    classify("accept", "--discard", "out")
    assert not (tmp_path / "out" / ".held").exists()


UNWRITTEN = GATE.replace('output = ".md"\n', "")


def shown_command(line: str) -> list[str]:
    """The arguments of the first command that a line names."""
    return shlex.split(line.split("`classify ", maxsplit=1)[1].split("`", maxsplit=1)[0])


@pytest.mark.parametrize("source", ["in.csv", "in/"])
def test_without_a_report_a_command_shows_why(source: str, tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The run was to write no report, so what it names is one that can be made, and that compares with last night."""
    (tmp_path / "in").mkdir()
    nightly = config(tmp_path / "n.toml", fake, UNWRITTEN, source=source)
    place = tmp_path / (source if source == "in.csv" else "in/a.csv")
    write(place, texts(0))
    classify("run", nightly)
    write(place, texts(10_000, "positive"))
    done = classify("run", nightly, expect=5)
    status = classify("status", "out.csv" if source == "in.csv" else "out").stdout.splitlines()[-1]
    assert shown_command(status) == shown_command(last_line(done))
    report = classify(*shown_command(status), "--set", 'report.fail_on=["drift"]', expect=5).stdout
    assert "300 rows" in report
    assert "FAIL" in report


def test_a_first_night_without_a_report(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """There is nothing to compare with, and the command does not name it."""
    write(tmp_path / "in.csv", texts(0))
    done = classify("run", config(tmp_path / "n.toml", fake, STRICT.replace('output = ".md"\n', "")), expect=5)
    assert shown_command(last_line(done)) == ["report", "out.held.csv"]
    assert "300 rows" in classify("report", "out.held.csv").stdout


def test_a_config_names_what_is_accepted(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """As for reports and samples: its output, a file or a directory."""
    nightly = hold_one(tmp_path, fake, classify)
    assert "out.csv: discarded" in classify("accept", nightly, "--discard").stderr
    classify("run", nightly, expect=5)
    assert "out.csv: accepted: 300 rows" in classify("accept", nightly).stderr
    assert labels(tmp_path / "out.csv") == {"positive"}
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", texts(0))
    many = config(tmp_path / "m.toml", fake, STRICT, source="in/")
    classify("run", many, expect=5)
    assert "out/: accepted: 300 rows" in classify("accept", many).stderr
    assert len(labels(tmp_path / "out" / "a.csv")) > 1


# Each step of a command that changes a file, and kill -9 before it.


class Killed:
    """A directory that is as it was before each of the steps at which a command is killed."""

    def __init__(self, warm: Warm, folder: Path, backup: Path) -> None:
        self._warm, self._folder, self._backup = warm, folder, backup
        self.is_over = False
        shutil.copytree(folder, backup)

    def at(self, step: int, *arguments: object) -> bool:
        """Run a command until its n-th change; False if it has fewer, and came to its end."""
        shutil.rmtree(self._folder)
        shutil.copytree(self._backup, self._folder)
        return self.here(step, *arguments)

    def here(self, step: int, *arguments: object) -> bool:
        """Run a command in the directory as it is."""
        variables = {**os.environ, "XDG_STATE_HOME": str(self._folder / "state")}
        words = [str(step), *map(str, arguments)]
        done = self._warm.run(words, variables, self._folder, timeout=100, program="stepwise")
        self.is_over = done.returncode != -signal.SIGKILL
        assert not self.is_over or "Traceback" not in done.stderr, done.stderr
        return not self.is_over


@pytest.fixture
def killed(warm: Warm, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Killed]:
    """Remembers the directory of the test as it is now."""
    return lambda: Killed(warm, tmp_path, tmp_path_factory.mktemp("before") / "it")


def left_over(folder: Path) -> list[Path]:
    """What is left of a held output; the draft of a file that was being written is replaced by the next one."""
    found = [*folder.glob("*.held*"), *folder.glob(".*.held*")]
    return [path for path in found if path.suffix != ".tmp"]


@pytest.mark.time_limit(1200)
@pytest.mark.parametrize("then", ["accept", pytest.param("run", marks=pytest.mark.slow)])
def test_accepting_is_killed_at_every_step(
    then: str, tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """The output is that of one night or of the other; what comes next completes what was begun, and pays nothing."""
    nightly = hold_one(tmp_path, fake, classify)
    first, second = (tmp_path / "out.csv").read_bytes(), (tmp_path / "out.held.csv").read_bytes()
    process, step, seen = killed(), 1, set()
    while process.at(step, "accept", "out.csv"):
        there = (tmp_path / "out.csv").read_bytes()
        assert there in (first, second), step
        seen.add(there)
        if then == "run":
            classify("run", nightly, expect=5 if there == first else 0)
            assert (tmp_path / "out.csv").read_bytes() == there, step
        classify("accept", "out.csv")
        assert (tmp_path / "out.csv").read_bytes() == second, step
        assert not left_over(tmp_path), step
        assert history(tmp_path)[-1]["accepted"], step
        assert "positive" in (tmp_path / "out.report.md").read_text(), step
        classify("run", nightly)
        step += 1
    assert len(seen) == 2
    assert not fake.requests


@pytest.mark.time_limit(1200)
@pytest.mark.slow
def test_accepting_a_directory_is_killed_at_every_step(
    tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """Each file is that of one night or of the other; the same run completes an acceptance that readers have seen."""
    nightly = hold_directory(tmp_path, fake, classify)
    out = [tmp_path / "out" / "a.csv", tmp_path / "out" / "sub" / "b.csv"]
    process, step, seen = killed(), 1, set()
    while process.at(step, "accept", "out"):
        accepted = [labels(path) == {"positive"} for path in out]
        seen.add(sum(accepted))
        classify("run", nightly, expect=0 if any(accepted) else 5)
        assert [labels(path) == {"positive"} for path in out] == [any(accepted)] * 2, step
        classify("accept", "out")
        assert all(labels(path) == {"positive"} for path in out), step
        step += 1
    assert seen == {0, 1, 2}
    assert not fake.requests


MANY = 40  # files: more than are opened at once


def hold_many(tmp_path: Path, fake: FakeServer, classify: Command) -> Path:
    """A first night of many small files that is in its place, and a second that is held; returns the config."""
    (tmp_path / "in").mkdir()
    nightly = config(tmp_path / "n.toml", fake, source="in/")
    for first, label, code in ((0, None, 0), (10_000, "positive", 5)):
        for number in range(MANY):
            write(tmp_path / "in" / f"f{number:02}.csv", texts(first + 100 * number, label, rows=8))
        classify("run", nightly, expect=code)
    fake.requests.clear()
    return nightly


def second_nights(tmp_path: Path) -> int:
    """How many of the many files are those of the second night; the others are those of the first."""
    files = sorted((tmp_path / "out").glob("*.csv"))
    assert len(files) == MANY
    firsts = [int(rows_of(path)[0]["text"].split()[1]) for path in files]
    assert all((first >= 10_000) or first == 100 * number for number, first in enumerate(firsts))
    return sum(first >= 10_000 for first in firsts)


@pytest.mark.time_limit(1200)
@pytest.mark.parametrize(
    "steps", [(20, MANY + 2), pytest.param((2, MANY + 1, MANY + 4, MANY + 50), marks=pytest.mark.slow)]
)
def test_a_run_completes_the_acceptance_of_many_files_once(
    steps: tuple[int, ...], tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """Killed in the middle: files are opened at the same time, the history has one line of the night all the same."""
    nightly = hold_many(tmp_path, fake, classify)
    process = killed()
    for step in steps:
        assert process.at(step, "accept", "out/")
        assert second_nights(tmp_path) == min(step - 1, MANY)
        done = classify("run", nightly)
        assert "complete already" in last_line(done)
        assert second_nights(tmp_path) == MANY
        assert not (tmp_path / "out" / ".held").exists()
        nights = history(tmp_path, ".out.history.jsonl")
        assert [bool(night.get("accepted")) for night in nights] == [False, True], step
        assert "accepted already" in classify("accept", "out/").stderr
    assert not fake.requests


@pytest.mark.time_limit(1200)
@pytest.mark.parametrize("then", ["accept", pytest.param("discard", marks=pytest.mark.slow), "run"])
def test_what_is_discarded_in_part_is_discarded_whole(
    then: str, tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """Killed in the middle of many files: what is left of them is no output, whatever comes next."""
    nightly = hold_many(tmp_path, fake, classify)
    process = killed()
    for step in (3, 20, 3 * MANY) if then == "accept" else (20, 2 * MANY):
        assert process.at(step, "accept", "--discard", "out/")
        assert second_nights(tmp_path) == 0
        if then == "accept":
            complaint(classify("accept", "out/", expect=2), "nothing is held here any more: what was held was being")
        elif then == "discard":
            assert "discarded" in classify("accept", "--discard", "out/").stderr
        else:
            fake.requests.clear()
            classify("run", nightly, expect=5)
            assert fake.requests
            assert len(list((tmp_path / "out" / ".held").glob("*.csv"))) == MANY
            classify("accept", "--discard", "out/")
        assert second_nights(tmp_path) == 0
        assert not (tmp_path / "out" / ".held").exists()
        complaint(classify("accept", "out/", expect=2), "nothing is held here; ")


@pytest.mark.time_limit(1200)
def test_discarding_is_killed_at_every_step(
    tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """The output stays what it was, and nothing is left when the same command is given again."""
    hold_one(tmp_path, fake, classify)
    first = (tmp_path / "out.csv").read_bytes()
    process, step = killed(), 1
    while process.at(step, "accept", "--discard", "out.csv"):
        classify("accept", "--discard", "out.csv", expect=None)
        assert (tmp_path / "out.csv").read_bytes() == first, step
        assert not left_over(tmp_path), step
        step += 1
    assert step > 3


@pytest.mark.time_limit(1200)
@pytest.mark.slow
@pytest.mark.parametrize("is_good", [True, False])
def test_a_run_that_judges_is_killed_at_every_step(
    is_good: bool, tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """The third night comes while the second is held: whatever is killed, it ends in its place, or held, and whole."""
    nightly = hold_one(tmp_path, fake, classify)
    first = (tmp_path / "out.csv").read_bytes()
    tonight = texts(50_000, None if is_good else "negative")
    write(tmp_path / "in.csv", tonight)
    process, step = killed(), 1
    while process.at(step, "run", nightly):
        there = (tmp_path / "out.csv").read_bytes()
        assert there == first or (is_good and rows_of(tmp_path / "out.csv")[0]["text"] == tonight[0]), step
        fake.answered.clear()
        classify("run", nightly, expect=0 if is_good else 5)
        assert sum(fake.answered.values()) <= ROWS + 8, step
        place = tmp_path / ("out.csv" if is_good else "out.held.csv")
        assert [row["text"] for row in rows_of(place)] == tonight, step
        assert (tmp_path / "out.held.csv").exists() is not is_good, step
        assert not (tmp_path / ".out.held.csv").exists(), step
        assert not (tmp_path / ".out.csv.checkpoint").exists(), step
        step += 1
    assert step > 5


@pytest.mark.time_limit(1200)
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow if seed else ()) for seed in range(8)])
def test_the_output_is_always_that_of_one_night(
    seed: int, tmp_path: Path, fake: FakeServer, classify: Command, killed: Callable[[], Killed]
) -> None:
    """Whatever is run, accepted, discarded and killed: the name holds all rows of one night with their labels."""
    draw = random.Random(seed)
    nightly = config(tmp_path / "n.toml", fake)
    nights = [texts(20_000 * number, draw.choice((None, None, "positive"))) for number in range(6)]
    write(tmp_path / "in.csv", nights[0])
    process = killed()
    for _ in range(14):
        command = draw.choice((("run", nightly), ("run", nightly), ("accept", "out.csv"),
                               ("accept", "--discard", "out.csv")))  # fmt: skip
        if draw.random() < 0.4:
            write(tmp_path / "in.csv", draw.choice(nights))
        if draw.random() < 0.6:
            process.here(draw.randrange(1, 14), *command)
        else:
            done = classify(*command, expect=None)
            said = "was begun differently" in done.stderr or "nothing is held" in done.stderr
            unjudged = "is not judged yet" in done.stderr
            assert done.returncode in (0, 5) or (done.returncode == 2 and (said or unjudged)), done.stderr
        if (tmp_path / "out.csv").exists():
            assert [row["text"] for row in rows_of(tmp_path / "out.csv")] in nights
            assert labels(tmp_path / "out.csv")
    classify("run", nightly, "--restart", expect=None)
    classify("accept", "out.csv", expect=None)
    assert [row["text"] for row in rows_of(tmp_path / "out.csv")] == [
        row["text"] for row in rows_of(tmp_path / "in.csv")
    ]
