"""Tests of the U-Net: shapes, weight standardisation, gradients, and that it uses its conditioning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbtbench.networks.unet import (
    UNet,
    WeightStandardisedConv3d,
    pixel_shuffle_2d,
    pixel_unshuffle_2d,
    sinusoidal_embedding,
)

SMALL: dict[str, Any] = {
    "base_channels": 8,
    "channel_mults": (1, 2),
    "num_res_blocks": 1,
    "unshuffle": 2,
    "factorised": True,
}


def make_unet(**changes: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(**SMALL | changes, num_labels=4, num_projections=2)


def randomise_output(net: UNet) -> UNet:
    """Give weights to the last layer, which starts at zero."""
    torch.nn.init.normal_(net.out_conv.weight)
    return net


def inputs(grid: tuple[int, int, int] = (4, 16, 24), n: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, *grid, generator=generator)
    label, projection = torch.arange(n) % 5, torch.arange(n) % 3
    return x, torch.linspace(0.1, 1, n), label, projection, torch.full_like(x, 0.5)


@pytest.mark.parametrize(
    "changes", [{}, {"factorised": False}, {"unshuffle": 1}, {"channel_mults": (1,), "num_res_blocks": 2}]
)
@pytest.mark.parametrize("grid", [(1, 8, 8), (5, 16, 24)])
def test_the_output_has_the_input_shape(changes: dict[str, Any], grid: tuple[int, int, int]) -> None:
    x, *others = inputs(grid)
    assert make_unet(**changes)(x, *others).shape == x.shape


def test_an_untrained_network_predicts_zero() -> None:
    assert make_unet()(*inputs()).abs().max() == 0


def test_slices_are_never_strided_away() -> None:
    net, depths = make_unet(channel_mults=(1, 2, 2)), []
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(lambda m, i, o: depths.append(o.shape[2]))
    net(*inputs((5, 16, 24)))
    assert set(depths) == {5}


def test_every_parameter_gets_a_gradient() -> None:
    net = randomise_output(make_unet())
    net(*inputs(n=15)).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_standardised_filters_have_mean_zero_and_variance_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = WeightStandardisedConv3d(64, 8, 3).to(dtype).standardised_weight()
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight.mean((1, 2, 3, 4)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(weight.var((1, 2, 3, 4), correction=0), torch.ones(8), atol=1e-4, rtol=0)


def test_a_standardised_convolution_ignores_scale_and_shift_of_its_filters() -> None:
    torch.manual_seed(0)
    conv, x = WeightStandardisedConv3d(8, 8, 3), torch.randn(1, 8, 4, 6, 6)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(3).add_(0.5)
    torch.testing.assert_close(conv(x), before, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("which", ["time", "label", "projection", "mask"])
def test_each_condition_changes_the_output(which: str) -> None:
    names = ("x", "time", "label", "projection", "mask")
    net, given = randomise_output(make_unet()), dict(zip(names, inputs(), strict=True))
    changed = given | {which: given[which].roll(1) if which != "mask" else given[which] + 1}
    assert not torch.allclose(net(*given.values()), net(*changed.values()), atol=1e-4)


@given(
    factor=st.integers(1, 3),
    channels=st.integers(1, 3),
    depth=st.integers(1, 3),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
)
@settings(deadline=None, max_examples=30)
def test_pixel_shuffle_undoes_pixel_unshuffle(
    factor: int, channels: int, depth: int, rows: int, columns: int
) -> None:
    x = torch.randn(2, channels, depth, rows * factor, columns * factor)
    assert pixel_unshuffle_2d(x, factor).shape == (2, channels * factor**2, depth, rows, columns)
    assert torch.equal(pixel_shuffle_2d(pixel_unshuffle_2d(x, factor), factor), x)


def test_times_have_different_embeddings_within_bounds() -> None:
    embedding = sinusoidal_embedding(torch.arange(1001.0), 16)
    assert embedding.abs().max() <= 1
    assert len(set(map(tuple, embedding.tolist()))) == 1001
