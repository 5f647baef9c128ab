"""Judgement of volumes that were made elsewhere against the real data set that they join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.leakage import AXES
from dbtbench.errors import UnreadableError, UsageError
from dbtbench.exchange.volumes.arrays import fit_scale
from dbtbench.geometry.views import Volume, laterality

SAME_RATIO = 0.01
"""Largest spread of the ratios between two sizes of one shape."""
SMALL_PART = 0.25
"""Share of a type's range below which whole numbers are probably of fewer bits."""
LOPSIDED = 0.02
"""Least difference between a volume's left and right half, as a share of the whole, that makes a side."""
MARGIN = 0.1
"""Share by which a volume must be darker or brighter than every real one to be counted."""
LOOKED_AT = 200
"""Real volumes that are compared."""


def check_axes(size: tuple[int, int, int], data: DBTDataset) -> None:
    """Refuse a size that fits the real data set only with its axes in another order.

    Args:
        size: slices, rows, columns as read.
        data: the real data set; its grid, and the sizes of its originals, are right.

    Raises:
        UnreadableError: naming the axes.
    """
    if size == data.grid:
        return
    originals = data.cases[["slices", "rows", "columns"]].drop_duplicates().to_numpy(float)
    right = np.concatenate([[data.grid], originals])
    if _fits(size, right).any():
        return
    for order in ((2, 0, 1), (2, 1, 0), *permutations(range(3))):
        fits = _fits([size[axis] for axis in order], right)
        if fits.any():
            wanted = " × ".join(f"{n:g}" for n in right[np.argmax(fits)])
            raise UnreadableError(
                "axes in another order",
                f"{' × '.join(map(str, size))} is read as {', '.join(AXES)}, and seems to be "
                f"{', '.join(AXES[order.index(axis)] for axis in range(3))}: the real data set has {wanted}",
            )


def _fits(size: Iterable[int], right: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a size is each of these, or a multiple of it."""
    ratios = np.array(list(size), float) / right
    return np.asarray(ratios.max(axis=1) <= ratios.min(axis=1) * (1 + SAME_RATIO), bool)


def measure(volume: Volume) -> dict[str, float]:
    """Measure what volumes are compared by: mean, 99th percentile, and how much heavier the left half is."""
    half = volume.shape[2] // 2
    left = float(volume[..., :half].sum(dtype=float))
    right = float(volume[..., volume.shape[2] - half :].sum(dtype=float))
    whole = left + right
    return {
        "mean": float(volume.mean(dtype=float)),
        "top": float(np.percentile(volume, 99)),
        "balance": (left - right) / whole if whole else 0.0,
    }


def check_integers(found: Iterable[tuple[str, int]]) -> None:
    """Refuse whole numbers that use a small part of their type: they would come out dark, or black.

    Args:
        found: type and largest value of each file's.

    Raises:
        UsageError: with the full scale that would fit.
    """
    found = list(found)
    for kind in sorted({kind for kind, _ in found}):
        largest, limit = max(n for name, n in found if name == kind), int(np.iinfo(kind).max)
        if largest < SMALL_PART * limit:
            raise UsageError(
                f"the largest of all {kind} values is {largest}, the full scale of that type is {limit}",
                f"`--full-scale {fit_scale(largest)}` if it is to become 1; "
                f"`--full-scale {limit}` if the volumes are so dark",
            )


def list_notices(notes: Iterable[Mapping[str, Any]], data: DBTDataset) -> dict[str, int]:
    """Count what is odd about imported volumes, compared with real ones of the training split.

    Args:
        notes: for each volume `view`, `turned`, `copy` and what `measure` gives.
        data: the real data set.

    Returns:
        Text and count of each notice.
    """
    train = data.select("train").cases
    chosen = train.iloc[np.unique(np.linspace(0, len(train) - 1, min(len(train), LOOKED_AT)).astype(int))]
    real = [measure(data.volumes([case])[0, 0]) for case in chosen["case"]]
    facing = Counter(map(_find_side_fault, real, chosen["View"]))
    counts: Counter[str] = Counter()
    for note in notes:
        fault = _find_side_fault(note, note["view"])
        if fault:
            counts[f"{fault}; of {len(real)} real ones, {facing[fault]}"] += 1
        for name, words in (("mean", "on average"), ("top", "in its brightest hundredth")):
            low, high = (f([row[name] for row in real], default=note[name]) for f in (min, max))
            if not low * (1 - MARGIN) <= note[name] <= high * (1 + MARGIN):
                side = "darker" if note[name] < low else "brighter"
                counts[f"{side} {words} than all {len(real)} real ones ({low:.3f} to {high:.3f})"] += 1
                break
        counts["axes turned from columns, rows, slices by the file's affine"] += note["turned"]
        counts["copy of a real training volume"] += bool(note["copy"])
    return {text: n for text, n in counts.items() if n}


def _find_side_fault(measured: Mapping[str, float], view: str) -> str:
    """Name what is wrong with the side that a volume shows; empty for nothing."""
    if abs(measured["balance"]) < LOPSIDED:
        return "the two sides are equally bright: no laterality"
    side = "l" if measured["balance"] > 0 else "r"
    return "" if side == laterality(view) else "laterality contradicts the view"
