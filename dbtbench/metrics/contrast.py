"""Contrast of volumes: as a whole, inside the breast, and of a lesion against its surroundings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metrics.mask import Mask

LOW, HIGH = 1, 99
RING = (1.25, 2.0)
SMALLEST_RING = 8
DEPTHS = 5
EDGES = (0.0, 0.5, 1.0, 1.5, 2.0)
FAR = 2.5
SMALLEST_PART = 4

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

    The lesion is the ellipsoid inscribed in its box; the background is the ring around it, from 1.25 to 2
    times its axes in the plane, in the slices of its box, inside the breast and outside of every lesion's
    ellipse. Slices above and below are no background: tomosynthesis smears a lesion into them. The noise is
    the background's standard deviation, of image noise and anatomy together, which is what hides a lesion.

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
        depths, planes = _distances(volume.shape, own)
        clear = np.all(planes > 1, axis=0)
        for depth, plane in zip(depths, planes, strict=True):
            lesion = volume[np.hypot(depth[:, None, None], plane) <= 1]
            ring = clear & (plane > RING[0]) & (plane <= RING[1])
            background = volume[inside & ring & (depth <= 1)[:, None, None]]
            ratios.append(_cnr(lesion.astype(np.float64), background.astype(np.float64)))
    return np.array(ratios, np.float64)


def lesion_profiles(
    volumes: Volume, mask: Mask, boxes: Sequence[Boxes], depths: int = DEPTHS
) -> tuple[Values, Values]:
    """Contrast of each lesion by depth, and by distance from its centre in the plane.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.
        boxes: for each volume (n, 6) float32 `[z0, y0, x0, z1, y1, x1]`, half-open, in voxels.
        depths: K, 5 by default.

    Returns:
        In depth (L, K), for each box, in order: mean of the ellipse inscribed in it less that of the ring
        from 1.25 to 2 of its axes, at 0 to K - 1 slices from its centre, above and below together. In radius
        (L, 4): in the centre slice, mean between 0, ½, 1, 1½ and 2 of its axes less that from 2 to 2½. Only
        voxels inside the breast count, and none in another lesion's ellipse; float64, NaN where there are
        fewer than 4 of them on one side of the difference.
    """
    in_depth, in_radius = [], []
    for volume, inside, own in zip(volumes[:, 0], mask[:, 0], boxes, strict=True):
        _, planes = _distances(volume.shape, own)
        for number, (box, plane) in enumerate(zip(own, planes, strict=True)):
            allowed = inside & np.all(np.delete(planes, number, axis=0) > 1, axis=0)
            away = np.abs(np.arange(len(volume)) + 0.5 - (box[0] + box[3]) / 2).astype(int)
            here = (away == away.min())[:, None, None] & allowed
            far = _mean(volume, here & (plane > EDGES[-1]) & (plane <= FAR))
            rings = [(plane > low) & (plane <= high) for low, high in pairwise(EDGES)]
            rings[0] |= plane == 0
            in_radius.append([_mean(volume, here & ring) - far for ring in rings])
            ring = (plane > RING[0]) & (plane <= RING[1])
            at = [(away == offset)[:, None, None] & allowed for offset in range(depths)]
            in_depth.append([_mean(volume, w & (plane <= 1)) - _mean(volume, w & ring) for w in at])
    return np.array(in_depth).reshape(-1, depths), np.array(in_radius).reshape(-1, len(EDGES) - 1)


def profile_distance(profiles: Values, reference: Values) -> float:
    """Average the difference of two mean profiles over their points.

    Args:
        profiles: (L, K), NaN where a point is not defined.
        reference: (M, K).

    Returns:
        Mean over the points that both have of the absolute difference of their means; NaN without any.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns of a mean of nothing, which is NaN
        return float(np.nanmean(np.abs(np.nanmean(profiles, axis=0) - np.nanmean(reference, axis=0))))


def _mean(volume: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    values = volume[where]
    return float(values.mean(dtype=np.float64)) if values.size >= SMALLEST_PART else float("nan")


def _cnr(lesion: Values, background: Values) -> float:
    if not lesion.size or background.size < SMALLEST_RING or np.ptp(background) == 0:
        return float("nan")
    return float((lesion.mean() - background.mean()) / background.std())


def _distances(shape: tuple[int, ...], boxes: Boxes) -> tuple[Values, Values]:
    """Distances of voxel centres from boxes' centres, in half-axes: (n, D) in depth, (n, H, W) in plane."""
    half = np.maximum((boxes[:, 3:] - boxes[:, :3]) / 2, np.finfo(np.float32).tiny).astype(np.float64)
    centre = (boxes[:, 3:].astype(np.float64) + boxes[:, :3]) / 2
    z, y, x = (
        (np.arange(size) + 0.5 - centre[:, [axis]]) / half[:, [axis]] for axis, size in enumerate(shape)
    )
    return np.abs(z), np.hypot(y[:, :, None], x[:, None, :])


def _inside(volumes: Volume, mask: Mask | None) -> list[NDArray[np.float32]]:
    if mask is None:
        return [volume.ravel() for volume in volumes]
    return [volume[own] for volume, own in zip(volumes, mask, strict=True)]


def _percentiles(volumes: Volume, mask: Mask | None) -> tuple[Values, Values]:
    nothing = (np.nan, np.nan)
    pairs = [np.percentile(v, (LOW, HIGH)) if v.size else nothing for v in _inside(volumes, mask)]
    low, high = np.array(pairs, np.float64).reshape(-1, 2).T
    return low, high
