"""How arguments are parsed, explained and completed: argparse with our messages, and shell completion."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline import streams
from pipeline.errors import ConfigError

APIS = ("vllm", "sglang", "tei", "infinity", "hf", "oip", "kserve", "json")


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are messages of one line, and whose help keeps the lines of its examples."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; what a command does not know is its mistake, not that of `classify`."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{_hint_of_columns(args or [], rest[0])}")
        return known, rest

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError that says what is wrong, and what was probably meant."""
        from pipeline.config import mask_words

        if wrong := re.match(r"argument COMMAND: invalid choice: '(.+?)' \(", message):
            _see_no_file(wrong[1])
            import difflib

            if near := difflib.get_close_matches(wrong[1], re.findall(r"'(\w+)'", message)[1:], n=1):
                raise ConfigError(f"{wrong[1]} is no command; did you mean {self.prog} {near[0]}?")
        raise ConfigError(f"{mask_words(message)}{_hint(message)}; see `{self.prog} --help`")


def _see_no_file(first: str) -> None:
    """Name the command to type, as a ConfigError, where a file stands in the place of the command."""
    from pipeline.config import mask_uri
    from pipeline.formats.registry import format_by_ending

    if first.endswith(".toml") or format_by_ending(first) or os.path.exists(first):  # noqa: PTH110
        column = "" if first.endswith(".toml") else " -t COLUMN"
        raise ConfigError(f"{mask_uri(first)} is no command; to classify it: classify run {mask_uri(first)}{column}")


def _hint(message: str) -> str:
    """Return how a key of the config is set that was typed as an option of its own."""
    unknown = re.match(r"unrecognized arguments: --([a-z-]+)", message)
    if unknown is None:
        return ""
    from pipeline.config.load import known_keys

    name = unknown[1].replace("-", "_")
    keys = [key for key in known_keys() if key.endswith(f".{name}")]
    return f"; it is a key of the config: --set {keys[0]}=VALUE" if keys else ""


def _hint_of_columns(arguments: Sequence[str], unknown: str) -> str:
    """Return how several columns are named, where a second one was given to one `-t`."""
    for option, column, second in zip(arguments, arguments[1:], arguments[2:], strict=False):
        if option in ("-t", "--text-column") and second == unknown and not unknown.startswith("-"):
            return f"; several columns are -t {column} -t {second}"
    return ""


def workers(text: str) -> int | str:
    """Parse the value of `--workers`."""
    if text != "auto" and not re.fullmatch(r"-?\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto")
    return text if text == "auto" else int(text)


def examples_of(*commands: str) -> str:
    """Return the end of a command's help."""
    return "\n  ".join(["example:" if len(commands) == 1 else "examples:", *commands])


class PrintCompletion(argparse.Action):
    """Print the shell code that lets a shell ask this program for completions, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        """See `argparse.Action`."""
        from argcomplete.shell_integration import shellcode

        streams.write_lines([shellcode(["classify"], shell=given[1])])  # given: namespace, value, option
        parser.exit()


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks for completions, and exit; nothing else happens if none asks."""
    import argcomplete
    from argcomplete.completers import FilesCompleter

    class Values(FilesCompleter):
        """What may follow an option: keys for --set, a few words for some, else files."""

        def __call__(self, prefix: str, **known: Any) -> list[str]:
            option = known["action"].dest
            if option == "set":
                from pipeline.config.load import known_keys

                return [f"{key}=" for key in known_keys() if "." in key]
            words = {
                "date": ["today", "yesterday"],
                "url": ["embedded"],
                "api": ["auto", *APIS],
                "model": [],
                "text_column": [],
                "texts": [],
            }
            return words[option] if option in words else super().__call__(prefix, **known)

    argcomplete.autocomplete(parser, default_completer=Values())
