"""`python -m pipeline`, or another module, without the time its imports take: a process that has them is forked.

Each command is a process with its own arguments, environment, directory, streams and exit code. Only what interpreters
read when they start (`PYTHON...`, the locale) can't be told to a fork: see `is_for`.

python tests/support/warm.py FD PROGRAM MODULE...    forks as it is told to on this socket, until that is closed
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# With what these import, all that a command needs has been imported, also one that writes the page of a report.
MODULES = (
    *("pipeline.cli", "pipeline.runs.outcome", "pipeline.monitoring.summary", "pipeline.loops", "encodings.idna"),
    *("pipeline.report.page", "pipeline.report.sample", "matplotlib.backends.backend_svg", "pandas", "pyarrow.parquet"),
    *("pyarrow.pandas_compat", "tqdm", "uvloop"),
)
HEAP = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # as the command sets it before it imports pyarrow
LARGEST = 1 << 17  # bytes of a message


def is_for(environment: Mapping[str, str]) -> bool:
    """Whether a fork can have these variables."""
    return not any(name.startswith(("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "ARROW_")) for name in environment)


class Warm:
    """The process that forks; a context manager. It runs one command at a time.

    A command is `python -m` with the module `program`, and `modules` are what is imported before.
    """

    def __init__(self, program: str = "pipeline", modules: Sequence[str] = MODULES) -> None:
        self._arguments = [program, *modules]

    def __enter__(self) -> Self:
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(far.fileno()), *self._arguments],
                env={**os.environ, **HEAP, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait(20)

    def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        timeout: float,
        *,
        program: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run the program with these arguments to its end, as `subprocess.run` does; or another of `tests/support`."""
        told = {"arguments": [*arguments], "environment": dict(environment), "folder": str(folder), "program": program}
        said: dict[int, str] = {}
        pipes = [os.pipe(), os.pipe()]
        socket.send_fds(self._socket, [json.dumps(told).encode()], [near for _, near in pipes])
        for _, near in pipes:
            os.close(near)
        readers = [threading.Thread(target=read, args=(far, n, said)) for n, (far, _) in enumerate(pipes)]
        for each in readers:
            each.start()
        pid = int(self._socket.recv(LARGEST))
        for each in readers:
            each.join(timeout)
        if readers[0].is_alive() or readers[1].is_alive():
            os.kill(pid, signal.SIGKILL)
        code = int(self._socket.recv(LARGEST))
        for each in readers:
            each.join()
        return subprocess.CompletedProcess([*arguments], code, said[0], said[1])


def read(pipe: int, key: int, said: dict[int, str]) -> None:
    """Read a pipe to its end."""
    with os.fdopen(pipe, encoding="utf-8") as stream:
        said[key] = stream.read()


def forks(telling: socket.socket) -> str:
    """Fork as told until there is nobody who tells.

    Returns in each fork, which then is the command: the program that it runs instead of the usual one, or "".
    """
    while True:
        message, streams, _, _ = socket.recv_fds(telling, LARGEST, 2)
        if not message:
            sys.exit()
        pid = os.fork()
        if not pid:
            break
        for each in streams:
            os.close(each)
        telling.send(str(pid).encode())
        telling.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    telling.close()
    for number, each in enumerate(streams, 1):
        os.dup2(each, number)
        os.close(each)
    told = json.loads(message)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    time.tzset()
    sys.path[0] = told["folder"]
    sys.argv[1:] = told["arguments"]
    program: str = told["program"]
    if program:
        sys.path.append(str(Path(__file__).parent))
    return program


def main() -> None:
    """Import, fork, and be the command."""
    _, descriptor, program, *modules = sys.argv
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # or each fork would copy what its collector looks at
    another = forks(socket.socket(fileno=int(descriptor)))
    try:
        runpy.run_module(another or program, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        if isinstance(leaving.code, int):
            leave(leaving.code)
        raise


def leave(code: int) -> None:
    """End this process as the interpreter does, but leave its modules in place: to clear them would copy their memory.

    What nothing refers to is collected, so that it can complain.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
