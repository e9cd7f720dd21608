"""Mistakes that people make, and what they are told: what is wrong, and what to type."""

from __future__ import annotations

import gzip
import json
import traceback
from pathlib import Path

import pandas as pd
import pytest
from aiohttp import web
from commands import NOWHERE, Command, complaint, last_line
from fake import FakeServer, refuse, reply
from files import rows_of, write

from pipeline import classify_frame
from pipeline.answers import Prediction


def test_a_file_without_run_is_told_the_command(tmp_path: Path, classify: Command) -> None:
    """`classify reviews.csv` is what people type first."""
    write(tmp_path / "in.csv", ["a"])
    complaint(classify("in.csv", expect=2), "classify run in.csv -t COLUMN")
    complaint(classify("nightly.toml", expect=2), "classify run nightly.toml")


def test_the_files_of_a_shell_pattern_are_inputs(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """The shell expands `in/*.csv` into several arguments."""
    for name in "abc":
        write(tmp_path / f"in/{name}.csv", [name])
    classify("run", "in/a.csv", "in/b.csv", "in/c.csv", "-o", "out/", "--url", fake.url)
    assert [rows_of(tmp_path / f"out/{name}.csv")[0]["text"] for name in "abc"] == ["a", "b", "c"]
    complaint(classify("run", "a.toml", "b.toml", expect=2), "one config file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--probs", "list"), "--set writer.probs=VALUE"),
        (("--max-failed-rows", "3"), "--set run.max_failed_rows=VALUE"),
        (("--bogus",), "unrecognized arguments: --bogus; see"),
    ],
)
def test_a_key_typed_as_an_option(arguments: tuple[str, ...], words: str, classify: Command) -> None:
    """The option that sets it is named."""
    complaint(classify("run", "in.csv", *arguments, expect=2), words)


def test_an_ending_with_a_slip(tmp_path: Path, classify: Command) -> None:
    """mine.cvs is a CSV file."""
    write(tmp_path / "mine.csv", ["a"])
    (tmp_path / "mine.csv").rename(tmp_path / "mine.cvs")
    complaint(classify("run", "mine.cvs", *NOWHERE, expect=2), "did you mean .csv?")


def test_toml_with_a_byte_order_mark_is_read_and_a_bare_text_explained(tmp_path: Path, classify: Command) -> None:
    """Windows' editors write the mark; a text without quotes is the first mistake in TOML."""
    (tmp_path / "a.toml").write_bytes(b'\xef\xbb\xbf[loader]\ninput = "nothing.csv"\n')
    complaint(classify("run", "a.toml", *NOWHERE, expect=2), "nothing.csv: no such file")
    (tmp_path / "b.toml").write_text("[loader]\ninput = nothing.csv\n")
    complaint(classify("run", "b.toml", *NOWHERE, expect=2), "line 2", "a text stands in quotes")


def test_a_column_that_only_looks_the_same(tmp_path: Path, classify: Command) -> None:
    """MacOS decomposes what is typed elsewhere as one letter."""
    (tmp_path / "in.csv").write_text("id,Re\u0301sume\u0301\n1,a\n", encoding="utf-8")
    complaint(
        classify("run", "in.csv", "-t", "R\u00e9sum\u00e9", *NOWHERE, expect=2), "only looks the same", "e\\u0301"
    )


def test_a_url_with_a_path_that_is_no_endpoint(fake: FakeServer, classify: Command) -> None:
    """The base URL of other clients ends in /v1; a base path lacks /classify."""
    complaint(classify("text", "a", "--url", f"{fake.url}/v1", expect=2), "used as it is; try /classify, or no path")
    complaint(classify("text", "a", "--url", f"{fake.url}/team", expect=2), "try /team/classify, or no path")


def test_a_key_that_is_set_and_refused(fake: FakeServer, classify: Command) -> None:
    """It is not asked for again."""
    fake.each = lambda _: refuse(401, "Unauthorized")
    told = complaint(
        classify("text", "a", "--url", fake.url, expect=2, env={"VLLM_API_KEY": "wrong-k3y"}), "is refused"
    )
    assert "VLLM_API_KEY" in told
    assert "put the server's key" not in told
    complaint(classify("text", "a", "--url", fake.url, expect=2, env={"VLLM_API_KEY": ""}), "put the server's key")


def test_a_page_of_html_is_repeated_as_text(fake: FakeServer, classify: Command) -> None:
    """What a gateway shows to browsers."""
    page = "<!DOCTYPE html><html><head><style>b {}</style></head><body><h1>Wrong door</h1> <p>nginx</p></body></html>"
    fake.each = lambda _: reply(404, page.encode())
    complaint(classify("text", "a", "--url", fake.url, expect=2), "HTTP 404: Wrong door nginx")


