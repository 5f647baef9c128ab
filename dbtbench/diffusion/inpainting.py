"""In-painting: a sampler draws in a hole, and all else is known."""

from __future__ import annotations

from torch import Tensor

from dbtbench.diffusion.sampling import Denoise


def keep_known(denoise: Denoise, known: Tensor, hole: Tensor) -> Denoise:
    """Make a denoiser whose estimate is hole · `denoise`(x_t, t) + (1 − hole) · known.

    RePaint (Lugmayr et al., arXiv 2201.09865, eq. 8) replaces the noisy state outside of the hole. Replacing
    the estimate has the same effect at every noise level and needs no change of a sampler: each step moves
    the state outside of the hole towards the known data. A hole with a smooth rim blends the two.

    Args:
        denoise: of a model.
        known: (N, ...) data.
        hole: of the same shape, in [0, 1].
    """

    def estimate(x: Tensor, t: int) -> Tensor:
        return hole * denoise(x, t) + (1 - hole) * known

    return estimate
