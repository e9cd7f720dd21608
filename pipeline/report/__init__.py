"""What the labels of an output are worth: counted in one pass, compared, checked, and said in words, tables and pages.

reading: blocks of the needed columns | counts | document (JSON) | comparison | checks | terminal, markdown, page.
Beside that: changes (two outputs row by row), and sample (strata, labelling, estimates): rows for a person to label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cancellation import raise_if_cancelled
from pipeline.checkpoint import digest_file
from pipeline.config import LIMITS, REPORT_ENDINGS, Config
from pipeline.errors import ConfigError, InputError, OutputError
from pipeline.formats.registry import without_compression
from pipeline.report.changes import Changes, in_step, why_not
from pipeline.report.checks import checks_of, verdict_of
from pipeline.report.comparison import Then, compare, then_of
from pipeline.report.counts import Block, Counts, label_name
from pipeline.report.document import About, Document, decode, document_of, encode, read_document
from pipeline.report.history import history_of, last_good, read_history, remember
from pipeline.report.labelling import decode_sample, encode_sample, is_sample
from pipeline.report.markdown import as_markdown
from pipeline.report.reading import Labelled, open_labelled, outputs_of
from pipeline.report.sample import Draw, Filled, Row
from pipeline.storage import Kind, Location, locate
from pipeline.storage.draft import write_whole
from pipeline.streams import storable

__all__ = [
    "digest_of_all",
    "draw_sample",
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


def report_on(
    config: Config, outputs: Sequence[Location], whole: Location, truth_file: Location | None = None
) -> Document:
    """Count, compare and check labelled files.

    `outputs` are the files, or one that is the JSON of a report, whose numbers are taken as they are; `whole` is the
    file, or the directory of all of them: what the report is called after, and its history. `truth_file` is a sample of
    them that a person has labelled.

    Raises:
        InputError: a file can't be read, has no labels, or no truth. StoreRefused, StoreGone: its store.
        ConfigError: no value of the truth is a label.
    """
    document = read_document(outputs[0]) if len(outputs) == 1 else None
    if document is not None and (config.report.truth is not None or truth_file is not None):
        raise ConfigError(f"{outputs[0]}: is a report and has no rows; a truth needs the output itself")
    if document is not None and not (config.report.against or config.report.fail_on):
        return document  # drawn again, as it was judged
    earlier, then = _against(config)
    if document is None:
        now = _Reading(config, outputs, whole, needs_truth=True, truth_file=truth_file)
        changes = _changes(config, now, then) if then is not None else None
        document = now.document()
        if changes is not None:
            document["changes"] = changes
    if then is not None:
        earlier = then_of([then.document()])
        if not earlier.rows["all"]:
            raise InputError(
                f"{config.report.against}: has no rows, so there is nothing to compare with; see report.against"
            )
    if (earlier := earlier or _last(config, whole, document)) is not None:
        document["drift"] = compare(document, earlier)
    document["no_last"] = _why_no_last(config, whole) if earlier is None and config.report.nights else None
    document["checks"] = checks_of(document, LIMITS | config.report.limits, config.report.fail_on)
    document["verdict"] = verdict_of(document)
    document["exit_code"] = FAILED if document["verdict"] == "fail" else 0
    return document


class _Reading:
    """Outputs that are read once, each block counted on its way."""

    def __init__(
        self,
        config: Config,
        outputs: Sequence[Location],
        whole: Location,
        *,
        needs_truth: bool,
        truth_file: Location | None = None,
    ) -> None:
        self.opened = [open_labelled(config, location, needs_truth=needs_truth) for location in outputs]
        self.counts = Counts(config.report.examples if needs_truth else 0, config.report.truth_map)
        self._outputs, self._whole, self._unread = outputs, whole, dict(enumerate(self.opened, 1))
        self._truth = config.report.truth
        self._needs_truth = needs_truth and self._truth is not None
        self._about = _about(self.opened, outputs, whole, self._truth)
        self._filled = None
        self._renamed = {*config.report.truth_map.values()}
        if truth_file is not None:
            rows = read_sample(truth_file, config.report.truth_map)
            self._filled = Filled(str(truth_file), rows, self._about.digest)

    def blocks(self, number: int) -> Iterator[Block]:
        """Read and count the file with this number, from 1 on."""
        shown = str(self._outputs[number - 1]) if len(self._outputs) > 1 else ""
        for block in self._unread.pop(number).blocks(shown):
            raise_if_cancelled()
            self.counts.add(block)
            if self._filled is not None:
                self._filled.add(block, number)
            yield block

    def document(self) -> Document:
        """Read what was not read yet, and return the document."""
        for number in [*self._unread]:
            for _ in self.blocks(number):
                pass
        if self._needs_truth:
            _see_labels_in_truth(self._truth or "", self.counts, self.opened)
        document = document_of(self.counts, self._about)
        if self._filled is not None:
            document["sample"] = self._filled.estimate(
                _known_labels(self.opened), self._renamed, is_complete=_are_all_known(self.opened)
            )
        return document


def _changes(config: Config, now: _Reading, then: _Reading) -> dict[str, Any]:
    """Compare two outputs row by row while they are counted, if they are of the same rows."""
    reason = why_not(now.opened, then.opened)
    changes = Changes(config.report.examples, config.report.truth_map)
    for number in range(1, len(now.opened) + 1):
        if reason is None:
            for here, there in in_step(now.blocks(number), then.blocks(number)):
                changes.add(here, there)
            if now.counts.rows != then.counts.rows:
                reason = "the outputs have not the same number of rows"
    return changes.as_member() if reason is None else {"left_out": reason}


def _about(opened: Sequence[Labelled], outputs: Sequence[Location], whole: Location, truth: str | None) -> About:
    records = [each.record for each in opened if each.record is not None]
    text = next((each.text for each in opened if each.text), None)
    return About(
        output=storable(str(whole)),
        files=len(outputs),
        digest=_digest_of(opened, outputs),
        started=min((record.started for record in records), default=None),
        seconds=sum(record.seconds for record in records) if records else None,
        model=records[0].model if records else {},
        text=", ".join(text.columns) if text else None,
        truth=truth if any(each.has_truth for each in opened) else None,
    )


def digest_of_all(digests: Sequence[str]) -> str:
    """Return one digest of several outputs together."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _digest_of(opened: Sequence[Labelled], outputs: Sequence[Location]) -> str:
    digests = [
        each.record.output_digest if each.record else digest_file(location)
        for each, location in zip(opened, outputs, strict=True)
    ]
    return digest_of_all(digests)


