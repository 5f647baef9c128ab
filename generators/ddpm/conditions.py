"""What the network is told: label, projection and a mask of where lesions are wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import LABELS, Boxes, Volume, laterality, projection
from dbtbench.generator import mirrored

PROJECTIONS = ("cc", "mlo")
UNTOLD_LABEL, UNTOLD_PROJECTION, UNTOLD_MASK = len(LABELS), len(PROJECTIONS), -1.0
FWHM = 2 * np.sqrt(2 * np.log(2))


def box_mask(boxes: Boxes, grid: tuple[int, int, int]) -> Volume:
    """Where lesions are wanted, without the boxes' corners being rounded.

    In the plane a voxel's value is the part of it that a box covers. Along the slices it is a Gaussian whose
    full width at half maximum is the box's depth: a tomosynthesis lesion fades over the slices.

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
        grid: slices, rows, columns.

    Returns:
        (1, D, H, W) float32 in [0, 1], the largest of the boxes' values.
    """
    mask = np.zeros(grid, np.float32)
    for z0, y0, x0, z1, y1, x1 in boxes.astype(np.float64):
        offset = np.arange(grid[0]) + 0.5 - (z0 + z1) / 2
        depth = np.exp(-((offset / (max(z1 - z0, 1.0) / FWHM)) ** 2) / 2)
        plane = np.outer(_covered(y0, y1, grid[1]), _covered(x0, x1, grid[2]))
        mask = np.maximum(mask, (depth[:, None, None] * plane).astype(np.float32))
    return mask[None]


def _covered(low: float, high: float, size: int) -> NDArray[np.float64]:
    """Part of each voxel of an axis that lies between two positions."""
    edges = np.arange(size + 1.0)
    covered: NDArray[np.float64] = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, 1)
    return covered


def conditions(label: str, view: str, boxes: Boxes, grid: tuple[int, int, int]) -> tuple[int, int, Volume]:
    """Label, projection and mask of one volume, as of a left breast.

    Right breasts are mirrored before the network sees them and after it has drawn them. So the view that it
    is told is the projection, and it learns each from twice the data.

    Args:
        label: one of `LABELS`.
        view: such as `lcc` or `rmlo2`.
        boxes: (n, 6), as displayed in that view.
        grid: slices, rows, columns.

    Returns:
        Indices of label and projection, and the mask (1, D, H, W).
    """
    left = mirrored(boxes, grid[2]) if laterality(view) == "r" else boxes
    return LABELS.index(label), PROJECTIONS.index(projection(view)), box_mask(left, grid)
