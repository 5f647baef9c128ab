"""Tests of the networks of a recipe: one signature, 0 until trained, and MONAI's uses its conditioning."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from dbtbench.errors import UsageError
from dbtbench.networks.backbone import build_network
from dbtbench.networks.names import Backbone
from dbtbench.networks.unet import UNet

LABELS, PROJECTIONS = 4, 2


@dataclass
class Settings:
    """The network settings of a recipe."""

    backbone: Backbone = "monai"
    base_channels: int = 8
    channel_mults: tuple[int, ...] = (1, 2)
    blocks: int = 1
    unshuffle: int = 2
    factorised: bool = False


def make_network(settings: Settings) -> torch.nn.Module:
    torch.manual_seed(0)
    net: torch.nn.Module = build_network(settings, LABELS, PROJECTIONS)
    return net


def randomise_zeros(net: torch.nn.Module) -> torch.nn.Module:
    """Give weights to the parameters that start at zero, such as those of the last layer."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def inputs(grid: tuple[int, int, int] = (4, 16, 24), n: int = 2) -> dict[str, Tensor]:
    x = torch.randn(n, 1, *grid, generator=torch.Generator().manual_seed(1))
    index = torch.arange(n)
    conditioning = {"label": index % (LABELS + 1), "projection": index % (PROJECTIONS + 1)}
    return {"x": x, "t": torch.linspace(0.1, 1, n), **conditioning, "mask": torch.full_like(x, 0.5)}


def test_the_default_network_is_the_same_weight_for_weight() -> None:
    built = make_network(Settings("unet")).state_dict()
    torch.manual_seed(0)
    direct = UNet(8, (1, 2), 1, 2, False, LABELS, PROJECTIONS).state_dict()
    assert built.keys() == direct.keys()
    assert all(torch.equal(built[name], direct[name]) for name in direct)


@pytest.mark.parametrize("backbone", ["unet", "monai"])
@pytest.mark.parametrize("unshuffle", [1, 4])
def test_an_untrained_network_predicts_zero_in_the_shape_of_its_input(
    backbone: Backbone, unshuffle: int
) -> None:
    case = inputs()
    predicted = make_network(Settings(backbone, unshuffle=unshuffle))(**case)
    assert torch.equal(predicted, torch.zeros_like(case["x"]))


@pytest.mark.parametrize("channel_mults", [(1,), (1, 3), (1, 2, 5)])
def test_any_channels_of_a_recipe_make_a_network(channel_mults: tuple[int, ...]) -> None:
    case = inputs((4, 32, 16))
    assert make_network(Settings(channel_mults=channel_mults))(**case).shape == case["x"].shape


def test_every_parameter_gets_a_gradient() -> None:
    net = randomise_zeros(make_network(Settings()))
    net(**inputs(n=(LABELS + 1) * (PROJECTIONS + 1))).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("which", ["t", "label", "projection", "mask"])
def test_each_condition_changes_the_output(which: str) -> None:
    net, given = randomise_zeros(make_network(Settings())), inputs()
    changed = given | {which: given[which].roll(1) if which != "mask" else given[which] + 1}
    assert not torch.allclose(net(**given), net(**changed), atol=1e-4)


def test_every_pair_of_label_and_projection_changes_the_output() -> None:
    net, case = randomise_zeros(make_network(Settings())), inputs(n=1)
    pairs = [(a, b) for a in range(LABELS + 1) for b in range(PROJECTIONS + 1)]
    label, projection = torch.tensor(pairs).unbind(1)
    many = {name: value.expand(len(pairs), *value.shape[1:]) for name, value in case.items()}
    predicted = net(**many | {"label": label, "projection": projection}).flatten(1)
    assert torch.pdist(predicted).min() > 1e-4


def test_it_learns_to_reproduce_the_mask() -> None:
    net, case = make_network(Settings(unshuffle=1)), inputs()
    case["mask"] = (case["x"].roll(3, dims=-1) > 1).float()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (net(**case) - case["mask"]).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_slices_that_cannot_be_halved_are_an_error_that_names_them() -> None:
    settings = Settings(channel_mults=(1, 2, 2))
    with pytest.raises(UsageError, match="6 slices cannot be divided by 4") as caught:
        make_network(settings)(**inputs((6, 16, 16)))
    assert "8 slices" in caught.value.hint
    assert "backbone=unet" in caught.value.hint
    make_network(replace(settings, backbone="unet"))(**inputs((6, 16, 16)))
