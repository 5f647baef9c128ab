"""Places in a breast where a lesion can lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import breast_mask

EDGE = 2.0
"""Depth under the outline, in voxels, over which a signal rises from 0 to its full height."""
SMOOTHING = 1 / 40
"""Standard deviation of the smoothing before muscle is looked for, as a share of rows and columns."""
CORNER = 1 / 16
"""Share of rows and columns of the corner that tells how bright muscle is."""
BRIGHT = 0.2
"""Brightness at which muscle begins, between the breast's median (0) and the corner's mean (1)."""

DARKEST = 1
"""Percentile of the breast's voxels that is the brightness of its darkest tissue."""

Values = NDArray[np.float64]
Area = NDArray[np.bool_]


def plane_distance(box: NDArray[np.floating], shape: tuple[int, int], least: float = 0.5) -> Values:
    """Distances of voxel centres from a box's centre in the plane, in half-axes of at least `least`."""
    low, high = box[[1, 2]].astype(np.float64), box[[4, 5]].astype(np.float64)
    half = np.maximum((high - low) / 2, least)
    y, x = ((np.arange(n) + 0.5 - c) / h for n, c, h in zip(shape, (low + high) / 2, half, strict=True))
    distance: Values = np.hypot(y[:, None], x[None])
    return distance


def find_muscle(volume: Volume, inside: Area) -> Area:
    """Find the bright part of the pectoral muscle in an oblique view.

    No mask of the muscle exists for real data. It lies in the upper corner at the chest wall and narrows
    downwards: in each row it is the run of bright voxels from the chest wall, never wider than in the row
    above. Bright is what lies between the breast's median and the corner's mean. Its faint rim is not found.

    Args:
        volume: (D, H, W) a left breast, as displayed.
        inside: (H, W) the breast.

    Returns:
        (H, W) nowhere True when the corner is no brighter than the median.
    """
    rows, columns = inside.shape
    mean = scipy.ndimage.gaussian_filter(
        volume.mean(axis=0, dtype=np.float64), (SMOOTHING * rows, SMOOTHING * columns)
    )
    if not inside.any():
        return np.zeros_like(inside)
    median = float(np.median(mean[inside]))
    corner = float(mean[: max(1, int(CORNER * rows)), : max(1, int(CORNER * columns))].mean())
    if corner <= median:
        return np.zeros_like(inside)
    bright = inside & (mean > median + BRIGHT * (corner - median))
    runs = np.cumprod(bright, axis=1).sum(axis=1)
    muscle: Area = np.arange(columns) < np.minimum.accumulate(runs)[:, None]
    return muscle


@dataclass
class Background:
    """A volume, as a left breast, and where in it a lesion can lie.

    Attributes:
        volume: (D, H, W) float32 in [0, 1]; lesions are added to it.
        patient: of which patient.
        inside: (H, W) the breast.
        free: (H, W) the part of it without muscle, and without lesions that were added.
        darkest: brightness of the darkest tissue.
    """

    volume: Volume
    patient: str
    inside: Area
    free: Area
    darkest: float

    @classmethod
    def of(cls, volume: Volume, projection: str, patient: str) -> Background:
        """Find breast and muscle in a volume; cc views show no muscle."""
        inside = breast_mask(volume[None, None])[0, 0, 0]
        muscle = find_muscle(volume, inside) if projection == "mlo" else np.zeros_like(inside)
        darkest = float(np.percentile(volume[:, inside], DARKEST)) if inside.any() else 0.0
        return cls(volume, patient, inside, inside & ~muscle, darkest)

    def rise(self) -> Values:
        """Compute how much of a signal each place takes, from its depth under the outline: (H, W) in [0, 1].

        The image's border counts as outline: what lies beyond it is not known.
        """
        depth = scipy.ndimage.distance_transform_edt(np.pad(self.inside, 1))[1:-1, 1:-1]
        return np.asarray((depth / EDGE).clip(0, 1))

    def find_place(self, centre: Values, half: Values) -> Values | None:
        """Find the place nearest to the wanted one where a lesion's whole ellipse is free.

        Args:
            centre: (2,) wanted row and column, in voxels.
            half: (2,) half-axes of the lesion's ellipse.

        Returns:
            (2,) the wanted centre, or that of the nearest voxel; None where there is no such place.
        """
        voxels = self.list_places(half)
        if (voxels == np.floor(centre)).all(axis=1).any():
            return centre
        if not len(voxels):
            return None
        nearest: Values = voxels[((voxels + 0.5 - centre) ** 2).sum(axis=1).argmin()] + 0.5
        return nearest

    def list_places(self, half: Values) -> NDArray[np.intp]:
        """List the voxels, (n, 2) row and column, around which a lesion's whole ellipse is free.

        Args:
            half: (2,) half-axes of the lesion's ellipse.
        """
        reach = np.ceil(half).astype(int)
        y, x = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
        ellipse = (y / max(half[0], 0.5)) ** 2 + (x / max(half[1], 0.5)) ** 2 <= 1
        return np.argwhere(scipy.ndimage.binary_erosion(self.free, ellipse, border_value=0))

    def fill(self, box: NDArray[np.floating]) -> None:
        """Keep other lesions out of a box's ellipse."""
        self.free &= plane_distance(box, self.inside.shape) > 1
