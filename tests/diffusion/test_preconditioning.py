"""Tests of preconditioning: the transform, the linear prediction, and what a network adds to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor, nn

from dbtbench.diffusion.names import SamplerName, Target
from dbtbench.diffusion.preconditioning import (
    CosineTransform,
    Denoiser,
    IntensityScaling,
    LinearPreconditioner,
    SqrtStandardisation,
)
from dbtbench.diffusion.process import (
    add_noise,
    cosine_schedule,
    linear_schedule,
    predict_x0,
    rescale_to_zero_terminal_snr,
    training_target,
)
from dbtbench.diffusion.sampling import SAMPLERS
from dbtbench.networks.unet import UNet

GRID = (4, 8, 6)
ALPHA_BAR = rescale_to_zero_terminal_snr(cosine_schedule(100))


class Zero(nn.Module):
    """A network whose output is 0."""

    def forward(self, x: Tensor, *conditioning: Tensor) -> Tensor:
        return torch.zeros_like(x)


def draw_gaussian(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw volumes of known variance in every frequency; give the variance too."""
    transform = CosineTransform(GRID)
    z, y, x = torch.meshgrid(*[torch.arange(k) for k in GRID], indexing="ij")
    variance = 8.0 / (1 + z + y + x) ** 2
    noise = torch.randn(n, 1, *GRID, generator=torch.Generator().manual_seed(seed))
    return transform.inverse(variance.sqrt() * noise), variance


@pytest.fixture
def model() -> LinearPreconditioner:
    model = LinearPreconditioner(Zero(), ALPHA_BAR, GRID, num_projections=2)
    _, variance = draw_gaussian(1)
    model.variance.copy_(variance)
    return model


def predict(model: LinearPreconditioner, x: Tensor, t: int) -> Tensor:
    index = torch.zeros(len(x), dtype=torch.long)
    predicted: Tensor = model(x, torch.full((len(x),), t / 100), index, index, torch.zeros_like(x))
    return predicted


def test_the_transform_is_scipys_orthonormal_one_and_is_undone() -> None:
    volumes = torch.rand(2, 1, *GRID)
    transform = CosineTransform(GRID)
    expected = dctn(volumes.numpy(), axes=(2, 3, 4), norm="ortho")
    np.testing.assert_allclose(transform(volumes), expected, atol=1e-5)
    torch.testing.assert_close(transform.inverse(transform(volumes)), volumes)


def test_intensities_become_standard_values_and_come_back() -> None:
    volumes = torch.rand(2, 1, *GRID)
    intensities = SqrtStandardisation()
    intensities.fit_statistics(volumes)
    values = intensities(volumes)
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(intensities.inverse(values), volumes)
    low, high = intensities.limits()
    assert low <= float(values.min()) < float(values.max()) <= high


