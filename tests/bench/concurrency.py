"""Does `concurrency = "auto"` find the level at which a server gives its most? A sweep of fixed settings says.

    python tests/bench/concurrency.py [SCENARIO ...] [--rounds N] [--quick]

Every setting is a run of the whole command, start-up and climb included, and the settings take turns in every round.
The servers are the suite's fake one with so many slots, each busy for a while with a request, and a real vLLM where
`make vllm` was run. The table goes to stdout and, of all scenarios at full length, into CONCURRENCY.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "real")]

from fake import FakeServer  # noqa: E402 - the suite is no package
from measuring import BUILD, CLASSIFY, machine, run  # noqa: E402
from serving import Real, missing  # noqa: E402

Setting = int | str
WITHIN = 0.95  # of the best fixed setting
REFUSED = 0.02  # of the requests, at most


@dataclass
class Scenario:
    """A server, how much it is sent, and the settings to be compared."""

    name: str
    rows: int
    texts: Setting  # a request
    fixed: tuple[int, ...]
    server: Callable[[], Any]
    fixed_texts: tuple[int, ...] = ()  # for each of `fixed`, where that differs from `texts`
    after: Callable[[Any, int], None] | None = None  # told the server before each run, with the rows
    results: dict[str, list[tuple[float, int, int]]] = field(default_factory=dict)  # rows/s, requests, retries

    def settings(self) -> Iterator[tuple[str, Setting, Setting]]:
        """Name, texts a request and concurrency of what is compared; auto comes in the middle, not always last."""
        texts: tuple[Setting, ...] = self.fixed_texts or (self.texts,) * len(self.fixed)
        pairs: list[tuple[str, Setting, Setting]] = [
            (f"{level}" if size == self.texts else f"{level} of {size} texts", size, level)
            for level, size in zip(self.fixed, texts, strict=True)
        ]
        middle = len(pairs) // 2
        yield from [*pairs[:middle], ("auto", self.texts, "auto"), *pairs[middle:]]


@contextmanager
def fake(**settings: Any) -> Iterator[FakeServer]:
    """A server in slots."""
    with FakeServer(**settings) as server:
        yield server


def halve_in_the_middle(server: FakeServer, rows: int) -> None:
    """From half of the rows on, half of the slots are taken away for good."""
    loop, slots, seen = server._loop, server.slots or 0, 0
    fresh = asyncio.Semaphore(slots)
    server._slots = fresh
    tasks: list[Any] = []

    def count(texts: list[str]) -> None:
        nonlocal seen
        seen += len(texts)
        if seen >= rows // 2 and not tasks:
            tasks.extend(loop.create_task(fresh.acquire()) for _ in range(slots // 2))

    server.each = count


def scenarios(scale: float) -> list[Scenario]:
    """What is compared; `scale` 1 is some six minutes for a round."""
    found = [
        Scenario("8 slots, 50 ms", int(24_000 * scale), 16, (4, 8, 16), lambda: fake(slots=8, latency_s=0.05)),
        Scenario(
            "256 slots, 500 ms",
            int(90_000 * scale),
            4,
            (256, 512),
            lambda: fake(slots=256, latency_s=0.5),
        ),
        Scenario(
            "32 slots, 100 ms, in the middle only 16",
            int(32_000 * scale),
            8,
            (16, 32, 64),
            lambda: fake(slots=32, latency_s=0.1),
            after=halve_in_the_middle,
        ),
        Scenario(
            "503 over 64 texts, 20 ms",
            int(20_000 * scale),
            "auto",
            (1, 2, 4),
            lambda: fake(latency_s=0.02, queue_texts=64),
            fixed_texts=(64, 32, 16),
        ),
    ]
    if reason := missing("vllm"):
        print(f"without a real vLLM ({reason})", file=sys.stderr)
    else:
        vllm = Scenario(
            "a real vLLM, a tiny model", int(20_000 * scale), "auto", (1, 4, 16), lambda: Real("vllm", "tiny-qwen")
        )
        vllm.fixed_texts = (256,) * len(vllm.fixed)
        found.append(vllm)
    return found


def measure(scenario: Scenario, server: Any, round_: int) -> None:
    """One run of each setting."""
    url = server if isinstance(server, str) else server.url
    for name, texts, concurrency in scenario.settings():
        given, made = BUILD / "sweep.jsonl", BUILD / "sweep_out.jsonl"
        mark = f"{round_}{name}{time.monotonic_ns()}"  # fresh texts: a server may know the old ones by heart
        given.write_text(
            "".join(json.dumps({"text": f"a short text {mark} {row}"}) + "\n" for row in range(scenario.rows))
        )
        if scenario.after:
            scenario.after(server, scenario.rows)
        settings = [f"request.rows={texts}", f"request.concurrency={concurrency}"]
        arguments = [part for setting in settings for part in ("--set", setting)]
        cost = run([CLASSIFY, "run", str(given), "-o", str(made), "--url", url, "--quiet", "--restart", *arguments])
        record = json.loads((BUILD / ".sweep_out.jsonl.run.json").read_text())
        result = (scenario.rows / cost.wall, record["requests"], record["retries"])
        scenario.results.setdefault(name, []).append(result)
        print(
            f"{scenario.name:42} {name:16} {result[0]:8.0f} rows/s, {result[1]} requests, {result[2]} again",
            file=sys.stderr,
        )


def report(scenario: Scenario) -> tuple[list[str], bool]:
    """The lines of a scenario in the table, and whether auto did what it should."""
    speeds = {name: median(speed for speed, _, _ in runs) for name, runs in scenario.results.items()}
    auto = speeds.pop("auto")
    best = max(speeds, key=lambda name: speeds[name])
    requests = sum(requests for _, requests, _ in scenario.results["auto"])
    refused = sum(again for _, _, again in scenario.results["auto"]) / requests
    is_good = auto >= WITHIN * speeds[best] and refused <= REFUSED
    fixed = ", ".join(f"{name}: {speed:,.0f}" for name, speed in speeds.items())
    shown = f"{auto / speeds[best]:.2f}" if is_good else f"**{auto / speeds[best]:.2f}**"
    return [scenario.name, fixed, best, f"{auto:,.0f}", shown, f"{refused:.1%}"], is_good


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description='Compare concurrency = "auto" with fixed settings.')
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="a part of its name (default: all)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one round")
    options = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    begun, facts = time.monotonic(), machine()
    chosen = [
        each
        for each in scenarios(0.1 if options.quick else 1)
        if not options.scenarios or any(part in each.name for part in options.scenarios)
    ]
    for scenario in chosen:
        with scenario.server() as server:
            for round_ in range(1 if options.quick else options.rounds):
                measure(scenario, server, round_)
    rows = [report(scenario)[0] for scenario in chosen]
    header = ["server", "fixed, rows/s", "best", "auto, rows/s", "auto / best", "asked again"]
    table = [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]]
    text = "\n".join(
        [
            "# Concurrency, found and given",
            "",
            "By `tests/bench/concurrency.py`: medians of the rounds, start-up, climb and join included.",
            f"Wanted: auto / best at least {WITHIN}, asked again at most {REFUSED:.0%}.",
            "",
            *facts,
            f"- all of it took {time.monotonic() - begun:.0f} s",
            "",
            *table,
            "",
        ]
    )
    is_complete = not options.scenarios and not options.quick
    (HERE if is_complete else BUILD).joinpath("CONCURRENCY.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
