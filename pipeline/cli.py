"""The doors: arguments in, exit codes out. The only place that speaks to a person, besides the progress of a run."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import streams
from pipeline.arguments import RUN_FLAGS, SERVER_FLAGS, make_parser
from pipeline.errors import ClassifyError, ConfigError, ReaderGone, Stopped

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.progress import Progress


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
        from pipeline.report import error_line

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
    from pipeline.progress import Progress

    is_shared = config.writer.output == PIPE and sys.stdout.isatty()  # a bar and rows on one terminal
    return Progress("json" if options.log_json else "quiet" if options.quiet or is_shared else "auto")


def _run(options: argparse.Namespace) -> int:
    if options.dry_run:
        return _check(options)
    from pipeline import memory

    memory.reuse_memory()
    with memory.lasting():
        from pipeline.report import summary
        from pipeline.runner.reported import run_and_report
        from pipeline.signals import run_with_signals

    config = _load_config(options, RUN_FLAGS)
    progress = _progress(options, config)
    advice = "" if config.is_piped else "; what was answered is kept, the same command goes on from there"
    record = run_with_signals(run_and_report(config, progress), advice)
    progress.finish(record, summary(record))
    return record.exit_code


def _check(options: argparse.Namespace) -> int:
    from pipeline.check import check
    from pipeline.signals import run_with_signals

    config = _load_config(options, RUN_FLAGS)
    run_with_signals(check(config, _progress(options, config), streams.write))
    return 0


def _text(options: argparse.Namespace) -> int:
    from pipeline.library import classify_texts_async
    from pipeline.report import as_json_lines, as_table
    from pipeline.signals import run_with_signals

    config = _load_config(options, SERVER_FLAGS)
    predictions = run_with_signals(classify_texts_async(options.texts, config=config, wait=False))
    show = as_json_lines if options.json else as_table
    streams.write(show(options.texts, predictions))
    failed = [each for each in predictions if each.error and not each.error.startswith("empty:")]
    return 3 if failed else 0


def _status(options: argparse.Namespace) -> int:
    from pipeline.places import locate
    from pipeline.status import as_json, as_lines, status_of

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
    from pipeline.embedded import serve
    from pipeline.signals import run_with_signals

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