@pytest.mark.parametrize("t", [1, 20, 50, 80, 100])
def test_a_network_whose_output_is_zero_is_the_best_linear_predictor(
    model: LinearPreconditioner, t: int
) -> None:
    x0, variance = draw_gaussian(2000)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    timesteps = torch.full((len(x0),), t)
    predicted = predict(model, add_noise(ALPHA_BAR, x0, noise, timesteps), t)
    error = predicted - training_target("v", ALPHA_BAR, x0, noise, timesteps)
    smallest = (variance / (ALPHA_BAR[t] * variance + 1 - ALPHA_BAR[t])).mean()
    assert float(error.square().mean()) == pytest.approx(float(smallest), rel=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_samples_a_gaussian_with_the_right_spectrum(
    model: LinearPreconditioner, sampler: SamplerName
) -> None:
    generator = torch.Generator().manual_seed(2)

    def noise_sampler() -> Tensor:
        noise: Tensor = torch.randn(2500, 1, *GRID, generator=generator)
        return noise

    def denoise(x: Tensor, t: int) -> Tensor:
        x0: Tensor = predict_x0("v", ALPHA_BAR, x, predict(model, x, t), torch.full((len(x),), t))
        return x0

    drawn = SAMPLERS[sampler](denoise, noise_sampler(), ALPHA_BAR, 100, noise_sampler)
    spectrum = CosineTransform(GRID)(drawn).square().mean(0)
    torch.testing.assert_close(spectrum, model.variance, rtol=0.15, atol=0.01)


@pytest.mark.parametrize("target", ["noise", "data"])
def test_other_targets_mean_the_same_data(model: LinearPreconditioner, target: Target) -> None:
    x, timesteps = torch.randn(3, 1, *GRID), torch.full((3,), 60)
    expected = predict_x0("v", ALPHA_BAR, x, predict(model, x, 60), timesteps)
    model.target = target
    torch.testing.assert_close(
        predict_x0(target, ALPHA_BAR, x, predict(model, x, 60), timesteps), expected, rtol=1e-3, atol=1e-4
    )


def draw_half_discs(n: int) -> Tensor:
    """Draw volumes (n, 1, 4, 16, 16) in [0, 1]: bright grainy half-discs of random size in dark air."""
    generator = torch.Generator().manual_seed(0)
    radius = 4 + 8 * torch.rand(n, 1, 1, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(16.0) - 7.5, torch.arange(16.0), indexing="ij")
    texture = 0.3 + 0.1 * torch.rand(n, 1, 4, 16, 16, generator=generator)
    return (torch.hypot(y, x) < radius) * texture


def test_a_network_soon_beats_the_linear_prediction() -> None:
    torch.manual_seed(0)
    net = UNet(16, (1, 2), num_res_blocks=1, unshuffle=2, factorised=True, num_labels=1, num_projections=1)
    model = LinearPreconditioner(net, ALPHA_BAR, (4, 16, 16), num_projections=1)
    volumes = draw_half_discs(96)
    model.fit_statistics(volumes, torch.zeros(96, dtype=torch.long))
    data = model.intensities(volumes)

    def error(x0: Tensor, generator: torch.Generator) -> Tensor:
        index, noise = torch.zeros(len(x0), dtype=torch.long), torch.randn(x0.shape, generator=generator)
        t = torch.randint(1, 101, (len(x0),), generator=generator)
        predicted = model(add_noise(ALPHA_BAR, x0, noise, t), t / 100, index, index, torch.zeros_like(x0))
        mean: Tensor = (predicted - training_target("v", ALPHA_BAR, x0, noise, t)).square().mean()
        return mean

    @torch.no_grad()
    def test_error() -> float:
        return float(error(data.repeat(4, 1, 1, 1, 1), torch.Generator().manual_seed(1)))

    linear, generator = test_error(), torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50)
        rows = torch.randint(96, (8,), generator=generator)
        loss = error(data[rows], generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert test_error() < 0.97 * linear


def test_without_preconditioning_the_network_predicts_and_values_lie_between_minus_one_and_one() -> None:
    plain = Denoiser(Zero(), ALPHA_BAR, GRID, num_projections=2, target="data")
    index, x = torch.zeros(2, dtype=torch.long), torch.randn(2, 1, *GRID)
    assert not plain(x, torch.full((2,), 0.5), index, index, torch.zeros_like(x)).any()
    volumes, scaling = torch.rand(2, 1, *GRID), IntensityScaling()
    scaling.fit_statistics(volumes)
    torch.testing.assert_close(scaling(volumes), 2 * volumes - 1)
    torch.testing.assert_close(scaling.inverse(scaling(volumes)), volumes)
    assert scaling.limits() == (-1, 1)


def test_signal_leak_init_has_the_mean_and_the_spectrum_of_x_T_in_training() -> None:
    alpha_bar = linear_schedule(300)
    plain = Denoiser(Zero(), alpha_bar, GRID, num_projections=2)
    x0, variance = draw_gaussian(4000)
    plain.fit_statistics((x0 / 100 + 0.6) / 2, torch.zeros(4000, dtype=torch.long))
    generator = torch.Generator().manual_seed(3)
    data_noise, noise = torch.randn(2, 4000, 1, *GRID, generator=generator).unbind()
    x = plain.signal_leak_init(torch.zeros(4000, dtype=torch.long), data_noise, noise)
    alpha_bar_t = float(alpha_bar[-1])
    assert float(x.mean()) == pytest.approx(alpha_bar_t**0.5 * -0.4, abs=0.01)
    spectrum = CosineTransform(GRID)(x - x.mean(0)).square().mean(0)
    expected = (alpha_bar_t * variance / 100**2 + 1 - alpha_bar_t).expand_as(spectrum)
    torch.testing.assert_close(spectrum, expected, rtol=0.12, atol=0.0)


def test_signal_leak_init_at_zero_terminal_snr_is_the_noise(model: LinearPreconditioner) -> None:
    data_noise, noise = torch.randn(2, 3, 1, *GRID).unbind()
    x = model.signal_leak_init(torch.zeros(3, dtype=torch.long), data_noise, noise)
    torch.testing.assert_close(x, noise)


def test_mean_volumes_are_by_projection_and_overall() -> None:
    volumes = torch.rand(6, 1, *GRID)
    projections = torch.tensor([0, 1, 0, 1, 0, 1])
    model = LinearPreconditioner(Zero(), ALPHA_BAR, GRID, num_projections=2)
    model.fit_statistics(volumes, projections)
    values = model.intensities(volumes)
    for projection, expected in ((0, values[::2]), (1, values[1::2]), (2, values)):
        torch.testing.assert_close(model.mean[projection], expected.mean(0))
    assert (model.variance > 0).all()


def test_from_pure_noise_the_mean_is_predicted(model: LinearPreconditioner) -> None:
    model.mean[0] = 3.0
    x = torch.randn(1, 1, *GRID)
    torch.testing.assert_close(predict(model, x, 100), torch.full_like(x, -3.0))


def test_the_statistics_are_stored_with_the_weights(model: LinearPreconditioner) -> None:
    names = model.state_dict().keys()
    assert names == {"mean", "variance", "intensities.mean", "intensities.std"}
