"""A thousand small files next to one large one of the same rows: what each file costs by itself.

    python tests/bench/many.py [--rounds N] [--files N] [--rows N]

The server takes 5 ms for a request and works on 16 at once. Both runs are the whole command, start-up included, and
take turns; nothing is pinned. The table goes to stdout and into MANY.md. Exit code 1: an output is missing.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from measuring import BUILD, CLASSIFY, HERE, Cost, corpus, fresh_output, machine, run, serving

OUTPUTS = BUILD / "many-out"
FORMATS = ("parquet", "csv", "jsonl")
PROBES, CALM_S, PATIENCE = 300, 0.0002, 40  # files, seconds each, tries
WITHIN = 1.5  # times what one file takes


def split(kind: str, files: int, rows: int) -> Path:
    """The corpus of so many files of `rows` rows each, as files in a directory."""
    folder = BUILD / f"many-{files}x{rows}-{kind}"
    if folder.exists():
        return folder
    whole = Path(corpus(files * rows, kind))
    half = folder.with_name(f"{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    write = {"parquet": _parquet_writer, "csv": _csv_writer, "jsonl": _line_writer}[kind](whole, rows)
    for number in range(files):
        write(number, half / f"part-{number:05}.{kind}")
    return half.rename(folder)


def _parquet_writer(whole: Path, rows: int) -> Callable[[int, Path], None]:
    table = pq.read_table(whole)
    return lambda number, path: pq.write_table(table.slice(number * rows, rows), path)


def _csv_writer(whole: Path, rows: int) -> Callable[[int, Path], None]:
    with whole.open(newline="") as file:
        head, *records = csv.reader(file)

    def write(number: int, path: Path) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *records[number * rows : (number + 1) * rows]])

    return write


def _line_writer(whole: Path, rows: int) -> Callable[[int, Path], None]:
    lines = whole.read_bytes().split(b"\n")
    return lambda number, path: _write(path, lines[number * rows : (number + 1) * rows])


def _write(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def wait_for_calm(folder: Path) -> None:
    """For minutes after many files were deleted, by a test say, ext4 is slow to make one: wait until it is not.

    Its search for a free inode passes by all that were used lately. This has nothing to do with what is measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(PATIENCE):
        probe = folder / f"probe-{time.time_ns()}"
        probe.mkdir()
        began = time.perf_counter()
        for number in range(PROBES):
            (probe / f"{number}").write_bytes(b"x")
        if time.perf_counter() - began < PROBES * CALM_S:
            return
        time.sleep(10)
    print("the file system is slow to make files; the figures show it", file=sys.stderr)


def measure(url: str, kind: str, folder: Path, files: int, rows: int) -> tuple[Cost, Cost]:
    """One large file, then the small ones."""
    more = ["--url", url, "--quiet"]
    one = run([CLASSIFY, "run", corpus(files * rows, kind), "-o", fresh_output(kind), *more])
    # Nothing is deleted in between.
    made = OUTPUTS / f"{time.time_ns()}"
    wait_for_calm(OUTPUTS)
    many = run([CLASSIFY, "run", str(folder), "-o", f"{made}/", *more])
    if len(list(made.glob(f"part-*.{kind}"))) != files:
        raise SystemExit("an output is missing")
    print(f"{kind:8} one {one.wall:.2f} s, many {many.wall:.2f} s, {many.wall / one.wall:.2f} x", file=sys.stderr)
    return one, many


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="Compare many small files with one large one.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    shutil.rmtree(OUTPUTS, ignore_errors=True)
    facts, lines = machine(), []
    folders = {kind: split(kind, options.files, options.rows) for kind in FORMATS}
    with serving("--latency-ms", "5", "--slots", "16", pinned=False) as server:
        for kind, folder in folders.items():
            costs = [measure(server.url, kind, folder, options.files, options.rows) for _ in range(options.rounds)]
            ratios = [many.wall / one.wall for one, many in costs]
            each = [(many.cpu - one.cpu) / options.files * 1000 for one, many in costs]
            cells = [median(cost.wall for cost, _ in costs), median(cost.wall for _, cost in costs), median(ratios)]
            lines.append(
                f"| {kind} | {cells[0]:.2f} | {cells[1]:.2f} | {cells[2]:.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                f"| {median(each):.1f} |"
            )
    title = f"{options.files:,} files of {options.rows} rows, next to one of {options.files * options.rows:,}"
    head = ["# Many files", "", f"By `tests/bench/many.py`: {title}; medians of {options.rounds} rounds (least-most)."]
    head += [f"Wanted: at most {WITHIN} x.", "", *facts, ""]
    table = ["| | one, s | many, s | x one | CPU ms a file more |", "| --- | ---: | ---: | ---: | ---: |", *lines, ""]
    (HERE / "MANY.md").write_text("\n".join([*head, *table]))
    print("\n".join([*head, *table]))


if __name__ == "__main__":
    main()
