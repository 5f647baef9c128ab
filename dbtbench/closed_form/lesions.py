"""Lesion bump: one shape in the coordinates of boxes, and one amplitude."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes, Volume

REACH_PLANE, REACH_DEPTH = 2.0, 4.0
"""Reach of a bump, in half-axes of its box. Tomosynthesis smears a lesion over slices beyond its box."""
RING = 3.0
"""Outer edge of a lesion's background in the plane, in half-axes; `REACH_PLANE` is its inner edge."""
BINS = 32
SMALLEST_RING = 8
SMALLEST_HALF_AXIS = 1.0
"""In voxels: between the centres of a thinner box's voxels there might be no bump."""

Values = NDArray[np.float64]
Area = NDArray[np.bool_]


def box_distances(box: NDArray[np.floating], grid: tuple[int, ...]) -> tuple[Values, Values]:
    """Distances of voxels' centres from a box's centre, in half-axes: (D,) in depth, (H, W) in the plane."""
    low, high = box[:3].astype(np.float64), box[3:].astype(np.float64)
    half = np.maximum((high - low) / 2, SMALLEST_HALF_AXIS)
    z, y, x = (
        (np.arange(size) + 0.5 - (low[axis] + high[axis]) / 2) / half[axis] for axis, size in enumerate(grid)
    )
    return np.abs(z), np.hypot(y[:, None], x[None])


def lesion_area(boxes: Boxes, grid: tuple[int, int, int]) -> Area:
    """Find the voxels that the bump of any box can change: (D, H, W) bool."""
    area = np.zeros(grid, bool)
    for box in boxes:
        depth, plane = box_distances(box, grid)
        area |= (depth < REACH_DEPTH)[:, None, None] & (plane < REACH_PLANE)
    return area


@dataclass(frozen=True)
class LesionBump:
    """A bump that is 1 in the middle of a box, times an amplitude.

    Attributes:
        plane: (BINS,) its height by distance from the centre in the plane, from 0 to `REACH_PLANE` half-axes.
        depth: (BINS,) the same in depth, from 0 to `REACH_DEPTH`.
        amplitude: in units of the square root of the intensity.
    """

    plane: Values
    depth: Values
    amplitude: float

    def draw(self, boxes: Boxes, grid: tuple[int, int, int]) -> Volume:
        """Draw the bumps of all boxes; the higher one where they overlap.

        Args:
            boxes: (n, 6) `[z0, y0, x0, z1, y1, x1]` in voxels.
            grid: slices, rows, columns.

        Returns:
            (D, H, W) float32.
        """
        bumps = np.zeros(grid, np.float32)
        for box in boxes:
            depth, plane = box_distances(box, grid)
            along = _interpolate(depth, self.depth, REACH_DEPTH).astype(np.float32)
            across = _interpolate(plane, self.plane, REACH_PLANE).astype(np.float32)
            np.maximum(bumps, along[:, None, None] * across, out=bumps)
        bumps *= np.float32(self.amplitude)
        return bumps


@dataclass
class ContrastTable:
    """Contrast of training lesions by distance in depth and in the plane, summed over lesions.

    Attributes:
        total: (BINS, BINS) sums of contrasts, in units of the square root of the intensity.
        voxels: (BINS, BINS) their numbers.
    """

    total: Values = field(default_factory=lambda: np.zeros((BINS, BINS)))
    voxels: Values = field(default_factory=lambda: np.zeros((BINS, BINS)))

    def add(self, residual: Volume, inside: Area, boxes: Boxes) -> None:
        """Add the lesions of one volume; one whose ring shows too little of the breast is left out.

        The contrast of a voxel is its value less the mean of the ring around the lesion in its own slice.

        Args:
            residual: (D, H, W) square root of the intensities less the mean volume.
            inside: (H, W) the breast.
            boxes: (n, 6); voxels that belong to another box are left out.
        """
        distances = [box_distances(box, residual.shape) for box in boxes]
        for number, (depth, plane) in enumerate(distances):
            others = [other <= 1 for n, (_, other) in enumerate(distances) if n != number]
            tissue = inside & ~np.any([np.zeros_like(inside), *others], axis=0)
            ring, lesion = tissue & (plane >= REACH_PLANE) & (plane <= RING), tissue & (plane < REACH_PLANE)
            if ring.sum() < SMALLEST_RING:
                continue
            contrast = residual[:, lesion] - residual[:, ring].mean(axis=1, dtype=np.float64)[:, None]
            along = np.floor(depth * BINS / REACH_DEPTH).astype(np.intp)
            across = np.floor(plane[lesion] * BINS / REACH_PLANE).astype(np.intp)
            near = along < BINS
            cells = (along[near][:, None] * BINS + across).ravel()
            self.total += np.bincount(cells, contrast[near].ravel(), BINS**2).reshape(BINS, BINS)
            self.voxels += np.bincount(cells, minlength=BINS**2).reshape(BINS, BINS)

    def fit(self) -> LesionBump:
        """Fit shape and amplitude.

        The shape is the mean contrast by distance, made to fall with it: in depth in the box's ellipse, in
        the plane in the box's slices. The amplitude is the regression of the contrast on that shape.

        Returns:
            The bump; its amplitude is 0 without lesions.
        """
        in_plane, in_depth = int(BINS / REACH_PLANE), int(BINS / REACH_DEPTH)  # bins inside the box
        depth = _fit_profile(
            self.total[:, :in_plane].sum(axis=1), self.voxels[:, :in_plane].sum(axis=1), in_depth
        )
        plane = _fit_profile(self.total[:in_depth].sum(axis=0), self.voxels[:in_depth].sum(axis=0), in_plane)
        shape = np.outer(depth, plane)
        squares = float((self.voxels * shape**2).sum())
        return LesionBump(plane, depth, float((self.total * shape).sum()) / squares if squares else 0.0)


def _fit_profile(total: Values, voxels: Values, inside: int) -> Values:
    """Fit a profile that begins with 1 and falls to 0 or above; a straight line where there is no contrast.

    Args:
        total: (BINS,) sums of contrasts; lesions may be darker than their background.
        voxels: (BINS,) their numbers.
        inside: bins that lie inside the box; they say whether lesions are bright or dark.
    """
    from scipy.optimize import isotonic_regression

    filled = voxels > 0
    if filled.any():
        centre = np.sign(total[:inside].sum())
        fit = isotonic_regression(
            centre * total[filled] / voxels[filled], weights=voxels[filled], increasing=False
        )
        falling = np.interp(np.arange(BINS), np.flatnonzero(filled), fit.x.clip(0))
        if falling[0] > 0:
            return np.asarray(falling / falling[0])
    return 1 - (np.arange(BINS) + 0.5) / BINS


def _interpolate(distance: Values, profile: Values, reach: float) -> Values:
    """Interpolate a profile at distances: flat in the middle of the first bin, 0 from `reach` on."""
    centres = (np.arange(BINS) + 0.5) * reach / BINS
    heights: Values = np.interp(distance, [*centres, reach], [*profile, 0.0])
    return heights
