"""The lock of an output: held by one run at a time, and free when its process has ended."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pipeline.errors import DISK_TROUBLE, DiskTrouble, OutputError, OutputHeld
from pipeline.storage.draft import see_no_link

LOOK_S = 0.1
FIRST_BYTES = b'{"pid": '


class Lock:
    """The lock file of one output. The kernel frees it when the holder ends, however it ends.

    Beside an output the file stays. With a `directory` of its own to guard (made when the lock is held) it is deleted
    when that is empty in the end; so a process that has locked a file checks that it still is the one at the path.

    Raises:
        OutputHeld: another run holds it; the message says which.
        OutputError: the file can't be made.
    """

    def __init__(self, path: Path, directory: Path | None = None) -> None:
        self.path, self._directory = path, directory
        self._file = -1  # its descriptor, as long as it is open

    def __enter__(self) -> Self:
        try:
            self._take()
            while not self._is_seen():
                self._close()
                self._take()
            if self._directory is not None:
                see_no_link(self._directory, is_directory=True)
                self._directory.mkdir(exist_ok=True)
        except OSError as error:
            self._close()
            kind = DiskTrouble if error.errno in DISK_TROUBLE else OutputError
            raise kind(f"{self.path.parent}: can't be written to: {error.strerror}") from None
        except OutputError:
            self._close()
            raise
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        self._write(json.dumps(holder).encode())
        return self

    def _write(self, content: bytes) -> None:
        """Replace the content, which is only for messages and may fail, unless another program wrote what is there."""
        with suppress(OSError):
            if FIRST_BYTES.startswith(os.pread(self._file, len(FIRST_BYTES), 0)):
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, content, 0)

    def _take(self) -> None:
        if self._directory is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        see_no_link(self.path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not self._taken():
            time.sleep(LOOK_S)  # `is_held` may have been looking
            if not self._taken():
                self._close()
                raise self._held()

    def _held(self) -> OutputHeld:
        holder = read_holder(self.path) or "unknown"
        return OutputHeld(f"another run ({holder}) holds this output; wait for it, or stop it")

    def see_free(self) -> None:
        """See that it could be taken now, and change nothing.

        Raises:
            OutputHeld, OutputError: as taking it would.
        """
        if is_held(self.path):
            raise self._held()
        folder = self.path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{folder}: can't be written to: {os.strerror(errno.EACCES)}")

    def _is_seen(self) -> bool:
        with suppress(FileNotFoundError):
            return self._directory is None or os.path.samestat(os.fstat(self._file), self.path.stat())
        return False

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            self._close()
            # some network file systems have no locks
            raise OutputError(
                f"{self.path}: can't be locked: {error.strerror}; name a local directory in run.state_dir"
            ) from None
        return True

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock, and delete an empty directory that it guards."""
        self._write(b"")
        with suppress(OSError):
            if self._directory is not None:
                self._directory.rmdir()
                self.path.unlink()
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def read_holder(path: Path) -> str | None:
    """Return process, host and start of the last holder, for messages; None if the file does not say it."""
    try:
        holder = json.loads(path.read_text())
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False
