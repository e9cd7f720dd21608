"""Every mistake in a config is one line that names the key, what was expected, and the nearest known key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_files import refusal, toml

from pipeline.config import Writer, load, parse_setting
from pipeline.errors import ConfigError

# -- mistakes


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("loader.inptu", "loader.input"),
        ("server.ulr", "server.url"),
        ("server.timeout", "server.timeout_s"),
        ("request.concurency", "request.concurrency"),
        ("writer.probabilities", "writer.probs"),
        ("loader.model", "server.model"),
        ("run.output", "writer.output"),
        ("retry.attempt", "retry.attempts"),
        ("sever.url", "server"),
        ("loder.input", "loader"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, near: str) -> None:
    """A typing error, also in the section or with the right key in the wrong section, names the key that was meant."""
    message = refusal({key: "x"})
    assert key in message or key.partition(".")[0] in message
    assert near in message.partition("did you mean")[2]


def test_a_key_like_no_other_is_refused_too(tmp_path: Path) -> None:
    """Where no key is near none is made up, and the message says which file is wrong."""
    message = refusal({}, toml(tmp_path, "[loader]\nqqqqqqqqqq = 1\n"))
    assert "loader.qqqqqqqqqq" in message
    assert "c.toml" in message
    assert "did you mean loader?" not in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("loader.input", 3, "str"),
        ("loader.text_column", {"a": 1}, "str"),
        ("server.timeout_s", "60", "float"),
        ("server.headers.X-Token", 7, "str"),
        ("request.activation", "yes", "bool"),
        ("request.rows", "many", "int"),
        ("request.concurrency", 1.5, "int"),
        ("request.priority", "high", "int"),
        ("retry.attempts", "8", "int"),
        ("writer.labels", "a,b", "a list of names"),
        ("writer.probs", "all", "columns"),
        ("writer.format", "docx", "parquet"),
        ("loader.on_bad_line", "ignore", "skip"),
        ("run.overwrite", 1, "bool"),
    ],
)
def test_a_wrong_type_names_the_key_and_what_was_expected(key: str, value: object, expected: str) -> None:
    """The key as it is written, and the type or the words it takes."""
    message = refusal({key: value})
    assert ".".join(key.split(".")[:2]) in message
    assert expected in message


def test_a_header_of_a_wrong_type_is_named() -> None:
    """Among several headers, the wrong one is told."""
    assert "X-Token" in refusal({"server.headers": {"X-Team": "search", "X-Token": 7}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("request.rows", 0),
        ("request.rows", -1),
        ("request.max_chars", 0),
        ("request.concurrency", 0),
        ("server.timeout_s", 0),
        ("server.timeout_s", -1),
        ("server.timeout_s", float("nan")),
        ("server.wait_s", -0.1),
        ("server.start_wait_s", float("nan")),
        ("retry.attempts", 0),
        ("retry.max_elapsed_s", -1),
        ("run.limit_rows", 0),
        ("run.max_failed_rows", -1),
        ("run.max_failed_rows", "1"),
        ("run.max_failed_rows", "-1%"),
        ("loader.delimiter", ""),
        ("loader.delimiter", ";;"),
        ("loader.text_column", []),
        ("loader.encoding", "utf-9"),
        ("writer.labels", ["a", "b", "a"]),
        ("server.url", []),
        ("server.url", ""),
        ("server.url", "localhost:8000"),
        ("server.url", "ftp://localhost"),
        ("server.url", "http://"),
        ("server.url", "http://[::1"),
        ("server.url", "http://localhost:99999"),
        ("server.url", "http://localhost:port"),
        ("server.url", ["http://localhost", "embeded"]),
    ],
)
def test_a_value_out_of_range_is_refused(key: str, value: object) -> None:
    """What can't work is refused when it is read, and the message names the key."""
    assert key in refusal({key: value})


@pytest.mark.parametrize("text", ["server = 3\n", "[server]\nurl = 'http://x'\n[server.headers]\nX = 'y'\n"])
def test_a_setting_that_reaches_into_no_table_is_refused(text: str, tmp_path: Path) -> None:
    """A key below something that is no table is the user's mistake, said as such."""
    path = toml(tmp_path, text)
    assert "server" in refusal({"server.url.deeper": "x"}, path)
    assert "server" in refusal({"server.headers.X.Y": "x"}, path)


@pytest.mark.parametrize("text", ["server", "server=1", "=1", ".x=1", "server.=1", "request.rows", ""])
def test_a_setting_of_another_shape_is_explained(text: str) -> None:
    """--set takes SECTION.KEY=VALUE, and says so."""
    with pytest.raises(ConfigError, match=r"SECTION\.KEY=VALUE|unknown key"):
        load(None, dict([parse_setting(text)]))


@pytest.mark.parametrize("content", [b"[loader\n", b"x = ", b"\xff\xfe", b"[a]\n[a]\n", b"\x00"])
def test_a_file_that_is_no_toml_is_named(content: bytes, tmp_path: Path) -> None:
    """The message names the file and says that it is no TOML."""
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    message = refusal({}, path)
    assert "c.toml" in message
    assert "TOML" in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing config file, or a directory of that name, is told."""
    assert "none.toml" in refusal({}, tmp_path / "none.toml")
    (tmp_path / "dir.toml").mkdir()
    assert "dir.toml" in refusal({}, tmp_path / "dir.toml")


def test_labels_may_be_the_config_of_a_model(tmp_path: Path) -> None:
    """The names come in class order, relative to the config file, and are compared as names from then on."""
    names = {"1": "b", "0": "a", "10": "k", **{str(index): f"c{index}" for index in range(2, 10)}}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"id2label": names}), encoding="utf-8")
    (tmp_path / "run.toml").write_text('[writer]\nlabels = "model/config.json"\n', encoding="utf-8")
    expected = ["a", "b", *(f"c{index}" for index in range(2, 10)), "k"]
    assert load(str(tmp_path / "run.toml"), {}).writer.labels == expected
    assert load(None, {"writer.labels": str(tmp_path / "model" / "config.json")}).writer.class_names == expected
    assert Writer(labels=str(tmp_path / "model" / "config.json")).class_names == expected
    (tmp_path / "names.toml").write_text('[writer]\nlabels = ["a", "b/c"]\n', encoding="utf-8")
    assert load(str(tmp_path / "names.toml"), {}).writer.class_names == ["a", "b/c"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id2label": ["a"]}', '{"id2label": {"1": "a"}}', "\xff"])
def test_labels_from_a_file_without_names_are_a_mistake(tmp_path: Path, content: str) -> None:
    """In one line that names the file and what was expected."""
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    message = refusal({"writer.labels": str(tmp_path / "config.json")})
    assert "config.json: expected a model's config.json with the names of all classes in id2label" in message
    assert "\n" not in message
    assert "No such file or directory" in refusal({"writer.labels": "no/config.json"})
