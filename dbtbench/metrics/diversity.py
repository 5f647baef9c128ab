"""Diversity of a set of volumes: how alike any two of them are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dbtbench.geometry.views import Volume

THUMBNAIL = (8, 64, 64)
KERNEL = 11
SIGMA = 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001)
AT_ONCE = 2**20

Values = NDArray[np.float64]


def shrink(volumes: Volume) -> Volume:
    """Average volumes down to at most 8 slices of 64×64.

    Args:
        volumes: (N, 1, D, H, W) float32.

    Returns:
        (N, d, h, w) float32, no axis longer than before.
    """
    import torch

    size = tuple(min(pair) for pair in zip(volumes.shape[2:], THUMBNAIL, strict=True))
    small = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(volumes)), size)
    return np.asarray(small[:, 0].numpy(), np.float32)


def ms_ssim(thumbnails: Volume, pairs: Sequence[tuple[int, int]] | NDArray[np.int64]) -> Values:
    """Multi-scale structural similarity of pairs of volumes, in the plane, averaged over the slices.

    With as many of the scales as the planes have room for: three from 44 pixels on, two from 22 on, weighted
    as in the source, relative to their sum.

    Args:
        thumbnails: (N, D, H, W) float32 in [0, 1], from `shrink`.
        pairs: (P, 2) which two of them.

    Returns:
        (P,) float64, 1 for the same volume twice; NaN for planes of fewer than 11 pixels.

    Source: Wang Z, Simoncelli EP, Bovik AC. Multiscale structural similarity for image quality assessment.
    Asilomar Conference on Signals, Systems and Computers 2003; between generated images: Odena A, Olah C,
    Shlens J. Conditional image synthesis with auxiliary classifier GANs. ICML 2017.
    """
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    chosen = np.asarray(pairs, np.int64).reshape(-1, 2)
    small = min(thumbnails.shape[2:])
    if small < KERNEL or not len(chosen):
        return np.full(len(chosen), np.nan)
    scales = sum(
        small > (KERNEL - 1) * max(1, scale) ** 2 and small >> scale >= KERNEL
        for scale in range(len(WEIGHTS))
    )
    weights = [weight / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales]]
    metric = MultiScaleSSIMMetric(2, 1.0, kernel_size=KERNEL, kernel_sigma=SIGMA, weights=weights)
    step = max(1, AT_ONCE // thumbnails[0].size)
    found = []
    for start in range(0, len(chosen), step):
        one, other = (torch.from_numpy(thumbnails[part]) for part in chosen[start : start + step].T)
        found.append(np.asarray(metric(one, other)).ravel())
    return np.concatenate(found).astype(np.float64)


def draw_pairs(patients: Sequence[str], each: int, seed: int) -> NDArray[np.int64]:
    """Draw pairs of volumes of different patients.

    Args:
        patients: (N,) of which patient each volume is.
        each: pairs for each volume.
        seed: of the draw.

    Returns:
        (P, 2) with P ≤ N · `each`, the smaller number first, without the same pair twice.
    """
    names = np.asarray(patients)
    rng = np.random.default_rng(seed)
    n = len(names)
    if n < 2:
        return np.empty((0, 2), np.int64)
    one = np.tile(np.arange(n), each)
    other = (one + rng.integers(1, n, len(one))) % n
    apart = names[one] != names[other]
    found = np.stack([np.minimum(one, other), np.maximum(one, other)], axis=1)[apart]
    return np.unique(found, axis=0)
