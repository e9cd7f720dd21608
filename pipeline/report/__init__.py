"""What the labels of an output are worth: counted in one pass, compared, checked, and said in words, tables and pages.

reading: blocks of the needed columns | counts | document (JSON) | comparison | checks | terminal, markdown, page
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pipeline.cancellation import raise_if_cancelled
from pipeline.checkpoint import digest_file
from pipeline.config import LIMITS, REPORT_ENDINGS, Config
from pipeline.errors import ConfigError, InputError, OutputError
from pipeline.formats.registry import without_compression
from pipeline.report.checks import checks_of, verdict_of
from pipeline.report.comparison import Then, compare, then_of
from pipeline.report.counts import Counts
from pipeline.report.document import About, Document, decode, document_of, encode, read_document
from pipeline.report.history import history_of, last_good, read_history, remember
from pipeline.report.markdown import as_markdown
from pipeline.report.reading import Labelled, open_labelled, outputs_of
from pipeline.storage import Kind, Location, locate
from pipeline.storage.draft import write_whole
from pipeline.streams import storable

__all__ = [
    "digest_of_all",
    "files_of",
    "has_page",
    "outputs_of",
    "report_on",
    "see_directory",
    "see_possible",
    "write_report",
]

SHOWN = 3  # values of a column, in a message
MOST_BYTES = 64 << 20  # of a report; what is larger is something else
OURS = "classify report"  # stands at the beginning of every page
PIP = 'pip install "classify-pipeline[report]"'
FAILED = 5  # the exit code of a report that a person should look at


def has_page() -> bool:
    """Return whether the packages are installed that make an HTML page; without them the numbers are the default."""
    return all(find_spec(name) for name in ("jinja2", "matplotlib"))


def see_possible(config: Config) -> None:
    """See, before anything is read, that a report can be made as asked.

    Raises:
        ConfigError: a page is wanted and its packages are missing. InputError: there is nothing at `report.against`.
    """
    report = config.report
    if any(output.endswith(".html") for output in report.outputs) and not has_page():
        raise ConfigError(
            f"report.output: an HTML page needs matplotlib and Jinja2; {PIP}, or name a file that ends in .md"
        )
    if report.against and not report.nights:
        for each in outputs_of(report.against):
            if not each.exists():
                raise InputError(f"{each}: there is nothing to compare with; see report.against")


def report_on(config: Config, outputs: Sequence[Location], whole: Location) -> Document:
    """Count, compare and check labelled files.

    `outputs` are the files, or one that is the JSON of a report, whose numbers are taken as they are; `whole` is the
    file, or the directory of all of them: what the report is called after, and its history.

    Raises:
        InputError: a file can't be read, has no labels, or no truth. StoreRefused, StoreGone: its store.
        ConfigError: no value of the truth is a label.
    """
    document = read_document(outputs[0]) if len(outputs) == 1 else None
    if document is not None and config.report.truth is not None:
        raise ConfigError(f"{outputs[0]}: is a report and has no rows; a truth needs the output itself")
    if document is not None and not (config.report.against or config.report.fail_on):
        return document  # drawn again, as it was judged
    if document is None:
        document = _counted(config, outputs, whole, needs_truth=True)
    if (then := _then(config, whole, document)) is not None:
        document["drift"] = compare(document, then)
    document["checks"] = checks_of(document, LIMITS | config.report.limits, config.report.fail_on)
    document["verdict"] = verdict_of(document)
    document["exit_code"] = FAILED if document["verdict"] == "fail" else 0
    return document


def _counted(config: Config, outputs: Sequence[Location], whole: Location, *, needs_truth: bool) -> Document:
    counts = Counts(config.report.examples if needs_truth else 0, config.report.truth_map)
    opened = []
    for location in outputs:
        labelled = open_labelled(config, location, needs_truth=needs_truth)
        opened.append(labelled)
        for block in labelled.blocks(str(location) if len(outputs) > 1 else ""):
            raise_if_cancelled()
            counts.add(block)
    if needs_truth and config.report.truth is not None:
        _see_labels_in_truth(config.report.truth, counts, opened)
    return document_of(counts, _about(opened, outputs, whole, config.report.truth))


def _about(opened: Sequence[Labelled], outputs: Sequence[Location], whole: Location, truth: str | None) -> About:
    records = [each.record for each in opened if each.record is not None]
    digests = [
        each.record.output_digest if each.record else digest_file(location)
        for each, location in zip(opened, outputs, strict=True)
    ]
    text = next((each.text for each in opened if each.text), None)
    return About(
        output=storable(str(whole)),
        files=len(outputs),
        digest=digest_of_all(digests),
        started=min((record.started for record in records), default=None),
        seconds=sum(record.seconds for record in records) if records else None,
        model=records[0].model if records else {},
        text=", ".join(text.columns) if text else None,
        truth=truth if any(each.has_truth for each in opened) else None,
    )


def digest_of_all(digests: Sequence[str]) -> str:
    """Return one digest of several outputs together."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _see_labels_in_truth(truth: str, counts: Counts, opened: Sequence[Labelled]) -> None:
    """See that a value of the truth is a label, or may be one: else they are called otherwise."""
    said, true = counts.hist.sum((1, 2)), counts.matrix.sum(1)
    names = {number: name for name, number in counts.values.ids.items()}
    known = {str(name) for each in opened if each.record for name in (each.record.model.get("names") or {}).values()}
    if not true.any() or any(said[number] or names[number] in known for number in np.flatnonzero(true).tolist()):
        return
    values, labels = (
        ", ".join(repr(names[number]) for number in np.argsort(-rows, kind="stable")[:SHOWN].tolist() if rows[number])
        for rows in (true, said)
    )
    raise ConfigError(
        f"no value of the truth {truth!r} is a label: its values are {values}, the labels {labels}; "
        f"report.truth_map says what they are called by the model"
    )


