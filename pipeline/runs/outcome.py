"""The end of a run, however it ends: an outcome, for the metrics file and the notification."""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from contextlib import suppress
from pathlib import Path

import msgspec

from pipeline.config import PIPE, Config, mask_uri, origin
from pipeline.errors import ClassifyError, ConfigError, Stopped
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import Outcome, RunRecord, fields_of_run
from pipeline.monitoring.summary import closing_line, failure_line
from pipeline.runs import run
from pipeline.runs.output import default_output
from pipeline.storage import locate
from pipeline.streams import one_line, storable

SIGNALLED = 128  # plus the signal's number is the exit code
NOTIFY_S = 10.0  # for the notification
NOTIFY_STOPPED_S = 2.0  # after a signal, whose sender will not wait long


def outcome_of(error: BaseException, config: Config, progress: Progress) -> Outcome:
    """Return the outcome of a run that `error` ended; nothing in it is secret."""
    code, message = _explain(error)
    return Outcome(
        exit_code=code,
        error=storable(one_line(message)),
        input=config.loader.shown,
        output=mask_uri(storable(_named_output(config))),
        files={"all": progress.files_total, "done": progress.files_done} if progress.files_total > 1 else {},
        rows_total=progress.rows_total,
        rows_total_is_exact=progress.total_is_exact,
        **progress.fields(),
        **fields_of_run(config, progress.started, progress.elapsed_s, progress.rows_answered),
    )


async def report_outcome(config: Config, environment: dict[str, str], outcome: Outcome, progress: Progress) -> None:
    """Write `run.metrics_file` and tell `run.notify_url`; takes `NOTIFY_S` at most.

    `config` is as it was given: what names the output there names the job, whatever file that is tonight.
    """
    if config.run.metrics_file:
        from pipeline.monitoring.metrics import write_metrics

        try:
            write_metrics(Path(config.run.metrics_file), _name_of_job(config), outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run ended as it did
            reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
            progress.notice(f"run.metrics_file {config.run.metrics_file}: can't be written: {reason}")
    try:
        url = config.run.url_to_notify(environment)
    except ConfigError:  # which is why nothing was run
        return
    if url:
        from pipeline.monitoring.notification import notify

        text = failure_line(outcome.error or "", outcome)
        if isinstance(outcome, RunRecord):
            text = closing_line(outcome)
        # Most chat rooms show the member `text` and nothing else.
        body = msgspec.json.encode(msgspec.to_builtins(outcome) | {"text": text})
        within_s = NOTIFY_STOPPED_S if outcome.exit_code > SIGNALLED else NOTIFY_S
        if trouble := await notify(url, body, within_s):
            progress.notice(f"run.notify_url {origin(url)}: {trouble}; it may not know how the run ended")


def _explain(error: BaseException) -> tuple[int, str]:
    """Return exit code and message. The message of a bug may hold anything, so only its place in the code is named."""
    if isinstance(error, asyncio.CancelledError):
        error = next((reason for reason in error.args if isinstance(reason, Stopped)), Stopped(signal.SIGINT))
    if isinstance(error, ClassifyError):
        return error.exit_code, str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return 1, f"a bug: {type(error).__name__} in {Path(last.filename).name}:{last.lineno}; the log has its traceback"


def _named_output(config: Config) -> str:
    inputs = config.loader.inputs
    if config.writer.output or len(inputs) != 1 or inputs == [PIPE]:
        return config.writer.output
    try:
        return str(default_output(config, locate(inputs[0])))
    except ClassifyError:  # the error of the input is the message already
        return ""


def _name_of_job(config: Config) -> str:
    """Return the output as the config names it, as a path that is valid from any directory."""
    named = _named_output(config)
    is_path = named not in ("", "-") and "://" not in named
    return mask_uri(storable(os.path.abspath(named) if is_path else named))  # noqa: PTH100 - a Path may be no URI


async def run_and_report(
    config: Config, progress: Progress | None = None, environment: dict[str, str] | None = None
) -> RunRecord:
    """`run`, and `run.metrics_file` and `run.notify_url` learn of it, also when it fails, is cancelled, or meets a bug.

    The one cancelled says with what it was cancelled: `task.cancel(Stopped(...))`. One that comes when the run is over
    only cuts short the telling.

    Raises:
        ClassifyError: as `run`, with what is known of the run as its `outcome`.
    """
    progress = progress or Progress()
    environment = dict(os.environ) if environment is None else environment
    try:
        config.run.url_to_notify(environment)  # nothing is begun whose end can't be reported
        record = await run(config, progress, environment)
    except (Exception, asyncio.CancelledError) as error:
        outcome = outcome_of(error, config, progress)
        for each in (error, *error.args):
            if isinstance(each, ClassifyError):
                each.outcome = outcome
        with suppress(asyncio.CancelledError):
            await report_outcome(config, environment, outcome, progress)
        raise
    with suppress(asyncio.CancelledError):
        await report_outcome(config, environment, record, progress)
    return record
