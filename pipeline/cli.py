# PYTHON_ARGCOMPLETE_OK
"""The command line: what can be typed, and the exit code that comes of it.

Nothing else in the package prints, but for the progress of a run. What is slow to import is imported where it is used,
so that `classify --help` and completion are instant.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import time
from typing import TYPE_CHECKING, Any

from pipeline import streams
from pipeline._version import __version__
from pipeline.arguments import APIS, Parser, PrintCompletion, complete, examples_of, workers
from pipeline.errors import ClassifyError, ConfigError, ReaderGone, Stopped
from pipeline.formats.registry import COMPRESSIONS, FORMATS

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.monitoring.progress import Progress

    Commands = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - argparse has no other name for it

DOCS = __file__.removesuffix("cli.py") + "docs"
# The key of the config that each option sets.
SERVER_FLAGS = {"url": "server.url", "api": "server.api", "model": "server.model"}
RUN_FLAGS = {
    "input": "loader.input",
    "output": "writer.output",
    "text_column": "loader.text_column",
    "limit_rows": "run.limit_rows",
    "date": "run.date",
    "restart": "run.restart",
    "retry_failed": "run.retry_failed",
    "engine": "engine.name",
    "workers": "engine.workers",
    "overwrite": "run.overwrite",
    **SERVER_FLAGS,
}
REPORT_FLAGS = {
    "truth": "report.truth",
    "against": "report.against",
    "output": "report.output",
    "fail_on": "report.fail_on",
    "text_column": "loader.text_column",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default the process's own, and return its exit code.

    Only a bug, exit code 1, shows a traceback.
    """
    streams.open_missing()
    arguments = sys.argv[1:] if arguments is None else arguments
    log_json = "--log-json" in arguments
    streams.ignore_warnings()
    try:
        parser = make_parser()
        if "_ARGCOMPLETE" in os.environ:  # the shell asks for completions
            complete(parser)
        options = parser.parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run_command
        return run(options)
    except ReaderGone as error:
        return error.exit_code
    except ClassifyError as error:
        from pipeline.monitoring.summary import error_line

        exit_code, message = error.exit_code, error_line(error)
        known: dict[str, Any] = {} if error.outcome is None else {"record": error.outcome}
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the one place that may see a bug
        import traceback

        exit_code, message = 1, "this is a bug; please report it with its traceback"
        known = {"traceback": traceback.format_exc()}
        if isinstance(error, FileNotFoundError) and not streams.has_working_directory():
            exit_code, known = ConfigError.exit_code, {}
            message = "the working directory was deleted meanwhile; change to one that exists, then run this again"
    if log_json:
        streams.say_event("error", "error", message=message, exit_code=exit_code, **known)
    else:
        streams.say(f"{known.get('traceback', '')}classify: {message}")
    return exit_code


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. What it has parsed has the command's function as `run_command`.

    Raises:
        ConfigError: from its methods, for a mistake in the arguments.
    """
    parser = Parser(prog="classify", usage="%(prog)s COMMAND [options]")
    parser.add_argument("--version", action="version", version=f"classify {__version__}")
    parser.add_argument(
        "--completion",
        action=PrintCompletion,
        metavar="SHELL",
        choices=("bash", "zsh", "fish"),
        help='print what completes commands, options and keys: eval "$(classify --completion bash)", or zsh, fish',
    )
    commands = parser.add_subparsers(prog="classify", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    groups = {
        "classify": (_add_run, _add_text),
        "inspect": (_add_check, _add_status, _add_report, _add_sample),
        "operate": (_add_accept, _add_serve, _add_schedule),
    }
    about = "Label a file with your own model, on vLLM or another server: the same file, with labels."
    for title, adders in groups.items():
        added = [add(commands) for add in adders]
        about += f"\n\n{title}:" + "".join(f"\n  {each.prog.split()[1]:<10}{each.description}" for each in added)
    parser.description = about
    parser.epilog = examples_of(
        "classify run reviews.csv -t review --url http://localhost:8000 -o labelled.parquet",
        'classify text "I love it" "never again" --url embedded',
    )
    parser.epilog += f"\n\nThe options of a command: classify COMMAND --help\nThe documentation: {DOCS}"
    return parser


def _add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], description: str, *examples: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description, description=description, epilog=examples_of(*examples))
    parser.set_defaults(run_command=run)
    return parser


# Commands that classify: run, text


def _add_run(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "run",
        _run,
        "classify a file, or many; resume what was interrupted",
        "classify run reviews.csv -t review --url http://localhost:8000 -o labelled.parquet",
        "classify run nightly.toml --date yesterday --log-json",
    )
    rows = _add_run_options(parser)
    rows.add_argument("--dry-run", action="store_true", help="the same as `classify check`")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.dry_run:
        return _check(options)
    from pipeline import memory

    memory.keep_freed_memory()
    with memory.exempt_from_gc():
        from pipeline.loops import run_with_signals
        from pipeline.monitoring.summary import summary
        from pipeline.runs.outcome import run_and_report

    config = _load_config(options, RUN_FLAGS)
    progress = _progress(options, config)
    advice = "" if config.is_piped else "; what was answered is kept, the same command goes on from there"
    record = run_with_signals(run_and_report(config, progress), advice)
    progress.finish(record, summary(record))
    return record.exit_code


def _add_text(commands: Commands) -> argparse.ArgumentParser:
    example = 'classify text "I love it" "never again" --url http://localhost:8000'
    parser = _add_command(commands, "text", _text, "classify a few texts from the command line", example)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="a text to classify; repeatable")
    _add_server_options(parser)
    display = parser.add_argument_group("display")
    display.add_argument("--json", action="store_true", help="one JSON object a text, instead of a table")
    return parser


def _text(options: argparse.Namespace) -> int:
    from pipeline.library import classify_texts_async
    from pipeline.loops import run_with_signals
    from pipeline.monitoring.summary import as_json_lines, as_table

    config = _load_config(options, SERVER_FLAGS)
    predictions = run_with_signals(classify_texts_async(options.texts, config=config, wait=False))
    show = as_json_lines if options.json else as_table
    streams.write_lines(show(options.texts, predictions))
    failed = [each for each in predictions if each.error and not each.error.startswith("empty:")]
    return 3 if failed else 0


# Commands that inspect: check, status


def _add_check(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "check",
        _check,
        "look before the run: config, input, server; writes nothing",
        "classify check reviews.csv -t review --url http://localhost:8000",
        "classify check nightly.toml",
    )
    _add_run_options(parser)
    return parser


def _check(options: argparse.Namespace) -> int:
    from pipeline.loops import run_with_signals
    from pipeline.runs.check import check

    config = _load_config(options, RUN_FLAGS)
    run_with_signals(check(config, _progress(options, config), streams.write_lines))
    return 0


def _add_status(commands: Commands) -> argparse.ArgumentParser:
    description = "how far a run is, also while it is running"
    parser = _add_command(commands, "status", _status, description, "classify status labelled.parquet")
    parser.add_argument("output", metavar="OUTPUT", help="the output of the run")
    _add_setting(parser)
    parser.add_argument("--log-json", action="store_true", help="one JSON object instead of words")
    return parser


def _status(options: argparse.Namespace) -> int:
    import msgspec

    from pipeline.monitoring.status import as_lines, status_of
    from pipeline.storage import locate

    status = status_of(locate(options.output), _load_config(options, {}).run.state_dir)
    streams.write_lines([msgspec.json.encode(status).decode()] if options.log_json else as_lines(status))
    return 0


def _add_report(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "report",
        _report,
        "what the labels of an output are worth: shares, scores, accuracy, drift",
        "classify report labelled.parquet",
        "classify report labelled.parquet --truth language -o report.html",
        "classify report tonight.parquet --against yesterday.parquet --fail-on drift,regression",
        "classify report labelled.parquet --truth-file sample.csv",
    )
    parser.add_argument(
        "config", nargs="+", metavar="OUTPUT", help="a file, directory or glob of labelled files, or a config file"
    )
    parser.add_argument("--truth", metavar="COLUMN", help="the column with the right label")
    parser.add_argument("--truth-file", metavar="FILE", help="a sample that `classify sample` wrote, filled in")
    parser.add_argument(
        "--against", metavar="WHAT", help='an output or a report\'s JSON to compare with, "last", or "last 7"'
    )
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="FILE",
        help="the report to write, by its ending: .html .md .json; repeatable (default: NAME.report beside OUTPUT)",
    )
    parser.add_argument("--fail-on", type=_words, metavar="KIND,...", help="drift, regression, calibration: exit 5")
    parser.add_argument("-t", "--text-column", action="append", metavar="NAME", help="the column of the text")
    _add_setting(parser)
    parser.add_argument("--json", action="store_true", help="the numbers as JSON on standard output")
    parser.set_defaults(input=None)
    return parser


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def _report(options: argparse.Namespace) -> int:
    from functools import partial

    from pipeline.cancellation import run_cancellable
    from pipeline.loops import run_with_signals
    from pipeline.report.document import encode
    from pipeline.report.terminal import as_lines
    from pipeline.runs.reported import report_by_hand

    config = _load_config(options, REPORT_FLAGS)
    work = partial(
        report_by_hand,
        config,
        options.input or [],
        writes_default=not options.json,
        truth_file=options.truth_file,
    )
    document, files = run_with_signals(run_cancellable(work))
    lines = [encode(document).decode()] if options.json else as_lines(document, blocks=streams.has_blocks(sys.stdout))
    streams.write_lines(lines)
    for file in files:
        streams.say(f"report: {file}")
    return int(document["exit_code"])


def _add_sample(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "sample",
        _sample,
        "rows of an output to label by hand, which say what all of it is worth",
        "classify sample labelled.parquet --rows 200 -o sample.csv",
        "classify sample labelled.parquet --rows 500 -o tasks.json --for labelstudio",
    )
    parser.add_argument(
        "config", nargs="+", metavar="OUTPUT", help="a file, directory or glob of labelled files, or a config file"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the sample to write, by its ending: .csv .json .jsonl"
    )
    parser.add_argument("--rows", type=_rows, default=200, metavar="N", help="how many rows (default: %(default)s)")
    parser.add_argument(
        "--for",
        dest="form",
        choices=("csv", "labelstudio", "argilla"),
        help="the program in which they are labelled (default: a spreadsheet, or of .json and .jsonl labelstudio)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=1, metavar="N", help="another one, another sample (default: %(default)s)"
    )
    parser.add_argument("-t", "--text-column", action="append", metavar="NAME", help="the column of the text")
    parser.add_argument("--overwrite", action="store_true", default=None, help="replace a sample that is there")
    _add_setting(parser)
    parser.set_defaults(input=None)
    return parser


def _rows(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:  # noqa: PLR2004 - that a person may label
        raise argparse.ArgumentTypeError(f"a number of rows is 1 to 1000000, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is a whole number, not {text!r}")
    return int(text)


def _sample(options: argparse.Namespace) -> int:
    from functools import partial

    from pipeline.cancellation import run_cancellable
    from pipeline.loops import run_with_signals
    from pipeline.runs.reported import sample_by_hand

    flags = {"text_column": "loader.text_column", "overwrite": "run.overwrite"}
    config, named = _load_config(options, flags), options.input or []
    about = {"rows": options.rows, "seed": options.seed, "form": options.form}
    draw = partial(sample_by_hand, config, named, options.output, **about)
    rows, labelled, unsure = run_with_signals(run_cancellable(draw))
    streams.say(f"{options.output}: {rows:,} of {labelled:,} labelled rows; fill it in, then `classify report` with")
    streams.say(f"  --truth-file {options.output} says how many of all rows are right")
    if unsure:
        streams.say(f"  {unsure:,} rows that are not sure are left out: the model's own label is not in the output")
    return 0


# Commands that operate: accept, serve, schedule


def _add_accept(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "accept",
        _accept,
        "put an output in place that is held because its report failed",
        "classify accept labelled.parquet",
        "classify accept --discard labelled.parquet",
        "classify accept nightly.toml",
    )
    parser.add_argument("config", nargs="+", metavar="OUTPUT", help="what the held one is to replace, or a config file")
    parser.add_argument("--discard", action="store_true", help="throw the held one away; the output stays as it is")
    _add_setting(parser)
    parser.set_defaults(input=None)
    return parser


def _accept(options: argparse.Namespace) -> int:
    from pipeline.runs.accept import accept
    from pipeline.runs.reported import places_of
    from pipeline.storage import locate

    config = _load_config(options, {})
    for place in [locate(text) for text in options.input or []] or places_of(config):
        streams.say(accept(place, config.run.state_dir, discard=options.discard))
    return 0


def _add_serve(commands: Commands) -> argparse.ArgumentParser:
    description = "the built-in language classifier as a server, in the foreground"
    parser = _add_command(commands, "serve", _serve, description, "classify serve --port 8000")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8000, help="port to listen on, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--api", choices=APIS, default="vllm", help="the kind of server to be to clients (default: %(default)s)"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:  # noqa: PLR2004 - 16 bits
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from pipeline.loops import run_with_signals
    from pipeline.servers.embedded import serve

    def announce(url: str) -> None:
        streams.say(f"{url}: classifies languages; stop it with Ctrl-C")

    with suppress(Stopped):  # that is how a server ends
        run_with_signals(serve(options.host, options.port, api=options.api, on_ready=announce))
    return 0


def _add_schedule(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "schedule",
        _schedule,
        "print what cron, systemd or Kubernetes needs to run a config every day",
        "classify schedule nightly.toml --at 02:30 --as systemd",
        "classify schedule nightly.toml --at 02:30 --as kubernetes --timezone Europe/Berlin --image classify:1",
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="the config of the run; it is checked first")
    parser.add_argument("--at", type=_time_of_day, required=True, metavar="HH:MM", help="when it starts, every day")
    parser.add_argument(
        "--as", dest="scheduler", required=True, choices=("cron", "systemd", "kubernetes"), help="who starts it"
    )
    parser.add_argument("--image", metavar="IMAGE", help="kubernetes: the image that holds `classify`")
    parser.add_argument("--timezone", metavar="ZONE", help="kubernetes: like Europe/Berlin (default: this machine's)")
    return parser


def _time_of_day(text: str) -> time:
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"a time of day is HH:MM, like 02:30, not {text!r}")
    hour, _, minute = text.partition(":")
    return time(int(hour), int(minute))


def _schedule(options: argparse.Namespace) -> int:
    from pipeline.schedule import schedule

    printed = schedule(options.config, options.at, options.scheduler, image=options.image, timezone=options.timezone)
    streams.write_lines(printed.lines, sys.getfilesystemencoding())  # paths are bytes, and must stay the same
    for notice in printed.notices:
        streams.say(f"classify: {notice}")
    return 0


# Options that several commands have, and the config that they amount to


def _add_run_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of `run` and `check`; return the group of those that say what to run."""
    endings, compressions = " ".join(f".{name}" for name in FORMATS), " ".join(COMPRESSIONS)
    files = parser.add_argument_group("input and output")
    files.add_argument(
        "config",
        nargs="*",
        metavar="INPUT | CONFIG.toml",
        help="the input: a file, a directory, or several; or a config file, which names it",
    )
    files.add_argument(
        "-i",
        "--input",
        action="append",
        metavar="PATH",
        help=f"file, glob or directory to classify: {endings}, {compressions}; - is stdin; repeatable",
    )
    files.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="the file to write, or a directory (default: beside the input, NAME_labelled); - is stdout",
    )
    files.add_argument(
        "-t", "--text-column", action="append", metavar="NAME", help="the column of the text; repeatable"
    )
    files.add_argument("--overwrite", action="store_true", default=None, help="replace an output that is not ours")
    rows = parser.add_argument_group("what to run")
    rows.add_argument("--limit-rows", type=int, metavar="N", help="only the first N rows of each file")
    rows.add_argument("--date", metavar="DAY | FROM..TO", help="what {date} in input and output stands for")
    rows.add_argument("--restart", action="store_true", default=None, help="forget what was begun and start over")
    rows.add_argument(
        "--retry-failed", action="store_true", default=None, help="classify again the rows that carry an error"
    )
    rows.add_argument("--engine", choices=("local", "ray"), help="where workers are: local, on this machine, or ray")
    rows.add_argument(
        "--workers",
        type=workers,
        metavar="N",
        help="processes that do the work; auto: one a core (default: 1)",
    )
    _add_server_options(parser)
    display = parser.add_argument_group("display").add_mutually_exclusive_group()
    display.add_argument("--quiet", action="store_true", help="no progress bar")
    display.add_argument("--log-json", action="store_true", help="one JSON object a line on stderr")
    return rows


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server and config")
    server.add_argument("--url", action="append", help='base URL, full URL of the endpoint, or "embedded"; repeatable')
    server.add_argument(
        "--api", choices=("auto", *APIS), help="what the server speaks (default: auto, which finds out)"
    )
    server.add_argument("--model", metavar="NAME", help="the model to ask for (default: the one that is served)")
    _add_setting(server)


