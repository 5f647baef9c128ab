"""Detections that need no training: random points in the breast, and the brightest blobs.

What a trained detector finds beyond them is what it has learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from dbtbench.geometry.views import Boxes
from dbtbench.metrics.mask import Mask

Found = tuple[Boxes, NDArray[np.float32]]

RATIO = 1.6
"""Of the two widths of a difference of Gaussians, near the Laplacian's shape (Marr & Hildreth, Proceedings of
the Royal Society B 207:187–217, 1980)."""
CORE = 0.5
"""Share of a box's side that a lesion's bright part fills."""
RIM = 1e-3
"""Share of a Gaussian's weight below which it lies outside of the breast."""


def guess(inside: Mask, sides: NDArray[np.float32], n: int, key: tuple[int, ...]) -> Found:
    """Place boxes at random.

    Args:
        inside: (D, H, W), True inside the breast.
        sides: (k, 3) sides of boxes: slices, rows, columns.
        n: how many boxes, at most.
        key: seed of the places, sides and scores.

    Returns:
        (m, 6) boxes in voxels and (m,) scores in [0, 1], the best first; none where there is no breast.
    """
    rng = np.random.default_rng(key)
    places = np.argwhere(inside)
    chosen = places[rng.permutation(len(places))[:n]]
    scores = np.sort(rng.random(len(chosen)))[::-1].astype(np.float32)
    return _boxes_around(chosen, sides[rng.integers(len(sides), size=len(chosen))]), scores


def find_blobs(volume: NDArray[np.float32], inside: Mask, sides: NDArray[np.float32], n: int) -> Found:
    """Find what is brighter than its surroundings in the plane, by differences of Gaussians.

    Args:
        volume: (D, H, W) in [0, 1].
        inside: same shape, True inside the breast: what lies outside has no weight.
        sides: (k, 3) sides of boxes, each of which gives the width of a filter.
        n: how many boxes, at most.

    Returns:
        As `guess`; a score is 1 / (1 + e^−r) with r the filter's answer in standard deviations of the breast.
    """
    tissue = volume[inside]
    if not tissue.size or not np.ptp(tissue):
        return np.empty((0, 6), np.float32), np.empty(0, np.float32)
    answers = np.stack([_filter(volume, inside, CORE * float(side[1:].mean()) / 4) for side in sides])
    best, which = answers.max(axis=0), answers.argmax(axis=0)
    # Tomosynthesis smears a lesion through the slices: of those at one place in the plane the best counts.
    width = (2 * len(volume), *(int(max(3, side)) for side in sides[:, 1:].mean(axis=0)))
    peaks = np.argwhere((best == maximum_filter(best, width)) & inside)
    order = np.argsort(-best[tuple(peaks.T)], kind="stable")[:n]
    chosen = tuple(peaks[order].T)
    scores = 1 / (1 + np.exp(-best[chosen] / tissue.std()))
    return _boxes_around(peaks[order], sides[which[chosen]]), scores.astype(np.float32)


def _filter(volume: NDArray[np.float32], inside: Mask, sigma: float) -> NDArray[np.float64]:
    """Subtract a wide mean of the breast from a narrow one, in the plane."""
    narrow, wide = (_mean(volume, inside, width) for width in (sigma, RATIO * sigma))
    return narrow - wide


def _mean(volume: NDArray[np.float32], inside: Mask, sigma: float) -> NDArray[np.float64]:
    """Average the breast with a Gaussian in the plane; air next to it counts for nothing."""
    weight = gaussian_filter(inside.astype(np.float64), (0, sigma, sigma))
    total = gaussian_filter(np.where(inside, volume, 0).astype(np.float64), (0, sigma, sigma))
    mean: NDArray[np.float64] = total / np.maximum(weight, RIM)
    return mean


def _boxes_around(voxels: NDArray[np.int64], sides: NDArray[np.float32]) -> Boxes:
    """Boxes (n, 6) of these sides (n, 3) around the centres of voxels (n, 3)."""
    centre = voxels.astype(np.float32) + np.float32(0.5)
    return np.concatenate([centre - sides / 2, centre + sides / 2], axis=1)