def _known_labels(opened: Sequence[Labelled]) -> set[str]:
    """Return the labels of the models, as far as their names are known."""
    models = [each.record.model for each in opened if each.record]
    return {str(name) for model in models for name in (model.get("names") or {}).values()}


def _are_all_known(opened: Sequence[Labelled]) -> bool:
    """Return whether the names of all classes of the models are known: some servers name only the best ones."""
    models = [each.record.model if each.record else {} for each in opened]
    return all(0 < (model.get("num_classes") or 0) <= len(model.get("names") or {}) for model in models)


def _see_labels_in_truth(truth: str, counts: Counts, opened: Sequence[Labelled]) -> None:
    """See that a value of the truth is a label, or may be one: else they are called otherwise."""
    said, true = counts.hist.sum((1, 2)), counts.matrix.sum(1)
    names = {number: name for name, number in counts.values.ids.items()}
    known = _known_labels(opened)
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


def _against(config: Config) -> tuple[Then | None, _Reading | None]:
    """Return what the labels are compared with: an earlier report, or outputs that are still to be read; or neither."""
    against = config.report.against
    if against is None or config.report.nights:
        return None, None
    locations = outputs_of(against)
    if known := read_document(locations[0]) if len(locations) == 1 else None:
        return then_of([known]), None
    return None, _Reading(config, locations, locate(against), needs_truth=False)


