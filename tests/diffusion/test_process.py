"""Schedules, targets, weights and samplers: exact identities, and samplers right at every number of steps.

The samplers are given the exact denoiser of a mixture of two normal distributions: one value on [-1, 1], or
the first cosine coefficient of a volume of equal voxels, in which both modes are as far apart as its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbtbench.diffusion.guidance import guided
from dbtbench.diffusion.process import (
    SCHEDULES,
    SMALLEST_SNR,
    Loss,
    ScheduleName,
    Target,
    cosine,
    from_velocity,
    linear,
    min_snr_weights,
    noisy,
    penalty,
    rescaled_linear,
    schedule,
    target_of,
    to_data,
    zero_terminal_snr,
)
from dbtbench.diffusion.sampling import SAMPLERS, Denoiser, SamplerName, even_in_snr, trailing

ABAR = zero_terminal_snr(cosine(1000))
WEIGHTS, MEANS, WIDTHS = torch.tensor([0.6, 0.4]), torch.tensor([-0.9, 0.3]), torch.tensor([0.03, 0.12])
MEAN = float((WEIGHTS * MEANS).sum())
VARIANCE = float((WEIGHTS * (WIDTHS**2 + MEANS**2)).sum()) - MEAN**2
N = 20_000


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_schedule_falls_from_one_to_exactly_zero() -> None:
    assert ABAR.shape == (1001,)
    assert ABAR[0] == 1
    assert ABAR[-1] == 0
    assert (ABAR.diff() < 0).all()


@pytest.mark.parametrize("times", [10, 300, 1000])
@pytest.mark.parametrize("name", get_args(ScheduleName))
def test_any_schedule_can_be_rescaled_and_keeps_its_first_steps(name: ScheduleName, times: int) -> None:
    plain, rescaled = schedule(name, times, False), schedule(name, times, True)
    for abar in (plain, rescaled):
        assert abar.shape == (times + 1,)
        assert abar[0] == 1
        assert (abar.diff() < 0).all()
    assert rescaled[-1] == 0 < plain[-1]
    torch.testing.assert_close(rescaled[:2], SCHEDULES[name](times)[:2])


def test_linear_betas_that_are_not_rescaled_leave_signal_at_the_end_of_few_times() -> None:
    """MONAI's `linear_beta` and the tutorials are the same."""
    assert [float(linear(n)[-1]) for n in (200, 300)] == pytest.approx([0.132, 0.048], abs=1e-3)
    assert [float(rescaled_linear(n)[-1]) for n in (200, 300, 1000)] == pytest.approx([4e-5] * 3, rel=0.5)
    torch.testing.assert_close(linear(1000), rescaled_linear(1000))


