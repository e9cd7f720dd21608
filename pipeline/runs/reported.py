"""The report of a run, made of its output when that is published; and the one that is asked for by hand, the same way.

A report that can't be made costs no output: it is a message, and exit code 5 only if `report.fail_on` wants checks that
could not be made then.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from pipeline.cancellation import run_cancellable
from pipeline.checkpoint import digest_file
from pipeline.config import PIPE, REPORT_ENDINGS, Config, is_dated, public_settings
from pipeline.errors import ClassifyError, ConfigError, NotNow, UserError
from pipeline.loader import open_source
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import Held, Outcome, ReportOutcome, RunRecord, encode_record, read_record
from pipeline.report import (
    FAILED,
    digest_of_all,
    draw_sample,
    files_of,
    has_page,
    outputs_of,
    report_on,
    see_directory,
    see_possible,
    write_report,
)
from pipeline.report.document import Document
from pipeline.report.history import history_of
from pipeline.report.labelling import form_of
from pipeline.runs.output import Output, locate_output, record_of_directory
from pipeline.runs.plan import Plan, plan_of
from pipeline.runs.waiting import FOLDER, absolute, discard_report, held_name, remove_folder, result_of_run
from pipeline.storage import Location, local, locate
from pipeline.storage.draft import write_whole
from pipeline.storage.listing import is_pattern
from pipeline.streams import one_line, storable

LOOKED_AT = 3  # inputs of many in which the truth is looked for before anything is sent


def report_by_hand(
    config: Config, named: Sequence[str], *, writes_default: bool, truth_file: str | None = None
) -> tuple[Document, list[str]]:
    """Make a report of labelled files, or, if none is named, of the outputs of the config; return it and its files.

    With `writes_default` a report is written where none is named: a page, or without its packages the numbers.
    `truth_file` is a sample of the files that a person has labelled.

    Raises:
        ClassifyError: it can't be made, or written.
    """
    see_possible(config)
    if truth_file is not None and config.report.truth is not None:
        raise ConfigError("a truth is a column, --truth, or a sample, --truth-file; choose one of them")
    outputs = _labelled(config, named)
    whole = _called(config, named) if named else _outputs(config, _plan(config))[1]
    if writes_default and not config.report.outputs:
        report = msgspec.structs.replace(config.report, output=".html" if has_page() else ".json")
        config = msgspec.structs.replace(config, report=report)
    document = report_on(config, outputs, whole, locate(truth_file) if truth_file is not None else None)
    return document, write_report(config, document, whole, files_of(config, whole))


def sample_by_hand(
    config: Config, named: Sequence[str], output: str, *, rows: int, seed: int, form: str | None
) -> tuple[int, int, int]:
    """Write a sample of labelled files, or, if none is named, of the outputs of the config, for a person to label.

    Returns its rows, how many rows have a label of the model, and how many rows that are not sure lack it.

    Raises:
        ClassifyError: it can't be drawn, or written.
    """
    form = form_of(output, form)
    outputs = _labelled(config, named)
    whole = Location(", ".join(named), "outputs") if named else _outputs(config, _plan(config))[1]
    return draw_sample(config, outputs, whole, locate(output), rows=rows, seed=seed, form=form)


def _labelled(config: Config, named: Sequence[str]) -> list[Location]:
    """Return the labelled files that are named, or, if none is, the outputs of the config."""
    if named:
        return [location for text in named for location in outputs_of(text)]
    outputs, _ = _outputs(config, _plan(config))
    return [each for each in outputs if each.exists()] or outputs


def places_of(config: Config) -> list[Location]:
    """Return the directories of outputs of a config, or, if it has none, its outputs.

    Raises:
        ConfigError, InputError: see `plan_of`. OutputError, StoreRefused, StoreGone: the output.
    """
    plan = _plan(config)
    return plan.folders or _outputs(config, plan)[0]


def _plan(config: Config) -> Plan:
    return plan_of(config, datetime.now().date())  # noqa: DTZ005 - local, as of a run


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
        what = "is not held" if report.holds else "can't be read again"
        why = "it is gone when its report is made" if report.holds else "a report is made of the output"
        raise ConfigError(f"report: standard output {what}: {why}; name a file")
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

    It is in the records on the disk, too, so that the same command again gives the same code. Outputs that wait are
    held, if the report fails, or put in their places.

    Raises:
        OutputError: another program has put a file where an output goes.
    """
    if not config.report.is_wanted and not plan.waiting:
        return _with_code(record, None)
    order = {pair.output.key: index for index, pair in enumerate(plan.pairs) if pair.output is not None}
    plan.waiting.sort(key=lambda output: order.get(output.location.key, 0))  # they came as they were written
    return await run_cancellable(partial(_reported, config, plan, record, progress))


def _reported(config: Config, plan: Plan, record: RunRecord, progress: Progress) -> RunRecord:
    before = next((kept.held for each in plan.waiting if (kept := each.waiting.record) and kept.held), None)
    waited = plan.waiting[0].location if plan.waiting else None
    if plan.waiting and not config.report.holds:  # an earlier run has held it, with other settings
        _put_in_place(config, plan, record)
        plan.waiting.clear()
        record = msgspec.structs.replace(record, held=None)
    if not config.report.is_wanted:
        record = _with_code(record, None)
    elif not _is_reported(config, record):
        record = _judged(config, plan, record, progress)
    if record.held is not None:
        for output in plan.waiting:
            if (kept := output.waiting.record) is not None:
                output.waiting.hold(kept)
        return record
    _put_in_place(config, plan, record)
    if waited is not None and before is not None and before.digest != record.accepted:
        discard_report(waited, before)
    return msgspec.structs.replace(record, put_in_place=before is not None)