def _then(config: Config, whole: Location, night: Document) -> Then | None:
    """Return what the labels are compared with; None if there is nothing yet, or nothing is wanted."""
    against, history = config.report.against, history_of(config, whole)
    if against is None:
        return None
    if config.report.nights:
        found = last_good(read_history(history), night, config.report.nights) if history else []
        return then_of(found) if found else None
    locations = outputs_of(against)
    known = read_document(locations[0]) if len(locations) == 1 else None
    then = then_of([known or _counted(config, locations, locate(against), needs_truth=False)])
    if not then.rows["all"]:
        raise InputError(f"{against}: has no rows, so there is nothing to compare with; see report.against")
    return then


def files_of(config: Config, whole: Location) -> list[Location]:
    """Return the files of a report about `whole`, pages first."""
    files: dict[str, Location] = {}
    for output in config.report.outputs:
        location = whole.beside(f"{_stem(whole)}.report{output}") if output in REPORT_ENDINGS else locate(output)
        stem = location.name.rpartition(".")[0]
        for each in (location, location.beside(f"{stem}.json")):
            files[str(each)] = each
    return list(files.values())


def write_report(config: Config, document: Document, whole: Location, files: Sequence[Location]) -> list[str]:
    """Write the files of a report, and its line of the history; return their names.

    Raises:
        OutputError: one can't be written, or a file that is no report stands there. DiskTrouble: the disk is full.
        StoreRefused, StoreGone: its store.
    """
    for location in files:
        _see_replaceable(config, location)
    # The history first: where that can't be written, no page says that all is well.
    if (history := history_of(config, whole)) is not None:
        see_directory(history)
        remember(history, document)
    for location in files:
        write_whole(location, _rendered(document, location.name))
    return [str(location) for location in files]


def _stem(whole: Location) -> str:
    name = without_compression(whole.name)
    return (name.rpartition(".")[0] or name).removesuffix(".report")


def _rendered(document: Document, name: str) -> bytes:
    if name.endswith(".json"):
        return encode(document) + b"\n"
    if name.endswith(".md"):
        return f"<!-- {OURS} -->\n{as_markdown(document)}".encode()
    from pipeline.report.page import as_page

    return as_page(document)


def see_directory(location: Location) -> None:
    """See that a report or a history can be written there; an OutputError says why not."""
    if location.look()[0] in (Kind.OTHER, Kind.DIRECTORY):
        raise OutputError(f"{location}: is no regular file; choose another name for the report or its history")
    if location.store is None and not Path(location.path).parent.is_dir():
        raise OutputError(f"{location}: its directory does not exist; make it, or choose another report.output")


def _see_replaceable(config: Config, location: Location) -> None:
    """See that nothing is lost: what a report replaces is a report."""
    see_directory(location)
    against = config.report.against
    if against and not config.report.nights and str(locate(against)) == str(location):
        raise OutputError(f"{location}: is what the labels are compared with; choose another name with --output")
    kind, size = location.look()
    if config.run.overwrite or kind is Kind.NOTHING:
        return
    content = (location.read() or b"") if size <= MOST_BYTES else b"too large"
    is_ours = decode(content, str(location)) if location.name.endswith(".json") else OURS.encode() in content[:1000]
    if not is_ours:
        raise OutputError(f"{location}: exists, and is no report; choose another name with --output")
