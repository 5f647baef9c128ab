"""Contrast of volumes: as a whole, inside the breast, and of a lesion against its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metrics.mask import Mask

LOW, HIGH = 1, 99
SHELL = (1.25, 2.0)
SMALLEST_SHELL = 8

Values = NDArray[np.float64]


def rms_contrast(volumes: Volume, mask: Mask | None = None) -> Values:
    """Root-mean-square contrast: the standard deviation of the intensities, for each volume.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape; only voxels where it is True count.

    Returns:
        (N,) float64; NaN where the mask is empty.

    Source: Peli E. Contrast in complex images. Journal of the Optical Society of America A
    7(10):2032–2040, 1990.
    """
    return np.array([v.std(dtype=np.float64) if v.size else np.nan for v in _inside(volumes, mask)])


def percentile_range(volumes: Volume, mask: Mask | None = None) -> Values:
    """Subtract the 1st percentile of each volume's intensities from the 99th; else as `rms_contrast`."""
    low, high = _percentiles(volumes, mask)
    return high - low


def michelson_contrast(volumes: Volume, mask: Mask) -> Values:
    """Michelson contrast (high − low) / (high + low) inside the breast, for each volume.

    High and low are the 99th and the 1st percentile in place of maximum and minimum, so that no single voxel
    decides; over a whole volume it would be 1 for every volume that shows air.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.

    Returns:
        (N,) float64 in [0, 1]; NaN where the mask is empty or the breast is black.

    Source: Michelson AA. Studies in Optics. University of Chicago Press, 1927.
    """
    low, high = _percentiles(volumes, mask)
    with np.errstate(invalid="ignore"):
        contrast: Values = (high - low) / (high + low)
    return contrast


def lesion_cnr(volumes: Volume, mask: Mask, boxes: Sequence[Boxes]) -> Values:
    """Contrast-to-noise ratio of each lesion: (lesion mean − background mean) / background deviation.

    The lesion is the ellipsoid inscribed in its box; the background is the shell between 1.25 and 2 times its
    axes, inside the breast and outside of every lesion. The noise is the background's standard deviation, of
    image noise and anatomy together, which is what hides a lesion in tomosynthesis.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.
        boxes: for each volume (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels.

    Returns:
        One float64 for each box, in order; NaN where the ellipsoid holds no voxel's centre, fewer than 8
        voxels of background are left, or the background is flat.

    Source: Bushberg JT et al. The Essential Physics of Medical Imaging, 3rd ed., 2012, §4.9.
    """
    ratios = []
    for volume, inside, own in zip(volumes[:, 0], mask[:, 0], boxes, strict=True):
        radii = [_radius(volume.shape, box) for box in own]
        background = inside & np.all([r > 1 for r in radii], axis=0) if radii else inside
        for r in radii:
            lesion = volume[r <= 1]
            shell = volume[background & (r > SHELL[0]) & (r <= SHELL[1])]
            ratios.append(_cnr(lesion.astype(np.float64), shell.astype(np.float64)))
    return np.array(ratios, np.float64)


def _cnr(lesion: Values, background: Values) -> float:
    if not lesion.size or background.size < SMALLEST_SHELL or np.ptp(background) == 0:
        return float("nan")
    return float((lesion.mean() - background.mean()) / background.std())


def _radius(shape: tuple[int, ...], box: NDArray[np.float32]) -> Values:
    """Distance of each voxel's centre from the box's centre, in half-axes of the box: (D, H, W)."""
    half = np.maximum((box[3:] - box[:3]) / 2, np.finfo(np.float32).tiny).astype(np.float64)
    centre = (box[3:].astype(np.float64) + box[:3]) / 2
    axes = [((np.arange(n) + 0.5 - c) / h) ** 2 for n, c, h in zip(shape, centre, half, strict=True)]
    squared: Values = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    return np.sqrt(squared)


def _inside(volumes: Volume, mask: Mask | None) -> list[NDArray[np.float32]]:
    if mask is None:
        return [volume.ravel() for volume in volumes]
    return [volume[own] for volume, own in zip(volumes, mask, strict=True)]


def _percentiles(volumes: Volume, mask: Mask | None) -> tuple[Values, Values]:
    nothing = (np.nan, np.nan)
    pairs = [np.percentile(v, (LOW, HIGH)) if v.size else nothing for v in _inside(volumes, mask)]
    low, high = np.array(pairs, np.float64).reshape(-1, 2).T
    return low, high
