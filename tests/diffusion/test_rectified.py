"""Tests of rectified flow: its path, its target, its times, and Euler's and Heun's methods on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from dbtbench.diffusion.names import SamplerName, ScheduleName
from dbtbench.diffusion.process import (
    add_noise,
    draw_timesteps,
    get_alpha_sigma,
    make_schedule,
    min_snr_weights,
    predict_x0,
    training_target,
)
from dbtbench.diffusion.sampling import SAMPLERS, sample_ddim, sample_heun, trailing_timesteps

T = 1000
STRAIGHT = make_schedule("straight", T, True)
SHAPE = (3, 1, 4, 8, 8)
Velocity = Callable[[Tensor, float], Tensor]


def refuse_noise() -> Tensor:
    raise AssertionError("this sampler is deterministic")


def make_volumes(seed: int) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def velocity() -> Velocity:
    """A network on the straight path's own variable and time, in double precision."""
    torch.manual_seed(0)
    first, last = (nn.Conv3d(*channels, 3, padding=1).double() for channels in ((2, 4), (4, 1)))

    def predict(y: Tensor, tau: float) -> Tensor:
        with torch.no_grad():
            given = torch.cat([y, torch.full_like(y, tau)], dim=1)
            predicted: Tensor = last(torch.tanh(first(given)))
        return predicted

    return predict


