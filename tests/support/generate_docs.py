"""Writes what the documentation says of every option and every config key, from the code itself.

    python tests/support/generate_docs.py            rewrite what is out of date
    python tests/support/generate_docs.py --check    only name it: exit code 1 if anything is

Three things are generated: the option tables in `pipeline/docs/command.md` (from the argument parser), the keys in
`pipeline/docs/config.md`, and all of `configs/reference.toml` (both from `pipeline/config/sections.py`). In a page,
what is generated stands between two comments, `generated: NAME` and `end of NAME`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec

from pipeline.cli import RUN_FLAGS, make_parser
from pipeline.config import Config
from pipeline.config.load import EXPECTED, _type_name

ROOT = Path(__file__).parents[2]
COMMAND, CONFIG = ROOT / "pipeline" / "docs" / "command.md", ROOT / "pipeline" / "docs" / "config.md"
REFERENCE = ROOT / "configs" / "reference.toml"
COMMENT_WIDTH = 116
FILES = (COMMAND, CONFIG, REFERENCE)
REFERENCE_TOP = """\
# Every key of a config, with its default.
# Generated from pipeline/config/sections.py by tests/support/generate_docs.py; a change here would be lost.
#
# A key that is commented out is not set by default; its value here is an example. Paths are relative to the config
# file. Copy what you change into a config of your own; `classify check CONFIG.toml` shows all values in force.
"""


class Key(NamedTuple):
    """One key of the config, as the code describes it."""

    name: str
    kind: str  # its type in words
    default: Any
    text: str  # paragraphs, in Markdown
    example: str  # a TOML value; "" if the default shows enough
    flag: str  # of `classify run`; "" if there is none


def documentation(struct: type) -> dict[str, str]:
    """The string below each field of a struct, by the field's name.

    Raises:
        LookupError: a field has none.
    """
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            found[field.target.id] = inspect.cleandoc(str(text))
    if missing := [name for name, text in found.items() if not text]:
        raise LookupError(f"{struct.__name__}.{missing[0]} has no documentation below it")
    return found


def keys_of(section: str, struct: Any) -> Iterator[Key]:
    """The keys of one section, in the order of the code."""
    flags = {key: f"--{name.replace('_', '-')}" for name, key in RUN_FLAGS.items()}
    defaults = msgspec.to_builtins(struct())
    for name, documented in documentation(struct).items():
        text, _, example = documented.partition("\n\nExample: ")
        full = f"{section}.{name}"
        kind = EXPECTED.get(full) or _type_name(section, name)
        yield Key(name, kind, defaults[name], text, example, flags.get(full, ""))


def sections() -> Iterator[tuple[str, str, list[Key]]]:
    """Each section: its name, what it is for, and its keys."""
    for name, struct in get_type_hints(Config).items():
        yield name, inspect.getdoc(struct) or "", list(keys_of(name, struct))


# -- the pages


def config_page() -> str:
    """The keys as Markdown, a heading for each section and each key."""
    parts = []
    for section, about, keys in sections():
        parts.append(f"## [{section}]\n\n{about}")
        for key in keys:
            facts = [f"Type: {key.kind}.", f"Default: {_default(key)}."]
            facts += [f"Example: `{key.example}`."] if key.example else []
            facts += [f"Option: `{key.flag}`."] if key.flag else []
            parts.append(f"### {section}.{key.name}\n\n{' '.join(facts)}\n\n{key.text}")
    return "\n\n".join(parts)


def _default(key: Key) -> str:
    return "not set" if key.default in (None, "") else f"`{_toml(key.default)}`"


def _toml(value: Any) -> str:
    """A default as it is written in TOML, whose plain values are those of JSON."""
    return json.dumps(value)


def reference_config() -> str:
    """All keys as a config file."""
    parts = [REFERENCE_TOP]
    for section, about, keys in sections():
        parts.append(f"{_comment(about)}\n[{section}]\n")
        for key in keys:
            value = f"# {key.name} = {key.example}" if key.default is None else f"{key.name} = {_toml(key.default)}"
            example = f"# Example: {key.name} = {key.example}\n" if key.example and key.default is not None else ""
            parts.append(f"{_comment(key.text)}\n{example}{value}\n")
    return "\n".join(parts)


def _comment(text: str) -> str:
    plain = text.replace("`", "").split("\n\n")
    return "\n".join(f"# {line}" for each in plain for line in textwrap.wrap(each, COMMENT_WIDTH))


def command_pages() -> dict[str, Callable[[], str]]:
    """For each command a function that gives its usage and its options as Markdown."""
    parser = make_parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return {name: partial(_command, command) for name, command in commands.choices.items()}


def _command(parser: argparse.ArgumentParser) -> str:
    words, tables = [parser.prog], []
    for group in parser._action_groups:
        rows = []
        for action in group._group_actions:
            if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
                continue
            value = _value(action)
            if not action.option_strings:
                words.append(f"[{value}]" if action.nargs == "?" else value)
            elif action.required:
                words.append(f"{action.option_strings[-1]} {value}")
            name = f"{', '.join(action.option_strings)} {value}".strip()
            rows.append(f"| `{_cell(name)}` | {_cell((action.help or '') % vars(action))} |")
        if rows:
            title = {"positional arguments": "argument", "options": "option"}.get(group.title or "", group.title)
            tables.append("\n".join([f"| {title} | |", "|---|---|", *rows]))
    usage = f"```text\n{' '.join([*words, '[options]'])}\n```"
    return "\n\n".join([usage, *tables])


def _value(action: argparse.Action) -> str:
    """What stands for the value of an option or an argument; "" if it takes none."""
    if action.nargs == 0:
        return ""
    name = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    return f"{action.metavar or name}{'...' if action.nargs == '+' else ''}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# -- the files


def filled(text: str, generated: dict[str, Callable[[], str]]) -> str:
    """A page with everything between its comments made anew.

    Raises:
        LookupError: there is something to be generated that the page has no place for, or the other way round.
    """
    pattern = re.compile(r"(<!-- generated: (\w+) [^>]*-->\n\n).*?(\n\n<!-- end of \2 -->)", re.DOTALL)
    if {found[2] for found in pattern.finditer(text)} != {*generated}:
        raise LookupError(f"the page has a place for other things than {', '.join(generated)}")
    return pattern.sub(lambda found: f"{found[1]}{generated[found[2]]()}{found[3]}", text)


@cache
def files() -> dict[Path, str]:
    """What each generated file should hold."""
    return {
        COMMAND: filled(COMMAND.read_text(encoding="utf-8"), command_pages()),
        CONFIG: filled(CONFIG.read_text(encoding="utf-8"), {"keys": config_page}),
        REFERENCE: reference_config(),
    }


def main(*, check: bool) -> int:
    """Rewrite, or name, the files that are out of date."""
    stale = {path: text for path, text in files().items() if path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)}: {'is out of date' if check else 'rewritten'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
