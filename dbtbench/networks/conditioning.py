"""Conditioning: label, view projection and lesion mask.

Right breasts are mirrored before the network sees them and after it has drawn them. So the view is reduced to
its projection (cc or mlo), and the network learns each projection from twice the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.dataset import LABELS
from dbtbench.geometry.views import PROJECTIONS, Boxes, Volume, laterality, mirror_boxes, projection

NULL_LABEL, NULL_PROJECTION, NULL_MASK, NO_BOX = len(LABELS), len(PROJECTIONS), -1.0, -1.0
"""Values that stand for no label, no projection, no mask and no box, for classifier-free guidance."""
EDGE_DEPTH, EDGE_PLANE = 0.5, 0.25
"""Values of the lesion mask at a box's first and last slice, and at its sides."""


@dataclass(frozen=True)
class Conditioning:
    """Conditioning of N volumes.

    Attributes:
        label: (N,) int, indices of `LABELS`, or `NULL_LABEL`.
        projection: (N,) int, indices of `PROJECTIONS`, or `NULL_PROJECTION`.
        lesion_mask: (N, 1, D, H, W), 0 to 1 where lesions are wanted, or `NULL_MASK` everywhere.
        boxes: (N, M, 6) float32, in voxels of the left breast; rows of `NO_BOX` fill up where a volume has
            fewer than M.
    """

    label: Tensor
    projection: Tensor
    lesion_mask: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device) -> Conditioning:
        """Move all tensors to a device."""
        return Conditioning(*(tensor.to(device) for tensor in vars(self).values()))

    def __getitem__(self, rows: Tensor) -> Conditioning:
        """Select volumes by their indices (n,) int."""
        return Conditioning(*(tensor[rows] for tensor in vars(self).values()))


def box_mask(
    boxes: Boxes, grid: tuple[int, int, int], depths: Sequence[NDArray[np.float64]] | None = None
) -> Volume:
    """Draw one Gaussian for each wanted lesion, centred on its box also between voxels.

    It falls to `EDGE_DEPTH` at the box's first and last slice, because a tomosynthesis lesion fades over the
    slices, and to `EDGE_PLANE` at its sides. With a mask of sharp boxes the lesions came out square.

    Args:
        boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
        grid: slices, rows, columns.
        depths: for each box (D,) in [0, 1]: the least height of its mask in each slice; none by default.

    Returns:
        (1, D, H, W) float32 in [0, 1]; the largest value where boxes overlap.
    """
    mask = np.zeros(grid, np.float32)
    for number, (z0, y0, x0, z1, y1, x1) in enumerate(boxes.astype(np.float64)):
        plane = np.outer(_bump(y0, y1, grid[1], EDGE_PLANE), _bump(x0, x1, grid[2], EDGE_PLANE))
        along = _bump(z0, z1, grid[0], EDGE_DEPTH)
        if depths is not None:
            along = np.maximum(along, depths[number])
        blob = along[:, None, None] * plane
        mask = np.maximum(mask, blob.astype(np.float32))
    return mask[None]


def _bump(low: float, high: float, size: int, edge: float) -> NDArray[np.float64]:
    """Sample a Gaussian at an axis's voxels: 1 half-way between two positions, `edge` at each."""
    distance = np.abs(np.arange(size) + 0.5 - (low + high) / 2) / (max(high - low, 1.0) / 2)
    bump: NDArray[np.float64] = edge ** (distance**2)
    return bump


def encode_conditioning(label: str, view: str, boxes: Boxes, grid: tuple[int, int, int]) -> Conditioning:
    """Encode label, view and boxes of one volume, mirrored to a left breast.

    Args:
        label: one of `LABELS`.
        view: such as `lcc` or `rmlo2`.
        boxes: (n, 6), as displayed in that view.
        grid: slices, rows, columns.

    Returns:
        The conditioning of one volume (N = 1), on the CPU.
    """
    left = mirror_boxes(boxes, grid[2]) if laterality(view) == "r" else boxes
    return Conditioning(
        torch.tensor([LABELS.index(label)]),
        torch.tensor([PROJECTIONS.index(projection(view))]),
        torch.from_numpy(box_mask(left, grid)[None]),
        torch.from_numpy(left.astype(np.float32).reshape(1, -1, 6)),
    )


def collate(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Concatenate conditionings to one of all their volumes."""
    most = max(one.boxes.shape[1] for one in conditionings)
    return Conditioning(
        torch.cat([one.label for one in conditionings]),
        torch.cat([one.projection for one in conditionings]),
        torch.cat([one.lesion_mask for one in conditionings]),
        torch.cat(
            [F.pad(one.boxes, (0, 0, 0, most - one.boxes.shape[1]), value=NO_BOX) for one in conditionings]
        ),
    )


def drop_conditioning(conditioning: Conditioning, mask: Tensor) -> Conditioning:
    """Replace label, projection, or boxes and lesion mask by null values, where (3, N) `mask` is true."""
    return Conditioning(
        conditioning.label.masked_fill(mask[0], NULL_LABEL),
        conditioning.projection.masked_fill(mask[1], NULL_PROJECTION),
        conditioning.lesion_mask.masked_fill(mask[2, :, None, None, None, None], NULL_MASK),
        conditioning.boxes.masked_fill(mask[2, :, None, None], NO_BOX),
    )


def null_conditioning(conditioning: Conditioning) -> Conditioning:
    """Replace everything by its null value: the conditioning of an unconditional model."""
    return Conditioning(
        torch.full_like(conditioning.label, NULL_LABEL),
        torch.full_like(conditioning.projection, NULL_PROJECTION),
        torch.full_like(conditioning.lesion_mask, NULL_MASK),
        torch.full_like(conditioning.boxes, NO_BOX),
    )


def without_boxes(conditioning: Conditioning) -> Conditioning:
    """Replace boxes and lesion mask by null values, so that guidance changes lesions, not brightness."""
    null = null_conditioning(conditioning)
    return replace(conditioning, lesion_mask=null.lesion_mask, boxes=null.boxes)