def make_denoise(velocity: Velocity, alpha_bar: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Make a denoiser of x_t of the same network, which sees the straight path's variable."""

    def denoise(x: Tensor, t: int) -> Tensor:
        timesteps = torch.full((len(x),), t)
        alpha_t, sigma_t = get_alpha_sigma(alpha_bar, timesteps, x)
        scale = alpha_t + sigma_t
        predicted = velocity(x / scale, float((sigma_t / scale).flatten()[0]))
        return predict_x0("flow", alpha_bar, x, predicted, timesteps)

    return denoise


def solve_by_euler(velocity: Velocity, y: Tensor, times: list[float]) -> Tensor:
    for tau, following in pairwise(times):
        y = y + (following - tau) * velocity(y, tau)
    return y


def test_the_straight_schedule_is_the_straight_path_in_another_scale() -> None:
    x0, noise = make_volumes(1), make_volumes(2)
    t = torch.tensor([0, 300, T])
    tau = (t.double() / T).view(-1, 1, 1, 1, 1)
    scale = ((1 - tau) ** 2 + tau**2).sqrt()
    xt = add_noise(STRAIGHT, x0, noise, t)
    torch.testing.assert_close(xt * scale, (1 - tau) * x0 + tau * noise, rtol=0, atol=1e-12)
    assert STRAIGHT[[0, -1]].tolist() == [1, 0]


def test_the_flow_is_the_slope_of_the_straight_path() -> None:
    x0, noise, t = make_volumes(1), make_volumes(2), torch.full((3,), 400)
    flow = training_target("flow", STRAIGHT, x0, noise, t)
    after = torch.full((3,), 401)
    alpha, sigma = get_alpha_sigma(STRAIGHT, torch.stack([t, after]).flatten(), x0.repeat(2, 1, 1, 1, 1))
    points = add_noise(STRAIGHT, x0.repeat(2, 1, 1, 1, 1), noise.repeat(2, 1, 1, 1, 1), torch.cat([t, after]))
    first, second = (points / (alpha + sigma)).chunk(2)
    torch.testing.assert_close((second - first) * T, flow, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_eulers_method_is_ddim_on_the_straight_schedule(velocity: Velocity, steps: int) -> None:
    x = make_volumes(3)
    drawn = sample_ddim(make_denoise(velocity, STRAIGHT), x, STRAIGHT, steps, refuse_noise)
    times = [t / T for t in trailing_timesteps(T, steps)]
    assert float((drawn - solve_by_euler(velocity, x, times)).abs().max()) < 1e-12


def test_eulers_method_is_ddim_on_any_schedule(velocity: Velocity) -> None:
    """A process of another schedule is the straight path at other times."""
    x, alpha_bar = make_volumes(3), make_schedule("cosine", T, True)
    drawn = sample_ddim(make_denoise(velocity, alpha_bar), x, alpha_bar, 20, refuse_noise)
    a = alpha_bar[trailing_timesteps(T, 20)]
    times = ((1 - a).sqrt() / (a.sqrt() + (1 - a).sqrt())).tolist()
    assert float((drawn - solve_by_euler(velocity, x, times)).abs().max()) < 1e-12
    even = sample_ddim(make_denoise(velocity, STRAIGHT), x, STRAIGHT, 20, refuse_noise)
    assert float((drawn - even).abs().max()) > 1e-4


@pytest.mark.parametrize("steps", [7, 100])
def test_monais_scheduler_steps_likewise(velocity: Velocity, steps: int) -> None:
    """Its velocity is the data less the noise. It must be given the next timestep, or it steps by 1 / n."""
    from monai.networks.schedulers.rectified_flow import RFlowScheduler

    scheduler = RFlowScheduler(num_train_timesteps=T)
    scheduler.set_timesteps(steps)
    times = [*scheduler.timesteps.tolist(), 0]
    assert times == trailing_timesteps(T, steps)
    y = x = make_volumes(3)
    for t, s in pairwise(times):
        y, _ = scheduler.step(-velocity(y, t / T), t, y, s)
    drawn = sample_ddim(make_denoise(velocity, STRAIGHT), x, STRAIGHT, steps, refuse_noise)
    assert float((drawn - y).abs().max()) < 1e-12


def test_where_monais_scheduler_differs() -> None:
    """It rounds times to 16 bits, and cuts the next one: its steps do not add up, and many are no steps."""
    from monai.networks.schedulers.rectified_flow import RFlowScheduler

    many = RFlowScheduler(num_train_timesteps=5000)
    many.set_timesteps(5000)
    assert len(set(many.timesteps.tolist())) < 0.7 * len(set(trailing_timesteps(5000, 5000)))
    real = RFlowScheduler(num_train_timesteps=T, use_discrete_timesteps=False)
    real.set_timesteps(7)
    times = [*real.timesteps, torch.zeros(())]
    one = torch.ones(1, dtype=torch.float64)
    moved = sum(float(real.step(one, t, 0 * one, s)[0]) for t, s in pairwise(times))
    assert moved == pytest.approx(1.003, abs=5e-4)


@pytest.mark.parametrize("num_timesteps", [10, T])
def test_logit_normal_times_have_their_distribution(num_timesteps: int) -> None:
    n = 100_000
    drawn = draw_timesteps("logit-normal", num_timesteps, n, torch.Generator().manual_seed(0))
    assert 1 <= int(drawn.min()) < int(drawn.max()) <= num_timesteps
    for tau in (0.1, 0.2, 0.5, 0.7, 0.9):
        expected = (1 + math.erf(math.log(tau / (1 - tau)) / math.sqrt(2))) / 2
        share = float((drawn <= tau * num_timesteps).double().mean())
        assert share == pytest.approx(expected, abs=0.006)


def test_uniform_times_are_from_one_to_the_end() -> None:
    drawn = draw_timesteps("uniform", 5, 5000, torch.Generator().manual_seed(0))
    assert (drawn.bincount()[1:] > 900).all()
    assert drawn.bincount()[0] == 0


def test_min_snr_weighs_the_flow_as_it_weighs_the_data() -> None:
    """An error e of the data is one of e (√SNR + 1) of the flow."""
    flow, data = (min_snr_weights(target, STRAIGHT, 5.0) for target in ("flow", "data"))
    x, x0, t = make_volumes(1), make_volumes(2), torch.full((3,), 300)
    alpha_t, sigma_t = (float(part.flatten()[0]) for part in get_alpha_sigma(STRAIGHT, t, x))
    predicted = (x - (alpha_t + sigma_t) * x0) / sigma_t
    torch.testing.assert_close(predict_x0("flow", STRAIGHT, x, predicted, t), x0)
    larger = (alpha_t + sigma_t) / sigma_t
    assert float(flow[300]) * larger**2 == pytest.approx(float(data[300]))
    assert torch.isfinite(flow).all()
    assert flow.min() > 0


MEANS, WIDTHS = (torch.tensor(row, dtype=torch.float64) for row in ((0.5, -1.0, 0.2), (0.1, 0.7, 3.0)))


def compute_error(sampler: SamplerName, alpha_bar: Tensor, steps: int) -> float:
    """Compute the mean error of sampling normal distributions, whose flow has a closed form.

    The posterior mean is linear, and the flow carries x_T to mean + deviation · x_T.
    """

    def denoise(x: Tensor, t: int) -> Tensor:
        a = float(alpha_bar[t])
        x0: Tensor = MEANS + WIDTHS**2 * a**0.5 / (a * WIDTHS**2 + 1 - a) * (x - a**0.5 * MEANS)
        return x0

    x = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = SAMPLERS[sampler](denoise, x, alpha_bar, steps, refuse_noise)
    return float((drawn - (MEANS + WIDTHS * x)).abs().mean())


@pytest.mark.parametrize("schedule", ["cosine", "straight"])
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm++", 2)])
def test_the_error_falls_with_the_order_of_the_method(
    sampler: SamplerName, order: int, schedule: ScheduleName
) -> None:
    alpha_bar = make_schedule(schedule, 2**14, True)
    few, many = (compute_error(sampler, alpha_bar, steps) for steps in (64, 256))
    assert math.log(few / many, 4) == pytest.approx(order, abs=0.15)


def test_heun_calls_the_network_twice_a_step_and_once_in_the_last() -> None:
    for steps, calls in ((1, 1), (2, 1), (9, 9), (20, 19)):
        seen: list[int] = []

        def denoise(x: Tensor, t: int, seen: list[int] = seen) -> Tensor:
            seen.append(t)
            return 0.5 * x

        sample_heun(denoise, make_volumes(0), STRAIGHT, steps, refuse_noise)
        assert len(seen) == calls
        assert 0 not in seen
