"""Tests of schedules, targets, weights and samplers: exact identities, and samplers at any number of steps.

The samplers are given the exact denoiser of a mixture of two normal distributions: one value on [-1, 1], or
the first DCT coefficient of a volume of equal voxels, whose modes are further apart by the factor `size`.
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

from dbtbench.diffusion.guidance import classifier_free_guidance
from dbtbench.diffusion.names import Loss, SamplerName, ScheduleName, Target
from dbtbench.diffusion.process import (
    MIN_SNR,
    SCHEDULES,
    add_noise,
    convert_velocity,
    cosine_schedule,
    linear_schedule,
    loss_elementwise,
    make_schedule,
    min_snr_weights,
    predict_x0,
    rescale_to_zero_terminal_snr,
    rescaled_linear_schedule,
    training_target,
)
from dbtbench.diffusion.sampling import SAMPLERS, Denoise, trailing_timesteps, uniform_log_snr_timesteps

ALPHA_BAR = rescale_to_zero_terminal_snr(cosine_schedule(1000))
WEIGHTS, MEANS, WIDTHS = torch.tensor([0.6, 0.4]), torch.tensor([-0.9, 0.3]), torch.tensor([0.03, 0.12])
MEAN = float((WEIGHTS * MEANS).sum())
VARIANCE = float((WEIGHTS * (WIDTHS**2 + MEANS**2)).sum()) - MEAN**2
N = 20_000


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_schedule_falls_from_one_to_exactly_zero() -> None:
    assert ALPHA_BAR.shape == (1001,)
    assert ALPHA_BAR[0] == 1
    assert ALPHA_BAR[-1] == 0
    assert (ALPHA_BAR.diff() < 0).all()


@pytest.mark.parametrize("num_timesteps", [10, 300, 1000])
@pytest.mark.parametrize("name", get_args(ScheduleName))
def test_any_schedule_can_be_rescaled_and_keeps_its_first_steps(
    name: ScheduleName, num_timesteps: int
) -> None:
    plain, rescaled = (make_schedule(name, num_timesteps, zero_terminal) for zero_terminal in (False, True))
    for alpha_bar in (plain, rescaled):
        assert alpha_bar.shape == (num_timesteps + 1,)
        assert alpha_bar[0] == 1
        assert (alpha_bar.diff() < 0).all()
    assert rescaled[-1] == 0 < plain[-1]
    torch.testing.assert_close(rescaled[:2], SCHEDULES[name](num_timesteps)[:2])


def test_linear_betas_that_are_not_rescaled_leave_signal_at_the_end_of_few_times() -> None:
    """MONAI's `linear_beta` and the tutorials are the same."""
    assert [float(linear_schedule(n)[-1]) for n in (200, 300)] == pytest.approx([0.132, 0.048], abs=1e-3)
    assert [float(rescaled_linear_schedule(n)[-1]) for n in (200, 300, 1000)] == pytest.approx(
        [4e-5] * 3, rel=0.5
    )
    torch.testing.assert_close(linear_schedule(1000), rescaled_linear_schedule(1000))