def _is_reported(config: Config, record: RunRecord) -> bool:
    """Return whether an output was complete already, and has the report that the config wants."""
    is_made = record.report is not None and record.report.error is None
    return is_made and record.settings.get("report") == public_settings(config)["report"]


def _put_in_place(config: Config, plan: Plan, record: RunRecord) -> None:
    """Put the outputs that wait in their places."""
    for output in plan.waiting:
        if (kept := output.waiting.record) is None:
            continue
        if not config.run.overwrite:
            output.see_untouched(kept.output_digest)
        if kept.held is not None and kept.held.digest != record.accepted:  # it has passed, or need not
            kept = msgspec.structs.replace(kept, held=None)
            output.waiting.write(kept)
        output.waiting.put_in_place(kept)
    for folder in plan.folders:
        remove_folder(folder)


def _judged(config: Config, plan: Plan, record: RunRecord, progress: Progress) -> RunRecord:
    """Make the report; return the record with what came of it, as it is on the disk."""
    waiting = {output.location.key: output for output in plan.waiting}
    outputs, whole = _outputs(config, plan)
    found, digests = list[Location](), list[str]()
    for location in outputs:
        output, data = waiting.get(location.key), location
        if output is not None and (kept := output.waiting.record) and (place := output.waiting.find(kept)):
            data = replace(place, shown=location.shown)  # what is said of it is said under its own name
        if data.exists():
            found.append(data)
            digests += [digest_file(data)] if waiting or plan.accepted else []
    if not found:
        return record
    digest = digest_of_all(digests) if digests else ""
    is_accepted = digest in plan.accepted
    may_hold = config.report.holds and bool(plan.waiting) and not is_accepted
    outcome, files = _made(config, found, whole, progress, may_hold=may_hold)
    record = _with_code(record, outcome, must_pass=bool(config.report.fail_on), is_accepted=is_accepted)
    held = None
    if may_hold and (outcome.verdict == "fail" or outcome.error is not None):
        history = history_of(config, whole)
        held = Held(
            output=", ".join(storable(str(each)) for each in _places(plan)),
            command=_command(config, plan),
            look="" if outcome.files else _look(config, plan),
            digest=digest,
            files={absolute(here): absolute(there) for here, there in files.items() if outcome.error is None},
            history=absolute(history) if history else None,
        )
    record = msgspec.structs.replace(record, held=held, accepted=digest if is_accepted else None)
    _record_it(config, plan, whole, record)
    return record


def _places(plan: Plan) -> list[Location]:
    """Return where the outputs of a run wait."""
    if plan.folders:
        return [folder.within(FOLDER) for folder in plan.folders]
    return [output.waiting.shown for output in plan.waiting]


def _command(config: Config, plan: Plan) -> str:
    """Return what is typed to accept the outputs of a run."""
    names = plan.folders or [output.location for output in plan.waiting]
    words = ["classify", "accept", *(storable(str(name)) for name in names)]
    if config.run.state_dir:
        words += ["--set", f"run.state_dir={config.run.state_dir}"]
    return shlex.join(words)


def _look(config: Config, plan: Plan) -> str:
    """Return what is typed to see why the outputs of a run are held, where that has written no report."""
    words = ["classify", "report", *(storable(str(place)) for place in _places(plan))]
    last = plan.folders or [output.location for output in plan.waiting if output.location.exists()]
    if len(last) == 1:
        words += ["--against", storable(str(last[0]))]
    if config.report.truth is not None:
        words += ["--truth", config.report.truth]
    return shlex.join(words)


def _made(
    config: Config, outputs: list[Location], whole: Location, progress: Progress, *, may_hold: bool
) -> tuple[ReportOutcome, dict[Location, Location]]:
    """Make the report; return what came of it, and its files with their names once they are accepted."""
    files: dict[Location, Location] = {}
    try:
        document = report_on(config, outputs, whole)
        is_held = may_hold and document["verdict"] == "fail"
        files = {
            location.beside(held_name(location.name)) if is_held else location: location
            for location in files_of(config, whole)
        }
        written = write_report(config, document, whole, list(files))
    except (UserError, NotNow, OSError) as error:
        reason = one_line(storable(str(error)))
        progress.notice(f"the output is complete, but its report can't be made: {reason}")
        return ReportOutcome(verdict="", error=reason), files
    return ReportOutcome(verdict=document["verdict"], checks=document["checks"], files=written), files


def _with_code(
    record: RunRecord, outcome: ReportOutcome | None, *, must_pass: bool = False, is_accepted: bool = False
) -> RunRecord:
    """Return a record with a report's outcome, and with its exit code, unless that of the run counts for more."""
    code, error = result_of_run(record)
    if code == 0 and outcome is not None and not is_accepted:
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
    settings = {"report": public_settings(config)["report"]}
    found: dict[str, Any] = {"exit_code": record.exit_code, "error": record.error, "report": record.report}
    found |= {"held": record.held, "accepted": record.accepted}
    for waits in plan.waiting:
        if (kept := waits.waiting.record) is not None:
            news = found if plan.is_single else {"held": record.held, "accepted": record.accepted}
            waits.waiting.write(msgspec.structs.replace(kept, **news, settings=kept.settings | settings))
    kind: type[Outcome] = RunRecord if plan.is_single else Outcome
    locations = [record_of_directory(folder) for folder in plan.folders]
    if plan.is_single:
        locations = [] if plan.waiting else [Output(output, config.run.state_dir).record_location]
    for location in locations:
        there = read_record(location, kind)
        if there is None or (isinstance(there, RunRecord) and there.output_digest != record.output_digest):
            continue
        with suppress(ClassifyError):  # then it is made once more the next time
            write_whole(
                location, encode_record(msgspec.structs.replace(there, **found, settings=there.settings | settings))
            )
