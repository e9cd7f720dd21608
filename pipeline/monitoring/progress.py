"""The counters of a run, and how they are shown: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import itertools
import math
import os
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
REPEAT_EVERY_S = 60.0  # a message about the same
BAR_WIDTH = 12  # characters at least; what is less important than that is left out of the line
ECHO_WIDTH = 3  # characters left free behind it: a terminal adds "^C", which would begin another line
SLOW_S = 5.0  # from then on the age of the oldest request is worth its room
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

    def take(self) -> Counts:
        """Return the counts, and count from nothing."""
        taken, nothing = Counts(), vars(Counts())
        vars(taken).update({name: vars(self)[name] for name in nothing})
        vars(self).update(nothing)
        return taken

    def answered(self, answers: Answers, *, shared: int = 0, reused: int = 0) -> None:
        """Count the answers of some rows, and how many of them were shared or reused."""
        self.rows_done += len(answers)
        self.rows_shared += shared
        self.rows_reused += reused
        if answers.errors:  # a Counter takes its time to add nothing
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


class _Said:
    """What was said of a topic, and how often it happened since."""

    def __init__(self, at: float) -> None:
        self.at, self.times, self.message = at, 0, ""

    def take(self, now: float) -> str:
        """Return the last message, with how often there was one since it was said last."""
        times, self.times, self.at = self.times, 0, now
        return f"{self.message} ({times} times)" if times > 1 else self.message


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
        self._in_flight: dict[int, float] = {}  # number of a request -> when it was sent
        self._numbers = itertools.count()
        self.is_answered = False  # a server has said something sensible of a row
        self._workers: dict[int, tuple[int, float]] = {}  # worker -> its requests in flight, and the age of the oldest
        self._bar: Any = None
        self._said: dict[str, _Said] = {}
        self._waiting: tuple[float, float] | None = None  # since when no server answers, and for how long it is waited

    @contextmanager
    def request(self, texts: int) -> Iterator[None]:
        """Count a request, which is in flight until the context ends."""
        self.spend(texts)
        number = next(self._numbers)
        self._in_flight[number] = time.monotonic()
        try:
            yield
        finally:
            del self._in_flight[number]

    def hear_of(self, worker: int, in_flight: int, oldest_s: float) -> None:
        """Take what a worker says of its requests: how many are in flight, and the age of the oldest in seconds."""
        self._workers[worker] = in_flight, oldest_s

    @property
    def in_flight(self) -> int:
        """The number of requests in flight, here and in workers."""
        return len(self._in_flight) + sum(count for count, _ in self._workers.values())

    def expect(self, rows: int, *, is_exact: bool) -> None:
        """Set the number of rows of the input, or an estimate."""
        self.rows_total, self.total_is_exact = rows, is_exact

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    @property
    def _rate(self) -> float:
        return self.rows_answered / max(self.elapsed_s, 1e-9)

    def notice(self, message: str, topic: str = "") -> None:
        """Print a message now, unless it is empty.

        Of messages with the same `topic` the first is printed, then in each minute the last, with their number.
        """
        now = time.monotonic()
        if topic:
            said = self._said.setdefault(topic, _Said(now - REPEAT_EVERY_S))
            said.message, said.times = message, said.times + 1
            if now - said.at >= REPEAT_EVERY_S:
                self._print(said.take(now))
        elif message:
            self._print(message)

    def _print(self, message: str) -> None:
        if self._style == "json":
            say_event("notice", "warning", message=message)
        elif self._bar is not None:
            self._bar.write(without_control(message), file=sys.stderr)
        else:
            say(message)

    def _print_repeated(self, older_than_s: float) -> None:
        now = time.monotonic()
        for said in self._said.values():
            if said.times and now - said.at >= older_than_s:
                self._print(said.take(now))

    def begin_waiting(self, for_s: float) -> None:
        """Show from now on that no server answers, and that it is waited so long for one."""
        self._waiting = self._waiting or (time.monotonic(), for_s)

    def end_waiting(self) -> None:
        """Show that a server answers."""
        self._waiting = None

    def begin(self) -> None:
        """Start to show progress: makes the bar, if there is one."""
        self._shown = time.monotonic()
        if self._style == "bar" or (self._style == "auto" and sys.stderr.isatty()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about missing ipywidgets: a notebook then gets a bar of characters
                from tqdm.auto import tqdm
            self._bar = tqdm(
                total=self.rows_total, initial=self.rows_done, dynamic_ncols=True, file=sys.stderr, bar_format=" "
            )

    def show(self) -> None:
        """Draw the bar anew, or print a line every `LINE_EVERY_S`; called every `SHOW_EVERY_S`."""
        self._print_repeated(REPEAT_EVERY_S)
        if self._bar is not None:
            done, total = self.rows_done, self.rows_total
            if self.rows_written is not None:
                done, total = self.rows_written, self.rows_done
            self._bar.n, self._bar.total = done, None if total is None else max(total, done)
            try:
                columns = os.get_terminal_size(2).columns - ECHO_WIDTH
                self._bar.dynamic_ncols, self._bar.ncols = None, columns
            except OSError:
                columns = 80
            self._bar.bar_format = self.bar_format(columns)
            self._bar.refresh()
        elif self._style != "quiet" and time.monotonic() - self._shown >= LINE_EVERY_S:
            self._shown = time.monotonic()
            if self._style == "json":
                say_event("progress", "info", **self.snapshot())
            else:
                say(self._line())

    def bar_format(self, columns: int) -> str:
        """Return the line of a terminal as tqdm's `bar_format`: as many facts as leave room for a bar."""
        head = "{percentage:3.0f}% |{bar}| " if self.rows_total is not None else ""
        room = columns - len("100% || ") - BAR_WIDTH - 1
        if self.rows_written is not None:
            return f"{head}writing {self.rows_written:,} of {self.rows_done:,} rows"
        said = ""
        for fact in self._facts():
            if not said or len(said) + len(fact) + 2 <= room:
                said += f", {fact}" if said else fact
        return head + said

    def _facts(self) -> Iterator[str]:
        """Yield what is told beside the bar, the most important first."""
        if self._waiting is not None:
            yield _wait(*self._waiting)
        about = "" if self.total_is_exact else "about "
        yield f"{self.rows_done:,}" + (
            f" of {about}{self.rows_total:,} rows" if self.rows_total is not None else " rows"
        )
        if self.files_total > 1:
            yield f"file {self.files_done:,} of {self.files_total:,}"
        if self._waiting is None and (eta := self._eta_s) is not None:
            yield f"ETA {_duration(eta)}"
        if self.rows_failed:
            yield f"{self.rows_failed:,} failed"
        if self._waiting is None:
            yield f"{self._rate:,.0f}/s"
        if self.oldest_s >= SLOW_S:
            yield f"oldest {self.oldest_s:.0f} s"
        yield f"{self.in_flight} in flight"
        if self.retries:
            yield f"{self.retries} retries"

    def end(self) -> None:
        """Stop showing progress; the bar stays as it is."""
        self._print_repeated(0)
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
    def oldest_s(self) -> float:
        """The age of the oldest request in flight, in seconds; 0 if there is none."""
        here = time.monotonic() - min(self._in_flight.values(), default=math.inf)
        return max(0.0, here, *(age for _, age in self._workers.values()))

    @property
    def waiting(self) -> tuple[float, float] | None:
        """For how long no server has answered, and for how long it is waited in all; None if one does. In seconds."""
        return None if self._waiting is None else (time.monotonic() - self._waiting[0], self._waiting[1])

    def snapshot(self) -> dict[str, Any]:
        """Return the state as the members of a JSON object."""
        return {
            **({"files": self.files_done, "files_total": self.files_total} if self.files_total > 1 else {}),
            "rows": self.rows_done,
            "rows_total": self.rows_total,
            "rows_total_is_exact": self.total_is_exact,
            "rows_per_s": round(self._rate, 1),
            "eta_s": None if self._eta_s is None else round(self._eta_s),
            "in_flight": self.in_flight,
            "retries": self.retries,
            "failed": self.failed,
            "empty": self.errors["empty"],
            "oldest_request_s": round(self.oldest_s, 1),
        }

    def _details(self) -> str:
        requests = f"{self.in_flight} in flight, {self.retries} retries"
        details = f"{requests}, {self.rows_failed:,} failed, oldest {self.oldest_s:.0f} s"
        return details if self._waiting is None else f"{details}, {_wait(*self._waiting)}"


def _wait(since: float, for_s: float) -> str:
    return f"no answer for {time.monotonic() - since:.0f} of {for_s:.0f} s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