def _last(config: Config, whole: Location, night: Document) -> Then | None:
    """Return the last runs, if they are what the labels are compared with; None if there is none yet."""
    history = history_of(config, whole)
    if not config.report.nights or not history:
        return None
    found = last_good(read_history(history), night, config.report.nights)
    return then_of(found) if found else None


def _why_no_last(config: Config, whole: Location) -> str:
    """Say why nothing is compared, where the labels were to be compared with the last runs."""
    history = history_of(config, whole)
    return f"there is no last run yet in {storable(str(history))}, or none but this one that did not fail"


def draw_sample(
    config: Config, outputs: Sequence[Location], whole: Location, file: Location, *, rows: int, seed: int, form: str
) -> tuple[int, int, int]:
    """Write a sample of labelled files for a person to label.

    Returns its rows, how many rows have a label of the model, and how many rows that are not sure lack it.

    Raises:
        InputError: a file can't be read, has no labels, or no texts. StoreRefused, StoreGone: its store.
        OutputError: something is there already that may not be replaced. DiskTrouble: the disk is full.
    """
    _see_no_work_is_lost(config, outputs, file)
    opened = [open_labelled(config, location, needs_truth=False) for location in outputs]
    if missing := next((each for each in opened if each.text is None), None):
        raise InputError(f"{missing.source.path}: the column of the text is not known; name it with --text-column")
    digest, draw = _digest_of(opened, outputs), Draw()
    names = [str(location) if len(outputs) > 1 else "" for location in outputs]
    for block in chain.from_iterable(map(Labelled.blocks, opened, names)):
        raise_if_cancelled()
        draw.count(block)
    labelled = draw.draw(rows, seed)
    if not labelled:
        raise InputError(f"{whole}: no row has a label, so there is nothing to judge")
    for number, (each, name) in enumerate(zip(opened, names, strict=True), 1):
        for block in each.blocks(name):
            raise_if_cancelled()
            draw.take(block, number, digest)
    found = draw.rows()
    model = next((each.record.model.get("id") for each in opened if each.record), None)
    about = {"output": storable(str(whole)), "digest": digest, "model": model, "labelled": labelled, "seed": seed}
    write_whole(file, encode_sample(found, file.name, form, about))
    return len(found), labelled, draw.population.unsure


def _see_no_work_is_lost(config: Config, outputs: Sequence[Location], file: Location) -> None:
    """See that a sample replaces none of the outputs, no other file, and another sample only if that is asked for."""
    see_directory(file)
    if any(file.key == each.key for each in outputs):
        raise OutputError(f"{file}: is the output that the sample is drawn from; choose another name with --output")
    if file.exists() and not config.run.overwrite:
        raise OutputError(f"{file}: exists, and may be filled in; choose another name, or replace it with --overwrite")
    if file.exists() and (file.look()[1] > MOST_BYTES or not is_sample(file.read() or b"")):
        raise OutputError(f"{file}: exists, and is no sample; --overwrite replaces only samples, choose another name")


def read_sample(file: Location, renamed: dict[str, str]) -> list[Row]:
    """Read a sample that a person has filled in; `renamed` says what its truths are called by the model.

    Raises:
        InputError: there is none, or it can't be read. StoreRefused, StoreGone: its store.
    """
    kind, size = file.look()
    if kind is Kind.NOTHING:
        raise InputError(f"{file}: no such file; --truth-file is a sample that `classify sample` wrote, filled in")
    if kind is not Kind.FILE or size > MOST_BYTES:
        raise InputError(f"{file}: is no sample that `classify sample` wrote")
    rows = decode_sample(file.read() or b"", str(file))
    names = [label_name(row.truth) if row.truth else None for row in rows]
    return [
        row._replace(truth=renamed.get(name, name) if name else None) for row, name in zip(rows, names, strict=True)
    ]


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
