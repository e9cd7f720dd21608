"""Every knob, its default and its check; where it is read from; how it is shown."""

from pipeline.config.reading import load, parse_setting
from pipeline.config.sections import (
    DEFAULT_URL,
    EMBEDDED,
    PIPE,
    Config,
    Format,
    Loader,
    Request,
    Retry,
    Run,
    Server,
    Writer,
    describe,
    public_settings,
)
from pipeline.config.urls import Uri, mask_place, mask_url, mask_words, origin, split_uri

__all__ = [
    "DEFAULT_URL",
    "EMBEDDED",
    "PIPE",
    "Config",
    "Format",
    "Loader",
    "Request",
    "Retry",
    "Run",
    "Server",
    "Uri",
    "Writer",
    "describe",
    "load",
    "mask_place",
    "mask_url",
    "mask_words",
    "origin",
    "parse_setting",
    "public_settings",
    "split_uri",
]
