"""The demo: classify each sample file with the built-in server, show the first rows, and report on the labels."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("classify")
OUT = ROOT / "out"
CONFIG = ROOT / "configs" / "demo.toml"
REPORT = ("report", "out/reviews_labelled.csv", "--truth", "language", "-o", "out/reviews.html")
OPEN = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")


def main() -> None:
    """Run `classify run` once a format, as a user would; what is shown can be typed in the checkout as it stands."""
    typed = COMMAND.relative_to(ROOT) if COMMAND.is_relative_to(ROOT) else "classify"
    OUT.mkdir(exist_ok=True)
    for ending in ("parquet", "jsonl", "csv"):
        source, output = ROOT / "data" / f"reviews.{ending}", OUT / f"reviews_labelled.{ending}"
        command = [sys.executable, "-m", "pipeline", "run", str(CONFIG), "-i", str(source), "-o", str(output)]
        print(f"\n$ {typed} run configs/demo.toml -i data/{source.name} -o out/{output.name}", flush=True)
        subprocess.run([*command, "--restart"], check=True)
    with (OUT / "reviews_labelled.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print("\nout/reviews_labelled.csv:\n")
    for row in rows[:8]:
        review = " ".join(row["review"].split())
        print(f"  {row['predicted_label']}  {float(row['predicted_score']):.3f}  {review[:90]}")
    page = OUT / "reviews.html"
    print(
        f"\nThe column `language` has the right label. What are these worth?\n\n$ {typed} {' '.join(REPORT)}",
        flush=True,
    )
    subprocess.run([sys.executable, "-m", "pipeline", *REPORT], check=True, cwd=ROOT)
    print(f"\nThe report as a page: {OPEN} {page.relative_to(ROOT)}")
    print("Try it, as it stands here; then with a file of your own, and the column that holds its texts:\n")
    print(f'  {typed} text "Guten Morgen" "buenos días" --url embedded')
    print(f"  {typed} run data/reviews.csv -t review -o out/mine.csv --url embedded")
    print("\nTo type `classify` in any directory: pipx install . (or: uv tool install .)")


if __name__ == "__main__":
    main()