def test_answers_with_a_mark_or_compressed(fake: FakeServer, classify: Command) -> None:
    """A byte order mark is skipped; compression that was not asked for is called so."""

    def marked(request: web.Request, texts: list[str]) -> object:
        data = [{"index": index, "label": "a", "probs": [1.0], "num_classes": 1} for index in range(len(texts))]
        return reply(200, b"\xef\xbb\xbf" + json.dumps({"data": data}).encode())(request, texts)

    fake.each = lambda _: marked  # type: ignore[assignment,return-value]
    assert "a " in classify("text", "x", "--url", fake.url).stdout
    fake.each = lambda _: reply(200, gzip.compress(b"{}"))
    complaint(classify("text", "x", "--url", fake.url, expect=2), "compressed")


def test_a_frame_without_the_column_says_which_there_is() -> None:
    """In a traceback that fits on a screen."""
    with pytest.raises(KeyError, match="did you mean 'comment'") as caught:
        classify_frame(pd.DataFrame({"comment": ["a"]}), "coment", url="http://127.0.0.1:1")
    assert len(traceback.format_exception(caught.value)) < 6


def test_many_values_are_not_all_shown() -> None:
    """A model may have 140 classes; the values are all there."""
    prediction = Prediction("a", 0.5, [0.5, *[0.1] * 139])
    assert len(repr(prediction)) < 150
    assert "140 values" in repr(prediction)
    assert repr(Prediction("a", 0.5)) == "Prediction('a', 0.5, probs=None, error=None)"


def test_the_end_names_the_next_command(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """After failed rows, after the first rows, and after a retry; the rate is that of what was sent."""
    write(tmp_path / "in.csv", [f"text {number}" for number in range(50)])
    common = ("run", "in.csv", "-o", "out.csv", "--url", fake.url)
    first = classify(*common, "--limit-rows", "10")
    assert "without --limit-rows goes on" in first.stderr
    shown = classify("status", "out.csv").stdout
    assert "out.csv: complete, 10 rows" in shown
    assert "100 %" not in shown
    assert "without --limit-rows goes on" in shown
    fake.rules.append((lambda text: text == "text 20", refuse(400, "no")))
    assert "--retry-failed classifies them again" in classify(*common, expect=3).stderr
    fake.rules.clear()
    assert last_line(classify(*common, "--retry-failed")).startswith("out.csv: 50 rows, 1 of them in ")
    assert "complete, 50 of 50 rows (100 %)" in classify("status", "out.csv").stdout


def test_columns_can_be_named_after_classes(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """When the answers have named all classes, the setting that names the columns is told."""
    write(tmp_path / "in.csv", [f"text {number}" for number in range(50)])
    done = classify("run", "in.csv", "-o", "out.csv", "--url", fake.url, "--set", "writer.probs=columns")
    assert """--set writer.labels='["negative","neutral","positive"]'""" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-t", "id,text"), "several columns are named one by one: -t id -t text"),
        (("-t", "id", "text"), "several columns are -t id -t text; see `classify run --help`"),
        (("-o", "out.xlx"), "end it in .csv, .tsv, .parquet, .jsonl, .json or .arrow, or set writer.format"),
        (("--set", "writer.format=orc"), 'writer.format: expected "csv" or'),
        (("--set", "output.probs=list"), "unknown key output.probs; did you mean writer.probs?"),
        (("--set", "output.format=csv"), "did you mean loader.format or request.format or writer.format?"),
        (("--set", "output.path=out.csv"), "did you mean writer.output or report.output?"),
        (("--set", "loader.separator=;"), "unknown key loader.separator; there are loader.input, "),
        (("--set", "loader.text=body"), "unknown key loader.text; did you mean loader.text_column?"),
        (("--set", "probs=list"), "--set probs=list: it is SECTION.KEY=VALUE; did you mean writer.probs?"),
        (("--set", "run.limit=3"), "did you mean run.limit_rows?"),
        (("-t", "text", "--probs", "list"), "--probs list; it is a key of the config: --set writer.probs=VALUE"),
        (("--set", "a.b=c"), "there are loader, server, request, "),
    ],
)
def test_what_is_said_can_be_typed(arguments: tuple[str, ...], words: str, tmp_path: Path, classify: Command) -> None:
    """A message offers what is accepted, and nothing else."""
    write(tmp_path / "in.csv", ["a"])
    told = complaint(classify("run", "in.csv", *arguments, *NOWHERE, expect=2), words)
    assert "orc or .xlsx" not in told
    assert '"xlsx"' not in told


