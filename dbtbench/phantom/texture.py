"""Power-law random fields and thin tubes, the material of tissue.

Random numbers are drawn by numpy on the CPU, so that every device makes the same anatomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Voxels of the simulated part of the field: all heights, all rows, the columns next to the chest wall.

    Attributes:
        shape: planes, rows, columns.
        spacing: their distances in mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def axes(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Compute centres of planes, rows, columns in mm: z, y are 0 in the middle, x at the chest wall."""
        (nz, ny, nx), (dz, dy, dx) = self.shape, self.spacing
        z = (np.arange(nz) + 0.5 - nz / 2) * dz
        y = (np.arange(ny) + 0.5 - ny / 2) * dy
        x = (np.arange(nx) + 0.5) * dx
        return z.astype(np.float32), y.astype(np.float32), x.astype(np.float32)

    def indices(self, points: Points) -> Points:
        """Convert (…, 3) points in mm to fractional voxel indices."""
        offset = np.array([self.shape[0] / 2, self.shape[1] / 2, 0.0]) - 0.5
        return np.asarray(points / np.array(self.spacing) + offset)


def power_law(
    shape: Sequence[int],
    spacing: Sequence[float],
    exponent: float,
    rng: np.random.Generator,
    device: str,
    stretch: Sequence[float] = (1.0, 1.0, 1.0),
    largest: float = 120.0,
) -> Tensor:
    """Draw a Gaussian random field with power spectrum 1/f^exponent, zero mean and unit variance.

    Args:
        shape: planes, rows, columns.
        spacing: mm.
        exponent: of the power spectrum in three dimensions; 3 gives 3 in a projection and 2 in a thin slice.
        rng: source of the white noise.
        device: of the transform.
        stretch: factor by which structures are longer along each axis.
        largest: size in mm beyond which the spectrum is flat.

    Returns:
        float32 of `shape`.
    """
    white = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32)).to(device)
    spectrum = torch.fft.rfftn(white)
    squared = torch.zeros(1, device=device)
    for axis, (count, step, long) in enumerate(zip(shape, spacing, stretch, strict=True)):
        frequencies = torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq
        f = frequencies(count, step, device=device) * long
        squared = squared + (f * f).reshape([-1 if a == axis else 1 for a in range(3)])
    spectrum *= squared.clamp_min(largest**-2) ** (-exponent / 4)
    spectrum[0, 0, 0] = 0
    field: Tensor = torch.fft.irfftn(spectrum, s=tuple(shape))
    return field / field.std()


def wander(
    starts: Points, directions: Points, length: float, step: float, bend: float, rng: np.random.Generator
) -> Points:
    """Grow tubes whose direction drifts.

    Args:
        starts: (n, 3) in mm.
        directions: (n, 3), of any length.
        length: mm.
        step: mm between points.
        bend: standard deviation of the change of direction in a step, in radians.
        rng: source of the drift.

    Returns:
        (n, steps, 3) in mm.
    """
    steps = max(2, round(length / step))
    heading = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    headings = np.empty((len(starts), steps, 3))
    for i in range(steps):
        headings[:, i] = heading
        heading = heading + rng.normal(0, bend, heading.shape)
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    return starts[:, None] + step * np.cumsum(headings, axis=1)


def tubes(grid: Grid, points: Points, radii: Points, step: float, rng: np.random.Generator) -> Tensor:
    """Compute the share of each voxel that tubes fill.

    Each point stands for a piece of tube of volume π r² step, which is scattered over the tube's cross
    section and shared between the nearest voxels, so a tube thinner than a voxel keeps its volume.

    Args:
        grid: the voxels.
        points: (n, m, 3) in mm: m points along each of n tubes.
        radii: broadcastable to (n, m), in mm.
        step: mm between the points of a tube.
        rng: scatters over the cross section.

    Returns:
        float32 of the grid's shape, in [0, 1], on the CPU.
    """
    copies = 6
    radius = np.broadcast_to(radii, points.shape[:2])[..., None, None]
    offset = rng.normal(0, 0.45, (*points.shape[:2], copies, 3)) * radius
    place = grid.indices((points[:, :, None] + offset).reshape(-1, 3))
    share = np.pi * radius**2 * step / copies / np.prod(grid.spacing)
    share = np.broadcast_to(share[..., 0], (*points.shape[:2], copies)).reshape(-1)
    corner = np.floor(place).astype(np.int64)
    inner = place - corner
    filled = np.zeros(int(np.prod(grid.shape)), np.float64)
    for shift in np.ndindex(2, 2, 2):
        voxel = corner + shift
        weight = share * np.where(shift, inner, 1 - inner).prod(axis=1)
        inside = ((voxel >= 0) & (voxel < grid.shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(voxel[inside].T), grid.shape)
        np.add.at(filled, flat, weight[inside])
    return torch.from_numpy(np.minimum(filled, 1).astype(np.float32).reshape(grid.shape))
