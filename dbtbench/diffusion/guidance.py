"""Classifier-free guidance."""

from __future__ import annotations

from torch import Tensor


def guided(told: Tensor, untold: Tensor, weight: float, rescale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598), rescaled (arXiv 2305.08891, eq. 15-16).

    Args:
        told: (N, ...) prediction with the conditions.
        untold: (N, ...) prediction without.
        weight: 1 gives `told`; more follows the conditions harder.
        rescale: share, in [0, 1], of bringing each sample's standard deviation back to `told`'s.

    Returns:
        (N, ...).
    """
    moved = untold + weight * (told - untold)
    inner = tuple(range(1, told.dim()))
    factor = told.std(inner, keepdim=True) / moved.std(inner, keepdim=True).clamp(min=1e-8)
    return moved * (rescale * factor + 1 - rescale)
