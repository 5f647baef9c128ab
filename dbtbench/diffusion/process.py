"""The diffusion process: noise schedules, times, training targets and losses.

Timesteps t run from 0 (data) to T (pure noise). A schedule is the table of alpha_bar_t, and with
alpha_t = sqrt(alpha_bar_t) and sigma_t = sqrt(1 - alpha_bar_t)

    x_t = alpha_t x_0 + sigma_t noise,        v_t = alpha_t noise - sigma_t x_0.

A network predicts the noise, the data x_0, or the velocity v (Salimans & Ho, arXiv 2202.00512). v is -x_0 at
T and the noise at 0. Unlike the noise it stays informative where x_t has no signal. The reverse process is in
`sampling.py`.

Rectified flow (Liu et al., arXiv 2209.03003) is such a process, too. Its straight path from data to noise,

    y_tau = (1 - tau) x_0 + tau noise,        dy / dtau = noise - x_0,

is x_t in another scale: y = x_t / (alpha_t + sigma_t) at tau = sigma_t / (alpha_t + sigma_t). So it is a
schedule (`straight`, in which tau is t / T), a target (`flow`, the noise less the data) and a distribution of
timesteps in training. The sampler `ddim` is Euler's method on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dbtbench.diffusion.names import Loss, ScheduleName, Target, TimeDistribution

MAX_BETA = 0.999
"""Largest beta: the largest part of the variance that one step replaces (arXiv 2102.09672)."""
MIN_SNR = 0.1
"""Lower bound of the SNR in min-SNR weights, so that the terminal step keeps a weight."""


def linear_schedule(num_timesteps: int) -> Tensor:
    """Make linear betas from 1e-4 to 0.02 (Ho et al., arXiv 2006.11239), the same at any T.

    They were made for T = 1000. With fewer timesteps signal is left at T: alpha_bar_T = 0.048 for T = 300.

    Args:
        num_timesteps: T.

    Returns:
        alpha_bar, (T + 1,) float64, falling from 1.
    """
    return _alpha_bar_of(torch.linspace(1e-4, 0.02, num_timesteps, dtype=torch.float64))


def rescaled_linear_schedule(num_timesteps: int) -> Tensor:
    """Make linear betas times 1000 / T, so that any T ends with as little signal; (T + 1,) float64."""
    betas = torch.linspace(1e-4, 0.02, num_timesteps, dtype=torch.float64)
    return _alpha_bar_of(betas * 1000 / num_timesteps)


def cosine_schedule(num_timesteps: int) -> Tensor:
    """Make the cosine schedule (Nichol & Dhariwal, arXiv 2102.09672, eq. 17).

    Args:
        num_timesteps: T.

    Returns:
        alpha_bar, (T + 1,) float64, falling from 1.
    """
    t_normalised = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((t_normalised + 0.008) / 1.008 * (math.pi / 2)) ** 2
    return alpha_bar / alpha_bar[0]


def straight_schedule(num_timesteps: int) -> Tensor:
    """Make the schedule of rectified flow, scaled to constant variance (Liu et al., arXiv 2209.03003).

    Args:
        num_timesteps: T.

    Returns:
        alpha_bar, (T + 1,) float64, falling from 1 to exactly 0.
    """
    tau = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    return (1 - tau).square() / ((1 - tau).square() + tau.square())


def _alpha_bar_of(betas: Tensor) -> Tensor:
    return torch.cat([betas.new_ones(1), (1 - betas.clamp(max=MAX_BETA)).cumprod(0)])


def rescale_to_zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """Rescale a schedule so that no signal is left at T (Lin et al., arXiv 2305.08891, algorithm 1).

    If signal is left, training never shows the network the pure noise that sampling starts from, and samples
    lose contrast.

    Args:
        alpha_bar: (T + 1,), falling from 1.

    Returns:
        (T + 1,) float64; the last entry is exactly 0, the first two do not change.
    """
    alpha = alpha_bar.double().sqrt()
    rescaled = (alpha - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
    rescaled[0] = 1
    return rescaled**2


SCHEDULES: dict[ScheduleName, Callable[[int], Tensor]] = {
    "linear": linear_schedule,
    "rescaled-linear": rescaled_linear_schedule,
    "cosine": cosine_schedule,
    "straight": straight_schedule,
}


def make_schedule(name: ScheduleName, num_timesteps: int, zero_terminal: bool) -> Tensor:
    """Make alpha_bar: (T + 1,) float64, falling from 1; exactly 0 at T with `zero_terminal`."""
    alpha_bar = SCHEDULES[name](num_timesteps)
    if zero_terminal:
        return rescale_to_zero_terminal_snr(alpha_bar)
    return _alpha_bar_of(1 - alpha_bar[1:] / alpha_bar[:-1])


def draw_timesteps(
    distribution: TimeDistribution, num_timesteps: int, n: int, generator: torch.Generator
) -> Tensor:
    """Draw timesteps for training.

    `logit-normal` draws the logit of t / T from the standard normal distribution: more timesteps in the
    middle, where predicting is hardest, and fewer at both ends (Esser et al., arXiv 2403.03206, sec. 3.1).

    Args:
        distribution: `uniform` or `logit-normal`.
        num_timesteps: T.
        n: how many.
        generator: of the random numbers; the timesteps are on its device.

    Returns:
        (n,) int, from 1 to T.
    """
    device = generator.device
    if distribution == "uniform":
        return torch.randint(1, num_timesteps + 1, (n,), generator=generator, device=device)
    tau = torch.randn(n, generator=generator, device=device).sigmoid()
    return (tau * num_timesteps).ceil().long().clamp(1, num_timesteps)


def get_alpha_sigma(alpha_bar: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Look up alpha_t and sigma_t of timesteps t (N,) int: (N, 1, ..., 1), in the type of `like` (N, ...)."""
    alpha_bar_t = alpha_bar.to(t.device)[t].view(-1, *[1] * (like.dim() - 1))
    return alpha_bar_t.sqrt().to(like.dtype), (1 - alpha_bar_t).sqrt().to(like.dtype)


