"""A report as one HTML file: no script, nothing from outside, light, dark and printed. Made of the document alone.

Needs the extra `report`: Jinja2, and matplotlib for the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.charts import calibration_chart, keep_chart, length_chart, score_chart
from pipeline.report.checks import VERDICTS
from pipeline.report.document import Document
from pipeline.scores import COARSE_EDGES, bands

SHOWN = 20  # labels
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
SECONDS_SHOWN = 90  # from then on it is minutes


def as_page(document: Document) -> bytes:
    """Return the page of a report. All that files and models have brought into it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pct": _percent, "n": _count, "dec": _decimal, "pts": _points, "duration": _duration}
    labels = [entry for entry in document["labels"] if entry["rows"] or (document["truth"] and entry["truth"]["rows"])]
    page = environment.get_template("page.html.j2").render(
        r=document,
        t=document["truth"],
        d=document.get("drift"),
        kept=document.get("kept"),
        labels=labels,
        shown=SHOWN,
        verdict=VERDICTS[document["verdict"]],
        bands_of=_bands,
        name=document["output"].rstrip("/").rpartition("/")[2],
        pictures={name: Markup(svg) for name, svg in _pictures(document).items()},  # noqa: S704 - our own, of numbers
    )
    return page.encode()


def _pictures(document: Document) -> dict[str, str]:
    found, truth = {}, document["truth"]
    if document["scores"]["out_of_range"] or not document["rows"]["labelled"]:
        return {}
    found["scores"] = score_chart(document)
    if len(document["lengths"]) > 1:
        found["lengths"] = length_chart(document)
    if truth and truth["calibration"]:
        found["calibration"] = calibration_chart(truth["calibration"]["bins"])
    if truth and truth["keep"] and len(truth["keep"]["curve"]) > 1:
        found["keep"] = keep_chart(truth["keep"])
    return found


def _bands(counts: Sequence[int] | None) -> list[float]:
    return bands(counts, COARSE_EDGES) if counts else [0.0] * 5


def _percent(share: float | None, digits: int = 1) -> str:
    return NONE if share is None else f"{100 * share:.{digits}f}\u00a0%"


def _count(number: Any) -> str:
    return f"{number:,}"


def _decimal(number: float | None, digits: int = 3) -> str:
    return NONE if number is None else f"{number:.{digits}f}"


def _points(share: float | None, digits: int = 1) -> str:
    return "" if share is None else f"{100 * share:+.{digits}f}".replace("-", MINUS)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < SECONDS_SHOWN else f"{seconds / 60:.1f} min"
