"""The doors: arguments in, exit codes out. The only place that speaks to a person, besides the progress of a run."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import time
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline import streams
from pipeline._version import __version__
from pipeline.errors import ClassifyError, ConfigError, ReaderGone, Stopped
from pipeline.formats.registry import COMPRESSIONS, FORMATS

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.monitoring.progress import Progress


# -- The words of the command line. What they mean is done elsewhere: see `cli`


# The key of the config that each flag sets.
SERVER_FLAGS = {"url": "server.url", "model": "server.model"}
RUN_FLAGS = {
    "input": "loader.input",
    "output": "writer.output",
    "text_column": "loader.text_column",
    "limit_rows": "run.limit_rows",
    "date": "run.date",
    "restart": "run.restart",
    "retry_failed": "run.retry_failed",
    "overwrite": "run.overwrite",
    **SERVER_FLAGS,
}


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as all our messages are."""

    def error(self, message: str) -> NoReturn:
        from pipeline.config import mask_words

        raise ConfigError(f"{mask_words(message)}; see `{self.prog} --help`")


def make_parser() -> argparse.ArgumentParser:
    """The parser: `command` of what it finds is the name of the command.

    Raises:
        ConfigError: from its methods, for a mistake in the arguments.
    """
    parser = _Parser(
        prog="classify", description="Label a file with your own model, served by vLLM: the same file, with labels."
    )
    parser.add_argument("--version", action="version", version=f"classify {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    run = commands.add_parser(
        "run", help="classify a file, or many", description="Classify a file, or many; resume what was interrupted."
    )
    _add_run_options(run)
    run.add_argument("--dry-run", action="store_true", help="the same as `classify check`")

    check = commands.add_parser("check", help="look before the run: config, input, server; writes nothing")
    _add_run_options(check)

    text = commands.add_parser("text", help="classify a few texts from the command line")
    text.add_argument("texts", nargs="+", metavar="TEXT")
    _add_server_options(text)
    text.add_argument("--json", action="store_true", help="one JSON object a text, instead of a table")

    status = commands.add_parser("status", help="how far a run is, also while it is running")
    status.add_argument("output", metavar="OUTPUT", help="the output of the run")
    status.add_argument("--log-json", action="store_true", help="one JSON object instead of words")
    _add_setting(status)

    serve = commands.add_parser("serve", help="the built-in language classifier as a server, in the foreground")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument(
        "--port", type=_port, default=8000, help="port to listen on, 0 for a free one (default: %(default)s)"
    )

    _add_schedule(
        commands.add_parser("schedule", help="print what cron, systemd or Kubernetes needs for a run a night")
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:  # noqa: PLR2004 - 16 bits
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _clock(text: str) -> time:
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"a time of day is HH:MM, like 02:30, not {text!r}")
    hour, _, minute = text.partition(":")
    return time(int(hour), int(minute))


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.toml", help="the config of the run; it is checked first")
    parser.add_argument("--at", type=_clock, required=True, metavar="HH:MM", help="when it starts, every day")
    parser.add_argument(
        "--as", dest="scheduler", required=True, choices=("cron", "systemd", "kubernetes"), help="who starts it"
    )
    parser.add_argument("--image", metavar="IMAGE", help="kubernetes: the image that holds `classify`")
    parser.add_argument("--timezone", metavar="ZONE", help="kubernetes: like Europe/Berlin (default: this machine's)")


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", action="append", help='base URL, full URL of the endpoint, or "embedded"; repeatable')
    parser.add_argument("--model", metavar="NAME", help="the model to ask for (default: the one that is served)")
    _add_setting(parser)


def _add_setting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any key of the config")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    endings, compressions = " ".join(f".{name}" for name in FORMATS), " ".join(COMPRESSIONS)
    parser.add_argument("config", nargs="?", metavar="CONFIG.toml", help="a config file, or simply the input file")
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        metavar="PATH",
        help=f"file, glob or directory to classify: {endings}, {compressions}; - is stdin; repeatable",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="the file to write, or a directory (default: beside the input, NAME_labelled); - is stdout",
    )
    parser.add_argument(
        "-t", "--text-column", action="append", metavar="NAME", help="the column of the text; repeatable"
    )
    parser.add_argument("--limit-rows", type=int, metavar="N", help="only the first N rows of each file")
    parser.add_argument("--date", metavar="DAY | FROM..TO", help="what {date} in input and output stands for")
    parser.add_argument("--restart", action="store_true", default=None, help="forget what was begun and start over")
    parser.add_argument(
        "--retry-failed", action="store_true", default=None, help="classify again the rows that carry an error"
    )
    parser.add_argument("--overwrite", action="store_true", default=None, help="replace an output that is not ours")
    _add_server_options(parser)
    quiet = parser.add_mutually_exclusive_group()
    quiet.add_argument("--quiet", action="store_true", help="no progress bar")
    quiet.add_argument("--log-json", action="store_true", help="one JSON object a line on stderr")


