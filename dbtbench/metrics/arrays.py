"""Distances between two sets of volumes in memory; the task `realism` streams the same from disk."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dbtbench.errors import UsageError
from dbtbench.geometry.views import Volume
from dbtbench.metrics.histogram import histogram, wasserstein
from dbtbench.metrics.mask import breast_mask


def w1_intensity(volumes: ArrayLike, reference: ArrayLike) -> float:
    """Wasserstein-1 distance between the grey levels of two sets, air included.

    >>> import numpy as np
    >>> round(w1_intensity(np.full((8, 32, 32), 0.2), np.full((8, 32, 32), 0.7)), 3)
    0.5

    Args:
        volumes: (D, H, W) or (…, D, H, W), in [0, 1]; arrays or tensors on the CPU.
        reference: the same, of any number and size.

    Returns:
        By how much intensities would have to be moved, in units of the intensity range; NaN of no volumes.

    Raises:
        UsageError: when one has fewer than three axes, or values that are not finite or outside [0, 1].
    """
    return wasserstein(histogram(stack_volumes(volumes)), histogram(stack_volumes(reference)))


def w1_breast(volumes: ArrayLike, reference: ArrayLike) -> float:
    """Wasserstein-1 distance between the grey levels inside the breast (`breast_mask`); as `w1_intensity`.

    >>> test = dataset.select("test").volumes()
    >>> w1_breast(test, test)
    0.0
    """
    own, real = stack_volumes(volumes), stack_volumes(reference)
    return wasserstein(histogram(own, breast_mask(own)), histogram(real, breast_mask(real)))


def stack_volumes(volumes: ArrayLike) -> Volume:
    """Bring volumes into the form (N, 1, D, H, W) float32; for arguments and errors see `w1_intensity`."""
    array = np.asarray(volumes, np.float32)
    if array.ndim < 3:
        raise UsageError(f"an array of shape {array.shape} holds no volumes", "its last axes are (D, H, W)")
    if not (np.isfinite(array).all() and array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
        raise UsageError("volumes have values that are not in [0, 1]", "for values from -1 to 1: (x + 1) / 2")
    return array.reshape(-1, 1, *array.shape[-3:])
