"""Drawing data from a denoiser: ancestral, DDIM and DPM-Solver++ steps, and guidance.

MONAI's schedulers are not used because they are wrong when they stride: its DDPM steps as if it took all of
the training steps, its DDIM places its steps with linspace but takes the previous one to be `t - T // n`;
neither can rescale its schedule to zero terminal SNR.

Every sampler visits falling times from T to 0, and only ever uses the two times of a step, so that it is
right at any number of steps. Each begins at exactly T and takes no logarithm and no quotient of signals that
zero terminal SNR would break.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from dbtbench.diffusion.process import noisy, weights

Denoiser = Callable[[Tensor, int], Tensor]
"""`denoise(x_t, t)` estimates the data, of `x_t`'s shape."""
Sampler = Callable[[Denoiser, Tensor, Tensor, int, Callable[[], Tensor]], Tensor]
"""`sampler(denoise, start, abar, steps, fresh)` gives data, of `start`'s shape.

`start` is x_T (N, ...), `abar` the (T + 1,) schedule, `steps` the number of calls of `denoise`, 1 to T, and
`fresh()` gives new standard normal noise of `start`'s shape.
"""
SamplerName = Literal["ancestral", "ddim", "dpm++"]

LOWEST_LOG_SNR = -6.0
"""Half the log SNR before which DPM-Solver++ takes one step. What all voxels share stands out from the noise
sooner than one voxel does, by the root of their number: of 10^5 voxels, at -5.8."""


def trailing(times: int, steps: int) -> list[int]:
    """Times that a sampler visits: `steps + 1` of them, from exactly T to 0 (arXiv 2305.08891, sec. 3.3)."""
    return [round(times * (steps - i) / steps) for i in range(steps + 1)]


def even_in_snr(abar: Tensor, steps: int) -> list[int]:
    """Times from T to 0 that are even in log SNR (Lu et al., arXiv 2206.00927, sec. 3.4).

    Times even in t leave the last step, from where fine texture is still noise, to a single estimate.

    Args:
        abar: (T + 1,) schedule.
        steps: number of steps.

    Returns:
        At most `steps + 1` times; fewer where several would be the same.
    """
    inner = abar[1:].double().cpu()
    half_log = (inner.log() - (-inner).log1p()) / 2
    wanted = torch.linspace(max(float(half_log[-1]), LOWEST_LOG_SNR), float(half_log[0]), steps)
    nearest = [int((half_log - value).abs().argmin()) + 1 for value in wanted[1:]]
    return sorted({len(abar) - 1, *nearest, 0}, reverse=True)


def ancestral(
    denoise: Denoiser, start: Tensor, abar: Tensor, steps: int, fresh: Callable[[], Tensor]
) -> Tensor:
    """DDPM's sampler: each step draws from q(x_s | x_t, x_0) (Ho et al., arXiv 2006.11239, eq. 6-7).

    Here s is the next time that is visited, not t - 1. See `Sampler`.
    """
    x, share = start, abar.double().tolist()
    for t, s in pairwise(trailing(len(share) - 1, steps)):
        kept = share[t] / share[s]
        of_data = math.sqrt(share[s]) * (1 - kept) / (1 - share[t])
        of_x = math.sqrt(kept) * (1 - share[s]) / (1 - share[t])
        x = of_data * denoise(x, t) + of_x * x
        if s:
            x = x + math.sqrt((1 - share[s]) / (1 - share[t]) * (1 - kept)) * fresh()
    return x


def ddim(denoise: Denoiser, start: Tensor, abar: Tensor, steps: int, fresh: Callable[[], Tensor]) -> Tensor:
    """Deterministic DDIM (Song et al., arXiv 2010.02502, eq. 12). See `Sampler`."""
    x = start
    for now, following in pairwise(trailing(len(abar) - 1, steps)):
        t = torch.full((len(x),), now, device=x.device)
        x0 = denoise(x, now)
        signal, sigma = weights(abar, t, x)
        # The noise that belongs to the clipped estimate; sigma is never 0 here, for now > 0.
        x = noisy(abar, x0, (x - signal * x0) / sigma, torch.full_like(t, following))
    return x


def dpm_solver(
    denoise: Denoiser, start: Tensor, abar: Tensor, steps: int, fresh: Callable[[], Tensor]
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2), deterministic. See `Sampler`.

    First order where log SNR has an infinite end: from pure noise, after that, and to the data.
    """
    x, share = start, abar.double().tolist()
    before: Tensor | None = None
    last = math.inf
    for t, s in pairwise(even_in_snr(abar, steps)):
        shrunk = math.sqrt((1 - share[s]) * share[t] / ((1 - share[t]) * share[s]))
        step = -math.log(shrunk) if shrunk else math.inf
        x0 = mixed = denoise(x, t)
        if before is not None and math.isfinite(step):
            mixed = x0 + step / (2 * last) * (x0 - before)
        x = math.sqrt((1 - share[s]) / (1 - share[t])) * x + math.sqrt(share[s]) * (1 - shrunk) * mixed
        before, last = x0, step
    return x


SAMPLERS: dict[SamplerName, Sampler] = {"ancestral": ancestral, "ddim": ddim, "dpm++": dpm_solver}
