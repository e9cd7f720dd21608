"""The counters of a run, and how they are shown: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.answers import Answers
from pipeline.monitoring.record import RunRecord
from pipeline.streams import say, say_event, without_control

SHOW_EVERY_S = 0.25  # also of commits: with the time of one, far less than a second of answers can be lost
LINE_EVERY_S = 10.0
Style = Literal["auto", "bar", "quiet", "json"]


class Counts:
    """The results of rows and the requests they took: of a command, and of each of its files."""

    def __init__(self) -> None:
        self.rows_done = 0
        self.rows_resumed = 0  # of rows_done: answered by an earlier run
        self.errors: Counter[str] = Counter()  # error code -> rows
        self.requests = self.retries = 0
        self.texts_sent = 0
        self.rows_shared = 0  # answered with the text of another row
        self.rows_reused = 0  # with a stored answer of another run

    def spend(self, texts: int) -> None:
        """Count a request with so many texts."""
        self.requests += 1
        self.texts_sent += texts

    def add(self, other: Counts) -> None:
        """Add the counts of `other` to these."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def answered(self, answers: Answers, *, shared: int = 0, reused: int = 0) -> None:
        """Count the answers of some rows, and how many of them were shared or reused."""
        self.rows_done += len(answers)
        self.rows_shared += shared
        self.rows_reused += reused
        self.errors.update(error.code for error in answers.errors.values())

    def resume(self, rows: int, codes: dict[str, int]) -> None:
        """Count rows that an earlier run has answered; `codes` has those with an error by its code."""
        self.rows_done += rows
        self.rows_resumed += rows
        self.errors.update(codes)

    @property
    def rows_answered(self) -> int:
        """The number of rows that this run answered, without those of an earlier one."""
        return self.rows_done - self.rows_resumed

    @property
    def failed(self) -> dict[str, int]:
        """The number of rows that failed, by error code; an empty text is no failure."""
        return {code: rows for code, rows in sorted(self.errors.items()) if code != "empty"}

    @property
    def rows_failed(self) -> int:
        """The number of rows that failed, of all error codes."""
        return self.errors.total() - self.errors["empty"]

    def fields(self) -> dict[str, Any]:
        """Return the counts as fields of an `Outcome`."""
        return {
            "rows": self.rows_done,
            "labelled": self.rows_done - self.errors.total(),
            "failed": self.failed,
            "empty": self.errors["empty"],
            "resumed_rows": self.rows_resumed,
            "shared_rows": self.rows_shared,
            "reused_rows": self.rows_reused,
            **self.fields_of_requests(),
        }

    def fields_of_requests(self) -> dict[str, Any]:
        """Return the counts of requests as fields of an `Outcome`."""
        return {"requests": self.requests, "texts_sent": self.texts_sent, "retries": self.retries}


