"""Do clients of one server that know nothing of each other share it, and keep its queue short? A simulation says.

    python tests/bench/sharing.py [--quick]

The table goes to stdout and into SHARING.md, the picture of two clients into pipeline/docs/two-clients.svg (it needs
matplotlib). Every figure is the worst of three seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "support")]

from many_clients import Result, Server, simulate, staggered  # noqa: E402 - the suite is no package

from pipeline.servers.limiter import Limiter  # noqa: E402

PICTURE = HERE.parents[1] / "pipeline/docs/two-clients.svg"
SECONDS, WARM_UP, STAGGER = 120, 48, 60
SERVERS = {
    "16 slots": Server(16),
    "256 slots": Server(256),
    "16 slots, batches": Server(16, batches=True),
    "16 slots, refuses beyond 32 waiting": Server(16, most_waiting=32),
}
HEAD = f"""# Clients that share a server

By `tests/bench/sharing.py`: simulated, slots of 100 ms, {SECONDS} s of which the first {WARM_UP} are not counted;
clients come at random within {STAGGER} s. In each row the worst of three seeds. "Fair" is Jain's index of the
clients' rates while they were there.

| server | clients | throughput / most | in flight, mean | peak | latency | fair | refused |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def of(clients: int, server: Server, seed: int) -> Result:
    """One simulation."""
    limiters = [Limiter("auto", chance=Random(f"{seed} {client}")) for client in range(clients)]
    starts = staggered(clients, STAGGER, seed)
    return simulate(limiters, server, seconds=SECONDS, starts=starts, warm_up=WARM_UP, seed=seed)


def row(name: str, clients: int, results: list[Result]) -> str:
    """The line of the table."""
    throughput, fair = min(each.throughput for each in results), min(each.fairness for each in results)
    in_flight, peak = max(each.in_flight for each in results), max(each.peak for each in results)
    latency, refused = max(each.latency for each in results), max(each.refused for each in results)
    cells = (
        name,
        clients,
        f"{throughput:.2f}",
        f"{in_flight:.0f}",
        peak,
        f"{latency:.2f} s",
        f"{fair:.2f}",
        f"{refused:.1%}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def draw(path: Path) -> None:
    """Draw the limits of two clients, of which the second comes after 20 s and the first goes after 60 s."""
    from matplotlib.figure import Figure

    limiters = [Limiter("auto", chance=Random(client)) for client in range(2)]
    result = simulate(limiters, Server(16), seconds=80, starts=[0, 20], stops=[60, 80], warm_up=1, seed=1)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    times = [moment for moment, _ in result.limits]
    for client, (begin, end) in enumerate(((0, 60), (20, 80))):
        of_client = [limits[client] if begin <= moment < end else None for moment, limits in result.limits]
        axes.step(times, of_client, where="post", linewidth=1, label=f"client {client + 1}")  # type: ignore[arg-type]
    axes.axhline(16, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="seconds", ylabel="limit", ylim=(0, None), title="Two clients of a server with 16 slots of 100 ms")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the table and write it, with the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, nothing is written")
    quick = parser.parse_args().quick
    lines = []
    for name, server in SERVERS.items():
        for clients in (1, 2, 4, 16, 64):
            lines.append(row(name, clients, [of(clients, server, seed) for seed in range(1, 2 if quick else 4)]))
            print(lines[-1], flush=True)
    if not quick:
        (HERE / "SHARING.md").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
        draw(PICTURE)


if __name__ == "__main__":
    main()
