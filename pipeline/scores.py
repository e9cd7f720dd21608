"""How scores are counted: bins that are narrow where the scores of good models are, and what such counts say.

A score is a probability, 0 to 1. `EDGES` are the bounds of the bins that a report counts by: steps of 0.002 up to 0.9,
then 90 for each further nine, so that 0.9997 and 0.9999 are not one bin. `COARSE_EDGES`, every fifth to tenth of them,
are those of run records and of a report's JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

_NINES = [1 - np.linspace(1, 0.1, 91)[:-1] * 10.0**-decade for decade in range(1, 6)]
EDGES: Floats = np.concatenate([np.linspace(0, 0.9, 451)[:-1], *_NINES, [1.0]])
BINS = len(EDGES) - 1
_STARTS = np.concatenate([np.arange(0, 450, 10), np.arange(450, BINS, 5)])  # of the coarse bins, as indexes of EDGES
COARSE_EDGES: Floats = np.concatenate([EDGES[_STARTS], [1.0]])
COARSE_BINS = len(COARSE_EDGES) - 1
MOST_LABELS = 50  # whose scores are kept apart, in records and in a report's JSON
OTHERS = "(others)"  # all labels beyond these
BAND_EDGES = (0.5, 0.7, 0.9, 0.99)  # between the five bands that tables and pages show


def bins_of(scores: Floats, edges: Floats = EDGES) -> Counts:
    """Return the bin of each score: that whose lower edge is the last one not above it; 1.0 is in the last bin."""
    return np.asarray(np.clip(np.searchsorted(edges, scores, "right") - 1, 0, len(edges) - 2))


def coarse(counts: Counts) -> Counts:
    """Sum counts of bins of `EDGES`, in the last axis, to those of `COARSE_EDGES`."""
    return np.asarray(np.add.reduceat(counts, _STARTS, axis=-1))


def quantiles(counts: Counts | Sequence[int], edges: Floats, *shares: float) -> list[float | None]:
    """Return the scores below which these shares of the rows are: straight lines inside a bin. None without rows."""
    below = np.concatenate([[0], np.cumsum(counts)])
    if not below[-1]:
        return [None for _ in shares]
    return [float(np.interp(share * below[-1], below, edges)) for share in shares]


def bands(counts: Counts | Sequence[int], edges: Floats) -> list[float]:
    """Return the shares of the rows in the five bands that `BAND_EDGES` divide; all 0 without rows."""
    # An edge like 0.7 is not exactly what linspace makes of it.
    bounds = [0, *np.searchsorted(edges, np.array(BAND_EDGES) - 1e-9).tolist(), len(edges) - 1]
    numbers = np.asarray(counts)
    total = max(1, int(numbers.sum()))
    return [float(numbers[start:stop].sum() / total) for start, stop in pairwise(bounds)]
