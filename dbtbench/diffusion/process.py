"""The diffusion process: schedules, what a network predicts of it, and what it is trained with.

Times t are 0 (data) to T (pure noise). A schedule is the table of abar, the signal's share of the variance:
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise. A network predicts the noise, the data x_0, or
v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans & Ho, arXiv 2202.00512), which is -x_0 at T and the
noise near 0: unlike the noise, it stays informative where there is no signal. `sampling.py` goes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Target = Literal["noise", "v", "data"]
Loss = Literal["mse", "mae", "huber"]
ScheduleName = Literal["linear", "rescaled-linear", "cosine"]

LARGEST_BETA = 0.999
"""Most of the variance that one step replaces (Nichol & Dhariwal, arXiv 2102.09672)."""
SMALLEST_SNR = 0.1
"""What min-SNR weights take pure noise's for, so that the terminal step keeps a weight."""


def linear(times: int) -> Tensor:
    """Linear betas, 1e-4 to 0.02 (Ho et al., arXiv 2006.11239), whatever T is, as tutorials take them.

    They were made for T = 1000; with fewer times much of the signal is left at T: 4.8 % of the variance
    for T = 300.

    Args:
        times: T.

    Returns:
        (T + 1,) float64, falling from 1.
    """
    return _cumulated(torch.linspace(1e-4, 0.02, times, dtype=torch.float64))


def rescaled_linear(times: int) -> Tensor:
    """Linear betas times 1000 / T, so that as little signal is left at any T; (T + 1,) float64."""
    return _cumulated(torch.linspace(1e-4, 0.02, times, dtype=torch.float64) * 1000 / times)


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


def _cumulated(betas: Tensor) -> Tensor:
    return torch.cat([betas.new_ones(1), (1 - betas.clamp(max=LARGEST_BETA)).cumprod(0)])


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


SCHEDULES: dict[ScheduleName, Callable[[int], Tensor]] = {
    "linear": linear,
    "rescaled-linear": rescaled_linear,
    "cosine": cosine,
}


def schedule(name: ScheduleName, times: int, zero_terminal: bool) -> Tensor:
    """The table of abar: (T + 1,) float64, falling from 1, to exactly 0 with `zero_terminal`."""
    abar = SCHEDULES[name](times)
    return zero_terminal_snr(abar) if zero_terminal else _cumulated(1 - abar[1:] / abar[:-1])


def weights(abar: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t), (N, 1, ..., 1) to go with `like`."""
    a = abar.to(t.device)[t].view(-1, *[1] * (like.dim() - 1))
    return a.sqrt().to(like.dtype), (1 - a).sqrt().to(like.dtype)


def noisy(abar: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t of data x0 (N, ...), noise of the same shape and times t (N,) int."""
    signal, sigma = weights(abar, t, x0)
    return signal * x0 + sigma * noise


def target_of(target: Target, abar: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network is to predict, of data x0 (N, ...), noise of the same shape and times t (N,) int."""
    if target == "noise":
        return noise
    if target == "data":
        return x0
    signal, sigma = weights(abar, t, x0)
    return signal * noise - sigma * x0


def from_velocity(target: Target, abar: Tensor, xt: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """The target that a noisy x_t (N, ...) and v amount to: no division, so it holds at every t."""
    if target == "v":
        return v
    signal, sigma = weights(abar, t, xt)
    return sigma * xt + signal * v if target == "noise" else signal * xt - sigma * v


def to_data(target: Target, abar: Tensor, xt: Tensor, predicted: Tensor, t: Tensor) -> Tensor:
    """The data that a noisy x_t (N, ...) and the predicted target amount to.

    Of the noise it divides by the signal: it is not finite where abar is 0.
    """
    if target == "data":
        return predicted
    signal, sigma = weights(abar, t, xt)
    return signal * xt - sigma * predicted if target == "v" else (xt - sigma * predicted) / signal


def min_snr_weights(target: Target, abar: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights of the squared error (Hang et al., arXiv 2303.09556, sec. 3.4), never 0.

    The weight of the data's error is the signal-to-noise ratio, at most gamma; that of the noise's and of
    v's is this divided by SNR and by SNR + 1. The paper's goes to 0 with the SNR for data and v: at zero
    terminal SNR the step that sampling begins with would not be learned. So the SNR counts as
    `SMALLEST_SNR` where it is less.

    Args:
        target: what is predicted.
        abar: (T + 1,) schedule, without zeros if the target is the noise.
        gamma: the largest SNR that counts; the paper's is 5.

    Returns:
        (T + 1,) of `abar`'s type; the entry of t = 0, which is not trained on, is that of t = 1.
    """
    share = abar.clone()
    share[0] = share[1]
    snr = share / (1 - share)
    if target == "noise":
        return (gamma / snr).clamp(max=1)
    clipped = snr.clamp(min=SMALLEST_SNR).clamp(max=gamma)
    return clipped if target == "data" else clipped / (snr + 1)


def penalty(loss: Loss, error: Tensor) -> Tensor:
    """Squared, absolute or Huber's error (quadratic up to 1, linear beyond), voxel by voxel."""
    if loss == "mse":
        return error.square()
    if loss == "mae":
        return error.abs()
    return F.huber_loss(error, torch.zeros_like(error), reduction="none")
