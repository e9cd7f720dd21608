"""The section of workers, `[engine]`; see `sections` for how keys are documented."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

SHARDS_A_WORKER = 16  # of a file, so that the last ones end at about the same time
LEAST_SHARD, MOST_SHARD = 65_536, 1 << 20  # rows


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many processes answer the rows of a run."""

    name: Literal["local", "ray"] | None = None
    """Where workers are: `"local"`, on this machine, which is also meant where only `workers` is set, or `"ray"`, on a
    Ray cluster (the extra `ray`).

    Example: "local"
    """
    workers: Annotated[int, msgspec.Meta(ge=1)] | Literal["auto"] | None = None
    """Processes that read the input and ask the servers. `"auto"` is one for each core, of the cluster with Ray.

    Default: `"auto"` with `name`; else this process does the work itself.

    With more than one, this process only starts them, keeps what they answer, and writes the output, which is the
    same. Worth it where one process has no more to give: above some hundred thousand rows a second.

    Example: 4
    """
    shard_rows: Annotated[int, msgspec.Meta(ge=1)] | Literal["auto"] = "auto"
    """Rows that a worker is given at a time. `"auto"`: a sixteenth of its share, from 65,536 to 1,048,576."""
    retries: Annotated[int, msgspec.Meta(ge=0)] = 5
    """How often a worker may end before it has answered anything, until the run ends with exit code 75."""

    address: str = "auto"
    """The Ray cluster: `HOST:PORT` of its head, or `"auto"`, the one that this machine is a node of."""
    memory_mb: Annotated[int, msgspec.Meta(ge=1)] = 512
    """Memory that Ray is asked for each worker, in megabytes."""
    pass_env: list[str] = []
    """Names of environment variables that workers on other nodes are sent; all others they have from their node.

    The values go through the run's own connection, and are in no log of Ray.

    Example: ["VLLM_API_KEY"]
    """

    def workers_on(self, cores: int) -> int:
        """Return the number of workers where so many cores are; 1: on this machine none but this process."""
        workers = self.workers or ("auto" if self.name else 1)
        return max(1, cores) if workers == "auto" else workers

    def rows_of(self, rows: int, workers: int) -> int:
        """Return the rows of a shard of a file with so many rows, which so many workers share."""
        if self.shard_rows != "auto":
            return self.shard_rows
        return min(max(rows // (SHARDS_A_WORKER * workers), LEAST_SHARD), MOST_SHARD)


def cores_here() -> int:
    """Return how many cores this process may use, in a container, too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups, or "max"
        return cores
