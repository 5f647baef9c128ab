"""What the network is told: label, projection and a mask of where lesions are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import Boxes, Volume, laterality, mirrored, projection

PROJECTIONS = ("cc", "mlo")
UNTOLD_LABEL, UNTOLD_PROJECTION, UNTOLD_MASK = len(LABELS), len(PROJECTIONS), -1.0
EDGE_DEPTH, EDGE_PLANE = 0.5, 0.25
Told = tuple[Tensor, Tensor, Tensor]
"""Labels (N,) int, projections (N,) int, masks (N, 1, D, H, W)."""


def box_mask(boxes: Boxes, grid: tuple[int, int, int]) -> Volume:
    """Where lesions are wanted: a Gaussian for each box, wherever between the voxels it lies.

    It falls to a half at the box's first and last slice, because a tomosynthesis lesion fades over the
    slices, and to a quarter at its sides. A mask with the box's own corners came out as square lesions.

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
        grid: slices, rows, columns.

    Returns:
        (1, D, H, W) float32 in [0, 1], the largest of the boxes' values.
    """
    mask = np.zeros(grid, np.float32)
    for z0, y0, x0, z1, y1, x1 in boxes.astype(np.float64):
        plane = np.outer(_bump(y0, y1, grid[1], EDGE_PLANE), _bump(x0, x1, grid[2], EDGE_PLANE))
        blob = _bump(z0, z1, grid[0], EDGE_DEPTH)[:, None, None] * plane
        mask = np.maximum(mask, blob.astype(np.float32))
    return mask[None]


def _bump(low: float, high: float, size: int, edge: float) -> NDArray[np.float64]:
    """Gaussian over an axis's voxels: 1 half-way between two positions, `edge` at each."""
    distance = np.abs(np.arange(size) + 0.5 - (low + high) / 2) / (max(high - low, 1.0) / 2)
    bump: NDArray[np.float64] = edge ** (distance**2)
    return bump


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


def stacked(rows: Sequence[tuple[int, int, Volume]], device: torch.device) -> Told:
    """Conditions of several volumes, on the device."""
    labels, projections, masks = zip(*rows, strict=True)
    return (
        torch.tensor(labels, device=device),
        torch.tensor(projections, device=device),
        torch.from_numpy(np.stack(masks)).to(device),
    )


def dropped(told: Told, missing: Tensor) -> Told:
    """Leave out label, projection or mask where (3, N) `missing` says so."""
    labels, projections, masks = told
    return (
        labels.masked_fill(missing[0], UNTOLD_LABEL),
        projections.masked_fill(missing[1], UNTOLD_PROJECTION),
        masks.masked_fill(missing[2, :, None, None, None, None], UNTOLD_MASK),
    )


def untold(told: Told) -> Told:
    """Leave out everything."""
    labels, _, _ = told
    return dropped(told, torch.ones(3, len(labels), dtype=torch.bool, device=labels.device))


def boxes_untold(told: Told) -> Told:
    """Leave out the boxes alone: what differs then is the lesions, and neither brightness nor shape."""
    labels, projections, masks = told
    return labels, projections, torch.full_like(masks, UNTOLD_MASK)
