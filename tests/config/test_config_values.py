"""Where the values of a config come from, and what of them is shown: never secrets."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from config_files import refusal, toml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config, Request, Run, Server, describe, load, mask_url, parse_setting, public_settings
from pipeline.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_file_beats_the_default_and_a_setting_beats_the_file(tmp_path: Path) -> None:
    """What is set on the command line wins; what is not set is the default."""
    path = toml(tmp_path, "[request]\nrows = 10\nmax_chars = 77\n[request.extra]\na = 1\nb = 2\n")
    config = load(str(path), {"request.rows": 20, "request.extra.b": 3})
    assert config.request == Request(rows=20, max_chars=77, extra={"a": 1, "b": 3})
    assert config.retry == Config().retry


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("request.rows=64", 64),
        ('request.rows="auto"', "auto"),
        ("request.rows=auto", "auto"),
        ("request.activation=false", False),
        ("loader.text_column=['a', 'b']", ["a", "b"]),
        ("request.extra={a = 1}", {"a": 1}),
        ("loader.delimiter=;", ";"),
        ("loader.delimiter=", ""),
        ("run.deadline=06:00", "06:00"),
        ("server.url=http://h:1/classify?a=b", "http://h:1/classify?a=b"),
        ("loader.template={title}\\n{body}", "{title}\\n{body}"),
        (r'loader.delimiter="\t"', "\t"),
        ("run.max_failed_rows=1%", "1%"),
    ],
)
def test_a_settings_value_is_toml_or_else_text(text: str, value: object) -> None:
    """Numbers, lists and tables need no extra quotes, and neither does plain text."""
    assert parse_setting(text) == (text.partition("=")[0], value)


def test_paths_in_a_file_are_relative_to_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the file are beside it; those of the command line are left as they are typed."""
    monkeypatch.setenv("HOME", "/home/somebody")
    text = """
        [loader]
        input = "data/in.csv"
        [writer]
        output = "../out/"
        [server]
        ca_bundle = "~/ca.pem"
    """
    path = toml(tmp_path, text, "deep/c.toml")
    config = load(str(path), {})
    assert [Path(each) for each in config.loader.inputs] == [tmp_path / "deep/data/in.csv"]
    assert Path(config.writer.output).resolve() == tmp_path / "out"
    assert config.writer.output.endswith("/")
    assert config.server.ca_bundle == "/home/somebody/ca.pem"
    assert load(str(path), {"loader.input": "x.csv"}).loader.input == "x.csv"


@pytest.mark.parametrize("value", ["-", "s3://bucket/in.parquet", "gs://b/x.csv"])
def test_what_is_no_path_stays_as_it_is(value: str, tmp_path: Path) -> None:
    """A stream and a URI are not relative to anything."""
    assert load(str(toml(tmp_path, f'[loader]\ninput = "{value}"\n')), {}).loader.input == value


def test_the_home_of_nobody_is_no_bug(tmp_path: Path) -> None:
    """`~nobody/x` is a path like any other, or a mistake that is named."""
    path = toml(tmp_path, '[loader]\ninput = "~nobody-of-that-name/x.csv"\n')
    try:
        config = load(str(path), {})
    except ConfigError as error:
        assert "loader.input" in str(error)  # noqa: PT017 - either is right
    else:
        assert "~nobody-of-that-name" in config.loader.input


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.toml") if path.name != "reference.toml"))
def test_every_config_that_we_ship_loads(name: str) -> None:
    """The files of configs/ are valid, and their input is there or is made by the user; of the reference see docs."""
    path = CONFIGS / name
    config = load(str(path), {})
    assert config.loader.input
    assert config.writer.output


# -- deadline and failed rows

NOW = datetime(2026, 11, 23, 22, 15, 30)  # noqa: DTZ001 - a deadline is meant in local time


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [
        (None, None),
        ("4h", 4 * 3600),
        ("90m", 5400),
        ("30s", 30),
        ("1.5h", 5400),
        ("23:00", 44 * 60 + 30),
        ("06:00", 7 * 3600 + 44 * 60 + 30),
        ("6:00", 7 * 3600 + 44 * 60 + 30),
        ("22:15", 24 * 3600 - 30),
    ],
)
def test_a_deadline_is_a_span_or_the_next_such_time(deadline: str | None, seconds: float | None) -> None:
    """In the evening "06:00" is tomorrow's; "4h" counts from the start."""
    assert Run(deadline=deadline).seconds_left(NOW) == seconds


