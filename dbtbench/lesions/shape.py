"""Mean shape of training lesions: how far their contrast goes in depth and in the plane."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes, Volume
from dbtbench.lesions.places import Area, Background, plane_distance
from dbtbench.metrics.contrast import FAR, SMALLEST_PART, lesion_profiles

REACH = 2.0
"""Outer edge of the shape in the plane, in half-axes of the box."""
BINS = 16
"""Rings from the centre to `REACH`."""
FAINT, SOLID = 0.05, 0.5
"""Relative contrast at which a lesion's extent ends, and from which on it is whole."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LesionShape:
    """Relative contrast of the mean training lesion, in depth and in the plane.

    Both profiles begin with 1 and fall to 0 or above.

    Attributes:
        depth: (D,) at 0 to D - 1 slices from the box's centre.
        plane: (BINS,) by distance from the centre, from 0 to `REACH` half-axes of the box.
    """

    depth: Values
    plane: Values

    @classmethod
    def fit(cls, lesions: Iterable[tuple[Background, Boxes]], slices: int) -> LesionShape | None:
        """Fit both profiles: means over the lesions, made to fall (isotonic regression).

        Args:
            lesions: volumes, and their boxes.
            slices: D; of each volume.

        Returns:
            None where no lesion is brighter than its surroundings.
        """
        in_depth, in_plane = [np.empty((0, slices))], [np.empty((0, BINS))]
        for background, boxes in lesions:
            volume = background.volume
            inside = np.broadcast_to(background.inside, volume.shape)[None, None]
            in_depth.append(lesion_profiles(volume[None, None], inside, [boxes], slices)[0])
            in_plane.append(_measure_rings(volume, background.inside, boxes))
        depth, plane = (_fit_falling(np.concatenate(rows)) for rows in (in_depth, in_plane))
        return None if depth is None or plane is None else cls(depth, plane)

    def spread_depth(self, box: NDArray[np.float32]) -> Values:
        """Compute the relative contrast of a lesion in each slice of a volume, (D,)."""
        offset = np.abs(np.arange(len(self.depth)) + 0.5 - (float(box[0]) + float(box[3])) / 2)
        contrast: Values = self.depth[offset.astype(int)]
        return contrast

    def weigh(self, box: NDArray[np.float32], rise: Values) -> Volume:
        """Compute a lesion's extent in a volume.

        Args:
            box: (6,) in voxels.
            rise: (H, W) how much of a signal each place takes (`Background.rise`).

        Returns:
            (D, H, W) float32: 1 where the mean training lesion has at least half of its contrast, 0 where it
            has less than a twentieth, and in air.
        """
        centres = (np.arange(BINS) + 0.5) * REACH / BINS
        plane = np.interp(plane_distance(box, rise.shape), [*centres, REACH], [*self.plane, 0.0])
        weight = _extent(self.spread_depth(box))[:, None, None] * (_extent(plane) * rise)
        return np.asarray(weight, np.float32)

    def open_hole(self, box: NDArray[np.float32], rise: Values) -> Volume:
        """Compute the hole in which a lesion is drawn.

        It is as deep as the lesion, and wider: 1 inside the box's ellipse, 0 from `REACH` on.

        Args:
            box: see `weigh`.
            rise: see `weigh`.

        Returns:
            (D, H, W) float32 in [0, 1].
        """
        t = ((REACH - plane_distance(box, rise.shape)) / (REACH - 1)).clip(0, 1)
        hole = _extent(self.spread_depth(box))[:, None, None] * (t * t * (3 - 2 * t) * rise)
        return np.asarray(hole, np.float32)


def _measure_rings(volume: Volume, inside: Area, boxes: Boxes) -> Values:
    """Measure contrasts by ring, in the slice of each lesion's centre: (n, BINS), NaN where undefined."""
    found = np.full((len(boxes), BINS), np.nan)
    distances = [plane_distance(box, inside.shape) for box in boxes]
    for number, (box, distance) in enumerate(zip(boxes, distances, strict=True)):
        others = np.any(
            [np.zeros_like(inside), *(d <= 1 for d in np.delete(distances, number, axis=0))], axis=0
        )
        allowed = inside & ~others
        slice_ = volume[min(int((box[0] + box[3]) / 2), len(volume) - 1)].astype(np.float64)
        far = slice_[allowed & (distance > REACH) & (distance <= FAR)]
        near = allowed & (distance < REACH)
        if len(far) < SMALLEST_PART or not near.any():
            continue
        ring = (distance[near] * BINS / REACH).astype(np.intp)
        voxels = np.bincount(ring, minlength=BINS)
        with np.errstate(invalid="ignore"):
            found[number] = np.bincount(ring, slice_[near] - far.mean(), BINS) / voxels
    return found


def _fit_falling(rows: Values) -> Values | None:
    """Fit a profile that begins with 1 and falls to 0 or above; None where its mean never rises above 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns of a mean of nothing, which is NaN
        mean = np.nanmean(rows, axis=0)
    known = np.flatnonzero(np.isfinite(mean))
    if not len(known):
        return None
    numbers = np.isfinite(rows).sum(axis=0)[known]
    fit = scipy.optimize.isotonic_regression(mean[known], weights=numbers, increasing=False).x.clip(0)
    return None if fit[0] <= 0 else np.interp(np.arange(rows.shape[1]), known, fit / fit[0])


def _extent(contrast: Values) -> Values:
    return np.asarray(((contrast - FAINT) / (SOLID - FAINT)).clip(0, 1))
