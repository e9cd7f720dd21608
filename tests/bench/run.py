"""The benchmarks, with `make bench` or as a command of their own.

    python tests/bench/run.py [SECTION ...] [--rows N] [--rounds N] [--quick]

Every client runs as a process of its own, start-up included, pinned to one core, against a server in C pinned to
another; those that are compared take turns in every round. The first output of each kind is checked, row by row.

The tables go to stdout, and of a complete run into RESULTS.md (of a quick or partial one into build/RESULTS.md).
Exit code 1: a client failed or an output is wrong. 2: no C compiler. A missed target is only said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from measuring import BUILD, CLASSIFY, HERE, Cost, Server, corpus, fresh_output, machine, python, run, serving

FORMATS = ("parquet", "csv", "jsonl")
MIB_OF_GROWTH = 40.0
HELP_MS = 150.0
SMALL_CPU_S = 1.0
CHECKPOINT_SHARE = 0.15
RESUME_S = 2.0
LOOKUPS_S = 200_000.0
SENT_SHARE = 0.011


class Bench:
    """What all sections share: the server, the sizes, and the report."""

    def __init__(self, server: Server, rows: int, rounds: int) -> None:
        self.server, self.rows, self.rounds = server, rows, rounds
        self.report: list[str] = []
        self._verified: set[tuple[str, str]] = set()

    def client(self, name: str, kind: str, rows: int) -> Cost:
        """One run of a client over the corpus of so many rows."""
        given, made = corpus(rows, kind), fresh_output(kind)
        commands = {
            "ours": [CLASSIFY, "run", given, "-o", made, "--url", self.server.url, "--quiet"],
            "limit": python("limit.py", given, made, self.server.url),
            "minimal": python("limit.py", given, made, self.server.url, "keep"),
            "script": python("script.py", given, made, self.server.url),
            "memory": python("without_checkpoint.py", "memory", given, made, self.server.url),
            "real": python("without_checkpoint.py", "real", given, made, self.server.url),
        }
        cost = run(commands[name])
        if (name, kind) not in self._verified:
            run(python("verify.py", given, made))
            self._verified.add((name, kind))
        say(f"{name:7} {kind:8} {rows:>9,} rows  {cost.wall:6.2f} s  {cost.cpu:6.2f} s CPU  {cost.rss:5.0f} MiB")
        return cost

    def table(self, title: str, header: list[str], lines: list[list[str]], *notes: str) -> None:
        """Add a table to the report."""
        rule = ["---", *["---:"] * (len(header) - 1)]
        self.report += ["", f"## {title}", ""]
        self.report += [f"| {' | '.join(cells)} |" for cells in [header, rule, *lines]]
        self.report += ["", *notes] if notes else []


def say(line: str) -> None:
    """Progress, for who waits."""
    print(line, file=sys.stderr)


def spread(values: list[float], digits: int) -> str:
    """The median, and the least and the most if there are several."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def target(value: float, most: float, shown: str) -> str:
    """A measured value with a word on whether it keeps to its target."""
    return shown if value <= most else f"**{shown}: too much**"


def speed(bench: Bench) -> None:
    """Rows a second of ours, of the script people write, and of a client stripped to the bone."""
    kinds = [("ours", "parquet"), ("limit", "parquet"), ("script", "parquet")]
    kinds += [("ours", "csv"), ("minimal", "csv"), ("limit", "csv"), ("ours", "jsonl"), ("limit", "jsonl")]
    costs: dict[tuple[str, str], list[Cost]] = {kind: [] for kind in kinds}
    for _ in range(bench.rounds):
        for name, kind in kinds:
            costs[name, kind].append(bench.client(name, kind, bench.rows))

    def ratio(name: str, kind: str, other: str) -> str:
        if name == other or (other, kind) not in costs:
            return ""
        pairs = zip(costs[name, kind], costs[other, kind], strict=True)
        return spread([theirs.wall / our.wall for our, theirs in pairs], 2)

    lines = [
        [
            f"{kind}, {name}",
            spread([bench.rows / cost.wall / 1000 for cost in costs[name, kind]], 0),
            spread([cost.cpu / bench.rows * 1e6 for cost in costs[name, kind]], 2),
            f"{max(cost.rss for cost in costs[name, kind]):,.0f}",
            ratio(name, kind, "limit"),
            ratio(name, kind, "script"),
        ]
        for name, kind in kinds
    ]
    bench.table(
        f"Speed: {bench.rows:,} rows, {bench.rounds} rounds",
        ["client", "1,000 rows/s", "CPU-s per 1M rows", "peak RSS, MiB", "x limit", "x script"],
        lines,
        "Median (least-most) of the rounds; ratios are taken within a round. `limit`: no checkpoint, no retries, no",
        "checks, HTTP by hand, 256 texts a request as ours. `script`: pandas, aiohttp, gather, 64 texts a request.",
        "`minimal`, for CSV: as `limit`, but the csv module reads, and the bytes of the records are kept as ours are;",
        "`limit` reads and writes with pyarrow, which quotes every cell. Its ratio is in the column of `limit`.",
    )


