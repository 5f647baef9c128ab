"""The diffusion process: schedule, v-prediction, and DDIM sampling with guidance.

MONAI's schedulers are not used because they are wrong when they stride: its DDPM steps as if it took all of
the training steps, its DDIM places its steps with linspace but takes the previous one to be `t - T // n`;
neither can rescale its schedule to zero terminal SNR.

Times t are 0 (data) to T (pure noise). A schedule is the table of abar, the signal's share of the variance:
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise. The network predicts
v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans & Ho, arXiv 2202.00512), which is -x_0 at T and the
noise near 0: unlike the noise, it stays informative where there is no signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Predictor = Callable[[Tensor, int], Tensor]
"""`predictor(x_t, t)` gives v, of `x_t`'s shape."""


def cosine(times: int) -> Tensor:
    """Cosine schedule (Nichol & Dhariwal, arXiv 2102.09672, eq. 17).

    Args:
        times: T.

    Returns:
        (T + 1,) float64, falling from 1.
    """
    t = torch.linspace(0, 1, times + 1, dtype=torch.float64)
    abar = torch.cos((t + 0.008) / 1.008 * (math.pi / 2)) ** 2
    return abar / abar[0]


def zero_terminal_snr(abar: Tensor) -> Tensor:
    """Rescale a schedule so that no signal is left at T (Lin et al., arXiv 2305.08891, algorithm 1).

    With signal left, training never shows the network the pure noise that sampling starts from, and samples
    lose contrast.

    Args:
        abar: (T + 1,), falling from 1.

    Returns:
        (T + 1,) float64; the last is exactly 0, the first two are as before.
    """
    root = abar.double().sqrt()
    rescaled = (root - root[-1]) * root[1] / (root[1] - root[-1])
    rescaled[0] = 1
    return rescaled**2


def _weights(abar: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t), (N, 1, ..., 1) to go with `like`."""
    a = abar.to(t.device)[t].view(-1, *[1] * (like.dim() - 1))
    return a.sqrt().to(like.dtype), (1 - a).sqrt().to(like.dtype)


def noisy(abar: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t of data x0 (N, ...), noise of the same shape and times t (N,) int."""
    signal, sigma = _weights(abar, t, x0)
    return signal * x0 + sigma * noise


def velocity(abar: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Velocity v of data x0 (N, ...), noise of the same shape and times t (N,) int."""
    signal, sigma = _weights(abar, t, x0)
    return signal * noise - sigma * x0


def decompose(abar: Tensor, xt: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Data and noise that a noisy x_t (N, ...) and v consist of: no division, so it holds at every t."""
    signal, sigma = _weights(abar, t, xt)
    return signal * xt - sigma * v, sigma * xt + signal * v


def trailing(times: int, steps: int) -> list[int]:
    """Times that a sampler visits: `steps + 1` of them, from exactly T to 0 (arXiv 2305.08891, sec. 3.3)."""
    return [round(times * (steps - i) / steps) for i in range(steps + 1)]


def ddim(
    predictor: Predictor, noise: Tensor, abar: Tensor, steps: int, limits: tuple[float, float]
) -> Tensor:
    """Deterministic DDIM (Song et al., arXiv 2010.02502, eq. 12), the estimated data clipped to their range.

    Args:
        predictor: gives v.
        noise: (N, ...) standard normal.
        abar: (T + 1,) schedule.
        steps: calls of `predictor`; 1 to T.
        limits: smallest and largest value of the data.

    Returns:
        (N, ...) data within the limits.
    """
    x, times = noise, trailing(len(abar) - 1, steps)
    for now, following in pairwise(times):
        t = torch.full((len(x),), now, device=x.device)
        x0, _ = decompose(abar, x, predictor(x, now), t)
        x0 = x0.clamp(*limits)
        signal, sigma = _weights(abar, t, x)
        # The noise that belongs to the clipped estimate; sigma is never 0 here, for now > 0.
        x = noisy(abar, x0, (x - signal * x0) / sigma, torch.full_like(t, following))
    return x


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
