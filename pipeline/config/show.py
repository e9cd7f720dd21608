"""A config as people may see it: no secret is in it."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.config.masking import mask_place, mask_url, origin
from pipeline.config.sections import PATH_KEYS, Config
from pipeline.streams import storable


def describe(config: Config) -> list[str]:
    """Every setting as a line of TOML, secrets masked: what `classify check` shows and the run record keeps."""
    lines = []
    for section, keys in public_settings(config).items():
        for key, value in keys.items():
            shown = "(not set)" if value is None else msgspec.json.encode(value).decode()
            lines.append(f"{section}.{key} = {shown}")
    return lines


def public_settings(config: Config) -> dict[str, dict[str, Any]]:
    """The settings as plain values, fit to be shown: header values, passwords and queries are masked."""
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(config)
    server = tree["server"]
    server["url"] = [mask_url(url) for url in config.server.urls]
    for name in PATH_KEYS:
        section, key = name.split(".")
        tree[section][key] = _shown(tree[section][key])
    server["headers"] = dict.fromkeys(config.server.headers, "***")
    tree["run"]["notify_url"] = config.run.notify_url and origin(config.run.notify_url)
    return tree


def _shown(place: Any) -> Any:
    """A path or URI, or a list of them; they may be bytes that are no UTF-8."""
    if isinstance(place, list):
        return [_shown(each) for each in place]
    return place and mask_place(storable(place))