def memory(bench: Bench) -> None:
    """The memory at the most must not grow with the file."""
    sizes = (bench.rows // 10, bench.rows)
    lines = []
    for kind in FORMATS:
        small, large = (bench.client("ours", kind, rows).rss for rows in sizes)
        growth = large - small
        lines.append([kind, f"{small:.0f}", f"{large:.0f}", target(growth, MIB_OF_GROWTH, f"{growth:+.0f}")])
    header = ["ours", *[f"{rows:,} rows" for rows in sizes], f"growth, at most {MIB_OF_GROWTH:.0f}"]
    bench.table("Memory: peak RSS in MiB", header, lines)


def startup(bench: Bench) -> None:
    """What a small job pays."""
    helped = [run([CLASSIFY, "--help"]).wall * 1000 for _ in range(10)]
    lines = [["`classify --help`, wall ms", spread(helped, 0), target(median(helped), HELP_MS, f"{HELP_MS:.0f}")]]
    for kind in FORMATS:
        costs = [bench.client("ours", kind, 1000) for _ in range(5)]
        cpu = [cost.cpu for cost in costs]
        lines.append([f"1,000 rows, {kind}, CPU s", spread(cpu, 2), target(median(cpu), SMALL_CPU_S, "1")])
        lines.append([f"1,000 rows, {kind}, wall s", spread([cost.wall for cost in costs], 2), ""])
    bench.table("Start-up", ["", "median (least-most)", "at most"], lines)


def checkpoint(bench: Bench) -> None:
    """The same pipeline with its answers kept in memory, next to the real one."""
    costs: dict[str, list[Cost]] = {"memory": [], "real": []}
    for _ in range(bench.rounds):
        for name, runs in costs.items():
            runs.append(bench.client(name, "parquet", bench.rows))
    shares = [1 - off.cpu / on.cpu for off, on in zip(costs["memory"], costs["real"], strict=True)]
    lines = [
        [
            name,
            spread([cost.cpu for cost in runs], 2),
            spread([cost.wall for cost in runs], 2),
            f"{max(cost.rss for cost in runs):.0f}",
        ]
        for name, runs in (("with", costs["real"]), ("without", costs["memory"]))
    ]
    share = target(median(shares), CHECKPOINT_SHARE, f"{median(shares):.1%}")
    bench.table(
        f"Checkpoint: {bench.rows:,} rows of Parquet, {bench.rounds} rounds",
        ["", "CPU s", "wall s", "peak RSS, MiB"],
        lines,
        f"Its share of the CPU time: {share} ({min(shares):.1%} to {max(shares):.1%}), at most {CHECKPOINT_SHARE:.0%}.",
    )


def resume(bench: Bench) -> None:
    """From the start of the process to the first request that is not one of the start-up."""
    lines = []
    for kind in FORMATS:
        given, made = corpus(bench.rows, kind), fresh_output(kind)
        command = [CLASSIFY, "run", given, "-o", made, "--url", bench.server.url, "--quiet"]
        waited = []
        for more in (["--limit-rows", str(bench.rows * 95 // 100)], []):
            bench.server.get("/reset")
            cost = run([*command, *more])
            waited.append(bench.server.get("/stats")["batch_at"] - cost.started)
            say(f"resume  {kind:8} first request after {waited[-1]:.2f} s, {cost.wall:.2f} s in all")
        run(python("verify.py", given, made))
        lines.append([kind, f"{waited[0]:.2f}", target(waited[1], RESUME_S, f"{waited[1]:.2f}")])
    bench.table(
        f"Resume: seconds until the first request, {bench.rows:,} rows",
        ["", "a fresh start", f"95 % done, at most {RESUME_S:.0f}"],
        lines,
    )


def stages(bench: Bench) -> None:
    """Where the time of a Parquet run goes."""
    rows = min(bench.rows, 200_000)
    given = corpus(rows, "parquet")
    runs = []
    for _ in range(bench.rounds):
        run(python("stages.py", given, bench.server.url))
        runs.append(json.loads((BUILD / "last.log").read_text()))
    whole = [bench.client("ours", "parquet", rows).cpu / rows * 1e6 for _ in range(bench.rounds)]
    small = [bench.client("ours", "parquet", 1000).cpu / rows * 1e6 for _ in range(bench.rounds)]
    steps = {step: median(each[step] for each in runs) for step in runs[0]}
    rest = median(whole) - median(small) - sum(steps.values())
    lines = [[step, f"{cost:.2f}", spread([each[step] for each in runs], 2)] for step, cost in steps.items()]
    lines.append(["start-up (a file of 1,000 rows)", f"{median(small):.2f}", spread(small, 2)])
    lines.append(["the rest: event loop, tasks, threads, progress", f"{rest:.2f}", ""])
    lines.append(["a whole run", f"{median(whole):.2f}", spread(whole, 2)])
    bench.table(
        f"Stages: {rows:,} rows of Parquet, microseconds of CPU a row",
        ["step", "median", "of the rounds"],
        lines,
        "The real functions, each over the whole file, one after the other (stages.py).",
    )


def reuse(bench: Bench) -> None:
    """The file of `run.reuse` by itself, and two nights with 1 % new rows in the second."""
    answers = BUILD / "reuse.sqlite"
    answers.unlink(missing_ok=True)
    run(python("reuse.py", "store", str(answers), str(bench.rows)))
    found = json.loads((BUILD / "last.log").read_text())
    lines = [[what, f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"] for what, value in found.items()]
    slowest = min(value for what, value in found.items() if "at once" in what)
    word = "kept" if slowest >= LOOKUPS_S else "**missed**"
    bench.table(
        f"Reuse: {bench.rows:,} stored answers, one core",
        ["", "texts a second, or as it says"],
        lines,
        f"At least {LOOKUPS_S:,.0f} texts a second are looked up: {word}.",
    )
    tonight = corpus(bench.rows, "parquet")
    tomorrow = str(BUILD / f"tomorrow-{bench.rows}.parquet")
    run(python("reuse.py", "tomorrow", tonight, tomorrow))
    nights = [
        ("without reuse", tonight, False),
        ("first night", tonight, True),
        ("second night, 1 % new", tomorrow, True),
        ("the same again", tomorrow, True),
    ]
    answers.unlink()
    bench.table(
        f"Reuse: nights of {bench.rows:,} rows of Parquet",
        ["", f"texts sent, at most {SENT_SHARE:.1%}", "texts a request", "wall s", "CPU s", "peak RSS, MiB"],
        [[name, *night(bench, given, answers if is_kept else None, name)] for name, given, is_kept in nights],
    )


def night(bench: Bench, given: str, answers: Path | None, name: str) -> list[str]:
    """One run: the cells of its line."""
    made = fresh_output("parquet")
    bench.server.get("/reset")
    kept = [] if answers is None else ["--set", f"run.reuse={answers}"]
    cost = run([CLASSIFY, "run", given, "-o", made, "--url", bench.server.url, "--quiet", *kept])
    run(python("verify.py", given, made))
    seen = bench.server.get("/stats")
    say(f"reuse   {name}: {seen['texts']:,} texts, {cost.wall:.2f} s, {cost.cpu:.2f} s CPU, {cost.rss:.0f} MiB")
    share = seen["texts"] / bench.rows
    is_later = answers is not None and name != "first night"
    sent = f"{seen['texts']:,} ({share:.2%})"
    return [
        target(share, SENT_SHARE, sent) if is_later else sent,
        f"{seen['texts'] / seen['requests']:.0f}",
        *(f"{value:,.{digits}f}" for value, digits in ((cost.wall, 2), (cost.cpu, 2), (cost.rss, 0))),
    ]


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "speed": speed,
    "memory": memory,
    "startup": startup,
    "checkpoint": checkpoint,
    "resume": resume,
    "stages": stages,
    "reuse": reuse,
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="Measure: rows a second, CPU, memory, start-up.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100,000 rows, one round")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    rows, rounds = (100_000, 1) if options.quick else (options.rows, options.rounds)

    started, facts = time.monotonic(), machine()
    with serving() as server:
        bench = Bench(server, rows, rounds)
        for name in options.sections or SECTIONS:
            say(f"-- {name}")
            SECTIONS[name](bench)
    facts.append("- the client on one core, the server on another")
    facts.append(f"- all of it took {time.monotonic() - started:.0f} s")
    text = "\n".join(["# Measured", "", "By `make bench` (tests/bench/run.py).", "", *facts, *bench.report, ""])
    is_complete = not options.sections and not options.quick
    (HERE if is_complete else BUILD).joinpath("RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