def _add_setting(group: argparse._ActionsContainer) -> None:
    group.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any key of the config")


def _load_config(options: argparse.Namespace, flags: dict[str, str]) -> Config:
    """Load the config file of the command, if any, and lay over it what --set and then the flags say.

    `flags` names the options that set a key of the config, {option: key}.
    """
    from pipeline.config import load, mask_uri, parse_setting

    paths: list[str] = getattr(options, "config", [])
    configs = [each for each in paths if each.endswith(".toml")]
    inputs = [each for each in paths if each not in configs]
    if len(configs) > 1:
        raise ConfigError(f"{', '.join(configs)}: a command takes one config file")
    if inputs:  # `classify run reviews.parquet`, or `data/*.csv`, which the shell has expanded
        if options.input is not None:
            raise ConfigError(
                f"{mask_uri(inputs[0])}: a config file ends in .toml; and --input names the input already"
            )
        options.input = inputs
    settings = dict(parse_setting(text) for text in options.set)
    if getattr(options, "text_column", None) is not None:
        settings["loader.template"] = None  # of a config: it would win over the flag
    settings |= {key: getattr(options, flag) for flag, key in flags.items() if getattr(options, flag) is not None}
    return load(configs[0] if configs else None, settings)


def _progress(options: argparse.Namespace, config: Config) -> Progress:
    from pipeline.config import PIPE
    from pipeline.monitoring.progress import Progress

    is_shared = config.writer.output == PIPE and sys.stdout.isatty()  # a bar and rows on one terminal
    return Progress("json" if options.log_json else "quiet" if options.quiet or is_shared else "auto")
