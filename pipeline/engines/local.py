"""Workers as processes on this machine, each at one end of a socket pair."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.engines.channel import Channel
from pipeline.errors import WorkerLost

MODULE = "pipeline.runs.worker"


class LocalWorker:
    """A process that works for this one, and ends with it: the kernel then closes our end of its channel."""

    def __init__(self) -> None:
        self.channel: Channel | None = None  # once it is started
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    async def start(self) -> Channel:
        """Start the process. It imports the package for a second before it takes anything from its channel.

        Raises:
            WorkerLost: it can't be started.
        """
        try:
            ours = await asyncio.to_thread(self._spawn)
        except OSError as error:
            raise WorkerLost(f"a worker can't be started: {error.strerror}; fewer take less") from None
        self.channel = Channel(*await asyncio.open_connection(sock=ours))
        if self._is_killed:  # meanwhile
            self.kill()
        return self.channel

    def _spawn(self) -> socket.socket:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        ours, theirs = socket.socketpair()
        with theirs:
            # Our module search path and nothing before it (-P): a folder called `pipeline` in the user's working
            # directory is not this package.
            search_path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=os.environ | {"PYTHONPATH": search_path},
                start_new_session=True,  # Ctrl-C in a terminal is for the run, which then tells its workers
            )
        return ours

    def kill(self) -> None:
        """End the process at once, or as soon as it is started."""
        self._is_killed = True
        if self._process is not None:
            self._process.kill()

    async def ended(self) -> str:
        """Wait for the end of the process, and say how it ended."""
        assert self.channel is not None and self._process is not None  # noqa: S101, PT018 - it was started
        await self.channel.close()
        code = await asyncio.to_thread(self._process.wait)
        self._stderr.seek(0)
        *_, last_line = self._stderr.read().decode(errors="replace").splitlines() or [""]
        self._stderr.close()
        how = f"was ended by {_name_of(-code)}" if code < 0 else f"ended with exit code {code}"
        return f"{how} ({last_line})" if last_line else how


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those of real time have none
        return f"signal {number}"