@pytest.mark.parametrize("deadline", ["25:00", "06:60", "4", "four hours", "", "-4h", "4d", "06:00:00"])
def test_a_deadline_of_another_shape_is_refused(deadline: str) -> None:
    """What is neither a time of day nor a span is an error, not a run without end."""
    assert "deadline" in refusal({"run.deadline": deadline})


@pytest.mark.parametrize(("allowed", "rows", "count"), [(0, 100, 0), (7, 5, 7), ("1%", 250, 2), ("0.5%", 1000, 5)])
def test_failed_rows_are_allowed_by_number_or_share(allowed: int | str, rows: int, count: int) -> None:
    """A share is of the rows of the output, rounded down."""
    assert Run(max_failed_rows=allowed).failed_rows_allowed(rows) == count


# -- secrets


def test_no_secret_is_in_what_is_shown() -> None:
    """Header values, passwords and queries of URLs are masked in the dump and in what the record keeps."""
    config = load(
        None,
        {
            "server.url": ["http://user:pa55@h:1/classify?key=qu3ry", "https://t0ken@h"],
            "server.headers": {"X-Token": "h3ader", "X-Other": "env:SOME_VARIABLE"},
        },
    )
    shown = "\n".join(describe(config)) + json.dumps(public_settings(config))
    for secret in ("pa55", "qu3ry", "t0ken", "h3ader"):
        assert secret not in shown
    assert "user:***@h:1" in shown
    assert "X-Token" in shown


def test_every_key_is_shown_with_its_value() -> None:
    """The dump has one line for each key, defaults included."""
    lines = describe(load(None, {"request.rows": 7}))
    assert "request.rows = 7" in lines
    assert "server.timeout_s = 300.0" in lines
    assert len(lines) == sum(len(keys) for keys in public_settings(Config()).values())


@pytest.mark.parametrize(
    "url",
    [
        "user:pa55@host:8000",
        "http:/user:pa55@host",
        "htp://user:pa55@host",
        "//user:pa55@host",
        "http://user:pa55@[::1",
    ],
)
def test_a_mistaken_url_keeps_its_password(url: str) -> None:
    """A URL with a typing error is refused without repeating the password in it."""
    assert "pa55" not in refusal({"server.url": url})


@given(st.text("ab1@:/?#[]%.", max_size=12))
def test_masking_takes_any_text(tail: str) -> None:
    """No URL, however broken, makes the masking fail or shows what stands before the @."""
    assert "s3cret" not in mask_url(f"http://u:s3cret@{tail}")


def test_headers_take_their_secrets_from_the_environment() -> None:
    """`env:NAME` is replaced, the key becomes a bearer, a configured authorization wins over it."""
    server = Server(headers={"X-Token": "env:TOKEN", "X-Team": "search"})
    environment = {"TOKEN": "t", "VLLM_API_KEY": "k"}
    assert server.request_headers(environment) == {"X-Token": "t", "X-Team": "search", "Authorization": "Bearer k"}
    own = Server(headers={"authorization": "Token t"})
    assert own.request_headers(environment) == {"authorization": "Token t"}
    other = Server(api_key_env="OTHER")
    assert other.request_headers({"VLLM_API_KEY": "k", "OTHER": "o"}) == {"Authorization": "Bearer o"}
    assert Server().request_headers({}) == {}


def test_a_variable_that_is_not_set_is_named() -> None:
    """The header and the variable are told."""
    with pytest.raises(ConfigError, match=r"X-Token.*MISSING"):
        Server(headers={"X-Token": "env:MISSING"}).request_headers({})


@pytest.mark.parametrize(
    ("name", "value"), [("X-A", "s3cret\r\nX-B: c"), ("X A", "s3cret"), ("", "s3cret"), ("X:", "s3cret")]
)
def test_what_cannot_stand_in_a_header_is_refused(name: str, value: str) -> None:
    """Line ends and odd names are refused before anything is sent, without repeating the value."""
    with pytest.raises(ConfigError) as caught:
        Server(headers={name: value}).request_headers({})
    assert "s3cret" not in str(caught.value)


def test_a_key_with_a_line_end_names_its_variable() -> None:
    """A key read from a file often ends in a newline: the message names the variable, not the key."""
    with pytest.raises(ConfigError, match="VLLM_API_KEY") as caught:
        Server().request_headers({"VLLM_API_KEY": "s3cret\n"})
    assert "s3cret" not in str(caught.value)
