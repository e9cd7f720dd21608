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

from pipeline.config.engine import cores_here
from pipeline.engines.channel import Channel
from pipeline.engines.engine import Engine, EngineWorker
from pipeline.errors import WorkerLost

WORKER = "pipeline.runs.worker"


class LocalEngine(Engine):
    """The machine that the run is on."""

    @property
    def cores(self) -> int:
        """See `Engine`."""
        return cores_here()

    def worker(self, number: int) -> LocalProcess:  # noqa: ARG002 - it has no name
        """See `Engine`."""
        return LocalProcess(WORKER)

    def environment(self, ours: dict[str, str]) -> dict[str, str]:
        """See `Engine`: all of them, also those that a caller of the library has changed."""
        return ours


class LocalProcess(EngineWorker):
    """A process that works for this one, and ends with it: the kernel then closes our end of its channel.

    Args:
        module: what it runs, with the descriptor of its socket as the argument.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    async def start(self) -> Channel:
        """See `EngineWorker`. It imports the package for a second before it takes anything."""
        try:
            ours = await asyncio.to_thread(self._spawn)
        except OSError as error:
            raise WorkerLost(f"a process can't be started: {error.strerror}; fewer workers take less") from None
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
                [sys.executable, "-P", "-m", self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=os.environ | {"PYTHONPATH": search_path},
                start_new_session=True,  # Ctrl-C in a terminal is for the run, which then tells its workers
            )
        return ours

    def kill(self) -> None:
        """See `EngineWorker`."""
        self._is_killed = True
        if self._process is not None:
            self._process.kill()

    async def ended(self) -> str:
        """See `EngineWorker`."""
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
