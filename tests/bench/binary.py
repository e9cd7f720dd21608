"""JSON against binary answers: rows a second, and the CPU time that a row costs us. Writes BINARY.md.

    python tests/bench/binary.py [--rows N] [--rounds N] [--url URL=NAME ...] [--before DIRECTORY]

Against the server in C with 3 and 28 classes, and against running vLLM servers at `--url`. `--before` is a checkout of
an earlier version with its environment in .venv, whose JSON way is measured against ours. Each run has a process of its
own, which has made a small run before: start-up is not counted, and a process may be slower than the next one.
Ours and the server's have a core each. Two ways take turns, and who begins changes from pair to pair. On a machine that
has other work, the CPU time of a pair says more than its rows a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Self

from measuring import BUILD, HERE, corpus, fresh_output, machine, serving

SHORT = 60  # characters


def work() -> None:
    """Be one way: a command a line comes in, its exit code, wall and CPU seconds go out."""
    from pipeline.cli import main as classify

    for line in sys.stdin:
        began, cpu_before = time.monotonic(), time.process_time()
        code = classify(json.loads(line))
        print(json.dumps([code, time.monotonic() - began, time.process_time() - cpu_before]), flush=True)


class Way:
    """A process that runs one version with some options; a context manager."""

    def __init__(self, name: str, root: str, python: str, options: list[str]) -> None:
        self.name, self._root, self._python, self._options = name, root, python, options

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._python, str(HERE / "binary.py"), "--work"],
            env=os.environ | {"PYTHONPATH": self._root},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # its input ends

    def once(self, given: str, url: str) -> tuple[float, float, bytes]:
        """Run it over a file; return wall and CPU seconds, and the output."""
        made = fresh_output("parquet")
        words = ["run", given, "-o", made, "--url", url, "--quiet", *self._options]
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        print(json.dumps(words), file=stdin, flush=True)
        code, wall, cpu = json.loads(stdout.readline())
        assert code == 0
        return wall, cpu, Path(made).read_bytes()


def short(rows: int) -> str:
    """Return a corpus of texts that a small model takes, too."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path, table = BUILD / f"short-{rows}.parquet", pq.read_table(corpus(rows, "parquet"))
    texts = pc.utf8_slice_codeunits(table["text"], 0, SHORT)  # type: ignore[attr-defined,unused-ignore]
    pq.write_table(table.set_column(table.column_names.index("text"), "text", texts), path)
    return str(path)


def compare(title: str, ways: tuple[Way, Way], url: str, given: str, rounds: int) -> list[str]:
    """Let two ways take turns; return a table."""
    first, second = ways
    rows = int(Path(given).stem.partition("-")[2])
    outputs: dict[str, bytes] = {}
    costs: dict[str, list[tuple[float, float]]] = {first.name: [], second.name: []}
    for index in range(rounds):
        for way in (first, second) if index % 2 else (second, first):
            with way:
                way.once(corpus(1000, "parquet"), url)
                wall, cpu, outputs[way.name] = way.once(given, url)
            print(f"{title}  {way.name:8} {wall:6.2f} s {cpu:6.2f} s CPU", file=sys.stderr)
            costs[way.name].append((wall, cpu))
    lines = [f"| {title} | 1,000 rows/s | CPU, us a row: median | least |", "| --- | ---: | ---: | ---: |"]
    for name, each in costs.items():
        walls, cpus = zip(*each, strict=True)
        speed = rows / median(walls) / 1000
        lines.append(f"| {name} | {speed:,.1f} | {median(cpus) / rows * 1e6:.2f} | {min(cpus) / rows * 1e6:.2f} |")
    pairs = [*zip(costs[first.name], costs[second.name], strict=True)]
    faster, cheaper = (sorted(one[at] / other[at] for one, other in pairs) for at in (0, 1))
    shown = [f"x {median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})" for each in (faster, cheaper)]
    least = min(cpu for _, cpu in costs[first.name]) / min(cpu for _, cpu in costs[second.name])
    same = "equal, byte for byte" if outputs[first.name] == outputs[second.name] else "not the same bytes"
    low, _, high = quantiles(cheaper, n=4) if len(cheaper) > 1 else (*cheaper, 0, *cheaper)
    lines += [f"| {second.name} is faster, cheaper, by pairs | {shown[0]} | {shown[1]} | x {least:.2f} |", ""]
    return [
        *lines,
        f"{rows:,} rows, {rounds} pairs (half of the CPU ratios: {low:.2f} to {high:.2f}); outputs {same}.",
        "",
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Measure binary answers against JSON.")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--vllm-rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--url", action="append", default=[], metavar="URL=NAME")
    parser.add_argument("--before", metavar="DIRECTORY")
    parser.add_argument("--classes", type=int, nargs="*", default=[3, 28])
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work()
    started, root = time.monotonic(), str(HERE.parents[1])
    lines: list[str] = []

    def add(table: list[str]) -> None:
        lines.extend(table)
        (HERE / "BINARY.md").write_text("\n".join(lines) + "\n")

    add(["# Binary answers against JSON", "", "By tests/bench/binary.py.", "", *machine(), ""])

    def ours(form: str, name: str = "") -> Way:
        return Way(name or form, root, sys.executable, ["--set", f"request.format={form}"])

    for classes in options.classes:
        with serving("--classes", str(classes)) as server:
            ways, title = (ours("json"), ours("binary")), f"server in C, {classes} classes"
            add(compare(title, ways, server.url, corpus(options.rows, "parquet"), options.rounds))
    for each in options.url:
        url, _, title = each.partition("=")
        add(compare(title, (ours("json"), ours("binary")), url, short(options.vllm_rows), options.rounds))
    if options.before:
        ways = Way("before", options.before, f"{options.before}/.venv/bin/python", []), ours("json", "now")
        with serving() as server:
            title = "JSON before and now, server in C, 3 classes"
            add(compare(title, ways, server.url, corpus(options.rows, "parquet"), options.rounds))
    add([f"All of it took {time.monotonic() - started:.0f} s."])
    return None


if __name__ == "__main__":
    main()
