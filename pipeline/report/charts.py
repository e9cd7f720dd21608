"""The pictures of the page: matplotlib's SVG, with numbers alone on its axes, and colours that the page decides.

Labels never stand in a picture: they may be of any script and length, and no font has them all.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.report.document import Document

# Colours that stand for the names of the style, and are replaced by these in the SVG.
ACCENT, INK, MUTED, LINE = "#0a0001", "#0a0002", "#0a0003", "#0a0004"
NAMES = {ACCENT: "--accent", INK: "--ink", MUTED: "--muted", LINE: "--line"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "classify",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "ytick.major.size": 0,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
# Where most scores are near 1, a histogram over ever more nines; else it would be a wall at its right end.
STEPS = (
    *(0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
    *(0.9995, 0.9998, 0.9999, 0.99995, 0.99998, 0.99999, 1),
)
SURE, MOST_ARE_SURE = 0.98, 0.6
LEAST = 0.0005  # share of the rows of a step, below which an axis need not begin
WIDE, TALL = (6.4, 2.75), (6.4, 4.1)  # inches, of which the page makes what fits


def score_chart(document: Document) -> str:
    """Draw the histogram of the scores, with that of then as an outline."""
    scores = document["scores"]
    edges, now = _rebinned(scores, scores["counts"])
    is_sure = len(edges) == len(STEPS)

    def draw(axes: Axes) -> None:
        axes.stairs(now, edges, fill=True, color=ACCENT, alpha=0.8, label="this run", lw=0)
        if drift := document.get("drift"):
            then = _rebinned(scores, drift["scores"]["counts"])[1]
            axes.stairs(then, edges, color=INK, lw=1.6, label="then")
            axes.legend(loc="upper left", handlelength=1.4)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0 if now.max() > 0.05 else 1))  # noqa: PLR2004
        axes.set(xlabel="score of the label", ylabel="share of rows")
        axes.grid(visible=False, axis="x")
        first = int(np.argmax(now > LEAST))
        if is_sure:
            axes.set_xticks(edges, [f"{step:g}" if at % 3 == 0 or at == 1 else "" for at, step in enumerate(STEPS)])
            axes.set_xlim(first, len(STEPS) - 1)
        else:
            axes.set_xlim(max(0, edges[first] - 0.02), 1)

    return _drawn("Histogram of the scores", WIDE, draw)


def length_chart(document: Document) -> str:
    """Draw the share of the rows, and their mean score, by the length of their text."""
    steps = document["lengths"]
    names = [f"{step['from']:,}+" for step in steps]
    share = [step["rows"] / max(1, document["rows"]["all"]) for step in steps]
    score = [np.nan if step["score"] is None else step["score"] for step in steps]

    def draw(axes: Axes) -> None:
        axes.bar(names, share, 0.85, color=LINE)
        axes.plot(names, score, color=ACCENT, marker="o", lw=2, ms=5)
        _note(axes, "mean score", (len(names) - 1, score[-1]), (-1, -12), ACCENT)
        top = int(np.argmax(share))
        _note(axes, "rows", (top, share[top]), (0, -4), MUTED)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.set(xlabel="characters of the text", ylim=(0, 1.03))
        axes.grid(visible=False, axis="x")

    return _drawn("Share of rows and mean score, by the length of the text", WIDE, draw)


def calibration_chart(bins: Sequence[dict[str, Any]]) -> str:
    """Draw how often labels are right, by score, with intervals; on the dashed line scores mean what they say."""
    score = [each["score"] for each in bins]
    right, low, high = zip(*(each["right"] for each in bins), strict=True)
    start = max(0.0, min([*score, *low]) - 0.05)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, ls=(0, (4, 3)), lw=1)
        axes.fill_between(score, low, high, color=ACCENT, alpha=0.18, lw=0)
        axes.plot(score, right, color=ACCENT, lw=2, marker="o", ms=5)
        middle = start + (1 - start) / 2
        _note(axes, "scores come true", (middle, middle), (-6, 6), MUTED)
        axes.set(xlabel="score", ylabel="right", xlim=(start, 1), ylim=(start, 1.005))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))

    return _drawn("How often labels are right, by score", TALL, draw)


def keep_chart(keep: dict[str, Any]) -> str:
    """Draw what is right among the rows that are kept, by how many are kept, with the thresholds of the targets."""
    curve = np.array(keep["curve"])
    _, coverage, right = curve.T

    def draw(axes: Axes) -> None:
        axes.plot(coverage, right, color=ACCENT, lw=2)
        for target in keep["targets"]:
            if target["threshold"] is not None and 0.02 < target["coverage"] < 0.995:  # noqa: PLR2004 - room for it
                at = int(np.argmin(abs(coverage - target["coverage"])))
                axes.plot(coverage[at], right[at], "o", ms=6, color=INK)
                _note(axes, f"score ≥ {target['threshold']:.4g}", (coverage[at], right[at]), (-8, -4), INK)
        axes.set(xlabel="share of rows kept", ylabel="right among them", xlim=(0, 1.005))
        axes.set(ylim=(max(0, min(0.95, right.min() - 0.01)), 1.002))
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))

    return _drawn("How many of the rows that are kept are right, by how many are kept", TALL, draw)


def _rebinned(scores: dict[str, Any], counts: Sequence[int]) -> tuple[Any, Any]:
    """Return where to draw steps, and the share of the rows in each: even ones, or `STEPS` where most are sure."""
    edges, now = np.array(scores["edges"]), np.array(scores["counts"])
    is_sure = now[edges[:-1] >= SURE - 1e-9].sum() > MOST_ARE_SURE * now.sum()
    wanted = np.array(STEPS) if is_sure else np.linspace(0, 1, 51)
    where = np.minimum(np.searchsorted(wanted, (edges[1:] + edges[:-1]) / 2, "right") - 1, len(wanted) - 2)
    shares = np.bincount(where, counts, len(wanted) - 1) / max(1, sum(counts))
    return np.arange(len(wanted)) if is_sure else wanted, shares


def _note(axes: Axes, text: str, at: tuple[float, float], off: tuple[int, int], colour: str) -> None:
    """Write a text `off` points from a point: to its left, or, right above or below it, centred."""
    side, vertical = "right" if off[0] < 0 else "center", "bottom" if off[1] > 0 else "top"
    axes.annotate(text, at, off, textcoords="offset points", ha=side, va=vertical, color=colour, fontsize=9.5)


def _drawn(about: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """Return an <svg> that `draw` has filled, without what a page does not need."""
    with mpl.rc_context(STYLE):
        figure, file = Figure(size, layout="constrained"), io.StringIO()
        draw(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for group in set(re.findall(r'<g id="([^"]+)"', svg)):
        if f"#{group}" not in svg:  # nothing refers to it
            svg = svg.replace(f'<g id="{group}"', "<g")
    for colour, name in NAMES.items():
        svg = svg.replace(colour, f"var({name})")
    # The page's own font: sizes stay, names of fonts go.
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{about}" ', 1)
    return re.sub(r"\s*\n\s*", "\n", svg)
