"""Distances between the voxels of stored volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dbtbench.data.columns import LARGEST_MM, SPACING
from dbtbench.geometry.orientation import Spacing

NOMINAL_MM = (1.0, 0.1, 0.1)
"""Distances between the original voxels (slices, rows, columns) where a file does not say, as BCS-DBT's do
not: those of its scanners are about that."""


def spacing_of(case: Mapping[str, Any], grid: tuple[int, int, int]) -> tuple[Spacing, bool]:
    """Distances between the voxels of a stored volume.

    Args:
        case: its row of cases.csv; data sets made before there were columns for it have `pixel_mm` only.
        grid: slices, rows, columns.

    Returns:
        mm between slices, rows and columns, and whether one of them is nominal (`NOMINAL_MM`).
    """
    spacing, nominal = list[float](), False
    for name, axis, usual, n in zip(SPACING, ("slices", "rows", "columns"), NOMINAL_MM, grid, strict=True):
        scale = case[axis] / n
        stored = _length(case.get(name))
        pixel = None if axis == "slices" else _length(case.get("pixel_mm"))
        nominal |= stored is None and pixel is None
        spacing.append(stored or (pixel or usual) * scale)
    z, y, x = spacing
    return (z, y, x), nominal


def _length(mm: Any) -> float | None:
    """A positive number of mm; None where there is none."""
    return None if mm is None or not 0 < float(mm) < np.inf else float(mm)


def sizes(
    shape: Sequence[int], spacing: Sequence[float], grid: Sequence[int]
) -> dict[str, int | float | None]:
    """A case's size, and how large its voxels are; None where that is not known.

    Args:
        shape: slices, rows, columns of the original.
        spacing: mm between them; NaN or 0 where unknown.
        grid: slices, rows, columns as stored.

    Returns:
        `slices`, `rows`, `columns`, `pixel_mm` (geometric mean, of the original) and `SPACING` (stored).
    """
    known = [float(mm) if np.isfinite(mm) and mm > 0 else None for mm in spacing]
    stored = [_round_mm(mm and mm * n / m) for mm, n, m in zip(known, shape, grid, strict=True)]
    pixel = _round_mm(float(np.sqrt(known[1] * known[2])) if known[1] and known[2] else None)
    names = ("slices", "rows", "columns", "pixel_mm", *SPACING)
    return dict(zip(names, (*shape, pixel, *stored), strict=True))


def _round_mm(mm: float | None) -> float | None:
    """Round a length to a millionth of a mm; None where it is unknown, or is none."""
    rounded = None if mm is None else round(mm, 6)
    return rounded if rounded is not None and 0 < rounded <= LARGEST_MM else None
