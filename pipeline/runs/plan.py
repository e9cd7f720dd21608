"""Which files a command reads, and where the output of each goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

from pipeline.config import PIPE, Config, dated, days_of, is_dated
from pipeline.errors import ClassifyError, ConfigError, InputError, OutputError
from pipeline.formats.registry import endings_in_words, format_by_ending
from pipeline.monitoring.record import RunRecord
from pipeline.runs.output import Output, locate_output, named_for
from pipeline.storage import Kind, Location, list_files, local, locate
from pipeline.storage.listing import is_hidden, is_named, is_pattern, match_files

MOST_NAMED = 3  # files that are left out
STDIN = Location("stdin", "stdin.jsonl", is_piped=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """One input and where its output goes (None: as `writer.output` says); or what is wrong with them."""

    source: Location
    output: Location | None = None
    trouble: ClassifyError | None = None
    folder: Location | None = None  # the directory of outputs that contains it


@dataclass(slots=True)
class Plan:
    """What one command does: many files to many, or one to one."""

    pairs: list[Pair]
    folders: list[Location] = field(default_factory=list)  # the output directories
    is_single: bool = False  # what is wrong with the one file is wrong with the command
    left_out: list[str] = field(default_factory=list)  # files of directories that are not read, as messages
    # What is learned while they are opened and published:
    waiting: list[Output] = field(default_factory=list)  # their new versions wait to be judged, or are held
    accepted: set[str] = field(default_factory=set)  # digests of outputs that a person has accepted

    def note_complete(self, output: Output, record: RunRecord) -> None:
        """Note what the report has to know of an output that was complete already."""
        if output.has_waiting:
            self.waiting.append(output)
        if record.accepted:
            self.accepted.add(record.accepted)


def plan_of(config: Config, today: date) -> Plan:
    """Return the files that `config` names; `today` is the day if `run.date` names none.

    Raises:
        ConfigError: two inputs would have one output, or the output is no directory where it must be one.
        InputError: nothing is there. StoreRefused, StoreGone: a store.
    """
    inputs, output = config.loader.inputs, config.writer.output
    if not inputs:
        raise ConfigError("no input; name one with --input, or with loader.input in a config file")
    if PIPE in inputs and len(inputs) > 1:
        raise ConfigError(f"{PIPE} is standard input, and stands alone; name files, or pipe them")
    if any(is_dated(place) for place in (*inputs, output)):
        days = days_of(config.run.date, today)
    elif config.run.date:
        raise ConfigError(f"run.date is {config.run.date}, but {{date}} stands neither in the input nor in the output")
    else:
        days = [today]
    plans = [_plan_of_day(config, [dated(each, day) for each in inputs], dated(output, day)) for day in days]
    pairs = [pair for plan in plans for pair in plan.pairs]
    is_one = len(plans) == 1 and plans[0].is_single
    if config.run.allow_empty and (not is_one or any(is_dated(each) for each in inputs)):
        pairs = [pair for pair in pairs if pair.source.exists()]
    if is_one and pairs:
        return plans[0]
    if output == PIPE:
        raise ConfigError(f"{PIPE} takes the rows of one file; name a directory with --output")
    plan = _checked(pairs, [folder for plan in plans for folder in plan.folders])
    plan.left_out = [message for each in plans for message in each.left_out]
    return plan


def _plan_of_day(config: Config, inputs: list[str], output: str) -> Plan:
    if inputs == [PIPE]:
        return Plan([_single(config, STDIN, output)], is_single=True)
    if len(inputs) == 1 and _is_plain(inputs[0]):
        return Plan([_single(config, locate(inputs[0]), output)], is_single=True)
    folder, pairs = _folder_of(inputs, output), []
    left_out = []
    for text in inputs:
        found, unread = _files_of(text, config, folder)
        left_out += unread
        pairs += [Pair(source, folder.within(named_for(config, path)), folder=folder) for path, source in found]
        if not found and not config.run.allow_empty:
            pairs.append(Pair(locate(text), trouble=InputError(_nothing(text))))
    return Plan(pairs, [folder], left_out=left_out)


def _nothing(text: str) -> str:
    location = locate(text)
    if location.look()[0] is Kind.DIRECTORY:
        return (
            f"{location}: the directory holds no file that ends in {endings_in_words()}; "
            f"set loader.format if they are called otherwise"
        )
    return f"{location}: no file matches; check --input, or set run.allow_empty if that is all right"


def _single(config: Config, source: Location, output: str) -> Pair:
    if output == PIPE or not any(is_dated(each) for each in (*config.loader.inputs, config.writer.output)):
        return Pair(source)
    try:
        return Pair(source, locate_output(config, output, source))
    except OutputError as error:
        return Pair(source, trouble=error)


def _is_plain(text: str) -> bool:
    """Whether it names one file: also one that is not there, if it is no pattern."""
    kind, _ = locate(text).look()
    return kind not in (Kind.DIRECTORY, Kind.NOTHING) or (kind is Kind.NOTHING and not is_pattern(text))


def _folder_of(inputs: list[str], output: str) -> Location:
    """Return the directory for the outputs: as named, or beside the one that is read, as NAME_labelled."""
    if output == PIPE:
        raise ConfigError(f"{PIPE} takes the rows of one file; name a directory with --output")
    if not output:
        source = locate(inputs[0].rstrip("/") or "/")
        if len(inputs) > 1 or source.look()[0] is not Kind.DIRECTORY:
            raise ConfigError("several inputs need a directory for their outputs; name one with --output, like out/")
        if source.store is not None and not source.name:
            raise ConfigError(f"{source}: a bucket has nothing beside it; name a directory with --output")
        if source.name in ("", ".", ".."):
            source = local(source.key)
        return source.beside(f"{source.name}_labelled")
    folder = locate(output)
    kind, _ = folder.look()
    if kind not in (Kind.DIRECTORY, Kind.NOTHING):
        raise OutputError(f"{folder}: is a file; several inputs need a directory for their outputs")
    if kind is Kind.NOTHING and not folder.is_folder:
        like = f"{folder.shown.removesuffix(folder.name)}{folder.name.partition('.')[0]}/"
        raise ConfigError(
            f"{folder}: several inputs need a directory for their outputs; end it in a slash, like {like}"
        )
    return folder


def _files_of(text: str, config: Config, folder: Location) -> tuple[list[tuple[str, Location]], list[str]]:
    """Return the files that one input stands for: the name of each below the output directory, and its location.

    Of a directory those whose ending names a format, or all if `loader.format` does; what a pattern names is taken by
    its word. Also returns a message about the files of a directory that are not read.
    """
    location = locate(text)
    kind, _ = location.look()
    is_known = config.loader.format is not None
    if kind is Kind.DIRECTORY:
        there = _without_outputs([(path, location.within(path)) for path in list_files(location)], folder)
        found = [each for each in there if not is_hidden(each[0]) and (is_known or format_by_ending(each[0]))]
        return found, _left_out(location, [path for path, _ in there], {path for path, _ in found})
    if kind is Kind.NOTHING and is_pattern(text):
        matched = [
            (path, source)
            for path, source in match_files(text)
            if is_known or format_by_ending(path) or is_named(text, path)
        ]
        return _without_outputs(matched, folder), []
    return [(location.name, location)], []


def _left_out(location: Location, paths: list[str], read: set[str]) -> list[str]:
    """Say which files of a directory are not read: hidden ones of a known format, and those of no known format."""
    names = [
        path
        for path in paths
        if path not in read and bool(format_by_ending(path)) is is_hidden(path) and not path.endswith(".run.json")
    ]
    if not names:
        return []
    shown = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED:,} more" * (len(names) > MOST_NAMED))
    why = "they are hidden, or their ending names no format; --input names what is to be read all the same"
    return [f"{location}: left out: {shown}: {why}"]


def _without_outputs(found: list[tuple[str, Location]], folder: Location) -> list[tuple[str, Location]]:
    """Leave out what stands in the output directory, should that be below the input, too."""
    if not found:
        return []
    path, source = found[0]
    # The input, with a slash at its end; what is in it may be a link to somewhere else.
    within = replace(source, path=source.path.removesuffix(path), shown=source.shown.removesuffix(path))
    top = f"{within.key.rstrip('/')}/"
    if not folder.key.startswith(top):
        return found
    inside = f"{folder.key.removeprefix(top)}/"
    return [(path, source) for path, source in found if not path.startswith(inside)]


def _checked(pairs: list[Pair], folders: list[Location]) -> Plan:
    """See that no two inputs have the same output; the same file named twice is one."""
    by_output: dict[str, Pair] = {}
    kept = []
    for pair in pairs:
        first = by_output.setdefault(str(pair.output), pair) if pair.output else pair
        if first is not pair and first.source.key != pair.source.key:
            raise ConfigError(
                f"{first.source} and {pair.source} would both be written to {pair.output}; classify them apart"
            )
        if first is pair:
            kept.append(pair)
    if len(kept) == 1 and kept[0].trouble:
        raise kept[0].trouble
    return Plan(kept, list({folder.key: folder for folder in folders}.values()))