def test_a_name_with_a_slip_is_answered_with_the_file_beside_it(tmp_path: Path, classify: Command) -> None:
    """Of an input that is not there; in the same directory."""
    write(tmp_path / "dir/reviews.csv", ["a"])
    complaint(classify("run", "dir/reviws.cvs", *NOWHERE, expect=2), "no such file; did you mean dir/reviews.csv?")
    complaint(classify("run", "other.csv", *NOWHERE, expect=2), "other.csv: no such file; check --input")
    complaint(classify("run", "s3:/bucket/x.csv", *NOWHERE, expect=2), "no such file; a URI begins with s3://")
    complaint(classify("rnu", "other.csv", expect=2), "rnu is no command; did you mean classify run?")
    complaint(classify("run", "dir", "-o", "x/out.csv", expect=2), "end it in a slash, like x/out/")
    complaint(classify("status", "dir", expect=2), "no run has begun here", "name the output of a run")
    complaint(classify("run", "gone/reviews.csv", *NOWHERE, expect=2), "no such file; check --input")


def test_a_path_of_a_config_is_shown_as_short_as_it_can_be(tmp_path: Path, classify: Command) -> None:
    """Unless a link stands before its `..`, where leaving both out would name another file."""
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "sub/a.toml").write_text('[loader]\ninput = "../nothing.csv"\n')
    (tmp_path / "link").symlink_to("sub/deep")
    (tmp_path / "b.toml").write_text('[loader]\ninput = "link/../nothing.csv"\n')
    assert complaint(classify("run", "sub/a.toml", expect=2)).startswith("classify: nothing.csv: no such file")
    assert complaint(classify("run", "b.toml", expect=2)).startswith("classify: ./link/../nothing.csv: no such file")


def test_the_usage_says_that_an_input_may_stand_alone(classify: Command) -> None:
    """And not only a config file."""
    for command in ("run", "check"):
        assert "[INPUT | CONFIG.toml ...]" in classify(command, "--help").stdout


def test_a_format_that_is_wrong_does_not_lose_all_rows(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """CSV that is read as JSON Lines has no row; to leave out every line is no success."""
    write(tmp_path / "in.csv", ["a", "b"])
    (tmp_path / "in.csv").rename(tmp_path / "in.jsonl")
    for_run = ("in.jsonl", "-o", "out.csv", "--url", fake.url)
    told = complaint(classify("run", *for_run, expect=2), "if it is CSV, say so with --set loader.format=csv")
    assert "on_bad_line" not in told
    skipping = (*for_run, "--set", "loader.on_bad_line=skip")
    for command in ("run", "check"):
        complaint(classify(command, *skipping, expect=2), "in.jsonl: all of its 3 lines are bad", "set loader.format")
    assert not (tmp_path / "out.csv").exists()
    write(tmp_path / "dir/good.jsonl", ["a"])
    (tmp_path / "in.jsonl").rename(tmp_path / "dir/bad.jsonl")
    done = classify("run", "dir", "-o", "out/", "--url", fake.url, "--set", "loader.on_bad_line=skip", expect=2)
    assert "1 of 2 files failed: dir/bad.jsonl: all of its 3 lines are bad" in last_line(done)


def test_what_failed_is_advised_what_helps(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """To send a row again helps only if the server, or a setting, was to blame."""
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": 5}\n')
    for_run = ("run", "in.jsonl", "-o", "out.jsonl", "--url", fake.url)
    told = classify(*for_run, expect=3).stderr
    assert "retry-failed" not in told
    assert "make it text in the input, or choose another column with -t" in told
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "long"}\n')
    fake.rules.append((lambda text: text == "long", refuse(400, "maximum context length is 5 tokens")))
    told = classify(*for_run, "--restart", expect=3).stderr
    assert "failed: 1 rows (too_long 1)" in told
    assert "--retry-failed --set request.too_long=truncate has long texts cut" in told
    assert "classifies them again" not in told


@pytest.mark.slow
def test_estimates_are_called_so(tmp_path: Path, fake: FakeServer, classify: Command) -> None:
    """After an interruption, in `status` and in the record: a long text file is not counted before it is read."""
    write(tmp_path / "in.csv", [f"text {number}" for number in range(300_000)])
    fake.hold_after = 1000
    done = classify(
        "run", "in.csv", "-o", "out.csv", "--url", fake.url, "--set", "run.deadline=2s", "--log-json", expect=4
    )
    assert " of about " in json.loads(last_line(done))["message"]
    assert json.loads(last_line(done))["record"]["rows_total_is_exact"] is False
    assert " of about " in classify("status", "out.csv").stdout
