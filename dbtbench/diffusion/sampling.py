"""Samplers: ancestral, DDIM, Heun and DPM-Solver++ draw data with a denoiser.

MONAI's schedulers are not used because they are wrong with fewer steps than in training: its DDPM always
steps as if by one training step, its DDIM places its steps with linspace but takes the previous one to be
`t - T // n`, and neither can rescale its schedule to zero terminal SNR.

Every sampler visits falling timesteps from T to 0. Its coefficients depend only on the two timesteps of a
step, so that it is right at any number of steps. It begins at exactly T, and takes no logarithm and no
quotient that zero terminal SNR would break.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from dbtbench.diffusion.names import SamplerName
from dbtbench.diffusion.process import add_noise, get_alpha_sigma

Denoise = Callable[[Tensor, int], Tensor]
"""`denoise(x_t, t)` estimates the data x_0, in the shape of `x_t`."""
NoiseSampler = Callable[[], Tensor]
"""`noise_sampler()` draws standard normal noise in the shape of `x`."""
Sampler = Callable[[Denoise, Tensor, Tensor, int, NoiseSampler], Tensor]
"""`sampler(denoise, x, alpha_bar, steps, noise_sampler)` draws data in the shape of `x`.

`x` is x_T (N, ...), `alpha_bar` the (T + 1,) schedule, and `steps` the number of calls of `denoise`, 1 to T.
"""

MIN_HALF_LOG_SNR = -6.0
"""Lower bound of lambda_t = ln(alpha_t / sigma_t) at the second timestep of DPM-Solver++.

