"""Classifier-free guidance."""

from __future__ import annotations

from torch import Tensor


def classifier_free_guidance(
    conditional: Tensor, unconditional: Tensor, scale: float, rescale: float
) -> Tensor:
    """Guide a prediction (Ho & Salimans, arXiv 2207.12598) and rescale it (arXiv 2305.08891, eq. 15-16).

    Args:
        conditional: (N, ...) prediction with the conditioning.
        unconditional: (N, ...) prediction without it.
        scale: guidance scale; 1 gives `conditional`, more follows the conditioning more closely.
        rescale: in [0, 1]; how far each sample's standard deviation goes back to that of `conditional`.

    Returns:
        (N, ...).
    """
    guided = unconditional + scale * (conditional - unconditional)
    inner = tuple(range(1, conditional.dim()))
    factor = conditional.std(inner, keepdim=True) / guided.std(inner, keepdim=True).clamp(min=1e-8)
    return guided * (rescale * factor + 1 - rescale)
