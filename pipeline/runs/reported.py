"""The report of a run, made of its output when that is published; and the one that is asked for by hand, the same way.

A report that can't be made costs no output: it is a message, and exit code 5 only if `report.fail_on` wants checks that
could not be made then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

import msgspec

from pipeline.cancellation import run_cancellable
from pipeline.config import PIPE, REPORT_ENDINGS, Config, is_dated, public_settings
from pipeline.errors import ClassifyError, ConfigError, NotNow, UserError
from pipeline.loader import open_source
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import Outcome, ReportOutcome, RunRecord, encode_record, read_record
from pipeline.report import FAILED, has_page, outputs_of, report_on, see_directory, see_possible, write_report
from pipeline.report.document import Document
from pipeline.runs.output import Output, locate_output, record_of_directory
from pipeline.runs.plan import Plan, plan_of
from pipeline.storage import Location, local, locate
from pipeline.storage.draft import write_whole
from pipeline.storage.listing import is_pattern
from pipeline.streams import one_line, storable

LOOKED_AT = 3  # inputs of many in which the truth is looked for before anything is sent


def report_by_hand(config: Config, named: Sequence[str], *, writes_default: bool) -> tuple[Document, list[str]]:
    """Make a report of labelled files, or, if none is named, of the outputs of the config; return it and its files.

    With `writes_default` a report is written where none is named: a page, or without its packages the numbers.

    Raises:
        ClassifyError: it can't be made, or written.
    """
    see_possible(config)
    if named:
        outputs = [location for text in named for location in outputs_of(text)]
        whole = _called(config, named)
    else:
        outputs, whole = _outputs(config, plan_of(config, datetime.now().date()))  # noqa: DTZ005 - local, as of a run
        outputs = [each for each in outputs if each.exists()] or outputs
    if writes_default and not config.report.outputs:
        report = msgspec.structs.replace(config.report, output=".html" if has_page() else ".json")
        config = msgspec.structs.replace(config, report=report)
    document = report_on(config, outputs, whole)
    return document, write_report(config, document, whole)


def _called(config: Config, named: Sequence[str]) -> Location:
    """Return what a report is called after: the one file or directory.

    Raises:
        ConfigError: there are several, and something must be called after them.
    """
    if len(named) == 1 and not is_pattern(named[0]):
        return _directory(locate(named[0].rstrip("/") or "/"))
    if config.report.nights and not config.report.history:
        raise ConfigError("several outputs have no history of their own; name one with --set report.history=FILE")
    if not config.report.outputs or any(output in REPORT_ENDINGS for output in config.report.outputs):
        raise ConfigError("several outputs: name the report with --output")
    return Location(", ".join(str(locate(text)) for text in named), "outputs")


def _directory(location: Location) -> Location:
    return local(location.key) if location.name in ("", ".", "..") else location


def _outputs(config: Config, plan: Plan) -> tuple[list[Location], Location]:
    """Return the outputs of a run, and the one file or directory that they are."""
    found = [
        pair.output or locate_output(config, config.writer.output, pair.source)
        for pair in plan.pairs
        if pair.trouble is None
    ]
    if plan.is_single or len(plan.folders) != 1:
        return found, found[0] if found else Location("(none)", "outputs")
    folder = plan.folders[0]
    return found, _directory(locate(str(folder).rstrip("/")) if folder.store is None else folder)


def see_reportable(config: Config, plan: Plan) -> None:
    """See, before anything is sent, that the report can be made in the end.

    Raises:
        ConfigError: a package or a name is missing, or the rows go to a pipe. InputError: there is no such truth, or
            nothing to compare with. OutputError: the directory of the report is missing.
    """
    report = config.report
    if not report.is_wanted:
        return
    if config.writer.output == PIPE:
        raise ConfigError("a report is made of the output, and standard output can't be read again; name a file")
    see_possible(config)
    if (
        report.nights
        and not report.history
        and any(is_dated(each) for each in (*config.loader.inputs, config.writer.output))
    ):
        raise ConfigError("report.against: an output that is called otherwise every day needs report.history")
    for output in (*report.outputs, *([report.history] if report.history else [])):
        if output not in REPORT_ENDINGS:
            see_directory(locate(output))
    if report.truth is not None:
        for pair in [pair for pair in plan.pairs if pair.trouble is None][:LOOKED_AT]:
            open_source(config.loader, pair.source).see_columns([report.truth])


async def with_report(config: Config, plan: Plan, record: RunRecord, progress: Progress) -> RunRecord:
    """Make the report of a run that is over, if one is wanted; return the record with what came of it.

    It is in the records on the disk, too, so that the same command again gives the same code.
    """
    if not config.report.is_wanted:
        return _with_code(record, None)
    settings = public_settings(config)["report"]
    if record.report is not None and record.report.error is None and record.settings.get("report") == settings:
        return record  # complete already, and reported
    outputs, whole = _outputs(config, plan)
    outcome = await run_cancellable(
        partial(_made, config, [each for each in outputs if each.exists()], whole, progress)
    )
    record = _with_code(record, outcome, must_pass=bool(config.report.fail_on))
    if outcome is not None:
        _record_it(config, plan, whole, record)
    return record


def _made(config: Config, outputs: list[Location], whole: Location, progress: Progress) -> ReportOutcome | None:
    if not outputs:
        return None
    try:
        document = report_on(config, outputs, whole)
        files = write_report(config, document, whole)
    except (UserError, NotNow, OSError) as error:
        reason = one_line(storable(str(error)))
        progress.notice(f"the output is complete, but its report can't be made: {reason}")
        return ReportOutcome(verdict="", error=reason)
    return ReportOutcome(verdict=document["verdict"], checks=document["checks"], files=files)


def _with_code(record: RunRecord, outcome: ReportOutcome | None, *, must_pass: bool = False) -> RunRecord:
    """Return a record with a report's outcome, and with its exit code, unless that of the run counts for more."""
    code, error = (0, None) if record.exit_code == FAILED else (record.exit_code, record.error)
    if code == 0 and outcome is not None:
        if outcome.verdict == "fail":
            failed = "; ".join(
                f"{check['title']}: {check['text']}" for check in outcome.checks if check["state"] == "fail"
            )
            code, error = FAILED, storable(f"the report fails: {failed}")
        elif outcome.error is not None and must_pass:
            code, error = FAILED, f"the report can't be made, so nothing was checked: {outcome.error}"
    return msgspec.structs.replace(record, exit_code=code, error=error, report=outcome)


def _record_it(config: Config, plan: Plan, output: Location, record: RunRecord) -> None:
    """Write what came of the report into the records on the disk, if they still are those of this run."""
    kind: type[Outcome] = RunRecord if plan.is_single else Outcome
    locations = [record_of_directory(folder) for folder in plan.folders]
    if plan.is_single:
        locations = [Output(output, config.run.state_dir).record_location]
    for location in locations:
        there = read_record(location, kind)
        if there is None or (isinstance(there, RunRecord) and there.output_digest != record.output_digest):
            continue
        settings = there.settings | {"report": public_settings(config)["report"]}
        found = {"exit_code": record.exit_code, "error": record.error, "report": record.report, "settings": settings}
        with suppress(ClassifyError):  # then it is made once more the next time
            write_whole(location, encode_record(msgspec.structs.replace(there, **found)))
