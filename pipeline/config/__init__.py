"""Every knob, its default and its check; where it is read from; how it is shown."""

from pipeline.config.reading import load, parse_setting
from pipeline.config.sections import (
    DEFAULT_URL,
    EMBEDDED,
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
from pipeline.config.urls import mask_url, origin

__all__ = [
    "DEFAULT_URL",
    "EMBEDDED",
    "Config",
    "Format",
    "Loader",
    "Request",
    "Retry",
    "Run",
    "Server",
    "Writer",
    "describe",
    "load",
    "mask_url",
    "origin",
    "parse_setting",
    "public_settings",
]