# -- The doors: arguments in, exit codes out. The only place that speaks to a person, besides the progress of a run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Nothing but a bug (1) shows a traceback."""
    streams.open_missing()
    arguments = sys.argv[1:] if arguments is None else arguments
    log_json = "--log-json" in arguments
    try:
        options = make_parser().parse_args(arguments)
        return _COMMANDS[options.command](options)
    except ReaderGone as error:
        return error.exit_code
    except ClassifyError as error:
        from pipeline.monitoring.summary import error_line

        known = {} if error.outcome is None else {"record": error.outcome}
        return _say(error_line(error), error.exit_code, log_json=log_json, **known)
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - the one place that may see a bug
        message = "this is a bug; please report it with its traceback"
        return _say(message, 1, log_json=log_json, traceback=traceback.format_exc())


def _load_config(options: argparse.Namespace, flags: dict[str, str]) -> Config:
    from pipeline.config import load, mask_place, parse_setting

    path = getattr(options, "config", None)
    if path is not None and not path.endswith(".toml"):  # `classify run reviews.parquet`
        if options.input is not None:
            raise ConfigError(f"{mask_place(path)}: a config file ends in .toml; and --input names the input already")
        options.input, path = [path], None
    settings = dict(parse_setting(text) for text in options.set)
    if getattr(options, "text_column", None) is not None:
        settings["loader.template"] = None  # of a config: it would win over the flag
    settings |= {key: getattr(options, flag) for flag, key in flags.items() if getattr(options, flag) is not None}
    return load(path, settings)


def _progress(options: argparse.Namespace, config: Config) -> Progress:
    from pipeline.config import PIPE
    from pipeline.monitoring.progress import Progress

    is_shared = config.writer.output == PIPE and sys.stdout.isatty()  # a bar and rows on one terminal
    return Progress("json" if options.log_json else "quiet" if options.quiet or is_shared else "auto")


def _run(options: argparse.Namespace) -> int:
    if options.dry_run:
        return _check(options)
    from pipeline import memory

    memory.reuse_memory()
    with memory.lasting():
        from pipeline.loops import run_with_signals
        from pipeline.monitoring.summary import summary
        from pipeline.runs.outcome import run_and_report

    config = _load_config(options, RUN_FLAGS)
    progress = _progress(options, config)
    advice = "" if config.is_piped else "; what was answered is kept, the same command goes on from there"
    record = run_with_signals(run_and_report(config, progress), advice)
    progress.finish(record, summary(record))
    return record.exit_code


def _check(options: argparse.Namespace) -> int:
    from pipeline.loops import run_with_signals
    from pipeline.runs.check import check

    config = _load_config(options, RUN_FLAGS)
    run_with_signals(check(config, _progress(options, config), streams.write))
    return 0


def _text(options: argparse.Namespace) -> int:
    from pipeline.library import classify_texts_async
    from pipeline.loops import run_with_signals
    from pipeline.monitoring.summary import as_json_lines, as_table

    config = _load_config(options, SERVER_FLAGS)
    predictions = run_with_signals(classify_texts_async(options.texts, config=config, wait=False))
    show = as_json_lines if options.json else as_table
    streams.write(show(options.texts, predictions))
    failed = [each for each in predictions if each.error and not each.error.startswith("empty:")]
    return 3 if failed else 0


def _status(options: argparse.Namespace) -> int:
    from pipeline.monitoring.status import as_json, as_lines, status_of
    from pipeline.storage import locate

    status = status_of(locate(options.output), _load_config(options, {}).run.state_dir)
    streams.write([as_json(status)] if options.log_json else as_lines(status))
    return 0


def _schedule(options: argparse.Namespace) -> int:
    from pipeline.schedule import schedule

    printed = schedule(options.config, options.at, options.scheduler, image=options.image, timezone=options.timezone)
    streams.write(printed.lines)
    for notice in printed.notices:
        streams.say(f"classify: {notice}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from pipeline.loops import run_with_signals
    from pipeline.servers.embedded import serve

    def announce(url: str) -> None:
        streams.say(f"{url}: classifies languages; stop it with Ctrl-C")

    try:
        run_with_signals(serve(options.host, options.port, on_ready=announce))
    except Stopped:
        return 0  # that is how a server ends
    return 0


def _say(message: str, exit_code: int, *, log_json: bool, **known: Any) -> int:
    if log_json:
        streams.say_event("error", "error", message=message, exit_code=exit_code, **known)
    else:
        streams.say(f"{known.get('traceback', '')}classify: {message}")
    return exit_code


_COMMANDS = {"run": _run, "check": _check, "text": _text, "status": _status, "serve": _serve, "schedule": _schedule}