A mean over n voxels has n times the SNR of one voxel, so it emerges from the noise at
lambda_t = -ln(n) / 2: at -5.8 for n = 10^5. The step from T must not jump over that.
"""


def trailing_timesteps(num_timesteps: int, steps: int) -> list[int]:
    """Space `steps + 1` timesteps evenly, from exactly T to 0 (Lin et al., arXiv 2305.08891, sec. 3.3)."""
    return [round(num_timesteps * (steps - i) / steps) for i in range(steps + 1)]


def uniform_log_snr_timesteps(alpha_bar: Tensor, steps: int) -> list[int]:
    """Space timesteps from T to 0 evenly in log SNR (Lu et al., arXiv 2206.00927, sec. 3.4).

    Timesteps that are even in t leave the last step to a single estimate, although fine texture is still
    noise before it.

    Args:
        alpha_bar: (T + 1,) schedule.
        steps: number of steps.

    Returns:
        At most `steps + 1` timesteps; fewer where several would be the same.
    """
    return sorted({*_spread_log_snr(alpha_bar, steps)}, reverse=True)


def _spread_log_snr(alpha_bar: Tensor, steps: int) -> list[int]:
    """Space exactly `steps + 1` timesteps evenly in log SNR; some may be the same."""
    inner = alpha_bar[1:].double().cpu()
    half_log_snr = (inner.log() - (-inner).log1p()) / 2
    lowest, highest = max(float(half_log_snr[-1]), MIN_HALF_LOG_SNR), float(half_log_snr[0])
    wanted = torch.linspace(lowest, highest, steps)
    nearest = [int((half_log_snr - value).abs().argmin()) + 1 for value in wanted[1:]]
    return [len(alpha_bar) - 1, *nearest, 0]


def sample_ancestral(
    denoise: Denoise, x: Tensor, alpha_bar: Tensor, steps: int, noise_sampler: NoiseSampler
) -> Tensor:
    """Sample by DDPM: each step draws from q(x_s | x_t, x_0) (Ho et al., arXiv 2006.11239, eq. 6-7).

    Here s is the next timestep that is visited, not t - 1. See `Sampler`.
    """
    a = alpha_bar.double().tolist()
    for t, s in pairwise(trailing_timesteps(len(a) - 1, steps)):
        alpha_bar_ts = a[t] / a[s]
        c_x0 = math.sqrt(a[s]) * (1 - alpha_bar_ts) / (1 - a[t])
        c_xt = math.sqrt(alpha_bar_ts) * (1 - a[s]) / (1 - a[t])
        x = c_x0 * denoise(x, t) + c_xt * x
        if s:
            x = x + math.sqrt((1 - a[s]) / (1 - a[t]) * (1 - alpha_bar_ts)) * noise_sampler()
    return x


def sample_ddim(
    denoise: Denoise, x: Tensor, alpha_bar: Tensor, steps: int, noise_sampler: NoiseSampler
) -> Tensor:
    """Sample by deterministic DDIM (Song et al., arXiv 2010.02502, eq. 12). See `Sampler`.

    It is Euler's method on the straight path (`process.py`).
    """
    for t, s in pairwise(trailing_timesteps(len(alpha_bar) - 1, steps)):
        timesteps = torch.full((len(x),), t, device=x.device)
        x0 = denoise(x, t)
        alpha_t, sigma_t = get_alpha_sigma(alpha_bar, timesteps, x)
        # The noise must be that of the clipped estimate; sigma_t is never 0 here, because t > 0.
        x = add_noise(alpha_bar, x0, (x - alpha_t * x0) / sigma_t, torch.full_like(timesteps, s))
    return x


def sample_heun(
    denoise: Denoise, x: Tensor, alpha_bar: Tensor, steps: int, noise_sampler: NoiseSampler
) -> Tensor:
    """Sample by Heun's second-order method (Karras et al., arXiv 2206.00364, algorithm 1). See `Sampler`.

    It solves dy / dtau = (y - x_0) / tau on the straight path (`process.py`), where zero terminal SNR is no
    singularity, as it is in the paper's sigma / alpha. A step takes two calls of `denoise`, the last one:
    there are half as many steps as calls.
    """
    a = alpha_bar.double().tolist()
    scale = [math.sqrt(a_t) + math.sqrt(1 - a_t) for a_t in a]
    tau = [math.sqrt(1 - a_t) / scale_t for a_t, scale_t in zip(a, scale, strict=True)]

    def slope(y: Tensor, t: int) -> Tensor:
        return (y - denoise(y * scale[t], t)) / tau[t]

    y = x / scale[-1]
    for t, s in pairwise(uniform_log_snr_timesteps(alpha_bar, (steps + 1) // 2)):
        mean_slope = slope(y, t)
        if s:
            mean_slope = (mean_slope + slope(y + (tau[s] - tau[t]) * mean_slope, s)) / 2
        y = y + (tau[s] - tau[t]) * mean_slope
    return y


def sample_dpm_solver(
    denoise: Denoise, x: Tensor, alpha_bar: Tensor, steps: int, noise_sampler: NoiseSampler
) -> Tensor:
    """Sample by deterministic DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2). See `Sampler`.

    h is the step in lambda_t = ln(alpha_t / sigma_t). Steps are of first order where an h is infinite: the
    step from pure noise, the one after it, and the step to the data.
    """
    a = alpha_bar.double().tolist()
    previous_x0: Tensor | None = None
    previous_h = math.inf
    for t, s in pairwise(uniform_log_snr_timesteps(alpha_bar, steps)):
        exp_minus_h = math.sqrt((1 - a[s]) * a[t] / ((1 - a[t]) * a[s]))
        h = -math.log(exp_minus_h) if exp_minus_h else math.inf
        x0 = extrapolated = denoise(x, t)
        if previous_x0 is not None and math.isfinite(h):
            extrapolated = x0 + h / (2 * previous_h) * (x0 - previous_x0)
        x = math.sqrt((1 - a[s]) / (1 - a[t])) * x + math.sqrt(a[s]) * (1 - exp_minus_h) * extrapolated
        previous_x0, previous_h = x0, h
    return x


SAMPLERS: dict[SamplerName, Sampler] = {
    "ancestral": sample_ancestral,
    "ddim": sample_ddim,
    "heun": sample_heun,
    "dpm++": sample_dpm_solver,
}


def sample_from(
    sampler: SamplerName,
    denoise: Denoise,
    x0: Tensor,
    alpha_bar: Tensor,
    steps: int,
    noise_sampler: NoiseSampler,
    share: float,
) -> Tensor:
    """Vary data: add noise to them, and denoise them again (SDEdit; Meng et al., arXiv 2108.01073).

    The timesteps are the last ones of the sampler's own, as dense as when it starts from noise.

    Args:
        sampler: which sampler.
        denoise: see `Sampler`.
        x0: (N, ...) the data.
        alpha_bar: see `Sampler`.
        steps: calls of `denoise` that sampling from noise would take.
        noise_sampler: see `Sampler`.
        share: part of the steps that is taken, at least one; in (0, 1].

    Returns:
        Data in the shape of `x0`.
    """
    calls = 2 if sampler == "heun" else 1
    whole = (steps + calls - 1) // calls
    even = sampler in ("ancestral", "ddim")
    timesteps = trailing_timesteps(len(alpha_bar) - 1, whole) if even else _spread_log_snr(alpha_bar, whole)
    taken = max(1, round(share * whole))
    t = timesteps[whole - taken]
    xt = add_noise(alpha_bar, x0, noise_sampler(), torch.full((len(x0),), t, device=x0.device))
    # The part of the schedule up to t is a schedule whose T is t.
    return SAMPLERS[sampler](denoise, xt, alpha_bar[: t + 1], calls * taken, noise_sampler)
