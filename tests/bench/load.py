"""Ours against a real vLLM, next to a bare loop that only sends: whether the server is ever left waiting.

    python tests/bench/load.py [--rows N] [--rounds N]

The loop has its texts and bodies ready, speaks HTTP by hand, checks nothing and writes nothing; of it, only the time
between the first request and the last answer counts. Ours is the whole command with its defaults, start-up included.
All take turns in every round, each with fresh texts. The table goes to stdout and into LOAD.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "real")]

from limit import Connection  # noqa: E402
from measuring import BUILD, CLASSIFY, machine, run  # noqa: E402
from serving import Real, missing  # noqa: E402

# Texts a request, requests in flight.
SETTINGS = ((64, 16), (256, 1), (256, 2), (256, 4), (256, 8), (256, 16), (1024, 4))
OURS = "ours, defaults"


async def load(url: str, model: str, texts: list[str], size: int, in_flight: int) -> float:
    """Seconds that a bare loop takes for all texts."""
    parts = (texts[start : start + size] for start in range(0, len(texts), size))
    bodies = iter([json.dumps({"model": model, "input": part}).encode() for part in parts])
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80

    async def worker() -> None:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
        for body in bodies:
            await connection.post(body)

    began = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(in_flight)])
    return time.perf_counter() - began


def ours(url: str, texts: list[str]) -> float:
    """Seconds of the whole command."""
    given, made = BUILD / "load.jsonl", BUILD / "load_out.jsonl"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return run([CLASSIFY, "run", str(given), "-o", str(made), "--url", url, "--quiet", "--restart"]).wall


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="Compare a run on a real vLLM with a bare loop.")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if reason := missing("vllm"):
        raise SystemExit(f"needs a real vLLM: {reason}")
    BUILD.mkdir(exist_ok=True)
    facts = machine()
    speeds: dict[str, list[float]] = {}
    with Real("vllm", "tiny-qwen") as server:
        url = server.url
        with urllib.request.urlopen(f"{url}/v1/models") as answer:  # noqa: S310 - it is http
            model = json.loads(answer.read())["data"][0]["id"]
        for number in range(options.rounds):
            for setting in (*SETTINGS[:4], None, *SETTINGS[4:]):
                texts = [f"a short text {number} {setting} {row}" for row in range(options.rows)]
                name = OURS if setting is None else f"loop, {setting[0]} texts x {setting[1]}"
                spent = ours(url, texts) if setting is None else asyncio.run(load(url, model, texts, *setting))
                speeds.setdefault(name, []).append(options.rows / spent)
                print(f"{name:24} {options.rows / spent:8.0f} rows/s", file=sys.stderr)
    best = max(median(found) for name, found in speeds.items() if name != OURS)
    lines = [
        f"| {name} | {median(found):,.0f} ({min(found):,.0f}-{max(found):,.0f}) | {median(found) / best:.2f} |"
        for name, found in speeds.items()
    ]
    head = ["# A real vLLM, kept busy", "", f"By `tests/bench/load.py`: {options.rows:,} short rows, medians of "]
    head[-1] += f"{options.rounds} rounds (least-most). Wanted: ours at least 0.95 of the best loop."
    table = ["", *facts, "", "| | rows/s | of the best loop |", "| --- | ---: | ---: |", *lines, ""]
    (HERE / "LOAD.md").write_text("\n".join([*head, *table]))
    print("\n".join([*head, *table]))


if __name__ == "__main__":
    main()