@pytest.mark.parametrize("target", get_args(Target))
@given(t=st.integers(0, 999), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_every_target_gives_back_the_data(target: Target, t: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator).unbind()
    timesteps = torch.full((3,), t)
    xt = add_noise(ALPHA_BAR, x0, noise, timesteps)
    v = training_target("v", ALPHA_BAR, x0, noise, timesteps)
    expected = training_target(target, ALPHA_BAR, x0, noise, timesteps)
    torch.testing.assert_close(convert_velocity(target, ALPHA_BAR, xt, v, timesteps), expected)
    torch.testing.assert_close(predict_x0(target, ALPHA_BAR, xt, expected, timesteps), x0)


def test_at_the_ends_v_is_minus_the_data_and_the_noise() -> None:
    x0, noise = torch.randn(1, 7), torch.randn(1, 7)
    end, begin = torch.tensor([1000]), torch.tensor([0])
    torch.testing.assert_close(training_target("v", ALPHA_BAR, x0, noise, end), -x0)
    torch.testing.assert_close(training_target("v", ALPHA_BAR, x0, noise, begin), noise)
    torch.testing.assert_close(add_noise(ALPHA_BAR, x0, noise, end), noise)
    torch.testing.assert_close(predict_x0("v", ALPHA_BAR, noise, -x0, end), x0)


def test_min_snr_weighs_the_same_error_of_the_data_alike_whatever_is_predicted() -> None:
    """An error e of the data is one of e √SNR of the noise, and of e √(SNR + 1) of v."""
    alpha_bar = make_schedule("linear", 1000, False)
    snr = alpha_bar[1:] / (1 - alpha_bar[1:])
    data, noise, v = (min_snr_weights(target, alpha_bar, 5.0)[1:] for target in ("data", "noise", "v"))
    torch.testing.assert_close(v * (snr + 1), data)
    above = snr > MIN_SNR
    torch.testing.assert_close((noise * snr)[above], data[above])
    torch.testing.assert_close(data[above], snr[above].clamp(max=5))


@pytest.mark.parametrize("target", ["v", "data"])
def test_min_snr_leaves_the_terminal_step_a_weight(target: Target) -> None:
    weight = min_snr_weights(target, ALPHA_BAR, 5.0)
    assert torch.isfinite(weight).all()
    assert weight.min() > 0
    assert weight[-1] == pytest.approx(MIN_SNR)


def test_losses_are_the_squared_the_absolute_and_hubers_error() -> None:
    error = torch.tensor([-2.0, 0.5])
    expected: dict[Loss, list[float]] = {"mse": [4, 0.25], "mae": [2, 0.5], "huber": [1.5, 0.125]}
    assert {loss: loss_elementwise(loss, error).tolist() for loss in get_args(Loss)} == expected


@given(num_timesteps=st.integers(1, 1000), data=st.data())
def test_trailing_timesteps_fall_from_the_end_to_zero(num_timesteps: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, num_timesteps))
    visited = trailing_timesteps(num_timesteps, steps)
    assert (len(visited), visited[0], visited[-1]) == (steps + 1, num_timesteps, 0)
    assert all(a > b for a, b in pairwise(visited))


@pytest.mark.parametrize("zero_terminal", [True, False])
@pytest.mark.parametrize("name", get_args(ScheduleName))
def test_uniform_log_snr_timesteps_fall_from_the_end_to_zero(name: ScheduleName, zero_terminal: bool) -> None:
    alpha_bar = make_schedule(name, 300, zero_terminal)
    for steps in (1, 2, 7, 20, 300):
        visited = uniform_log_snr_timesteps(alpha_bar, steps)
        assert len(visited) <= steps + 1
        assert (visited[0], visited[-1]) == (300, 0)
        assert all(a > b for a, b in pairwise(visited))
    assert len(uniform_log_snr_timesteps(alpha_bar, 10)) == 11


def exact_denoise(alpha_bar: Tensor, size: float = 1.0) -> Denoise:
    """Make the best possible denoiser of the mixture: the posterior mean."""
    means, widths = MEANS * size, WIDTHS * size

    def denoise(x: Tensor, t: int) -> Tensor:
        a = float(alpha_bar[t])
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
    """Compute n quantiles of the standard normal distribution, instead of very many random numbers."""
    z: Tensor = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()
    return z


def real(size: float = 1.0) -> Tensor:
    """Compute values of the mixture, sorted."""
    parts = [int(N * w) for w in WEIGHTS.tolist()]
    modes = [mean + width * quantiles(n) for mean, width, n in zip(MEANS, WIDTHS, parts, strict=True)]
    return torch.cat(modes).sort().values * size


