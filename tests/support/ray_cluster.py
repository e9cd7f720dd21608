"""A Ray cluster of two nodes with workers on this machine. As a command it is the cluster, until its input ends.

    python tests/support/ray_cluster.py DIRECTORY

A line of JSON says its address and the process of each node that has workers. The head has none.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

CORES = 2  # of each node
STORE_BYTES = 80 << 20


class RayCluster:
    """A cluster; a context manager."""

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets need a short path
        command = [sys.executable, __file__, str(self.directory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        said = json.loads(self._process.stdout.readline())
        self.address: str = said["address"]
        self.raylets: list[int] = said["raylets"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("")
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def workers(self) -> list[int]:
        """The processes that are workers of a run now."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cmdline").read_bytes().startswith(b"ray::classify worker"):
                    found.append(int(process.name))
            except OSError:  # it has ended
                continue
        return sorted(found)

    def wait_for_workers(self, count: int) -> list[int]:
        """Until there are so many; a minute at most."""
        until = time.monotonic() + 60
        while len(found := self.workers) != count:
            assert time.monotonic() < until, f"{len(found)} workers, not {count}"
            time.sleep(0.05)
        return found

    def add_node(self) -> None:
        """Add a node with workers."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("add\n")
        self._process.stdin.flush()
        self.raylets.append(json.loads(self._process.stdout.readline()))


def main(directory: str) -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_TMPDIR"] = directory
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    head = {"include_dashboard": False, "object_store_memory": STORE_BYTES, "num_cpus": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)

    def add_node() -> int:
        for lost in [*cluster.worker_nodes]:  # it is waited for all that are known
            if lost.all_processes["raylet"][0].process.poll() is not None:
                cluster.remove_node(lost)
        node = cluster.add_node(num_cpus=CORES, object_store_memory=STORE_BYTES)
        cluster.wait_for_nodes()
        pid: int = node.all_processes["raylet"][0].process.pid
        return pid

    print(json.dumps({"address": cluster.address, "raylets": [add_node(), add_node()]}), flush=True)
    for _ in sys.stdin:
        print(add_node(), flush=True)
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1])
