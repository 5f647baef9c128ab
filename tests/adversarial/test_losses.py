"""Tests of adversarial losses: what is fit, and what pairs prefer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dbtbench.adversarial.losses import (
    NEAR,
    critic_loss,
    measure_fitness,
    penalty_weight,
    relativistic_loss,
    slope_penalty,
)


def draw_modes(seed: int, modes: tuple[float, ...]) -> Tensor:
    """256 numbers, each near one of the modes, which take turns."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(modes).repeat(256 // len(modes))[:, None] + 0.1 * torch.randn(
        256, 1, generator=generator
    )


@pytest.fixture(scope="module")
def critic() -> nn.Module:
    """A critic that has learned all that there is to learn against a generator which draws both modes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(300):
        loss = critic_loss(net(draw_modes(2 * step, (-2, 2))), net(draw_modes(2 * step + 1, (-2, 2))))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net


@pytest.mark.parametrize("mode", [-2.0, 2.0])
def test_a_collapsed_generator_is_less_fit(critic: nn.Module, mode: float) -> None:
    """Its volumes are as good as real ones, but all of one kind; only diversity can see it."""
    real = draw_modes(1000, (-2, 2))

    def measure(fake: Tensor, diversity_weight: float) -> float:
        return float(measure_fitness(critic(real), critic(fake), critic.parameters(), diversity_weight))

    spread, collapsed = draw_modes(1001, (-2, 2)), draw_modes(1001, (mode,))
    assert measure(collapsed, 1.0) < measure(spread, 1.0) - 1
    assert abs(measure(collapsed, 0.0) - measure(spread, 0.0)) < 0.1


def test_the_penalty_is_the_mean_squared_slope() -> None:
    """Of scores that are sums of squares: along random directions, and its gradient with it."""
    volumes = torch.rand(3, 1, 2, 4, 4).repeat(4000, 1, 1, 1, 1)
    nudge = NEAR * torch.randn(volumes.shape, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.full((1, 2, 4, 4), 0.5))

    def score(x: Tensor) -> Tensor:
        return (x.square() * weight).flatten(1).sum(1)

    penalty = slope_penalty(score(volumes), score(volumes + nudge))
    exact = (2 * volumes * weight.detach()).square().flatten(1).sum(1).mean()
    assert float(penalty.detach()) == pytest.approx(float(exact), rel=0.05)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert float((weight * weight.grad).sum().detach()) == pytest.approx(2 * float(exact), rel=0.05)


def test_a_pair_costs_less_the_further_the_better_one_is_ahead() -> None:
    low, high = torch.tensor([0.0]), torch.tensor([2.0])
    assert relativistic_loss(high, low) < relativistic_loss(low, low) < relativistic_loss(low, high)


def test_the_penalty_falls_to_a_tenth() -> None:
    assert penalty_weight(2.0, 0, 10) == 2.0
    assert abs(penalty_weight(2.0, 10, 10) - 0.2) < 1e-12
