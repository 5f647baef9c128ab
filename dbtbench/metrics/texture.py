"""Texture of volumes: how rough they are from slice to slice, and how much of a plane is lines."""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import NDArray

from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import Mask

MOST_SLICES = 8
GRADIENT_SIGMA, WINDOW_SIGMA = 1.0, 2.0
RIM = 3.0

Values = NDArray[np.float64]


def choose_slices(depth: int, most: int = MOST_SLICES) -> NDArray[np.int64]:
    """Choose at most so many slices, evenly spaced from the first to the last."""
    return np.linspace(0, depth - 1, min(depth, most)).round().astype(np.int64)


def roughness(volumes: Volume, mask: Mask) -> Values:
    """Average the absolute difference of neighbouring slices inside the breast, for each volume.

    Tomosynthesis smears tissue in depth, so that neighbouring slices are alike; slices that a generator
    draws as if they were alone are not.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.

    Returns:
        (N,) float64 in units of the intensity range; NaN where the mask is empty or there is one slice only.
    """
    found = []
    for volume, inside in zip(volumes[:, 0], mask[:, 0], strict=True):
        steps = np.abs(np.diff(volume, axis=0))[inside[1:] & inside[:-1]]
        found.append(steps.mean(dtype=np.float64) if steps.size else np.nan)
    return np.array(found, np.float64)


def coherence(volumes: Volume, mask: Mask) -> Values:
    """Average (λ₁ − λ₂) / (λ₁ + λ₂) of the structure tensor in the breast, for each volume.

    1 where all gradients around a pixel lie on one line, as at the border of a strand; near 0 where they
    point everywhere, as in a blob. Gradients are those of a Gaussian with a deviation of 1 pixel, averaged
    with one of 2, in at most 8 slices; 3 pixels at the breast's outline are left out.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.

    Returns:
        (N,) float64 in [0, 1]; NaN where nothing is left of the mask, or nothing varies.

    Source: Bigun J, Granlund GH. Optimal orientation detection of linear symmetry. ICCV 1987, 433–438;
    Weickert J. Coherence-enhancing diffusion filtering. International Journal of Computer Vision 31:111–127,
    1999.
    """
    found = []
    for volume, inside in zip(volumes[:, 0], mask[:, 0], strict=True):
        chosen = choose_slices(len(volume))
        planes = volume[chosen].astype(np.float64)
        far = scipy.ndimage.distance_transform_edt(inside[0]) > RIM
        down, right = (
            scipy.ndimage.gaussian_filter(planes, (0, GRADIENT_SIGMA, GRADIENT_SIGMA), order=order)
            for order in ((0, 1, 0), (0, 0, 1))
        )
        yy, xx, xy = (
            scipy.ndimage.gaussian_filter(product, (0, WINDOW_SIGMA, WINDOW_SIGMA))[:, far]
            for product in (down**2, right**2, down * right)
        )
        total = yy + xx
        varies = total > np.finfo(np.float32).eps ** 2
        own = (np.hypot(yy - xx, 2 * xy)[varies] / total[varies]) if varies.any() else np.array([np.nan])
        found.append(own.mean())
    return np.array(found, np.float64)
