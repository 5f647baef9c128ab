"""Power-law random fields and thin tubes, the material of tissue; float64 on the grid `numbers.STEP`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dbtbench.phantom.numbers import Array, gaussian, round_to_grid


@dataclass(frozen=True)
class Grid:
    """Voxels of the simulated part of the field: all heights, all rows, the columns next to the chest wall.

    Attributes:
        shape: planes, rows, columns.
        spacing: their distances in mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def axes(self) -> tuple[Array, Array, Array]:
        """Compute centres of planes, rows, columns in mm: z, y are 0 in the middle, x at the chest wall."""
        (nz, ny, nx), (dz, dy, dx) = self.shape, self.spacing
        z = (np.arange(nz) + 0.5 - nz / 2) * dz
        y = (np.arange(ny) + 0.5 - ny / 2) * dy
        x = (np.arange(nx) + 0.5) * dx
        return round_to_grid(z), round_to_grid(y), round_to_grid(x)

    def indices(self, points: Array) -> Array:
        """Convert (…, 3) points in mm to fractional voxel indices."""
        offset = np.array([self.shape[0] / 2, self.shape[1] / 2, 0.0]) - 0.5
        return np.asarray(points / np.array(self.spacing) + offset)


def power_law(
    shape: Sequence[int],
    spacing: Sequence[float],
    exponent: float,
    rng: np.random.Generator,
    stretch: Sequence[float] = (1.0, 1.0, 1.0),
    largest: float = 120.0,
) -> Array:
    """Draw a Gaussian random field with power spectrum 1/f^exponent, zero mean and unit variance.

    Args:
        shape: planes, rows, columns.
        spacing: mm.
        exponent: of the power spectrum in three dimensions; 3 gives 3 in a projection and 2 in a thin slice.
        rng: source of the spectrum's phases and amplitudes.
        stretch: factor by which structures are longer along each axis.
        largest: size in mm beyond which the spectrum is flat.

    Returns:
        Of `shape`, on the grid `STEP`.
    """
    squared = np.zeros(1)
    for axis, (count, step, long) in enumerate(zip(shape, spacing, stretch, strict=True)):
        f = (fft.rfftfreq if axis == 2 else fft.fftfreq)(count, step) * long
        squared = squared + (f * f).reshape([-1 if a == axis else 1 for a in range(3)])
    amplitude = np.maximum(squared, largest**-2) ** (-exponent / 4)
    amplitude[0, 0, 0] = 0
    # These planes are their own mirror images, of which the transform takes the mean: half of their power.
    amplitude[:, :, [0] if shape[2] % 2 else [0, -1]] *= np.sqrt(2)
    spectrum = gaussian(rng, (*amplitude.shape, 2)).view(np.complex128)[..., 0]
    spectrum *= amplitude
    field = fft.irfftn(spectrum, shape, overwrite_x=True, workers=1)
    spread = float(field.std())
    field /= round_to_grid(spread, 2.0 ** (frexp(spread)[1] - 12))
    return round_to_grid(field)


def resize(field: Array, shape: Sequence[int]) -> Array:
    """Interpolate linearly to another number of voxels along each axis, over the same extent.

    A smooth field costs less when it is drawn coarsely and resized. The result is exact, so not rounded: a
    multiple of `STEP`⁴ where the field is one of `STEP`.
    """
    for axis, (count, wanted) in enumerate(zip(field.shape, shape, strict=True)):
        if count != wanted:
            low, upper = split_index((np.arange(wanted) + 0.5) * count / wanted - 0.5, count)
            first = field.take(low, axis)
            step = field.take(low + 1, axis)
            step -= first
            step *= upper.reshape([-1 if a == axis else 1 for a in range(field.ndim)])
            field = np.add(first, step, out=first)
    return field


def split_index(index: Array, count: int) -> tuple[NDArray[np.int64], Array]:
    """Split fractional indices into `count` samples: the lower sample, and the weight of the next one.

    The weights lie on the grid `STEP`. Beyond the ends the end sample is taken.
    """
    index = round_to_grid(index).clip(0, count - 1)
    low = np.minimum(index.astype(np.int64), count - 2)
    return low, index - low


def wander(
    starts: Array, directions: Array, length: float, step: float, bend: float, rng: np.random.Generator
) -> Array:
    """Grow tubes whose direction drifts.

    Args:
        starts: (n, 3) in mm.
        directions: (n, 3), of any length.
        length: mm.
        step: mm between points.
        bend: standard deviation of the change of direction in a step, in radians.
        rng: source of the drift.

    Returns:
        (n, steps, 3) in mm, on the grid `STEP`.
    """
    steps = max(2, round(length / step))
    headings = np.empty((len(starts), steps, 3))
    turns = bend * gaussian(rng, headings.shape)
    heading = np.asarray(directions, np.float64)
    for i in range(steps):
        length_of = np.sqrt((heading * heading).sum(axis=1, keepdims=True))
        headings[:, i] = round_to_grid(heading / length_of, 2.0**-16)
        heading = headings[:, i] + turns[:, i]
    return round_to_grid(starts[:, None] + step * np.cumsum(headings, axis=1))


def tubes(
    grid: Grid,
    points: Array,
    radii: Array,
    step: float,
    rng: np.random.Generator,
    flat: float = 1.0,
    copies: int = 6,
) -> Array:
    """Compute the share of each voxel that tubes fill.

    Each point stands for a piece of tube of volume π r² step flat, which is scattered over the tube's cross
    section and shared between the nearest voxels, so a tube thinner than a voxel keeps its volume.

    Args:
        grid: the voxels.
        points: (n, m, 3) in mm: m points along each of n tubes.
        radii: broadcastable to (n, m), in mm.
        step: mm between the points of a tube.
        rng: scatters over the cross section.
        flat: factor by which the tubes are higher than wide, along z.
        copies: into how many parts a piece is scattered; wide tubes need more, or they look grainy.

    Returns:
        Of the grid's shape, in [0, 1], on the grid `STEP`.
    """
    radius = np.broadcast_to(radii, points.shape[:2])[..., None, None]
    offset = 0.45 * gaussian(rng, (*points.shape[:2], copies, 3)) * radius * (flat, 1, 1)
    place = round_to_grid(grid.indices((points[:, :, None] + offset).reshape(-1, 3)), 2.0**-8)
    share = round_to_grid(np.pi * flat * radius**2 * step / copies / np.prod(grid.spacing), 2.0**-20)
    share = np.broadcast_to(share[..., 0], (*points.shape[:2], copies)).reshape(-1)
    corner = np.floor(place).astype(np.int64)
    inner = place - corner
    near = ((corner >= -1) & (corner < grid.shape)).all(axis=1)
    corner, inner, share = corner[near] + 1, inner[near], share[near]
    # One voxel more at each end takes what leaves the grid.
    padded = tuple(n + 2 for n in grid.shape)
    filled = np.zeros(np.prod(padded))
    for shift in np.ndindex(2, 2, 2):
        weight = share * np.where(shift, inner, 1 - inner).prod(axis=1)
        flat = np.ravel_multi_index(tuple((corner + shift).T), padded)
        filled += np.bincount(flat, weight, filled.size)
    return round_to_grid(np.minimum(filled.reshape(padded)[1:-1, 1:-1, 1:-1], 1))
