"""The config: its keys, defaults and checks (sections), how it is read and shown (load), and how secrets are masked."""

from pipeline.config.load import describe, load, parse_setting, public_settings
from pipeline.config.masking import (
    Uri,
    cut_options,
    mask_uri,
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
    dated,
    days_of,
    is_dated,
)

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
    "mask_uri",
    "mask_url",
    "mask_words",
    "origin",
    "parse_setting",
    "public_settings",
    "split_uri",
]
