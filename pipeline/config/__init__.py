"""Every knob, its default and its check; where it is read from; how it is shown."""

from pipeline.config.dates import dated, days_of, is_dated
from pipeline.config.load import load, parse_setting
from pipeline.config.masking import (
    Uri,
    cut_options,
    mask_place,
    mask_url,
    mask_words,
    origin,
    split_uri,
)
from pipeline.config.sections import (
    DEFAULT_URL,
    EMBEDDED,
    PIPE,
    Config,
    Loader,
    Request,
    Retry,
    Run,
    Server,
    Writer,
)
from pipeline.config.show import describe, public_settings

__all__ = [
    "DEFAULT_URL",
    "EMBEDDED",
    "PIPE",
    "Config",
    "Loader",
    "Request",
    "Retry",
    "Run",
    "Server",
    "Uri",
    "Writer",
    "cut_options",
    "dated",
    "days_of",
    "describe",
    "is_dated",
    "load",
    "mask_place",
    "mask_url",
    "mask_words",
    "origin",
    "parse_setting",
    "public_settings",
    "split_uri",
]
