"""Distances between the voxels of stored volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dbtbench.data.columns import SPACING
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
