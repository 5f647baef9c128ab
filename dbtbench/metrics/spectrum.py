"""Power spectrum of the breast in the plane: by band, its slope, and whether it has a direction."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import NDArray

from dbtbench.geometry.views import Volume
from dbtbench.metrics.mask import Mask
from dbtbench.metrics.texture import choose_slices

BANDS = {
    "coarse": (1 / 32, 1 / 16),
    "medium": (1 / 16, 1 / 8),
    "fine": (1 / 8, 1 / 4),
    "finest": (1 / 4, 1 / 2),
}
"""Octaves of spatial frequency, in cycles per pixel."""
RINGS = 12
DIRECTED = (1 / 16, 1 / 4)
RIM = 4.0
SMALLEST = 1e-12
"""Power of a plane without any structure, so that it has a logarithm."""

Values = NDArray[np.float64]


def spectrum(volumes: Volume, mask: Mask) -> dict[str, Values]:
    """Measure the power spectrum of each volume's breast in the plane.

    The breast less its mean fades out over 4 pixels at its outline and at the image's border; the squared
    Fourier transform, for each pixel of that window, is averaged over at most 8 slices.

    Args:
        volumes: (N, 1, D, H, W) float32 in [0, 1].
        mask: same shape, True inside the breast.

    Returns:
        (N,) float64 each; NaN where the mask is empty:
        `power_NAME` for each of `BANDS`: natural logarithm of the mean power in the band;
        `beta`: the slope of power ∝ 1 / frequency^β, from 1/32 to 1/2 cycles per pixel;
        `anisotropy`: natural logarithm of the power of what varies down the image over that of what varies
        across it, from 1/16 to 1/4 cycles per pixel; 0 without a direction.

    Source: Burgess AE, Jacobson FL, Judy PF. Human observer detection experiments with mammograms and
    power-law noise. Medical Physics 28(4):419–437, 2001 (β ≈ 3 in mammograms).
    """
    rows = [_measure(*pair) for pair in zip(volumes[:, 0], mask[:, 0], strict=True)]
    names = [*(f"power_{name}" for name in BANDS), "beta", "anisotropy"]
    table = np.array(rows, np.float64).reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True))


def _measure(volume: NDArray[np.float32], inside: NDArray[np.bool_]) -> list[float]:
    silhouette = inside[0]
    if not silhouette.any():
        return [np.nan] * (len(BANDS) + 2)
    depth = scipy.ndimage.distance_transform_edt(np.pad(silhouette, 1))[1:-1, 1:-1]
    window = np.sin(np.pi / 2 * np.minimum(depth / RIM, 1)) ** 2
    planes = volume[choose_slices(len(volume))].astype(np.float64)
    centred = (planes - planes[:, silhouette].mean()) * window
    power = np.mean(np.abs(scipy.fft.fft2(centred)) ** 2, axis=0) / np.sum(window**2)
    bands, rings, frequencies, down, across = _places(*silhouette.shape)
    levels = [np.log(power[place].mean() + SMALLEST) if place.any() else np.nan for place in bands]
    curve = np.log([power[place].mean() + SMALLEST for place in rings])
    beta = -np.polyfit(np.log(frequencies), curve, 1)[0] if len(rings) > 1 else np.nan
    direction = np.log((power[down].mean() + SMALLEST) / (power[across].mean() + SMALLEST))
    return [*map(float, levels), float(beta), float(direction)]


@lru_cache(maxsize=4)
def _places(height: int, width: int) -> tuple[list[Values], list[Values], list[float], Values, Values]:
    """Find where bands, rings (with their mean frequency) and the two directions lie in the transform."""
    y, x = np.meshgrid(scipy.fft.fftfreq(height), scipy.fft.fftfreq(width), indexing="ij")
    radius = np.hypot(y, x)
    bands = [(radius >= low) & (radius < high) for low, high in BANDS.values()]
    edges = np.geomspace(1 / 32, 1 / 2, RINGS + 1)
    rings = [(radius >= low) & (radius < high) for low, high in pairwise(edges)]
    rings = [ring for ring in rings if ring.any()]
    directed = (radius >= DIRECTED[0]) & (radius < DIRECTED[1])
    down, across = (directed & (np.abs(one) > np.abs(other)) for one, other in ((y, x), (x, y)))
    return bands, rings, [float(radius[ring].mean()) for ring in rings], down, across
