"""The metrics file is read by Prometheus' own parser, whatever a model calls its classes and whatever was there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from fake import FakeServer
from files import write
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_fd_to_metric_families

from pipeline import Config, run
from pipeline.config import Loader, Run, Server, Writer
from pipeline.monitoring.metrics import FAILURE_CODES, LONGEST_LABEL, MOST_LABELS, write_metrics
from pipeline.monitoring.record import Outcome, ReportOutcome
from pipeline.scores import OTHERS

DOCS = Path(__file__).parents[2] / "pipeline" / "docs"
NIGHT = "2026-11-23T06:00:00.000+00:00"
NEXT_NIGHT = "2026-11-24T06:00:00.000+00:00"


def outcome(finished: str = NIGHT, *, code: int = 0, labels: dict[str, int] | None = None) -> Outcome:
    """How a run ended."""
    return Outcome(
        exit_code=code, input="in.csv", output="out.csv", started=finished, finished=finished, labels=labels or {}
    )


def samples(path: Path, name: str) -> dict[str, float]:
    """The samples of a metric: value of the label that is not `output` -> value."""
    with path.open(encoding="utf-8", newline="\n") as file:
        families = {family.name: family for family in text_fd_to_metric_families(file)}
    return {
        "".join(value for key, value in sample.labels.items() if key != "output"): sample.value
        for sample in families[f"classify_{name}"].samples
    }


@given(st.dictionaries(st.text(max_size=20), st.integers(1, 10**6), max_size=30), st.text(max_size=20))
def test_any_label_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, int], job: str
) -> None:
    """Line breaks, quotes, backslashes, braces, any character in labels and paths: nothing breaks the format."""
    path = tmp_path_factory.mktemp("metrics") / "m.prom"
    write_metrics(path, job, outcome(labels=labels))
    assert samples(path, "rows_labelled") == labels


def test_a_thousand_labels_are_a_hundred_series(tmp_path: Path) -> None:
    """The most frequent are told, the rest are summed, endless names are cut: no model can flood a database."""
    labels = {f"label {number}": number for number in range(1, 1001)} | {"x" * 5000: 5000, OTHERS: 3}
    write_metrics(tmp_path / "m.prom", "job", outcome(labels=labels))
    seen = samples(tmp_path / "m.prom", "rows_labelled")
    assert len(seen) == MOST_LABELS + 1
    assert sum(seen.values()) == sum(labels.values())
    assert seen["label 1000"] == 1000
    assert "label 1" not in seen
    assert max(map(len, seen)) == LONGEST_LABEL
    assert samples(tmp_path / "m.prom", "labels") == {"": 1002}
    assert (tmp_path / "m.prom").stat().st_size < 20_000


def test_the_metrics_are_those_that_are_documented(tmp_path: Path) -> None:
    """All of them, by their whole names, with the labels that tell their series apart."""
    report = ReportOutcome(verdict="warn", checks=[{"id": "ece", "state": "warn", "value": 0.1}])
    night = msgspec.structs.replace(outcome(labels={"a": 1}), files={"all": 1}, report=report)
    write_metrics(tmp_path / "m.prom", "job", night)
    written = re.findall(r"^# HELP (\w+)", (tmp_path / "m.prom").read_text(), re.MULTILINE)
    page = (DOCS / "operations.md").read_text().partition("\n## Metrics\n")[2].partition("\n\nAn alert")[0]
    named = [name for cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)", cell)]
    assert sorted(named) == sorted(written)


def test_half_a_surrogate_pair_is_spelled_out(tmp_path: Path) -> None:
    """A path of odd bytes or a label that is no UTF-8 can be written all the same."""
    write_metrics(tmp_path / "m.prom", "job", outcome(labels={"\ud800": 1}))
    assert samples(tmp_path / "m.prom", "rows_labelled") == {"\\ud800": 1}


def test_every_metric_is_explained_and_named_by_the_rules(tmp_path: Path) -> None:
    """HELP and TYPE before the samples, our prefix, no unit but base units, no name of a counter."""
    write_metrics(tmp_path / "m.prom", "job", outcome(labels={"a": 1}))
    lines = (tmp_path / "m.prom").read_text().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert names == [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert {line.split()[3] for line in lines if line.startswith("# TYPE")} == {"gauge"}
    assert {re.split("[{ ]", line)[0] for line in lines if not line.startswith("#")} == set(names)
    for name in names:
        assert re.fullmatch("classify_[a-z_]+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
    assert all('output="job"' in line for line in lines if not line.startswith("#"))


def test_the_codes_are_those_that_are_documented(tmp_path: Path) -> None:
    """Each code that a row can fail with has its series, also while it is 0."""
    page = (DOCS / "failures.md").read_text()
    said = page.partition("\n## Error codes\n")[2].partition("\n## ")[0]
    assert {*FAILURE_CODES, "empty"} == set(re.findall(r"^\| `([a-z_]+)` \|", said, re.MULTILINE))
    write_metrics(tmp_path / "m.prom", "job", outcome())
    assert samples(tmp_path / "m.prom", "rows_failed") == dict.fromkeys(FAILURE_CODES, 0)


# -- the last success


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ((b"", b""), True),
        ((b'"job"', b'"other job"'), False),
        ((b"# HELP classify_rows ", b"\xff\xfe{{{ # HELP "), False),
        ((b"_last_success_timestamp_seconds{", b"_last_success_timestamp_seconds{{"), False),
        ((b"1.7954136e+09", b"NaN"), False),
    ],
)
def test_the_last_success_survives_a_bad_night(change: tuple[bytes, bytes], *, is_kept: bool, tmp_path: Path) -> None:
    """It is read from the file that is there; one of another job, or one that is damaged, says nothing."""
    path = tmp_path / "m.prom"
    write_metrics(path, "job", outcome())
    (success,) = samples(path, "last_success_timestamp_seconds").values()
    assert success == 1795413600
    assert path.read_bytes() != path.read_bytes().replace(*change) or change == (b"", b"")
    path.write_bytes(path.read_bytes().replace(*change))
    write_metrics(path, "job", outcome(NEXT_NIGHT, code=75, labels={"\r\x0b\x85\u2028": 1}))
    assert samples(path, "last_success_timestamp_seconds") == {"": success if is_kept else 0}
    assert samples(path, "last_run_timestamp_seconds") == {"": success + 24 * 3600}
    write_metrics(path, "job", outcome(NEXT_NIGHT, code=3))
    assert samples(path, "last_success_timestamp_seconds") == {"": success if is_kept else 0}


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    """Only nothing, an empty file, or a metrics file of ours is replaced."""
    path = tmp_path / "m.prom"
    path.write_text("id,text\r\n1,a\r\n")
    with pytest.raises(OSError, match="it is there"):
        write_metrics(path, "job", outcome())
    assert path.read_text().startswith("id,text")
    path.write_text("")
    write_metrics(path, "job", outcome())
    assert samples(path, "rows") == {"": 0}


def test_a_hostile_model_through_a_whole_run(tmp_path: Path) -> None:
    """Labels with line breaks and quotes go from the answers into the file, for `run` of the library as well."""
    names = ('a"b', "two\nlines", "back\\slash")
    write(tmp_path / "in.csv", [f"text {number}" for number in range(50)])
    with FakeServer(labels=names) as server:
        record = run(
            Config(
                loader=Loader(input=str(tmp_path / "in.csv")),
                server=Server(url=server.url),
                writer=Writer(output=str(tmp_path / "out.csv")),
                run=Run(metrics_file=str(tmp_path / "m.prom")),
            )
        )
    assert samples(tmp_path / "m.prom", "rows_labelled") == record.labels
    assert set(record.labels) == set(names)
