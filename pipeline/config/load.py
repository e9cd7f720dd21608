"""Read a config from a TOML file, `--set` and flags, with errors that name the key; and show one without secrets."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from pipeline.config.masking import mask_uri, mask_url, origin
from pipeline.config.report import LAST, REPORT_ENDINGS
from pipeline.config.sections import PATH_KEYS, Config, names_in
from pipeline.errors import ConfigError
from pipeline.streams import storable

FILE_OF_LABELS = "writer.labels"  # a path where it is a string, not a list of names
# The words for types that are patterns in the struct.
EXPECTED = {"run.max_failed_rows": 'an integer, or a share like "1%"'}


def load(path: str | None, settings: dict[str, Any]) -> Config:
    """Read the TOML file `path` (if any); `settings`, {"section.key": value}, take precedence over it.

    Raises:
        ConfigError: no such file, no TOML, an unknown key (the nearest is named) or a wrong value.
    """
    tree: dict[str, Any] = _read_file(Path(path)) if path else {}
    for name, value in settings.items():
        _set(tree, name.split("."), value)
    run = tree.get("run")
    if isinstance(run, dict) and isinstance(run.get("date"), date):  # as TOML has them
        run["date"] = run["date"].isoformat()
    writer = tree.get("writer")
    try:
        if isinstance(writer, dict) and isinstance(writer.get("labels"), str):
            writer["labels"] = names_in(writer["labels"])  # so that the names are compared, wherever the file is
        return _converted(tree)
    except ValueError as error:
        raise ConfigError(f"{path or 'command line'}: {error}") from None


def checked(config: Config) -> Config:
    """Return a config that was made in Python with its values checked: constructors take any.

    Raises:
        ConfigError: a value is wrong.
    """
    try:
        return _converted(msgspec.to_builtins(config))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from None


def _converted(tree: dict[str, Any]) -> Config:
    """Make a config of its sections; an error names the key and what was expected."""
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), tree)) from None


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for depth, part in enumerate(path[:-1]):
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is no table that could hold it")
        tree = branch
    tree[path[-1]] = value


def parse_setting(text: str) -> tuple[str, Any]:
    """Split `SECTION.KEY=VALUE`; VALUE is TOML if it parses as such, else a string.

    A `~` in a path is expanded, because the shell does not.

    Raises:
        ConfigError: it has another form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip().partition(".")[2]:
        keys = likely_keys(name.strip()) if equals else []
        hint = f"did you mean {' or '.join(keys)}?" if keys else "like request.rows=64"
        raise ConfigError(f"--set {text}: it is SECTION.KEY=VALUE; {hint}")
    name = name.strip()
    if name in (*PATH_KEYS, FILE_OF_LABELS):
        value = os.path.expanduser(value)  # noqa: PTH111 - a Path drops a closing slash
    try:
        return name, tomllib.loads(f"v = {value}")["v"]
    except (tomllib.TOMLDecodeError, KeyError):
        return name, value


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; check the path of the config file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "; a text stands in quotes" if "Invalid value" in str(error) else ""
        raise ConfigError(f"{path}: not valid TOML: {error}{hint}") from None
    for name in (*PATH_KEYS, FILE_OF_LABELS):
        section, key = name.split(".")
        keys = tree.get(section)
        is_path = name != FILE_OF_LABELS or (isinstance(keys, dict) and isinstance(keys.get(key), str))
        if isinstance(keys, dict) and key in keys and is_path:
            keys[key] = _relative_to(path.parent, keys[key])
    return tree


def _relative_to(folder: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_relative_to(folder, each) for each in value]
    if not isinstance(value, str) or "://" in value:  # what is no string is refused later
        return value
    if value in ("", "-", *REPORT_ENDINGS) or LAST.fullmatch(value):  # words, no paths
        return value
    joined = os.path.join(folder, os.path.expanduser(value))  # noqa: PTH111, PTH118 - a Path drops a closing slash
    plain = os.path.normpath(joined)
    if os.path.realpath(plain) == os.path.realpath(joined):  # else a link stands before a `..`
        joined = plain
    return joined + "/" if value.endswith("/") and not joined.endswith("/") else joined