@pytest.mark.parametrize("target", get_args(Target))
@given(t=st.integers(0, 999), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_every_target_gives_back_the_data(target: Target, t: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator).unbind()
    times = torch.full((3,), t)
    xt, v = noisy(ABAR, x0, noise, times), target_of("v", ABAR, x0, noise, times)
    asked = target_of(target, ABAR, x0, noise, times)
    torch.testing.assert_close(from_velocity(target, ABAR, xt, v, times), asked)
    torch.testing.assert_close(to_data(target, ABAR, xt, asked, times), x0)


def test_at_the_ends_v_is_minus_the_data_and_the_noise() -> None:
    x0, noise = torch.randn(1, 7), torch.randn(1, 7)
    end, begin = torch.tensor([1000]), torch.tensor([0])
    torch.testing.assert_close(target_of("v", ABAR, x0, noise, end), -x0)
    torch.testing.assert_close(target_of("v", ABAR, x0, noise, begin), noise)
    torch.testing.assert_close(noisy(ABAR, x0, noise, end), noise)
    torch.testing.assert_close(to_data("v", ABAR, noise, -x0, end), x0)


def test_min_snr_weighs_the_same_error_of_the_data_alike_whatever_is_predicted() -> None:
    """An error e of the data is one of e √SNR of the noise, and of e √(SNR + 1) of v."""
    abar = schedule("linear", 1000, False)
    snr = abar[1:] / (1 - abar[1:])
    data, noise, v = (min_snr_weights(target, abar, 5.0)[1:] for target in ("data", "noise", "v"))
    torch.testing.assert_close(v * (snr + 1), data)
    seen = snr > SMALLEST_SNR
    torch.testing.assert_close((noise * snr)[seen], data[seen])
    torch.testing.assert_close(data[seen], snr[seen].clamp(max=5))


@pytest.mark.parametrize("target", ["v", "data"])
def test_min_snr_leaves_the_terminal_step_a_weight(target: Target) -> None:
    weight = min_snr_weights(target, ABAR, 5.0)
    assert torch.isfinite(weight).all()
    assert weight.min() > 0
    assert weight[-1] == pytest.approx(SMALLEST_SNR)


def test_losses_are_the_squared_the_absolute_and_hubers_error() -> None:
    error = torch.tensor([-2.0, 0.5])
    expected: dict[Loss, list[float]] = {"mse": [4, 0.25], "mae": [2, 0.5], "huber": [1.5, 0.125]}
    assert {loss: penalty(loss, error).tolist() for loss in get_args(Loss)} == expected


@given(times=st.integers(1, 1000), data=st.data())
def test_trailing_steps_go_from_the_end_to_zero_without_repeating(times: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, times))
    visited = trailing(times, steps)
    assert (len(visited), visited[0], visited[-1]) == (steps + 1, times, 0)
    assert all(a > b for a, b in pairwise(visited))


@pytest.mark.parametrize("zero_terminal", [True, False])
@pytest.mark.parametrize("name", get_args(ScheduleName))
def test_steps_even_in_snr_go_from_the_end_to_zero_without_repeating(
    name: ScheduleName, zero_terminal: bool
) -> None:
    abar = schedule(name, 300, zero_terminal)
    for steps in (1, 2, 7, 20, 300):
        visited = even_in_snr(abar, steps)
        assert len(visited) <= steps + 1
        assert (visited[0], visited[-1]) == (300, 0)
        assert all(a > b for a, b in pairwise(visited))
    assert len(even_in_snr(abar, 10)) == 11


def exact(abar: Tensor, size: float = 1.0) -> Denoiser:
    """The best possible estimate of a mixture's values: the posterior mean."""
    means, widths = MEANS * size, WIDTHS * size

    def denoise(x: Tensor, t: int) -> Tensor:
        a = float(abar[t])
        variance = a * widths**2 + 1 - a
        deviations = [x - a**0.5 * float(mean) for mean in means]
        odds = [
            float(w.log() - s.log() / 2) - d.square() / float(2 * s)
            for w, s, d in zip(WEIGHTS, variance, deviations, strict=True)
        ]
        modes = [
            float(m) + float(a**0.5 * w**2 / s) * d
            for m, w, s, d in zip(means, widths, variance, deviations, strict=True)
        ]
        x0: Tensor = torch.lerp(modes[1], modes[0], torch.sigmoid(odds[0] - odds[1]))
        return x0

    return denoise


def quantiles(n: int) -> Tensor:
    """Of the standard normal distribution: as good as very many random numbers."""
    z: Tensor = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()
    return z


def real(size: float = 1.0) -> Tensor:
    """Values of the mixture, in order."""
    parts = [int(N * w) for w in WEIGHTS.tolist()]
    modes = [mean + width * quantiles(n) for mean, width, n in zip(MEANS, WIDTHS, parts, strict=True)]
    return torch.cat(modes).sort().values * size


