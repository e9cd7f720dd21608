"""Where a new output waits beside the last one, and how it is put in its place.

With `report.on_fail = "hold"` a run writes here first. Until it is judged, the output of a single file has a name that
readers of directories skip; if it is held, it has a name for people. The outputs of a run into a directory wait in the
directory `.held` of that, under the names that they will have.

The record beside the waiting output is written after it, and removed last. As long as it is there, its digest says
what a kill has left:

- the digest is that of the waiting file: it waits, and nothing has been moved yet;
- it is that of the output, and not that of the output's own record: the move is done, what follows it is not. Whichever
  command comes next does the rest (`settle`), each step of which may be done twice;
- otherwise: nothing waits, and what is left over is removed when it is met.

So the output is renamed first: that one step changes what readers see. Then come history and reports, then the record.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from pipeline.checkpoint import digest_file
from pipeline.errors import InputError, OutputError
from pipeline.formats.registry import without_compression
from pipeline.monitoring.record import Held, Outcome, Recorded, RunRecord, encode_record, read_record
from pipeline.report import FAILED
from pipeline.report.history import accept_night
from pipeline.storage import Location, locate
from pipeline.storage.draft import move, remove, write_whole

FOLDER = ".held"  # in a directory of outputs
_ACCEPTING = threading.Lock()  # the outputs of several days have one history, and are opened at the same time


def held_name(name: str) -> str:
    """Return the name under which a file is held: `a.csv.gz` becomes `a.held.csv.gz`."""
    plain = without_compression(name)
    stem, dot, ending = plain.rpartition(".")
    if not stem:
        stem, dot, ending = plain, "", ""
    return f"{stem}.held{dot}{ending}{name.removeprefix(plain)}"


class Waiting:
    """The place where the new output for `output` waits; `folder` is the directory of outputs that a run made."""

    def __init__(self, output: Location, record: Location, folder: Location | None = None) -> None:
        self._output, self._record = output, record
        if folder is None:
            self.shown = output.beside(held_name(output.name))
            self.hidden = self.shown.beside(f".{self.shown.name}")
        else:
            inside = output.path.removeprefix(folder.path).lstrip("/")
            self.shown = self.hidden = folder.within(f"{FOLDER}/{inside}")
        self.record_location = self.shown.beside(f".{self.shown.name}.run.json")

    @property
    def record(self) -> RunRecord | None:
        """The record beside the waiting output."""
        return read_record(self.record_location, RunRecord)

    def find(self, record: RunRecord) -> Location | None:
        """Return where the output of a record waits; None if it does not."""
        for location in {self.hidden.path: self.hidden, self.shown.path: self.shown}.values():
            if location.exists() and digest_file(location) == record.output_digest:
                return location
        return None

    def is_changed(self, record: RunRecord, published: str | None = None) -> bool:
        """Return whether somebody has changed the file that is held; `published` is what our checkpoint has made."""
        if record.held is None or not self.shown.exists():
            return False
        return digest_file(self.shown) not in (record.output_digest, published)

    def see_unchanged(self, record: RunRecord, published: str | None = None, *, instead: str) -> None:
        """See that the file that is held is what was held; `instead` says what replaces it all the same.

        Raises:
            OutputError: somebody has changed it.
        """
        if self.is_changed(record, published):
            raise OutputError(f"{self.shown}: was changed since it was held; move it away, or {instead}")

    def see_free(self, record: RunRecord | None) -> None:
        """See that holding an output would replace no file of somebody else.

        Raises:
            OutputError: it would.
        """
        if self.shown.path == self.hidden.path or not self.shown.exists():
            return
        if record is None or digest_file(self.shown) != record.output_digest:
            raise OutputError(
                f"{self.shown}: exists, and was not made by this program (or changed since), and an output would be "
                f"held there; move it away, or replace it with --overwrite"
            )

    def write(self, record: RunRecord) -> None:
        """Write the record of what waits, or what has become of it."""
        write_whole(self.record_location, encode_record(record))

    def write_next(self, record: RunRecord) -> None:
        """Write the record of a new waiting output; what is held of an earlier night is removed before."""
        last = self.record
        if last is not None and last.held is not None:
            discard_report(self._output, last.held)
        if self.shown.path != self.hidden.path:
            remove(self.shown)
        self.write(record)

    def hold(self, record: RunRecord) -> None:
        """Have the waiting output at the place that people see."""
        if (data := self.find(record)) is not None and data.path != self.shown.path:
            move(data, self.shown)

    def put_in_place(self, record: RunRecord) -> None:
        """Replace the output by the one that waits."""
        if (data := self.find(record)) is not None:
            move(data, self._output)
        self.settle(record)

    def settle(self, record: RunRecord, *, is_reported: bool = False) -> RunRecord:
        """Do what follows the move: history and reports of a held output that was accepted, record, cleaning up."""
        if record.held is not None and not is_reported:
            accept_report(self._output, record.held)
        record = accepted(record)
        write_whole(self._record, encode_record(record))
        self.clear()
        return record

    def clear(self) -> None:
        """Remove what is left, the record last."""
        for location in (self.hidden, self.shown, self.record_location):
            remove(location)


def accepted(record: Recorded) -> Recorded:
    """Return the record of an output that is in its place; of one that was held, a person has accepted it."""
    if record.held is None:
        return record
    code, error = result_of_run(record)
    return msgspec.structs.replace(record, exit_code=code, error=error, held=None, accepted=record.held.digest)


def result_of_run(record: Outcome) -> tuple[int, str | None]:
    """Return the exit code and the error of a run itself, without those of its report."""
    return (0, None) if record.exit_code == FAILED else (record.exit_code, record.error)


def accept_report(output: Location, held: Held) -> None:
    """Have an accepted night in the history as one to compare with, and its reports under their own names."""
    with _ACCEPTING:
        if held.history and (history := _named(output, held.history)).exists():
            with suppress(InputError):  # somebody has changed it; a run says so
                accept_night(history, held.digest)
        for here, there in held.files.items():
            if (report := _named(output, here)).exists():
                move(report, _named(output, there))


def discard_report(output: Location, held: Held) -> None:
    """Remove the reports of a held output."""
    for report in held.files:
        remove(_named(output, report))


def _named(output: Location, path: str) -> Location:
    """Return a file that a run has named: beside the output where it has that directory, else by its path.

    What is mounted elsewhere, or reached by options that are not in the name, is found so, too.
    """
    folder, _, name = path.rpartition("/")
    if output.store is not None and folder == output.folder:
        return output.beside(name)
    location = locate(path)
    beside = output.beside(name)
    return beside if location.store is None and not os.path.isdir(folder) and beside.exists() else location  # noqa: PTH112


def remove_folder(folder: Location | None) -> None:
    """Remove the directory where the outputs of a directory wait, if nothing is left in it; on a disk."""
    if folder is None or folder.store is not None:
        return
    for path, _, _ in os.walk(folder.within(FOLDER).path, topdown=False):
        with suppress(OSError):
            os.rmdir(path)  # noqa: PTH106


def absolute(location: Location) -> str:
    """Return the name of a file as another command finds it."""
    return os.path.abspath(location.path) if location.store is None else location.shown  # noqa: PTH100


def waiting_paths(paths: list[str]) -> Iterator[str]:
    """Yield, of the files in a directory of outputs, the outputs whose new versions wait there."""
    for path in paths:
        folder, _, name = path.removeprefix(f"{FOLDER}/").rpartition("/")
        if path.startswith(f"{FOLDER}/") and name.startswith(".") and name.endswith(".run.json"):
            own = name.removeprefix(".").removesuffix(".run.json")
            yield f"{folder}/{own}" if folder else own
