"""Schedule, v and DDIM: exact identities, and a sampler that is right at every number of steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbtbench.generators.ddpm.diffusion import (
    cosine,
    ddim,
    decompose,
    guided,
    noisy,
    trailing,
    velocity,
    zero_terminal_snr,
)

ABAR = zero_terminal_snr(cosine(1000))
WEIGHTS, MEANS, WIDTHS = torch.tensor([0.6, 0.4]), torch.tensor([-0.9, 0.3]), torch.tensor([0.03, 0.12])


def test_the_schedule_falls_from_one_to_exactly_zero() -> None:
    assert ABAR.shape == (1001,)
    assert ABAR[0] == 1
    assert ABAR[-1] == 0
    assert (ABAR.diff() < 0).all()


def test_any_schedule_can_be_rescaled_and_keeps_its_first_steps() -> None:
    linear = torch.cat([torch.ones(1), (1 - torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)).cumprod(0)])
    rescaled = zero_terminal_snr(linear)
    assert rescaled[-1] == 0 < linear[-1]
    torch.testing.assert_close(rescaled[:2], linear[:2].double())


@given(t=st.integers(0, 1000), seed=st.integers(0, 2**31))
@settings(deadline=None)
def test_a_noisy_volume_and_v_give_back_data_and_noise(t: int, seed: int) -> None:
    x0, noise = torch.randn(
        2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).unbind()
    times = torch.full((3,), t)
    found = decompose(ABAR, noisy(ABAR, x0, noise, times), velocity(ABAR, x0, noise, times), times)
    torch.testing.assert_close(found, (x0, noise))


def test_at_the_ends_v_is_minus_the_data_and_the_noise() -> None:
    x0, noise = torch.randn(1, 7), torch.randn(1, 7)
    torch.testing.assert_close(velocity(ABAR, x0, noise, torch.tensor([1000])), -x0)
    torch.testing.assert_close(velocity(ABAR, x0, noise, torch.tensor([0])), noise)
    torch.testing.assert_close(noisy(ABAR, x0, noise, torch.tensor([1000])), noise)


@given(times=st.integers(1, 1000), data=st.data())
def test_trailing_steps_go_from_the_end_to_zero_without_repeating(times: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, times))
    visited = trailing(times, steps)
    assert (len(visited), visited[0], visited[-1]) == (steps + 1, times, 0)
    assert all(a > b for a, b in pairwise(visited))


def exact(x: Tensor, t: int) -> Tensor:
    """The v of the best possible denoiser of a mixture of two normal distributions."""
    a = float(ABAR[t])
    variance = a * WIDTHS**2 + 1 - a
    deviation = x[:, None] - a**0.5 * MEANS
    share = torch.softmax(WEIGHTS.log() - variance.log() / 2 - deviation**2 / (2 * variance), dim=1)
    x0 = (share * (MEANS + a**0.5 * WIDTHS**2 / variance * deviation)).sum(1)
    v: Tensor = (a**0.5 * x - x0) / (1 - a) ** 0.5
    return v


def quantiles(n: int) -> Tensor:
    """Of the standard normal distribution: as good as very many random numbers."""
    z: Tensor = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()
    return z


@pytest.mark.parametrize(
    ("steps", "tolerance"),
    [(1000, 0.001), (333, 0.003), (50, 0.012), (20, 0.02), (13, 0.025), (10, 0.03)],
)
def test_ddim_with_an_exact_denoiser_draws_the_mixture(steps: int, tolerance: float) -> None:
    """Wasserstein-1 distance on [-1, 1]; MONAI's DDPM scheduler is at 0.43 with 20 steps."""
    drawn = ddim(exact, quantiles(5000), ABAR, steps, (-1, 1))
    modes = [mean + width * quantiles(n) for mean, width, n in zip(MEANS, WIDTHS, (3000, 2000), strict=True)]
    real = torch.cat(modes).clamp(-1, 1)
    assert (drawn.sort().values - real.sort().values).abs().mean() < tolerance
    assert (drawn < -0.6).float().mean() == pytest.approx(0.6, abs=0.01)


def test_guidance_of_weight_one_changes_nothing() -> None:
    told, untold = torch.randn(2, 3, 1, 4, 4, 4).unbind()
    torch.testing.assert_close(guided(told, untold, 1.0, 0.7), told)


def test_rescaled_guidance_keeps_each_samples_contrast() -> None:
    told, untold = torch.randn(2, 3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    spread = guided(told, untold, 4.0, 0.0).std((1, 2, 3, 4))
    kept = guided(told, untold, 4.0, 1.0).std((1, 2, 3, 4))
    torch.testing.assert_close(kept, told.std((1, 2, 3, 4)))
    assert (spread > 2 * kept).all()


def test_guidance_of_a_constant_prediction_is_finite() -> None:
    zero = torch.zeros(2, 1, 2, 2, 2)
    assert torch.isfinite(guided(zero, zero, 2.0, 0.7)).all()