def make_noise_sampler(seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: quantiles(N)[torch.randperm(N, generator=generator)]


def draw(
    sampler: SamplerName, alpha_bar: Tensor, steps: int, init: str = "exact", size: float = 1.0
) -> Tensor:
    """Sample from the exact x_T, from noise, or from `signal_leak`: the data's mean and variance."""
    noise_sampler = make_noise_sampler(0)
    x0 = real(size)[torch.randperm(N, generator=torch.Generator().manual_seed(1))]
    if init == "signal_leak":
        x0 = size * (MEAN + VARIANCE**0.5 * noise_sampler())
    alpha_t = 0.0 if init == "noise" else float(alpha_bar[-1]) ** 0.5
    x = alpha_t * x0 + math.sqrt(1 - alpha_t**2) * noise_sampler()
    drawn: Tensor = SAMPLERS[sampler](exact_denoise(alpha_bar, size), x, alpha_bar, steps, noise_sampler)
    return drawn


def distance(drawn: Tensor, size: float = 1.0) -> float:
    """Compute the Wasserstein-1 distance to the mixture, on the scale of one voxel."""
    return float((drawn.sort().values - real(size)).abs().mean()) / size


def air_share(drawn: Tensor, size: float = 1.0) -> float:
    return float((drawn < -0.3 * size).float().mean())


STEPS = (1000, 250, 100, 50, 20, 10)
MAX_DISTANCE: dict[tuple[SamplerName, str], tuple[float, ...]] = {
    ("ancestral", "linear"): (0.007, 0.01, 0.018, 0.026, 0.04, 0.11),
    ("ancestral", "cosine"): (0.007, 0.01, 0.016, 0.022, 0.03, 0.04),
    ("ddim", "linear"): (0.006, 0.009, 0.015, 0.022, 0.033, 0.09),
    ("ddim", "cosine"): (0.004, 0.006, 0.01, 0.013, 0.022, 0.03),
    ("heun", "linear"): (0.004, 0.005, 0.005, 0.006, 0.025, 0.33),
    ("heun", "cosine"): (0.004, 0.005, 0.005, 0.006, 0.027, 0.42),
    ("dpm++", "linear"): (0.006, 0.006, 0.007, 0.008, 0.014, 0.045),
    ("dpm++", "cosine"): (0.004, 0.005, 0.005, 0.005, 0.012, 0.055),
}


@pytest.mark.parametrize("zero_terminal", [True, False])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("sampler", "name"), MAX_DISTANCE)
def test_with_an_exact_denoiser_the_mixture_is_drawn(
    sampler: SamplerName, name: ScheduleName, steps: int, zero_terminal: bool
) -> None:
    """MONAI's DDPM scheduler is at a distance of 0.36 with 100 steps of 1000, and 0.43 with 20."""
    drawn = draw(sampler, make_schedule(name, 1000, zero_terminal), steps)
    assert distance(drawn) < MAX_DISTANCE[sampler, name][STEPS.index(steps)]
    few = steps == 10
    assert air_share(drawn) == pytest.approx(0.6, abs=0.06 if few else 0.02)
    # Few steps that are even in t narrow the mode, because their last estimate is an average.
    spread = float(drawn[drawn > -0.3].std())
    # Ten calls are five steps of Heun's method, which overshoot.
    worst = 0.08 if sampler == "heun" else 0.06
    assert spread == pytest.approx(0.12, abs=worst if few else 0.035 if steps <= 20 else 0.027)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_gives_the_mean_from_pure_noise(sampler: SamplerName) -> None:
    torch.testing.assert_close(draw(sampler, ALPHA_BAR, 1), torch.full((N,), MEAN))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_signal_left_at_the_end_loses_a_mode_and_signal_leak_init_brings_it_back(
    sampler: SamplerName,
) -> None:
    """The paper's failure in one dimension: the brightness of 8 × 8 × 8 voxels, linear betas, T = 300."""
    size, alpha_bar = math.sqrt(512), linear_schedule(300)
    inits = ("noise", "exact", "signal_leak")
    noise, exact, signal_leak = (draw(sampler, alpha_bar, 300, init, size) for init in inits)
    assert air_share(noise, size) < 0.1
    assert distance(noise, size) > 0.5
    assert air_share(exact, size) == pytest.approx(0.6, abs=0.01)
    assert distance(exact, size) < 0.02
    assert air_share(signal_leak, size) == pytest.approx(0.6, abs=0.1)
    assert distance(signal_leak, size) < distance(noise, size) / 5


def test_dpm_solver_draws_the_brightness_of_a_whole_volume_in_twenty_steps() -> None:
    """The modes of 8 × 64 × 64 equal voxels separate at a far lower SNR than those of one voxel."""
    size = math.sqrt(8 * 64 * 64)
    drawn = draw("dpm++", ALPHA_BAR, 20, size=size)
    assert distance(drawn, size) < 0.02
    assert air_share(drawn, size) == pytest.approx(0.6, abs=0.02)


def test_guidance_of_scale_one_changes_nothing() -> None:
    conditional, unconditional = torch.randn(2, 3, 1, 4, 4, 4).unbind()
    guided = classifier_free_guidance(conditional, unconditional, 1.0, 0.7)
    torch.testing.assert_close(guided, conditional)


def test_rescaled_guidance_keeps_each_samples_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    conditional, unconditional = torch.randn(2, 3, 1, 4, 4, 4, generator=generator).unbind()
    volume = (1, 2, 3, 4)
    guided = classifier_free_guidance(conditional, unconditional, 4.0, 0.0).std(volume)
    rescaled = classifier_free_guidance(conditional, unconditional, 4.0, 1.0).std(volume)
    torch.testing.assert_close(rescaled, conditional.std(volume))
    assert (guided > 2 * rescaled).all()


def test_guidance_of_a_constant_prediction_is_finite() -> None:
    zero = torch.zeros(2, 1, 2, 2, 2)
    assert torch.isfinite(classifier_free_guidance(zero, zero, 2.0, 0.7)).all()
