from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor, nn

from dbtbench.diffusion.preconditioning import (
    CosineTransform,
    Intensities,
    Measured,
    Preconditioned,
    Symmetric,
)
from dbtbench.diffusion.process import (
    Target,
    cosine,
    linear,
    noisy,
    target_of,
    to_data,
    zero_terminal_snr,
)
from dbtbench.diffusion.sampling import SAMPLERS, SamplerName
from dbtbench.networks.unet import UNet

GRID = (4, 8, 6)
ABAR = zero_terminal_snr(cosine(100))


class Silent(nn.Module):
    """A network that has learned nothing."""

    def forward(self, x: Tensor, *told: Tensor) -> Tensor:
        return torch.zeros_like(x)


def gaussian(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Volumes of known variance in every frequency, and that variance."""
    transform = CosineTransform(GRID)
    z, y, x = torch.meshgrid(*[torch.arange(k) for k in GRID], indexing="ij")
    variance = 8.0 / (1 + z + y + x) ** 2
    noise = torch.randn(n, 1, *GRID, generator=torch.Generator().manual_seed(seed))
    return transform.inverse(variance.sqrt() * noise), variance


@pytest.fixture
def model() -> Preconditioned:
    model = Preconditioned(Silent(), ABAR, GRID, projections=2)
    _, variance = gaussian(1)
    model.variance.copy_(variance)
    return model


def predict(model: Preconditioned, x: Tensor, t: int) -> Tensor:
    told = torch.zeros(len(x), dtype=torch.long)
    predicted: Tensor = model(x, torch.full((len(x),), t / 100), told, told, torch.zeros_like(x))
    return predicted


def test_the_transform_is_scipys_orthonormal_one_and_is_undone() -> None:
    volumes = torch.rand(2, 1, *GRID)
    transform = CosineTransform(GRID)
    expected = dctn(volumes.numpy(), axes=(2, 3, 4), norm="ortho")
    np.testing.assert_allclose(transform(volumes), expected, atol=1e-5)
    torch.testing.assert_close(transform.inverse(transform(volumes)), volumes)


def test_intensities_become_standard_values_and_come_back() -> None:
    volumes = torch.rand(2, 1, *GRID)
    intensities = Intensities()
    intensities.measure(volumes)
    values = intensities(volumes)
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(intensities.inverse(values), volumes)
    low, high = intensities.limits()
    assert low <= float(values.min()) < float(values.max()) <= high


@pytest.mark.parametrize("t", [1, 20, 50, 80, 100])
def test_a_network_that_answers_nothing_is_the_best_linear_predictor(model: Preconditioned, t: int) -> None:
    x0, variance = gaussian(2000)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    times = torch.full((len(x0),), t)
    error = predict(model, noisy(ABAR, x0, noise, times), t) - target_of("v", ABAR, x0, noise, times)
    share = ABAR[t]
    smallest = (variance / (share * variance + 1 - share)).mean()
    assert float(error.square().mean()) == pytest.approx(float(smallest), rel=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_samples_a_gaussian_with_the_right_spectrum(model: Preconditioned, sampler: SamplerName) -> None:
    generator = torch.Generator().manual_seed(2)

    def fresh() -> Tensor:
        noise: Tensor = torch.randn(2500, 1, *GRID, generator=generator)
        return noise

    def denoise(x: Tensor, t: int) -> Tensor:
        x0: Tensor = to_data("v", ABAR, x, predict(model, x, t), torch.full((len(x),), t))
        return x0

    drawn = SAMPLERS[sampler](denoise, fresh(), ABAR, 100, fresh)
    spectrum = CosineTransform(GRID)(drawn).square().mean(0)
    torch.testing.assert_close(spectrum, model.variance, rtol=0.15, atol=0.01)


@pytest.mark.parametrize("target", ["noise", "data"])
def test_other_targets_mean_the_same_data(model: Preconditioned, target: Target) -> None:
    x, times = torch.randn(3, 1, *GRID), torch.full((3,), 60)
    expected = to_data("v", ABAR, x, predict(model, x, 60), times)
    model.target = target
    torch.testing.assert_close(
        to_data(target, ABAR, x, predict(model, x, 60), times), expected, rtol=1e-3, atol=1e-4
    )


def half_discs(n: int) -> Tensor:
    """Volumes (n, 1, 4, 16, 16) in [0, 1]: each a bright grainy half-disc of its own size in dark air."""
    generator = torch.Generator().manual_seed(0)
    radius = 4 + 8 * torch.rand(n, 1, 1, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(16.0) - 7.5, torch.arange(16.0), indexing="ij")
    texture = 0.3 + 0.1 * torch.rand(n, 1, 4, 16, 16, generator=generator)
    return (torch.hypot(y, x) < radius) * texture


def test_a_network_soon_learns_what_the_linear_prediction_does_not_know() -> None:
    torch.manual_seed(0)
    net = UNet(16, (1, 2), blocks=1, unshuffle=2, factorised=True, labels=1, projections=1)
    model = Preconditioned(net, ABAR, (4, 16, 16), projections=1)
    volumes = half_discs(96)
    model.measure(volumes, torch.zeros(96, dtype=torch.long))
    data = model.intensities(volumes)

    def error(x0: Tensor, generator: torch.Generator) -> Tensor:
        told, noise = torch.zeros(len(x0), dtype=torch.long), torch.randn(x0.shape, generator=generator)
        t = torch.randint(1, 101, (len(x0),), generator=generator)
        predicted = model(noisy(ABAR, x0, noise, t), t / 100, told, told, torch.zeros_like(x0))
        mean: Tensor = (predicted - target_of("v", ABAR, x0, noise, t)).square().mean()
        return mean

    @torch.no_grad()
    def tested() -> float:
        return float(error(data.repeat(4, 1, 1, 1, 1), torch.Generator().manual_seed(1)))

    linear, generator = tested(), torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50)
        rows = torch.randint(96, (8,), generator=generator)
        loss = error(data[rows], generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert tested() < 0.97 * linear


def test_without_preconditioning_the_network_answers_and_values_lie_between_minus_one_and_one() -> None:
    plain = Measured(Silent(), ABAR, GRID, projections=2, target="data")
    told, x = torch.zeros(2, dtype=torch.long), torch.randn(2, 1, *GRID)
    assert not plain(x, torch.full((2,), 0.5), told, told, torch.zeros_like(x)).any()
    volumes, symmetric = torch.rand(2, 1, *GRID), Symmetric()
    symmetric.measure(volumes)
    torch.testing.assert_close(symmetric(volumes), 2 * volumes - 1)
    torch.testing.assert_close(symmetric.inverse(symmetric(volumes)), volumes)
    assert symmetric.limits() == (-1, 1)


def test_the_leak_start_has_the_mean_and_the_spectrum_that_training_ended_with() -> None:
    abar = linear(300)
    plain = Measured(Silent(), abar, GRID, projections=2)
    x0, variance = gaussian(4000)
    plain.measure((x0 / 100 + 0.6) / 2, torch.zeros(4000, dtype=torch.long))
    generator = torch.Generator().manual_seed(3)
    shaped, noise = torch.randn(2, 4000, 1, *GRID, generator=generator).unbind()
    start = plain.leaked(torch.zeros(4000, dtype=torch.long), shaped, noise)
    leak = float(abar[-1])
    assert float(start.mean()) == pytest.approx(leak**0.5 * -0.4, abs=0.01)
    spectrum = CosineTransform(GRID)(start - start.mean(0)).square().mean(0)
    expected = (leak * variance / 100**2 + 1 - leak).expand_as(spectrum)
    torch.testing.assert_close(spectrum, expected, rtol=0.12, atol=0.0)


def test_without_a_leak_the_leak_start_is_the_noise(model: Preconditioned) -> None:
    shaped, noise = torch.randn(2, 3, 1, *GRID).unbind()
    torch.testing.assert_close(model.leaked(torch.zeros(3, dtype=torch.long), shaped, noise), noise)


def test_mean_volumes_are_by_projection_and_overall() -> None:
    volumes = torch.rand(6, 1, *GRID)
    projections = torch.tensor([0, 1, 0, 1, 0, 1])
    model = Preconditioned(Silent(), ABAR, GRID, projections=2)
    model.measure(volumes, projections)
    values = model.intensities(volumes)
    for projection, mine in ((0, values[::2]), (1, values[1::2]), (2, values)):
        torch.testing.assert_close(model.mean[projection], mine.mean(0))
    assert (model.variance > 0).all()


def test_from_pure_noise_the_mean_is_predicted(model: Preconditioned) -> None:
    model.mean[0] = 3.0
    x = torch.randn(1, 1, *GRID)
    torch.testing.assert_close(predict(model, x, 100), torch.full_like(x, -3.0))


def test_the_measure_travels_with_the_weights(model: Preconditioned) -> None:
    names = model.state_dict().keys()
    assert names == {"mean", "variance", "intensities.centre", "intensities.spread"}
