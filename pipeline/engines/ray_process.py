"""The process of a run that speaks with Ray, and the task that is a worker, see `ray`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from typing import Any

from pipeline.cancellation import running
from pipeline.engines.channel import Channel, Trouble
from pipeline.engines.ray import Cancel, Cluster, Connect, Over, Place
from pipeline.errors import ClassifyError, ConfigError, ServerGone

WORKER = "pipeline.runs.worker"
LOOK_EVERY_S = 5.0  # at the cluster
ENDINGS = {
    "WorkerCrashedError": "was killed",
    "NodeDiedError": "lost its node",
    "LocalRayletDiedError": "lost its node",
    "OutOfMemoryError": "was ended by Ray, as its node was short of memory; see engine.memory_mb",
    "TaskCancelledError": "was cancelled",
}


def connect(address: str) -> Any:
    """Become a driver of a cluster; return Ray's module.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster. ServerGone: it does not answer.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError('engine.name = "ray" needs Ray; pip install "classify-pipeline[ray]"') from None
    if address.startswith("ray://"):
        raise ConfigError(f"engine.address: {address}: a run is a process of a node, not a client; use HOST:PORT")
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        advice = "start one with `ray start --head`, name it in engine.address, or use `ray job submit`"
        if address == "auto":
            raise ConfigError(f"no Ray cluster is on this machine; {advice}") from None
        raise ServerGone(f"the Ray cluster at {address} does not answer: {error}") from None
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the Ray cluster at {address}: {str(error).strip().splitlines()[0]}") from None
    return ray


def cluster_of(ray: Any) -> Cluster:
    """Return what a cluster has now."""
    has, free = ray.cluster_resources(), ray.available_resources()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return Cluster(
        host=ray.util.get_node_ip_address(),
        cores=int(has.get("CPU", 1)),
        nodes=[(node["NodeID"], node["NodeManagerAddress"]) for node in nodes],
        room=f"{free.get('CPU', 0):g} of {has.get('CPU', 0):g} CPUs, {free.get('memory', 0) / 2**20:,.0f} MB are free",
    )


class Placing:
    """Places workers until the run has ended."""

    def __init__(self, ray: Any, channel: Channel) -> None:
        self._ray, self._channel = ray, channel
        self._tasks: dict[str, Any] = {}  # references, by the tokens of the workers
        self._watching: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Do what the run says."""
        self._channel.send(cluster_of(self._ray))
        self._watch(self._look())
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Place):
                self._place(message)
            elif isinstance(message, Cancel) and message.token in self._tasks:
                self._ray.cancel(self._tasks[message.token], force=True)

    def _place(self, place: Place) -> None:
        # Ray can't tell a row that kills workers from a node that went away; the run can, and tries again itself.
        options: dict[str, Any] = {"name": place.name, "max_retries": 0}
        if place.node is None:
            options |= {"num_cpus": 1, "memory": place.memory_mb << 20, "scheduling_strategy": "SPREAD"}
        else:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            on_node = NodeAffinitySchedulingStrategy(place.node, soft=False)
            options |= {"num_cpus": 0, "scheduling_strategy": on_node}
        task = self._ray.remote(_work).options(**options).remote(WORKER, place.host, place.port, place.token)
        self._tasks[place.token] = task
        self._watch(self._tell_end(place.token, task))

    async def _tell_end(self, token: str, task: Any) -> None:
        self._channel.send(Over(token, await _how_it_ends(task)))
        del self._tasks[token]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._channel.send(await asyncio.to_thread(cluster_of, self._ray))

    def _watch(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)


async def _how_it_ends(task: Any) -> str:
    """Wait for a task, and say how it ended."""
    from ray.exceptions import RayError, RayTaskError

    try:
        return await task or "ended"
    except RayTaskError as error:
        return f"failed: {str(error).strip().splitlines()[-1]}"
    except RayError as error:
        name = type(error).__name__
        return ENDINGS.get(name, f"was lost ({name})")


# This is the main module, so Ray sends the function itself and not its name: it can say that our package is missing.
def _work(module: str, host: str, port: int, token: str) -> str | None:
    """Be a worker of a run, in a process of Ray; return what went wrong before it could begin."""
    import importlib

    import ray

    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    try:
        worker = importlib.import_module(module)
    except ImportError as error:
        return f"can't begin on node {node}: {error}; install classify-pipeline on all nodes"
    problem: str | None = worker.work_for(host, port, token, node)
    return problem


async def _end_with(channel: Channel) -> None:
    """End the process with the run, which says nothing more until it is connected: Ray may try that for ever."""
    if await channel.receive() is None:
        os._exit(1)


async def _serve(connection: socket.socket) -> None:
    channel = Channel(*await asyncio.open_connection(sock=connection))
    asked = await channel.receive()
    if isinstance(asked, Connect):
        try:
            async with running(_end_with(channel)):
                ray = await asyncio.to_thread(connect, asked.address)
        except ClassifyError as error:
            channel.send(Trouble.of(error))
        else:
            await Placing(ray, channel).run()
            ray.shutdown()
    await channel.close()


def main() -> None:
    """Be that process; the argument is the descriptor of the socket to the run."""
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
