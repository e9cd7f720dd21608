"""Every key of the config, its type, its default and its check: one frozen struct a section.

The string below each key is its documentation; `tests/support/generate_docs.py` makes `docs/config.md` and
`configs/reference.toml` of it and of `report`, the section of reports. Its first paragraph says what the key does. A
last line `Example: VALUE` gives a value where the default shows none.

A flag beats `--set`, `--set` beats the file, the file beats the default.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from pipeline.config.dates import days_of
from pipeline.config.engine import Engine, cores_here
from pipeline.config.masking import (
    FROM_ENVIRONMENT,
    is_http,
    is_variable,
    mask_uri,
    mask_url,
    read_secret,
)
from pipeline.config.report import Report
from pipeline.errors import ConfigError
from pipeline.formats.registry import format_names, format_of
from pipeline.streams import storable

Positive = Annotated[int, msgspec.Meta(ge=1)]
ByLabel = float | dict[str, float]  # a threshold of all labels, or one for each
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # the system accepts no infinite timeout
if TYPE_CHECKING:
    FormatName = str
    OutputFormatName = str
else:
    FormatName = Literal[tuple(format_names())]
    OutputFormatName = Literal[tuple(format_names(only_written=True))]
DEFAULT_URL = "http://localhost:8000"
EMBEDDED = "embedded"  # the url that stands for the built-in server
PIPE = "-"  # the input that stands for standard input, the output that stands for standard output
SHORTEST_PART = 16  # characters; a part of a text is not cut into shorter ones


class Loader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input and the text of each row."""

    input: str | list[str] = ""
    """The input: a file, a directory, a glob, a URI, or `"-"` for standard input; a list for several.

    `{date}` in it stands for a day, see `run.date`.

    Example: "reviews.csv"
    """
    format: FormatName | None = None
    """The format of the input, where the ending of its name does not say it.

    Example: "csv"
    """
    text_column: str | list[str] = "text"
    """The column that holds the text. The values of several columns, given as a list, are joined by a newline.

    A name that is no column but contains a dot reaches into a struct or a JSON object: `"review.body"`.
    """
    template: str | None = None
    """The text as a template with column names in braces, instead of `text_column`.

    A null becomes an empty string. A row in which all of the named columns are null or blank has no text (error
    `empty`). `--text-column` on the command line beats a template in the config.

    Example: "{title}\\n\\n{body}"
    """
    pair_column: str | None = None
    """A column with a second text: the server gets it with the row's text as a pair, as a cross-encoder needs it.

    A premise is followed by its hypothesis, a query by a document. A row in which one of the two texts is null or blank
    has no text (error `empty`). TEI, Hugging Face's pipeline and SGLang take pairs; for others a template puts both
    texts into one.

    Example: "hypothesis"
    """
    encoding: str = "utf-8"
    """The encoding of CSV and JSON Lines, by its name in Python."""
    delimiter: str | None = None
    """The character between two cells of a CSV file. Default: a comma, and a tab in `.tsv` files.

    Example: ";"
    """
    sheet: str | None = None
    """The sheet of an Excel workbook, by its name. Default: the first.

    Example: "Reviews"
    """
    quoting: Literal["double", "none"] = "double"
    """What a quote in a CSV file is.

    `"double"`: a cell in quotes may hold delimiters, line ends, and quotes that are doubled. `"none"`: a quote is a
    character like any other, as in the files of IMDb and Tatoeba, and every line is a record.
    """
    escape: str | None = None
    """The character of a CSV file that makes the one after it plain: a quote, a delimiter, a line end, or itself.

    A backslash in files of Spark and MySQL. Before any other character it is a plain character itself.

    Example: "\\\\"
    """
    header: bool = True
    """Whether the first record of a CSV file names the columns.

    If not, they are `column_1`, `column_2` and so on, and a CSV output has no header either: the new columns follow
    the last one in the order that the page on the output describes.
    """
    on_bad_line: Literal["stop", "skip"] = "stop"
    """What to do about a line that is no row: CSV with too many or too few cells, JSON Lines without an object.

    `"stop"` ends the run with exit code 2; `"skip"` leaves the line out of the output and counts it.
    """

    @property
    def inputs(self) -> list[str]:
        """The inputs as a list, in the order given; none if none is named."""
        return [self.input] if isinstance(self.input, str) and self.input else list(self.input)

    @property
    def shown(self) -> str:
        """The inputs as messages and records name them."""
        return ", ".join(mask_uri(storable(each)) for each in self.inputs)

    @property
    def text_columns(self) -> list[str]:
        """The text columns as a list, in the order given."""
        return [self.text_column] if isinstance(self.text_column, str) else list(self.text_column)

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ValueError(f"loader.delimiter is one character, no quote or line break, not {self.delimiter!r}")
        if self.escape is not None and (len(self.escape) != 1 or self.escape in '"\r\n ' + (self.delimiter or ",\t")):
            raise ValueError(
                f"loader.escape is one character, no quote, space, line break or delimiter, not {self.escape!r}"
            )
        if not self.text_column:
            raise ValueError("loader.text_column names no column")
        if self.pair_column == "" or (self.template is None and self.pair_column in self.text_columns):
            raise ValueError("loader.pair_column names another column than loader.text_column")
        try:
            line_break = "\n".encode(self.encoding)
        except (LookupError, UnicodeError):
            raise ValueError(f"loader.encoding: Python knows no text encoding {self.encoding!r}") from None
        # The first line of this one changes the meaning of all others.
        has_state = codecs.lookup(self.encoding).name == "iso2022_kr"
        if has_state or (not line_break.endswith(b"\n") and b"\n\0" not in line_break):
            raise ValueError(f"loader.encoding: {self.encoding} can't be read line by line; convert the file first")


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The servers. Secrets come from the environment: `api_key_env`, or `"env:NAME"` as the value of a header."""

    url: str | list[str] = DEFAULT_URL
    """The server: a base URL, or a URL with a path, which is used as it is. A list for several with the same model.

    `"embedded"` starts the built-in server for this run, which then speaks what `server.api` says.
    """
    api: Literal["auto", "vllm", "sglang", "tei", "infinity", "hf", "oip", "kserve", "json"] = "auto"
    """What the server speaks. `"auto"` finds out, with a few GETs and without sending a text.

    The page on servers says which is which. `"json"` is a server of your own, see `request.field` and `request.answer`.
    """
    model: str | None = None
    """The model to ask for. Default: the one model that the server serves.

    Example: "reviews-sentiment"
    """
    model_version: str | None = None
    """A name for the weights. Change it when new weights are served under an old model name.

    Answers of different versions are never mixed, neither in a checkpoint nor in the file of `run.reuse`.

    Example: "2026-11"
    """
    api_key_env: str = "VLLM_API_KEY"
    """The environment variable that holds the server's API key, sent as a bearer token. It need not be set.

    Whatever the server is; where a key belongs into another header, `server.headers` sends it.
    """
    headers: dict[str, str] = {}
    """More headers of each request. A value `"env:NAME"` is read from the environment variable NAME.

    Example: { "X-Team" = "search", "X-Token" = "env:GATEWAY_TOKEN" }
    """
    ca_bundle: str | None = None
    """A PEM file with the certificates to trust, instead of those of the system.

    Example: "ca.pem"
    """
    proxy: str | None = None
    """The HTTP proxy to the servers; `"none"` for none, `"env:NAME"` reads it from the environment variable NAME.

    Default: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` of the environment, read as curl does; servers on
    this machine are then asked directly.

    Example: "http://proxy.example.com:3128"
    """
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 300.0
    """The time for one request, in seconds."""
    start_wait_s: Seconds = 15.0
    """How long to wait, in seconds, for a server that does not answer at the start of the run."""
    wait_s: Seconds = 600.0
    """How long to wait, in seconds, when no server answers any more during the run; then the exit code is 75."""

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("server.url names no server")
        for url in self.urls:
            if url != EMBEDDED and not is_http(url):
                raise ValueError(f'server.url is http://HOST:PORT, https://... or "{EMBEDDED}", not {mask_url(url)!r}')
        is_variable_named = (self.proxy or "").startswith(FROM_ENVIRONMENT)
        if self.proxy not in (None, "none") and not is_variable_named and not is_http(self.proxy or ""):
            raise ValueError('server.proxy is http://HOST:PORT, "env:NAME" or "none"')
        if self.api_key_env and not is_variable(self.api_key_env):
            raise ValueError("server.api_key_env is the name of an environment variable: letters, digits and _")
        for name, value in self.headers.items():
            if value.startswith(FROM_ENVIRONMENT) and not is_variable(value.removeprefix(FROM_ENVIRONMENT)):
                raise ValueError(f'server.headers.{name}: "env:NAME" is an environment variable: letters, digits and _')

    @property
    def urls(self) -> list[str]:
        """The urls as a list, in the order given."""
        return [self.url] if isinstance(self.url, str) else list(self.url)

    def request_headers(self, environment: dict[str, str]) -> dict[str, str]:
        """Return the headers of every request, with secrets read from `environment`.

        Raises:
            ConfigError: a header names a variable that is not set.
        """
        headers = {
            name: read_secret(f"server.headers.{name}", value, environment) for name, value in self.headers.items()
        }
        key = environment.get(self.api_key_env)
        if key and not any(name.lower() == "authorization" for name in headers):
            if not key.isprintable():
                raise ConfigError(f"the key in {self.api_key_env} holds a line break or the like; set it without")
            headers["Authorization"] = f"Bearer {key}"
        for name, value in headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not value.isprintable():
                raise ConfigError(f"server.headers: the name or the value of {name!r} can't stand in a header")
        return headers


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request contains, and how many are sent at once."""

    rows: Positive | Literal["auto"] = "auto"
    """Texts in one request.

    `"auto"` sends 256, more to a very fast server and fewer to one that refuses so many; 32 in the background.
    """
    max_chars: Positive = 200_000
    """Characters in one request. A longer text is sent alone."""
    concurrency: Positive | Literal["auto"] = "auto"
    """Requests in flight on each server. `"auto"` finds how many it needs, and shares it with others that use it."""
    manners: Literal["fair", "background"] = "fair"
    """How a server is shared, with `concurrency = "auto"`.

    `"fair"` takes an equal share among runs of this program; `"background"` takes what others leave.
    """
    format: Literal["auto", "json", "binary"] = "auto"
    """The form of the answers.

    `"binary"` asks vLLM for plain numbers (`/pooling`), which takes less time to read; the values are the same. Other
    servers have no such form. `"auto"` is JSON: there each answer names the model.
    """
    too_long: Literal["error", "truncate", "split"] = "error"
    """What to do about a text that is longer than the model allows.

    `"error"` gives its row the error `too_long`; `"truncate"` has the server cut this text and marks the row in the
    column `predicted_truncated`; `"split"` asks for it in parts, and combines the values that these get. The column
    `predicted_parts` says how many there were.

    Example: "split"
    """
    combine: Literal["mean", "max"] = "mean"
    """With `too_long = "split"`: how the values of the parts become those of the text.

    `"mean"` takes the mean of each class over all parts, a part counting as much as it is long: what most of the text
    is like. `"max"` takes the largest value of each class: whether any part is like that.
    """
    max_text_chars: Annotated[int, msgspec.Meta(ge=SHORTEST_PART)] | None = None
    """With `too_long = "split"`: the most characters of a text that is sent whole. Longer ones are cut before.

    For servers that cut long texts without a word, and where most texts are too long, which saves the refusals.

    Example: 1500
    """
    activation: bool | Literal["softmax", "sigmoid"] = True
    """Ask for probabilities as the server makes them. `false` asks for raw logits (vLLM 0.11.2 or newer).

    `"softmax"` and `"sigmoid"` ask for logits, too, and make probabilities of them here: over all classes, or of each
    class alone, as several labels a text need. For servers that apply a softmax to every model.
    """
    dedupe: bool = True
    """Send texts that are equal only once in a request."""
    priority: int | None = None
    """The priority of the requests in vLLM's scheduler; lower is sooner.

    Example: 10
    """
    extra: dict[str, Any] = {}
    """More members of the request's JSON body, sent as they are.

    Example: { "truncation_side" = "left" }
    """

    field: str = "inputs"
    """With `server.api = "json"`: the member of the request that holds the list of texts."""
    answer: str = ""
    """With `server.api = "json"`: the member of the answer that holds the list of results, with dots to reach deeper.

    An empty string: the answer itself is the list.

    Example: "result.predictions"
    """

    def __post_init__(self) -> None:
        try:
            json.dumps(self.extra, allow_nan=False)
        except (TypeError, ValueError) as error:  # TOML has dates, times, inf and nan
            raise ValueError(f"request.extra holds what JSON can't: {error}") from None
        if self.too_long != "split":
            for key, value, default in (
                ("combine", self.combine, "mean"),
                ("max_text_chars", self.max_text_chars, None),
            ):
                if value != default:
                    raise ValueError(f'request.{key} is for texts in parts: set request.too_long = "split"')


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a failed request is tried again."""

    attempts: Positive = 6
    """Attempts for one text. After so many failures on a server that answers other requests, its row gets an error.

    A request with several texts is halved after two failures. That a server is busy does not count.
    """
    max_elapsed_s: Seconds = 600.0
    """The time, in seconds, for all attempts of one request."""
    base_delay_s: Seconds = 0.5
    """The longest first pause, in seconds. It doubles with each attempt; each pause is random, between 0 and that."""
    max_delay_s: Seconds = 30.0
    """The longest pause of all, in seconds."""


class Writer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output and the columns that are added."""

    output: str = ""
    """The output: a file, a directory (ends in a slash), a URI, or `"-"` for standard output.

    Default: beside the input, as `NAME_labelled`. `{date}` in it stands for a day, see `run.date`.

    Example: "reviews_labelled.parquet"
    """
    format: OutputFormatName | None = None
    """The format of the output, where the ending of its name does not say it.

    Example: "parquet"
    """
    prefix: str = "predicted_"
    """The start of the names of the new columns."""
    probs: Literal["none", "list", "columns"] = "none"
    """Whether to write the values of all classes: not, as one list in class order, or as one column for each class."""
    labels: list[str] | str | None = None
    """The names of all classes, in class order, or the path of a model's `config.json` (`id2label`).

    They name the columns of `probs = "columns"`. They are used where the server has no names, or no order of them; a
    server with other names is refused as another model.

    Example: ["negative", "neutral", "positive"]
    """
    min_score: ByLabel | None = None
    """The score from which on a label is sure: one number, or a table by label, with `default` for all others.

    Adds the boolean column `predicted_unsure`. Labels that a table without `default` does not name are sure.

    Example: { default = 0.8, refund = 0.95 }
    """
    unsure_label: str | None = None
    """With `min_score`: the text that stands in the place of the label where it is not sure. It can't be a class.

    Example: "unsure"
    """
    multi_label: ByLabel | None = None
    """Adds `predicted_labels`, all classes whose value is at least this: one number, or a table by class as above.

    The table has every class, or `default`. For models with several labels a text, each with a value of its own.

    Example: 0.5
    """
    top_k: Positive | None = None
    """Adds `predicted_top`, so many classes with the largest values, each with its value.

    Example: 3
    """
    compression: Literal["none", "snappy", "gzip", "zstd", "lz4", "brotli"] | None = None
    """The compression inside a Parquet or Arrow output; Arrow has zstd and lz4.

    Default: snappy in Parquet, none in Arrow. If it is set, all columns of a Parquet file are written anew; else those
    of a Parquet input are copied as they are.

    Example: "zstd"
    """

    def __post_init__(self) -> None:
        names = self.class_names
        if names is not None and len(set(names)) != len(names):
            raise ValueError("writer.labels names a class twice")
        if self.output == PIPE and not format_of(PIPE, self.format, "writer.format").is_text:
            raise ValueError(f"writer.format: standard output takes jsonl, json, csv and tsv, not {self.format}")
        _see_thresholds("min_score", self.min_score)
        _see_thresholds("multi_label", self.multi_label)
        if self.unsure_label is not None and self.min_score is None:
            raise ValueError("writer.unsure_label needs writer.min_score, the score from which on a label is sure")
        if self.unsure_label is not None and not self.unsure_label.strip():
            raise ValueError("writer.unsure_label is blank; a label that is missing means that the row failed")

    @property
    def class_names(self) -> list[str] | None:
        """The names of all classes, in class order, as far as the config says; read from a file if `labels` is one."""
        return names_in(self.labels) if isinstance(self.labels, str) else self.labels

    @property
    def needs_probs(self) -> str | None:
        """The key that needs the values of all classes, so that they are kept; None if none does."""
        keys = {"probs": self.probs != "none", "multi_label": self.multi_label is not None, "top_k": self.top_k}
        return next((f"writer.{key}" for key, is_set in keys.items() if is_set), None)


def _see_thresholds(key: str, thresholds: ByLabel | None) -> None:
    if thresholds == {}:
        raise ValueError(f"writer.{key} is an empty table; it is a number, or a table like {{ default = 0.5 }}")
    for threshold in thresholds.values() if isinstance(thresholds, dict) else [thresholds or 0.0]:
        if not isinstance(threshold, (int, float)) or not math.isfinite(threshold):
            raise ValueError(f"writer.{key} is a number, or a table of numbers, not {threshold!r}")


def names_in(path: str) -> list[str]:
    """Return the names in the `id2label` of a model's config.json, in class order.

    Raises:
        ValueError: it can't be read, or has none.
    """
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8"))["id2label"]
        return [str(names[str(index)]) for index in range(len(names))]
    except OSError as error:
        kinds = 'it is a list of names, ["a", "b"], or the path of a model\'s config.json'
        raise ValueError(f"writer.labels: {path}: {error.strerror}; {kinds}") from None
    except (ValueError, LookupError, TypeError):
        raise ValueError(
            f"writer.labels: {path}: expected a model's config.json with the names of all classes in id2label"
        ) from None


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a run ends, what it may replace, what it keeps, and how its end is reported."""

    max_failed_rows: Annotated[int, msgspec.Meta(ge=0)] | Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)?%$")] = 0
    """How many rows may fail before the exit code is 3: a number, or a share of the rows like `"1%"`."""
    deadline: str | None = None
    """When to stop: at the next `"06:00"`, or after `"4h"`, `"90m"` or `"30s"` from the start of the command.

    What was answered by then is kept, and the exit code is 4.

    Example: "06:00"
    """
    limit_rows: Positive | None = None
    """Classify only the first rows of each file. A later run without it continues from there.

    Example: 1000
    """
    date: str | None = None
    """The day that `{date}` in input and output stands for: `"today"`, `"yesterday"`, `"2026-11-23"`, or a range
    `"2026-11-01..yesterday"`. Default: today.

    Example: "yesterday"
    """
    on_changed_input: Literal["stop", "restart"] = "stop"
    """What to do if the input has changed since a run was interrupted: stop with exit code 2, or start over."""
    reuse: str | None = None
    """A file in which answers are kept for later runs. A text that it knows is not sent again.

    Example: "answers.sqlite"
    """
    reuse_max_gb: Annotated[float, msgspec.Meta(ge=0.01, le=1e6)] = 10.0
    """The size of that file at most, in GB. The answers used longest ago are dropped first."""
    restart: bool = False
    """Forget the checkpoint of this output and start over."""
    retry_failed: bool = False
    """Classify again the rows of a finished output that carry an error, and only these."""
    overwrite: bool = False
    """Replace an output that this program has not made."""
    state_dir: str | None = None
    """The directory for checkpoints and locks. Needed where the output is on a network file system.

    Default: beside a local output; for other outputs `$XDG_STATE_HOME/classify`, or `~/.local/state/classify`.

    Example: "state"
    """
    allow_empty: bool = False
    """Accept a file of 0 bytes, and an input that matches no file."""
    metrics_file: str | None = None
    """A file that says how the last run ended, in Prometheus' text format. It is replaced at the end of each run.

    An empty string is none.

    Example: "/var/lib/node_exporter/textfile/reviews.prom"
    """
    notify_url: str | None = None
    """A URL that receives the run record as JSON at the end of each run. `"env:NAME"` reads it from the environment.

    An empty string is none.

    Example: "env:NOTIFY_URL"
    """

    def __post_init__(self) -> None:
        self.seconds_left(datetime.now())  # noqa: DTZ005 - a deadline is meant in local time
        days_of(self.date, datetime.now().date())  # noqa: DTZ005 - and so is a day
        url = self.notify_url or ""
        is_named = url.startswith(FROM_ENVIRONMENT) and is_variable(url.removeprefix(FROM_ENVIRONMENT))
        if url and not is_named and not is_http(url):  # the message leaves the value out: it may hold a token
            raise ValueError('run.notify_url is http://..., https://... or "env:NAME"')

    def seconds_left(self, now: datetime) -> float | None:
        """Return the seconds from `now`, the start of the run, to the deadline (in local time); None without one."""
        if self.deadline is None:
            return None
        if span := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hms])", self.deadline):
            return float(span[1]) * {"h": 3600, "m": 60, "s": 1}[span[2]]
        if not (clock := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", self.deadline)):
            raise ValueError(f'run.deadline is a time of day like "06:00" or a span like "4h", not {self.deadline!r}')
        here = now.astimezone().replace(tzinfo=None)
        end = here.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        end = end if end > here else end + timedelta(days=1)
        return (end.astimezone() - now.astimezone()).total_seconds()  # the clocks may change in between

    def url_to_notify(self, environment: dict[str, str]) -> str | None:
        """Return the URL of `notify_url`, read from `environment` for `env:NAME`; None if there is none.

        Raises:
            ConfigError: the variable is not set, or holds no URL.
        """
        if not self.notify_url:
            return None
        url = read_secret("run.notify_url", self.notify_url, environment).strip()  # a file often ends in a line break
        if not is_http(url):
            variable = self.notify_url.removeprefix(FROM_ENVIRONMENT)
            raise ConfigError(f"run.notify_url: the variable {variable} holds no http://... or https://...; correct it")
        return url

    def failed_rows_allowed(self, rows: int) -> int:
        """Return how many of `rows` may fail before the exit code is 3."""
        if isinstance(self.max_failed_rows, str):
            return int(rows * float(self.max_failed_rows[:-1]) / 100)
        return self.max_failed_rows


# Keys whose values are paths, relative to the config file, or URIs.
PATH_KEYS = (
    "loader.input",
    "writer.output",
    "server.ca_bundle",
    "run.state_dir",
    "run.reuse",
    "run.metrics_file",
    "report.output",
    "report.against",
    "report.history",
)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections. `Config()` is every default."""

    loader: Loader = Loader()
    server: Server = Server()
    request: Request = Request()
    retry: Retry = Retry()
    writer: Writer = Writer()
    run: Run = Run()
    report: Report = Report()
    engine: Engine = Engine()

    def __post_init__(self) -> None:
        if self.engine.name == "ray":
            alone = {
                "run.reuse is a file": self.run.reuse is not None,
                "standard input is": PIPE in self.loader.inputs,
                f'the built-in server (url = "{EMBEDDED}") is': EMBEDDED in self.server.urls,
            }
            for what in (each for each, is_so in alone.items() if is_so):
                raise ValueError(f'engine.name = "ray": {what} on one machine only; use "local"')

    @property
    def needs_all_values(self) -> str | None:
        """The setting that needs the values of all classes from the server; None if none does."""
        if self.request.too_long == "split":
            return 'request.too_long = "split"'
        return self.writer.needs_probs or ("run.reuse" if self.run.reuse is not None else None)

    def workers_on(self, cores: int) -> int:
        """Return the number of workers where so many cores are; no more than half of a fixed concurrency."""
        slots, workers = self.request.concurrency, self.engine.workers_on(cores)
        return workers if slots == "auto" else min(workers, max(1, slots // 2))

    @property
    def is_spread(self) -> bool:
        """Whether workers answer the rows, and not this process."""
        return self.engine.name == "ray" or self.workers_on(cores_here()) > 1

    @property
    def is_piped(self) -> bool:
        """Whether input or output is a pipe, so that no later run can resume."""
        return PIPE in (*self.loader.inputs, self.writer.output)
