"""Tests of generator and critic: where they start, and what the critic soon sees."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dbtbench.adversarial.networks import Critic, Draft, GeneratorNetwork
from dbtbench.closed_form.start import LinearStart
from dbtbench.training.network import store_channels_last

GRID = (2, 16, 16)
PAIR = torch.zeros(2, dtype=torch.long)
LABELS = torch.zeros(8, dtype=torch.long)


def test_an_untrained_generator_draws_the_draft() -> None:
    generator = GeneratorNetwork(LinearStart(GRID, 3, 8), 4, 1)
    draft = Draft(*(torch.rand(2, 1, *GRID) for _ in range(3)))
    code, mask = torch.randn(2, 3), torch.zeros(2, 1, *GRID)
    drawn = generator(draft, code, PAIR, PAIR, mask)
    assert torch.equal(drawn, draft.smooth + draft.texture)
    torch.nn.init.ones_(generator.last.weight)
    assert not torch.equal(generator(draft, code, PAIR, PAIR, mask), drawn)


def test_a_critic_has_a_slope_at_air() -> None:
    """A patch may show nothing else, and the standard deviation of a constant has none."""
    torch.manual_seed(0)
    critic, air = Critic(4, 1), torch.zeros(2, 1, *GRID, requires_grad=True)
    critic(air, PAIR, PAIR, torch.zeros(2, 1, *GRID)).sum().backward()
    assert air.grad is not None
    assert torch.isfinite(air.grad).all()
    assert all(torch.isfinite(weight.grad).all() for weight in critic.parameters() if weight.grad is not None)


def test_a_critic_sees_grain_before_it_has_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some feature changes by about half of how much it varies, and none does where grain is not enlarged."""
    random = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(8, 1, 2, 2, 2, generator=random), GRID, mode="trilinear")
    grainy = smooth + 0.03 * torch.randn(smooth.shape, generator=random)

    def measure_change() -> float:
        torch.manual_seed(0)
        features: list[Tensor] = []
        critic, mask = Critic(8, 1), torch.zeros(8, 1, *GRID)
        critic.features.register_forward_pre_hook(lambda _, given: features.append(given[0].detach()))
        for volumes in (smooth, grainy):
            critic(volumes, LABELS, LABELS, mask)
        return float(((features[1] - features[0]).mean(0).abs() / features[0].std(0)).max())

    assert measure_change() > 0.4
    monkeypatch.setattr("dbtbench.adversarial.networks.DETAIL", 1.0)
    assert measure_change() < 0.2


def test_channels_last_keeps_values_and_buffers_of_other_ranks() -> None:
    generator = GeneratorNetwork(LinearStart(GRID, 3, 8), 4, 1)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    store_channels_last(generator)
    assert generator.grain.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not generator.grain.weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