def _explain(message: str, tree: dict[str, Any]) -> str:
    """Turn msgspec's message into one that names the key as it is written, what was expected, and the nearest key."""
    what, _, where = message.partition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    if unknown := re.search(r"unknown field `(.*)`", what):
        return _unknown_key(f"{path}.{unknown[1]}".lstrip("."), tree)
    if path.endswith("[...]"):  # a table whose keys the user chooses: find the wrong one
        section, _, key = path.removesuffix("[...]").partition(".")
        is_number = key in ("limits", "min_score", "multi_label")
        wanted, kinds = ("a number", {int, float}) if is_number else ("a string", {str})
        wrong = next((name for name, value in tree[section][key].items() if type(value) not in kinds), "")
        return f"{section}.{key}.{wrong}: expected {wanted}"
    section, _, key = path.partition(".")
    if not what.startswith(("Expected", "Invalid")):
        return what  # raised by a check in `sections`, and names its key
    wanted = EXPECTED.get(path.partition("[")[0]) or _type_name(section, key) or what
    got = re.search(r"got `(.*)`|value '(.*)'", what)
    return f"{path}: expected {wanted}" + (f", not {got[1] or repr(got[2])}" if got else "")


def _unknown_key(name: str, tree: dict[str, Any]) -> str:
    known, keys = known_keys(), tree.get(name)
    if isinstance(keys, dict) and keys:  # an unknown section: its key says more
        name = f"{name}.{next(iter(keys))}"
    if likely := likely_keys(name):
        return f"unknown key {name}; did you mean {' or '.join(likely)}?"
    section = name.rpartition(".")[0]
    here = [key for key in known if key.rpartition(".")[0] == section]  # of an unknown section none
    return f"unknown key {name}; there are {', '.join(here or [key for key in known if '.' not in key])}"


def likely_keys(name: str) -> list[str]:
    """Return the keys that may be meant by an unknown one: its namesakes, else those of its section like it."""
    known = known_keys()
    section, _, last = name.rpartition(".")
    of_section = {key.rpartition(".")[2]: key for key in known if section and key.startswith(f"{section}.")}
    return (
        [key for key in known if key.rpartition(".")[2] == last]
        or [key for own, key in of_section.items() if last in own]
        or [of_section[own] for own in difflib.get_close_matches(last, of_section, cutoff=0.7)]
        or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        or [key for key in known if section and key.endswith(f".{section}")]
    )


def known_keys() -> list[str]:
    """Return every section, then every key as `section.key`."""
    sections = get_type_hints(Config)
    return [*sections, *(f"{section}.{key}" for section, kind in sections.items() for key in get_type_hints(kind))]


def _type_name(section: str, key: str) -> str:
    """Return what a key accepts, in words."""
    kinds = get_type_hints(Config)
    if section not in kinds or not key:
        return "a section" if section in kinds else ""
    hint = get_type_hints(kinds[section], include_extras=True).get(key.partition(".")[0].partition("[")[0])
    return " or ".join(dict.fromkeys(_words_of(hint)))


def _words_of(hint: Any) -> list[str]:
    """Return the words for a type: TOML's name for it, the values of a Literal, the bounds of a number."""
    if get_origin(hint) in (UnionType, Union):
        return [word for option in get_args(hint) if option is not type(None) for word in _words_of(option)]
    if get_origin(hint) is Literal:
        return [f'"{word}"' for word in get_args(hint)]
    if get_origin(hint) is list and get_origin(get_args(hint)[0]) is Literal:
        return [f"an array of {' or '.join(_words_of(get_args(hint)[0]))}"]
    if get_origin(hint) is Annotated:
        plain, meta = get_args(hint)
        bounds = [
            f"at least {meta.ge}" if meta.ge is not None else "",
            f"above {meta.gt}" if meta.gt is not None else "",
        ]
        return [" ".join([*_words_of(plain), *filter(None, bounds)])]
    names = {int: "an integer", float: "a float", str: "a string", bool: "a boolean"}
    return [names.get(hint, {list: "an array of strings", dict: "a table"}.get(get_origin(hint), str(hint)))]


def describe(config: Config) -> list[str]:
    """Return every setting as a line of TOML, secrets masked, as `classify check` shows it."""
    lines = []
    for section, keys in public_settings(config).items():
        for key, value in keys.items():
            shown = "(not set)" if value is None else msgspec.json.encode(value).decode()
            lines.append(f"{section}.{key} = {shown}")
    return lines


def public_settings(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings as plain values; header values, passwords and queries are masked."""
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(config)
    server = tree["server"]
    server["url"] = [mask_url(url) for url in config.server.urls]
    for name in PATH_KEYS:
        section, key = name.split(".")
        tree[section][key] = _shown(tree[section][key])
    server["proxy"] = config.server.proxy and mask_url(config.server.proxy)
    server["headers"] = dict.fromkeys(config.server.headers, "***")
    tree["run"]["notify_url"] = config.run.notify_url and origin(config.run.notify_url)
    return tree


def _shown(path: Any) -> Any:
    """Mask a path or URI, or a list of them; they may be bytes that are no UTF-8."""
    if isinstance(path, list):
        return [_shown(each) for each in path]
    return path and mask_uri(storable(path))
