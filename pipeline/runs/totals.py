"""What came of many files: the sum of their records, and which of them failed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.config import Config, mask_uri
from pipeline.errors import ClassifyError
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.record import FailedFile, Outcome, RunRecord, fields_of_run
from pipeline.runs.plan import Pair, Plan
from pipeline.streams import one_line, storable

PRECEDENCE = (1, 130, 143, 129, 75, 4, 2, 3, 5, 0)  # which exit code of several is that of the command
TOLD = 20  # files that failed, at most, that are told of while it goes on
NAMED = 3  # of these, at most, in the closing line
SUMMED = (
    *("rows", "labelled", "empty", "truncated", "in_parts", "unsure"),
    *("skipped_lines", "resumed_rows", "shared_rows", "reused_rows"),
)


class Totals:
    """Counts the files of a command as they end."""

    def __init__(self, config: Config, plan: Plan, progress: Progress) -> None:
        self._config, self._plan, self._progress = config, plan, progress
        self._codes: Counter[int] = Counter()
        self._sums, self._labels, self._failed = Counter[str](), Counter[str](), Counter[str]()
        self._scores: dict[str, list[int]] = {}
        self._complete_already = 0
        self._failed_files: list[FailedFile] = []
        self._one: RunRecord | None = None

    def add(self, record: RunRecord) -> None:
        """Count a file that is complete, or was."""
        self._codes[record.exit_code] += 1
        self._complete_already += record.already_complete
        self._sums.update({name: getattr(record, name) for name in SUMMED})
        self._labels.update(record.labels)
        for label, counts in record.scores.items():
            before = self._scores.get(label)
            self._scores[label] = counts if before is None else [*map(sum, zip(before, counts, strict=True))]
        self._failed.update(record.failed)
        if record.exit_code:
            self._failed_files.append(FailedFile(record.input, record.exit_code, record.error or ""))
        if self._one is None or not record.already_complete:
            self._one = record

    def fail(self, pair: Pair, error: ClassifyError) -> str:
        """Count a file that could not be classified; return its message."""
        self._codes[error.exit_code] += 1
        message = one_line(storable(str(error)))
        place = storable(str(pair.source))
        self._failed_files.append(FailedFile(place, error.exit_code, message))
        if len(self._failed_files) > TOLD:
            return ""
        more = "; more that fail are counted, and told in the end" if len(self._failed_files) == TOLD else ""
        return (message if place in message else f"{place}: {message}") + more

    def worse_than(self, error: ClassifyError) -> ClassifyError | None:
        """Return an error that counts for more than the one that ended the run, if a file has failed so."""
        self._codes[error.exit_code] += 1
        code = self.code
        if code in (0, error.exit_code):  # 0: a code that only a single file has, like 141
            return None
        worse = ClassifyError(f"{error}; {self.why(code)}")
        worse.exit_code = code
        return worse

    @property
    def rows(self) -> int:
        """The number of rows in all files that are complete."""
        return self._sums["rows"]

    @property
    def code(self) -> int:
        """The exit code of the command, as far as its files have ended."""
        return next(code for code in PRECEDENCE if code == 0 or self._codes[code])

    def begun(self) -> Outcome:
        """Return the outcome that is on record while a run goes on: what is left of one that is killed."""
        started = self._progress.started.isoformat(timespec="milliseconds")
        files = {"all": len(self._plan.pairs)}
        return Outcome(
            exit_code=0, input=self._config.loader.shown, output=self._output(), files=files, started=started
        )

    def record(self) -> RunRecord:
        """Return the record of the run: that of its only file, or the sum of those of its files."""
        progress, files = self._progress, len(self._plan.pairs)
        if self._codes.total() != files:
            raise RuntimeError(f"of {files} files {self._codes.total()} ended")  # never say that all is well
        if self._plan.is_single and self._one is not None:
            return self._one
        failed, code = self._failed_files, self.code
        sums: dict[str, Any] = {name: self._sums[name] for name in SUMMED}
        return RunRecord(
            exit_code=code,
            error=self.why(code) if code else None,
            input=self._config.loader.shown,
            input_digest="",
            output=self._output(),
            output_digest="",
            is_whole=not failed,
            rows_total=self.rows,
            labels=dict(self._labels.most_common()),
            scores=self._scores,
            failed=dict(sorted(self._failed.items())),
            files={
                "all": files,
                "done": progress.files_done,
                "complete already": self._complete_already,
                "failed": len(failed),
            },
            failed_files=failed,
            **sums,
            **progress.fields_of_requests(),
            **fields_of_run(self._config, progress.started, progress.elapsed_s, progress.rows_answered),
            already_complete=self._complete_already == files,
            model=self._one.model if self._one else {},
            identity={},
        )

    def why(self, code: int) -> str:
        """Return which files failed and why, first those with this exit code."""
        worst = sorted(self._failed_files, key=lambda each: each.exit_code != code)  # first those that decide
        named = "; ".join(each.told for each in worst[:NAMED])
        more = f"; and {len(worst) - NAMED:,} more" if len(worst) > NAMED else ""
        return f"{len(self._failed_files):,} of {len(self._plan.pairs):,} files failed: {named}{more}"

    def _output(self) -> str:
        if len(self._plan.folders) == 1:
            return storable(f"{self._plan.folders[0]}".rstrip("/") + "/")
        return mask_uri(storable(self._config.writer.output))