class Progress(Counts):
    """The counts of a command, and all its output on stderr while it runs.

    `style` is "auto" (a bar on a terminal, else lines), "bar", "quiet", or "json" (one JSON object a line).
    """

    def __init__(self, style: Style = "auto") -> None:
        super().__init__()
        self.rows_total: int | None = None
        self.total_is_exact = True
        self.rows_written: int | None = None  # set while the output is written, when all rows are answered
        self.files_total, self.files_done = 1, 0
        self._style = style
        self.started = datetime.now(UTC)
        self._started = self._shown = time.monotonic()
        self._in_flight: dict[int, float] = {}
        self._bar: Any = None

    @contextmanager
    def request(self, texts: int) -> Iterator[None]:
        """Count a request, which is in flight until the context ends."""
        self.spend(texts)
        number = self.requests
        self._in_flight[number] = time.monotonic()
        try:
            yield
        finally:
            del self._in_flight[number]

    def expect(self, rows: int, *, is_exact: bool) -> None:
        """Set the number of rows of the input, or an estimate."""
        self.rows_total, self.total_is_exact = rows, is_exact
        if self._bar is not None:
            self._bar.total = rows

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    @property
    def _rate(self) -> float:
        return self.rows_answered / max(self.elapsed_s, 1e-9)

    def notice(self, message: str) -> None:
        """Print a message now, unless it is empty."""
        if not message:
            return
        if self._style == "json":
            say_event("notice", "warning", message=message)
        elif self._bar is not None:
            self._bar.write(without_control(message), file=sys.stderr)
        else:
            say(message)

    def begin(self) -> None:
        """Start to show progress: makes the bar, if there is one."""
        self._shown = time.monotonic()
        if self._style == "bar" or (self._style == "auto" and sys.stderr.isatty()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about missing ipywidgets: a notebook then gets a bar of characters
                from tqdm.auto import tqdm
            self._bar = tqdm(
                total=self.rows_total, initial=self.rows_done, unit=" rows", unit_scale=True, dynamic_ncols=True,
                file=sys.stderr, smoothing=0.1, mininterval=0.2,
            )  # fmt: skip

    def show(self) -> None:
        """Update the bar, or print a line every `LINE_EVERY_S`; called every `SHOW_EVERY_S`."""
        if self._bar is not None:
            is_asking = self.rows_written is None
            said = self._details() if is_asking else f"writing {self.rows_written:,}"
            said += f", file {self.files_done:,} of {self.files_total:,}" if self.files_total > 1 else ""
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(self.rows_done - self._bar.n)
            if not is_asking:  # `update` shows nothing if no row is added
                self._bar.refresh()
        elif self._style != "quiet" and time.monotonic() - self._shown >= LINE_EVERY_S:
            self._shown = time.monotonic()
            if self._style == "json":
                say_event("progress", "info", **self.snapshot())
            else:
                say(self._line())

    def end(self) -> None:
        """Stop showing progress; the bar stays as it is."""
        if self._bar is not None:
            self.show()
            self._bar.close()
            self._bar = None

    def finish(self, record: RunRecord, lines: list[str]) -> None:
        """Print the summary of a run; as JSON, its last line and the record."""
        if self._style == "json":
            level = "error" if record.exit_code else "info"
            say_event("finished", level, message=lines[-1], exit_code=record.exit_code, record=record)
        else:
            say("\n".join(lines))

    def _line(self) -> str:
        if self.rows_written is not None:
            return f"writing: {self.rows_written:,} of {self.rows_done:,} rows"
        line = f"{self.rows_done:,} rows"
        if self.rows_total is not None:
            percent = min(100, 100 * self.rows_done / max(self.rows_total, 1))
            line += f" of {'' if self.total_is_exact else 'about '}{self.rows_total:,} ({percent:.0f} %)"
        if self.files_total > 1:
            line += f", {self.files_done:,} of {self.files_total:,} files"
        line += f", {self._rate:,.0f} rows/s"
        if self._eta_s is not None:
            line += f", ETA {_duration(self._eta_s)}"
        return f"{line}, {self._details()}"

    @property
    def _eta_s(self) -> float | None:
        if self.rows_total is None or not self.rows_answered:
            return None
        return max(0, self.rows_total - self.rows_done) / self._rate

    @property
    def _oldest_s(self) -> float:
        return max(0.0, time.monotonic() - min(self._in_flight.values(), default=math.inf))

    def snapshot(self) -> dict[str, Any]:
        """Return the state as the members of a JSON object."""
        return {
            **({"files": self.files_done, "files_total": self.files_total} if self.files_total > 1 else {}),
            "rows": self.rows_done,
            "rows_total": self.rows_total,
            "rows_per_s": round(self._rate, 1),
            "eta_s": None if self._eta_s is None else round(self._eta_s),
            "in_flight": len(self._in_flight),
            "retries": self.retries,
            "failed": self.failed,
            "empty": self.errors["empty"],
            "oldest_request_s": round(self._oldest_s, 1),
        }

    def _details(self) -> str:
        requests = f"{len(self._in_flight)} in flight, {self.retries} retries"
        return f"{requests}, {self.rows_failed:,} failed, oldest {self._oldest_s:.0f} s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