def noises(seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: quantiles(N)[torch.randperm(N, generator=generator)]


def draw(sampler: SamplerName, abar: Tensor, steps: int, start: str = "exact", size: float = 1.0) -> Tensor:
    """Samples, from x_T as training ended with, from noise, or from its first two moments."""
    fresh = noises(0)
    x0 = real(size)[torch.randperm(N, generator=torch.Generator().manual_seed(1))]
    if start == "leak":
        x0 = size * (MEAN + VARIANCE**0.5 * fresh())
    signal = 0.0 if start == "noise" else float(abar[-1]) ** 0.5
    begin = signal * x0 + math.sqrt(1 - signal**2) * fresh()
    drawn: Tensor = SAMPLERS[sampler](exact(abar, size), begin, abar, steps, fresh)
    return drawn


def distance(drawn: Tensor, size: float = 1.0) -> float:
    """Wasserstein-1 distance to the mixture, on the scale of one voxel."""
    return float((drawn.sort().values - real(size)).abs().mean()) / size


def air(drawn: Tensor, size: float = 1.0) -> float:
    return float((drawn < -0.3 * size).float().mean())


STEPS = (1000, 250, 100, 50, 20, 10)
FARTHEST: dict[tuple[SamplerName, str], tuple[float, ...]] = {
    ("ancestral", "linear"): (0.007, 0.01, 0.018, 0.026, 0.04, 0.11),
    ("ancestral", "cosine"): (0.007, 0.01, 0.016, 0.022, 0.03, 0.04),
    ("ddim", "linear"): (0.006, 0.009, 0.015, 0.022, 0.033, 0.09),
    ("ddim", "cosine"): (0.004, 0.006, 0.01, 0.013, 0.022, 0.03),
    ("dpm++", "linear"): (0.006, 0.006, 0.007, 0.008, 0.014, 0.045),
    ("dpm++", "cosine"): (0.004, 0.005, 0.005, 0.005, 0.012, 0.055),
}


@pytest.mark.parametrize("zero_terminal", [True, False])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("sampler", "name"), FARTHEST)
def test_with_an_exact_denoiser_the_mixture_is_drawn(
    sampler: SamplerName, name: ScheduleName, steps: int, zero_terminal: bool
) -> None:
    """MONAI's DDPM scheduler is at a distance of 0.36 with 100 steps of 1000, and 0.43 with 20."""
    drawn = draw(sampler, schedule(name, 1000, zero_terminal), steps)
    assert distance(drawn) < FARTHEST[sampler, name][STEPS.index(steps)]
    few = steps == 10
    assert air(drawn) == pytest.approx(0.6, abs=0.06 if few else 0.02)
    # An ideal model's contrast: few even steps narrow the mode, as their last estimate is an average.
    spread = float(drawn[drawn > -0.3].std())
    assert spread == pytest.approx(0.12, abs=0.06 if few else 0.035 if steps <= 20 else 0.027)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_gives_the_mean_from_pure_noise(sampler: SamplerName) -> None:
    torch.testing.assert_close(draw(sampler, ABAR, 1), torch.full((N,), MEAN))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_schedule_that_leaks_loses_a_mode_and_its_start_brings_it_back(sampler: SamplerName) -> None:
    """The paper's failure in one dimension: the brightness of 8 × 8 × 8 voxels, linear betas, T = 300."""
    size, abar = math.sqrt(512), linear(300)
    lost, exactly, leaked = (draw(sampler, abar, 300, start, size) for start in ("noise", "exact", "leak"))
    assert air(lost, size) < 0.1
    assert distance(lost, size) > 0.5
    assert air(exactly, size) == pytest.approx(0.6, abs=0.01)
    assert distance(exactly, size) < 0.02
    assert air(leaked, size) == pytest.approx(0.6, abs=0.1)
    assert distance(leaked, size) < distance(lost, size) / 5


def test_dpm_solver_draws_the_brightness_of_a_whole_volume_in_twenty_steps() -> None:
    """Both modes of 8 × 64 × 64 equal voxels are told apart far earlier than one voxel's."""
    size = math.sqrt(8 * 64 * 64)
    drawn = draw("dpm++", ABAR, 20, size=size)
    assert distance(drawn, size) < 0.02
    assert air(drawn, size) == pytest.approx(0.6, abs=0.02)


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
