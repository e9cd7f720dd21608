"""Every way to fail, as one tree. The class is the decision; the message says what, where and what to do.

ClassifyError                    exit code
├── UserError                    2    a person must change something
│   ├── ConfigError                   the config, the command line, the environment
│   ├── InputError                    the input file (names file:line or the row)
│   ├── OutputError                   the output's place
│   ├── StoreRefused                  a store of files says no: no such bucket, no permission
│   ├── CheckpointMismatch            the checkpoint belongs to another run
│   ├── ReuseError                    the file of run.reuse is not ours, damaged, or can't be written
│   └── Misconfigured                 the server: wrong address, key, model, or no classifier at all
│       └── ModelChanged              it serves another model than before
├── NotNow                       75   the same command works later
│   ├── ServerGone                    nobody answered for too long
│   ├── StoreGone                     a store of files can't be reached, or has too much to do
│   ├── OutputHeld                    another run holds this output
│   ├── WorkerLost                    workers end again and again, by no fault of the rows that is known
│   └── DiskTrouble                   disk full, quota, input/output error
├── DeadlineReached              4    run.deadline came; everything answered is kept
├── Stopped                      130 / 143 / 129
│   └── ReaderGone               141      whoever read our standard output has seen enough
└── RequestFailed                     one request failed; it never leaves the batcher
    ├── Overloaded                    try again later, with fewer in flight: 429, 503, 408, 425
    ├── Unavailable                   try again later: other 5xx
    │   └── ConnectionLost            reset, or cut short; a health check says which model answers there now
    │       └── Unreachable           refused
    │           └── BadAddress        no such name, or TLS fails: at the start a person must change the url
    ├── TimedOut                      try again: no answer within server.timeout_s
    ├── BadAnswer                     try again: the answer fails a check of the protocol
    ├── OtherModel                    the answer is sound, but not of the model seen so far: a health check
    └── Rejected                      never again as it is: 400, 413, 422; halve it
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterable
from typing import Any, NamedTuple

# Of an OSError: the disk is full, or a quota is, or it fails.
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class ClassifyError(Exception):
    """Root of all expected failures. `exit_code` is what the process answers."""

    exit_code = 1
    outcome: Any = None  # of the run that it ended: a `record.Outcome`


class UserError(ClassifyError):
    """A person must change something; trying again will not help."""

    exit_code = 2


class ConfigError(UserError):
    """A setting, flag or environment variable is wrong."""


class InputError(UserError):
    """The input can't be read as asked."""


class OutputError(UserError):
    """The output can't be written where or as asked."""


class StoreRefused(UserError):
    """A store of files understood us and says no: bucket, credentials or permissions are wrong."""


class CheckpointMismatch(UserError):
    """The checkpoint beside the output was made by a different run; nothing may be mixed."""


class ReuseError(UserError):
    """The file of run.reuse is another program's, another version's, damaged, or can't be written."""


class Misconfigured(UserError):
    """The server understood us and will never do what we ask: address, key or model is wrong.

    `status` is the HTTP status that said so, None where it was not a status.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ModelChanged(Misconfigured):
    """A server answers with another model than before, and its answer to the canary confirms it."""


class NotNow(ClassifyError):
    """Nothing is wrong with the command; the same one works later."""

    exit_code = 75


class ServerGone(NotNow):
    """No endpoint answered for longer than we are told to wait."""


class StoreGone(NotNow):
    """A store of files can't be reached, or asks to be left alone for a while."""


class OutputHeld(NotNow):
    """Another run holds the lock of this output."""


class WorkerLost(NotNow):
    """A worker ended before it had answered anything, as often as it may."""


class DiskTrouble(NotNow):
    """The disk is full, the quota used up, or the device fails."""


class DeadlineReached(ClassifyError):
    """The time given to this run is over."""

    exit_code = 4


class Stopped(ClassifyError):
    """A signal asked us to stop: exit code 128 + its number."""

    def __init__(self, signal_number: int, advice: str = "") -> None:
        self.exit_code = 128 + signal_number
        ways = {signal.SIGINT: "interrupted", signal.SIGHUP: "hung up"}
        super().__init__(ways.get(signal.Signals(signal_number), "terminated") + advice)


class ReaderGone(Stopped):
    """Whoever read our standard output has closed it: what SIGPIPE does to any program, and as quiet."""

    def __init__(self) -> None:
        super().__init__(signal.SIGPIPE)


class RequestFailed(ClassifyError):
    """One request failed. The message is `reason`, after the address of the server where `server` gives it.

    Args:
        reason: what went wrong, without the address: what a row gets must not depend on which server was asked.
        server: the address as it is shown, without a password.
        status: the HTTP status, None where no answer came.
        retry_after: seconds that the server asked to be left alone.
    """

    code = "server_error"  # of the row's error, if this row alone is to blame

    def __init__(
        self, reason: str, *, server: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{server}: {reason}" if server else reason)
        self.reason, self.server, self.status, self.retry_after = reason, server, status, retry_after
        self.broke_server = False  # set by the batcher: nothing else was in flight when the server broke


class Overloaded(RequestFailed):
    """The server has too much to do: wait, and ask for less."""

    @property
    def may_be_broken(self) -> bool:
        """Whether it may be a proxy's word for a server that is not there: 408 or 503 without a time to wait."""
        return self.status in (408, 503) and self.retry_after is None


class Unavailable(RequestFailed):
    """The server, or the way to it, is broken: wait."""


class ConnectionLost(Unavailable):
    """The connection broke. Whatever answers there next may be another server, with another model."""


class Unreachable(ConnectionLost):
    """No connection was made, so the cause is not what was to be sent."""


class BadAddress(Unreachable):
    """The name does not resolve, or TLS fails. Before any answer has come, the url is wrong."""


class TimedOut(RequestFailed):
    """No answer within `server.timeout_s`."""

    code = "timeout"


class BadAnswer(RequestFailed):
    """The answer fails a check; none of it is used."""

    code = "bad_answer"


class Rejected(RequestFailed):
    """The server refuses what is in this request, and refuses it as a whole: one text or several are to blame.

    Args:
        reason: see `RequestFailed`.
        status: the HTTP status.
        too_long: the server says that a text is too long.
        positions: of the texts that it names as guilty, in the request; empty if it names none.
        most_texts: how many texts a request may have, if their number is all that it refuses; then no text is to blame.
        is_doubtful: the server says the same when it is broken itself, so no text is to blame before the canary passes.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        too_long: bool = False,
        positions: Iterable[int] = (),
        most_texts: int | None = None,
        is_doubtful: bool = False,
    ) -> None:
        super().__init__(reason, status=status)
        self.code = "too_long" if too_long else "rejected"
        self.positions, self.most_texts = frozenset(positions), most_texts
        self.is_doubtful = is_doubtful


class OtherModel(RequestFailed):
    """The answer is sound in itself but not of the model seen so far; nothing of it is kept."""


class RowError(NamedTuple):
    """Why one row has no label. As text, `code: message`, it stands in the error column."""

    code: str  # empty, not_text, too_long, rejected, server_error, timeout or bad_answer
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @classmethod
    def parse(cls, text: str) -> RowError:
        """Read `code: message`."""
        code, _, message = text.partition(": ")
        return cls(code, message)

    @property
    def is_failure(self) -> bool:
        """Whether the row should have got a label: one without a text should not."""
        return self.code != "empty"
