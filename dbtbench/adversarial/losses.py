"""Losses of generators and critics: relativistic pairing, gradient penalties, mutations and fitness.

A critic gives each volume a score (N,), the larger, the more real; sigmoid(score) is its probability of
being real. Nothing here runs in mixed precision: small differences of scores would be lost in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, autograd

NEAR = 0.01
"""Standard deviation of the noise, in roots of intensities, over which a slope is measured."""
COARSE = 4
CHANGE = 0.05
"""Change of a coarse mean, in roots of intensities, that counts as 1."""
LAST_PENALTY = 0.1
"""Share of the penalty's weight that is left at the end of the training."""


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Compute the pairing loss of scores (N,): low where `better[i]` exceeds `worse[i]`.

    R3GAN's (Huang et al., arXiv 2501.05441, after Jolicoeur-Martineau, arXiv 1807.00734). The critic's
    better ones are the real volumes, the generator's its own. Both of a pair have the same conditioning.
    """
    return F.softplus(worse - better).mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute a critic's cross entropy, of scores (N,) of real and drawn volumes."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def slope_penalty(scores: Tensor, near: Tensor) -> Tensor:
    """Estimate the mean squared length of the scores' gradient by their volumes, without computing it.

    R1 of real volumes, R2 of drawn ones (Mescheder et al., arXiv 1801.04406), approximated as in APT (Lin et
    al., arXiv 2501.08316): in a random direction a slope's mean square is its squared length. No gradient is
    differentiated again, which costs three to five times as much on a CPU.

    Args:
        scores: (N,) of volumes.
        near: (N,) of the same volumes with white noise of standard deviation `NEAR` added.
    """
    return ((near - scores) / NEAR).square().mean()


def coarse_change(roots: Tensor, draft: Tensor) -> Tensor:
    """Measure how far roots (N, 1, D, H, W) left their draft in means of COARSE x COARSE voxels of a slice.

    As in SimGAN (Shrivastava et al., arXiv 1612.07828), but for coarse means: grain is to be changed.

    Returns:
        Mean square in units of `CHANGE`.
    """
    change = F.avg_pool3d(roots - draft, (1, COARSE, COARSE))
    return (change / CHANGE).square().mean()


def penalty_weight(first: float, step: int, steps: int) -> float:
    """Compute the penalty's weight at a step: half a cosine from `first` to a tenth of it, as R3GAN's."""
    share = (1 + math.cos(math.pi * step / steps)) / 2
    return first * (LAST_PENALTY + (1 - LAST_PENALTY) * share)


def minimax(fake: Tensor) -> Tensor:
    """Compute the minimax mutation's loss of scores (N,): the logarithm of the probability of being drawn."""
    return -F.softplus(fake).mean()


def heuristic(fake: Tensor) -> Tensor:
    """Compute the heuristic mutation's loss of scores (N,), which does not saturate."""
    return F.softplus(-fake).mean()


def least_squares(fake: Tensor) -> Tensor:
    """Compute the least-squares mutation's loss of scores (N,)."""
    return (torch.sigmoid(fake) - 1).square().mean()


MUTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "minimax": minimax,
    "heuristic": heuristic,
    "least_squares": least_squares,
}
"""The mutations of E-GAN (Wang et al. 2019, arXiv 1803.00657), by the names that metrics.jsonl has."""


def measure_fitness(real: Tensor, fake: Tensor, weights: Iterable[Tensor], diversity_weight: float) -> Tensor:
    """Measure a generator's fitness, quality + diversity_weight · diversity, after Wang et al. 2019.

    Quality is the mean probability of being real. Diversity is −log ‖∇ of the critic's loss by its weights‖:
    a generator that has collapsed gives the critic a strong, common direction to improve in, and is less
    fit. A stored version of the authors' code has the other sign; the paper has this one.

    Args:
        real: scores (N,) of real volumes.
        fake: scores (N,) of the generator's volumes.
        weights: the critic's, of which the scores are differentiable functions.
        diversity_weight: the paper's gamma.
    """
    slopes = autograd.grad(critic_loss(real, fake), list(weights))
    squared = torch.stack([slope.square().sum() for slope in slopes]).sum()
    quality = torch.sigmoid(fake.detach()).mean()
    smallest = torch.finfo(squared.dtype).tiny
    return quality - diversity_weight * 0.5 * squared.clamp(min=smallest).log()
