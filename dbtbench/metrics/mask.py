"""Mask of the breast in a volume."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import NDArray

from dbtbench.geometry.views import Volume

GREY_LEVEL = 1 / 256
SMOOTHING = (0.5, 0.7, 0.7)

Mask = NDArray[np.bool_]


def breast_mask(volumes: Volume) -> Mask:
    """Find where each volume shows breast in every slice, one voxel or more from its outline.

    The minimum over the slices of the smoothed volume is cut at Li's threshold, reduced to its largest
    connected piece, filled and eroded by one voxel (not at the image's border, where the chest wall lies). So
    neither partly filled voxels nor the outer slices' rounding bring air into what is measured inside the
    breast, where 1 % of air would pass for a second mode. One silhouette for all slices also holds where
    noise or blur would fray a slice's own outline.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1], air darker than tissue.

    Returns:
        (N, 1, D, H, W) bool, a read-only view; nowhere True in a volume without structure.
    """
    silhouettes = [_silhouette(volume) for volume in volumes[:, 0]]
    stacked = np.stack(silhouettes) if silhouettes else np.zeros((0, *volumes.shape[-2:]), bool)
    return np.broadcast_to(stacked[:, None, None], volumes.shape)


def _silhouette(volume: Volume) -> Mask:
    darkest = scipy.ndimage.gaussian_filter(volume, SMOOTHING, output=np.float64).min(axis=0)
    pieces, count = scipy.ndimage.label(darkest > li_threshold(darkest))
    if not count:
        return np.zeros(darkest.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    filled = scipy.ndimage.binary_fill_holes(pieces == largest)
    inside: Mask = scipy.ndimage.binary_erosion(filled, border_value=1)
    return inside


def li_threshold(image: NDArray[np.float64]) -> float:
    """Minimum cross-entropy threshold, by the fixed-point iteration of Li and Tam (1998).

    With m₀ and m₁ the means below and above it, the threshold is (m₁ − m₀) / (ln m₁ − ln m₀). Started low,
    unlike Otsu's it stays between air and fat also when a bright muscle makes up much of the breast.

    Args:
        image: intensities ≥ 0, any shape.

    Returns:
        The threshold; infinity when the intensities differ by less than one of 256 grey levels.

    Source: Li CH, Tam PKS. An iterative algorithm for minimum cross entropy thresholding.
    Pattern Recognition Letters 19(8):771–776, 1998.
    """
    if np.ptp(image) < GREY_LEVEL:
        return float("inf")
    # Air that is exactly 0 has no logarithm: everything is taken half a grey level brighter.
    values = image + GREY_LEVEL / 2
    # From the arithmetic mean it can end between fat and muscle; the geometric mean lies nearer to air.
    threshold = float(np.exp(np.log(values).mean()))
    for _ in range(100):
        above = values > threshold
        low, high = float(values[~above].mean()), float(values[above].mean())
        last, threshold = threshold, (high - low) / (np.log(high) - np.log(low))
        if abs(threshold - last) < GREY_LEVEL / 100:
            break
    return threshold - GREY_LEVEL / 2
