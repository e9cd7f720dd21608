"""Every knob, its default and its check: one frozen struct a section.

A flag beats `--set`, `--set` beats the file, the file beats the default.
"""

from __future__ import annotations

import codecs
import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from pipeline.config.dates import days_of
from pipeline.config.masking import is_http, is_secret_url, mask_place, mask_url, read_secret_url
from pipeline.errors import ConfigError
from pipeline.formats.registry import PIPED, format_names
from pipeline.streams import storable

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # not inf: the system takes no such time
if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[tuple(format_names())]
DEFAULT_URL = "http://localhost:8000"
EMBEDDED = "embedded"  # the url that stands for the built-in server
PIPE = "-"  # the input that stands for standard input, the output that stands for standard output


class Loader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows come from, and which of their columns is the text."""

    input: str | list[str] = ""  # files, globs, directories, or "-"; {date} in them is a day, see run.date
    format: FormatName | None = None  # by the ending if not given
    text_column: str | list[str] = "text"
    template: str | None = None  # "{title}\n\n{body}": names only; wins over text_column
    encoding: str = "utf-8"
    delimiter: str | None = None  # "," for csv, a tab for tsv
    on_bad_line: Literal["stop", "skip"] = "stop"

    @property
    def inputs(self) -> list[str]:
        """The inputs as a list, in the order given; none if none is named."""
        return [self.input] if isinstance(self.input, str) and self.input else list(self.input)

    @property
    def shown(self) -> str:
        """The inputs as messages and records name them."""
        return ", ".join(mask_place(storable(each)) for each in self.inputs)

    @property
    def text_columns(self) -> list[str]:
        """The text columns as a list, in the order given."""
        return [self.text_column] if isinstance(self.text_column, str) else list(self.text_column)

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ValueError(f"loader.delimiter is one character, no quote or line break, not {self.delimiter!r}")
        if not self.text_column:
            raise ValueError("loader.text_column names no column")
        try:
            line_break = "\n".encode(self.encoding)
        except (LookupError, UnicodeError):
            raise ValueError(f"loader.encoding: Python knows no text encoding {self.encoding!r}") from None
        has_state = codecs.lookup(self.encoding).name == "iso2022_kr"  # what its first line says holds for all others
        if has_state or (not line_break.endswith(b"\n") and b"\n\0" not in line_break):
            raise ValueError(f"loader.encoding: {self.encoding} can't be read line by line; convert the file first")


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answers. Secrets are named, never written: `api_key_env`, and `env:NAME` as a header's value."""

    url: str | list[str] = DEFAULT_URL
    model: str | None = None
    model_version: str | None = None  # part of the run's identity: raise it when new weights keep an old name
    api_key_env: str = "VLLM_API_KEY"
    headers: dict[str, str] = {}
    ca_bundle: str | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 300.0
    start_wait_s: Seconds = 15.0
    wait_s: Seconds = 600.0

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("server.url names no server")
        for url in self.urls:
            if url != EMBEDDED and not is_http(url):
                raise ValueError(f'server.url is http://HOST:PORT, https://... or "{EMBEDDED}", not {mask_url(url)!r}')

    @property
    def urls(self) -> list[str]:
        """The urls as a list, in the order given."""
        return [self.url] if isinstance(self.url, str) else list(self.url)

    def request_headers(self, environment: dict[str, str]) -> dict[str, str]:
        """The headers of every request, secrets read from `environment`.

        Raises:
            ConfigError: a header names a variable that is not set.
        """
        headers = {}
        for name, value in self.headers.items():
            variable = value.removeprefix("env:")
            if variable != value and variable not in environment:
                raise ConfigError(f"server.headers.{name}: the environment has no variable {variable}; set it")
            headers[name] = environment[variable] if variable != value else value
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
    """What one request carries and what is asked of the model."""

    rows: Positive | Literal["auto"] = "auto"
    max_chars: Positive = 200_000
    concurrency: Positive | Literal["auto"] = "auto"
    too_long: Literal["error", "truncate"] = "error"
    activation: bool = True
    dedupe: bool = True
    priority: int | None = None
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        try:
            json.dumps(self.extra, allow_nan=False)
        except (TypeError, ValueError) as error:  # TOML has dates, times, inf and nan
            raise ValueError(f"request.extra holds what JSON can't: {error}") from None


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a failed request is tried again."""

    attempts: Positive = 6
    max_elapsed_s: Seconds = 600.0
    base_delay_s: Seconds = 0.5
    max_delay_s: Seconds = 30.0


class Writer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows go, and what is added to them."""

    output: str = ""
    format: FormatName | None = None  # by the ending if not given
    prefix: str = "predicted_"
    probs: Literal["none", "list", "columns"] = "none"
    labels: list[str] | None = None  # all class names, in class order
    compression: Literal["none", "snappy", "gzip", "zstd", "lz4", "brotli"] | None = None  # inside Parquet

    def __post_init__(self) -> None:
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("writer.labels names a class twice")
        if self.output == PIPE and self.format not in (None, *PIPED.names):
            raise ValueError(f"writer.format: standard output takes {PIPED.name}, not {self.format}; name a file")


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the run is good enough, when it must end, and what it may replace."""

    max_failed_rows: Annotated[int, msgspec.Meta(ge=0)] | Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)?%$")] = 0
    deadline: str | None = None  # "06:00", the next one, or a time from the start: "4h", "90m", "30s"
    limit_rows: Positive | None = None  # of each file
    date: str | None = None  # what {date} in input and output stands for; default: today
    on_changed_input: Literal["stop", "restart"] = "stop"
    reuse: str | None = None  # a file of answers that later runs take instead of asking
    reuse_max_gb: Annotated[float, msgspec.Meta(ge=0.01, le=1e6)] = 10.0
    restart: bool = False
    retry_failed: bool = False
    overwrite: bool = False
    state_dir: str | None = None  # of checkpoints and locks; default: beside the output, $XDG_STATE_HOME for the rest
    allow_empty: bool = False
    metrics_file: str | None = None  # Prometheus' text format, rewritten at the end of each run; "" is none
    notify_url: str | None = None  # is sent the run record at the end; "env:NAME" keeps it out of files; "" is none

    def __post_init__(self) -> None:
        self.seconds_left(datetime.now())  # noqa: DTZ005 - a deadline is meant in local time
        days_of(self.date, datetime.now().date())  # noqa: DTZ005 - and so is a day
        if self.notify_url and not is_secret_url(self.notify_url):  # it is not repeated: it may hold a token
            raise ValueError('run.notify_url is http://..., https://... or "env:NAME"')

    def seconds_left(self, now: datetime) -> float | None:
        """Seconds from `now`, the start of the run, to the deadline, a time of this machine's; None without one."""
        if self.deadline is None:
            return None
        if span := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hms])", self.deadline):
            return float(span[1]) * {"h": 3600, "m": 60, "s": 1}[span[2]]
        if not (clock := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", self.deadline)):
            raise ValueError(f'run.deadline is a time of day like "06:00" or a span like "4h", not {self.deadline!r}')
        here = now.astimezone().replace(tzinfo=None)
        end = here.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        end = end if end > here else end + timedelta(days=1)
        return (end.astimezone() - now.astimezone()).total_seconds()  # a night may have an hour more or less

    def url_to_notify(self, environment: dict[str, str]) -> str | None:
        """The url that is told how a run ended, read from `environment` if it says so; None if nobody is told.

        Raises:
            ConfigError: the variable is not set, or holds no url.
        """
        return read_secret_url("run.notify_url", self.notify_url, environment) if self.notify_url else None

    def failed_rows_allowed(self, rows: int) -> int:
        """How many of `rows` may fail before the run counts as failed (exit code 3)."""
        if isinstance(self.max_failed_rows, str):
            return int(rows * float(self.max_failed_rows[:-1]) / 100)
        return self.max_failed_rows


# What these hold is relative to the config file they stand in; or a URI.
PATH_KEYS = (
    "loader.input",
    "writer.output",
    "server.ca_bundle",
    "run.state_dir",
    "run.reuse",
    "run.metrics_file",
)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections. `Config()` is every default."""

    loader: Loader = Loader()
    server: Server = Server()
    request: Request = Request()
    retry: Retry = Retry()
    writer: Writer = Writer()
    run: Run = Run()

    @property
    def is_piped(self) -> bool:
        """Whether one end is a pipe: what is answered can't be kept for a later run."""
        return PIPE in (*self.loader.inputs, self.writer.output)
