"""Which rows of an output a person should look at: strata by label and band of the score, and how many rows of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.report.estimates import Ids
from pipeline.scores import BAND_EDGES, EDGES, OTHERS, Counts, Floats, bins_of

# How many of a band are taken to be wrong. Models are often too sure of themselves, so it is 1 in 20 at least.
WRONG = (0.6, 0.4, 0.2, 0.05, 0.05)
LEAST = 5  # rows of each label, where there is room
FEWEST = 2  # rows of a stratum: of one, nobody knows how its rows differ
BANDS = len(WRONG)
BAND_STARTS = np.searchsorted(EDGES, np.array([0, *BAND_EDGES]) - 1e-9)  # of the bands, as bins


class Strata(NamedTuple):
    """The strata of an output, by number."""

    of: Ids  # shape (labels, bands): the stratum of each cell
    names: list[str]
    rows: Ids  # of the output, in each
    taken: Ids  # of the sample, in each


def bands_of(scores: Floats) -> Ids:
    """Return the band of each score, 0 to 4."""
    return np.asarray(np.searchsorted(BAND_STARTS, bins_of(scores), "right") - 1)


def strata_of(cells: Counts, names: Sequence[str], rows: int) -> Strata:
    """Divide an output with `cells[label, band]` rows for a sample of so many rows.

    The rows go to cells by their size and by how far right and wrong may differ in them (Neyman), and `LEAST` to each
    label, the most frequent first, as long as that is half of the sample. Then labels with too few rows are taken
    together, and bands of a label until they have `FEWEST`.
    """
    wrong = np.array(WRONG[: cells.shape[1]])
    wanted = _wanted(cells, cells * np.sqrt(wrong * (1 - wrong)), min(rows, int(cells.sum())))
    alone = (wanted.sum(1) >= FEWEST) & (cells.sum(1) > 0)
    groups = [(names[label], np.array([label])) for label in np.flatnonzero(alone).tolist()]
    if (others := np.flatnonzero(~alone & (cells.sum(1) > 0))).size:
        groups.append((OTHERS if len(others) > 1 else names[int(others[0])], others))
    of = np.full(cells.shape, -1)
    found: list[tuple[str, int, float]] = []  # name, rows, rows of the sample
    edges = (0, *BAND_EDGES, 1)
    for name, labels in groups:
        shares = wanted[labels].sum(0)
        parts = _parts(shares)
        for part in parts:
            if size := int(cells[np.ix_(labels, part)].sum()):
                of[np.ix_(labels, part)] = len(found)
                scores = f", {edges[part[0]]:g} to {edges[part[-1] + 1]:g}" if len(parts) > 1 else ""
                found.append((name + scores, size, float(shares[part].sum())))
    sizes = np.array([size for _, size, _ in found], np.int64)
    taken = _whole_rows(np.array([share for _, _, share in found]), sizes, min(rows, int(sizes.sum())))
    return Strata(of, [name for name, _, _ in found], sizes, taken)


def _wanted(cells: Counts, sizes: Floats, rows: int) -> Floats:
    """Share out the rows of a sample: in proportion to `sizes`, but at least `LEAST` to each label that there is."""
    wanted = _in_proportion(sizes, cells, rows)
    least = np.minimum(LEAST, cells.sum(1))
    has = wanted.sum(1)
    order = np.argsort(-cells.sum(1), kind="stable")
    short = [label for label in order.tolist() if 0 < has[label] < least[label]]
    room = np.cumsum(least[short]) <= rows / 2
    lifted = np.zeros(len(cells), bool)
    lifted[[label for label, fits in zip(short, room.tolist(), strict=True) if fits]] = True
    if not lifted.any():
        return wanted
    for label in np.flatnonzero(lifted).tolist():
        wanted[label] = _in_proportion(sizes[label], cells[label], least[label])
    rest = rows - wanted[lifted].sum()
    wanted[~lifted] = _in_proportion(sizes[~lifted], cells[~lifted], rest)
    return wanted


def _in_proportion(sizes: Floats, most: Counts, rows: float) -> Floats:
    """Share out rows in proportion to sizes, to none more than there are."""
    found, is_full = np.zeros(sizes.shape), np.zeros(sizes.shape, bool)
    while rows > 0 and sizes[~is_full].sum() > 0:
        open_sizes = np.where(is_full, 0, sizes)
        share = np.where(is_full, most, open_sizes / open_sizes.sum() * (rows - most[is_full].sum()))
        found = np.minimum(share, most)
        if not (now := share > most).any():
            break
        is_full |= now
    return found


def _parts(shares: Floats) -> list[Ids]:
    """Divide the bands of a label, with these rows of the sample: neighbours are one until they have rows enough."""
    parts: list[list[int]] = []
    for band in range(len(shares)):
        if parts and shares[parts[-1]].sum() < FEWEST:
            parts[-1].append(band)
        else:
            parts.append([band])
    if len(parts) > 1 and shares[parts[-1]].sum() < FEWEST:
        last = parts.pop()
        parts[-1] += last
    return [np.array(part) for part in parts]


def _whole_rows(shares: Floats, sizes: Ids, rows: int) -> Ids:
    """Round to whole rows, at least one of each stratum, so that there are so many in all where that can be."""
    taken: Any = np.minimum(np.maximum(1, np.floor(shares + 1e-9)).astype(np.int64), sizes)
    while (missing := rows - int(taken.sum())) and ((taken < sizes).any() if missing > 0 else (taken > 1).any()):
        behind = np.where(
            taken < sizes if missing > 0 else taken > 1, shares - taken, -np.inf if missing > 0 else np.inf
        )
        taken[np.argmax(behind) if missing > 0 else np.argmin(behind)] += 1 if missing > 0 else -1
    return np.asarray(taken)