def add_noise(alpha_bar: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Compute x_t from data x0 (N, ...), noise of the same shape and timesteps t (N,) int."""
    alpha_t, sigma_t = get_alpha_sigma(alpha_bar, t, x0)
    return alpha_t * x0 + sigma_t * noise


def training_target(target: Target, alpha_bar: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Compute the target from data x0 (N, ...), noise of the same shape and timesteps t (N,) int."""
    if target == "noise":
        return noise
    if target == "data":
        return x0
    if target == "flow":
        return noise - x0
    alpha_t, sigma_t = get_alpha_sigma(alpha_bar, t, x0)
    return alpha_t * noise - sigma_t * x0


def convert_velocity(target: Target, alpha_bar: Tensor, xt: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """Convert v to the target, given x_t (N, ...) and t (N,) int. It does not divide: every t is allowed."""
    if target == "v":
        return v
    alpha_t, sigma_t = get_alpha_sigma(alpha_bar, t, xt)
    noise, x0 = sigma_t * xt + alpha_t * v, alpha_t * xt - sigma_t * v
    return {"noise": noise, "data": x0, "flow": noise - x0}[target]


def predict_x0(target: Target, alpha_bar: Tensor, xt: Tensor, predicted: Tensor, t: Tensor) -> Tensor:
    """Convert a predicted target to the data, given x_t (N, ...) and t (N,) int.

    For the target `noise` it divides by alpha_t: the result is not finite where alpha_bar_t is 0.
    """
    if target == "data":
        return predicted
    alpha_t, sigma_t = get_alpha_sigma(alpha_bar, t, xt)
    if target == "flow":
        return (xt - sigma_t * predicted) / (alpha_t + sigma_t)
    return alpha_t * xt - sigma_t * predicted if target == "v" else (xt - sigma_t * predicted) / alpha_t


def min_snr_weights(target: Target, alpha_bar: Tensor, gamma: float) -> Tensor:
    """Compute min-SNR weights of the squared error (Hang et al., arXiv 2303.09556, sec. 3.4), never 0.

    The weight is min(SNR, gamma) for the data, min(SNR, gamma) / SNR for the noise,
    min(SNR, gamma) / (SNR + 1) for v and min(SNR, gamma) / (√SNR + 1)² for the flow. But for the noise these
    weights go to 0 with the SNR, and the first step of sampling would not be learned at zero terminal SNR.
    There the SNR in the minimum is at least `MIN_SNR`.

    Args:
        target: the network's target.
        alpha_bar: (T + 1,) schedule, without zeros if the target is the noise.
        gamma: upper bound of the SNR; 5 in the paper.

    Returns:
        (T + 1,), of the type of `alpha_bar`. The entry of t = 0, which is not trained on, is that of t = 1.
    """
    alpha_bar = alpha_bar.clone()
    alpha_bar[0] = alpha_bar[1]
    snr = alpha_bar / (1 - alpha_bar)
    if target == "noise":
        return (gamma / snr).clamp(max=1)
    clipped = snr.clamp(min=MIN_SNR).clamp(max=gamma)
    if target == "flow":
        return clipped / (snr.sqrt() + 1).square()
    return clipped if target == "data" else clipped / (snr + 1)


def loss_elementwise(loss: Loss, error: Tensor) -> Tensor:
    """Compute the squared, absolute or Huber loss (quadratic up to 1, then linear) of each element."""
    if loss == "mse":
        return error.square()
    if loss == "mae":
        return error.abs()
    return F.huber_loss(error, torch.zeros_like(error), reduction="none")
