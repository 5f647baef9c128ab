"""The VAE: probabilistic PCA with a network on either side, its training, and the drawing of volumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dbtbench.closed_form.model import LEVELS
from dbtbench.closed_form.start import LinearStart, look_up
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.training.learned import LayoutNoise, LeftBreasts
from dbtbench.training.loop import Preview, StepContext, fit

from .crossfit import cross_fit
from .networks import Decoder, LocalEncoder

if TYPE_CHECKING:
    from . import VAERecipe

LOG_VARIANCE = 6.0
"""Largest log variance of the local code, up or down."""
SMALLEST_VARIANCE = 1e-8


@dataclass(frozen=True)
class Posterior:
    """Normal distribution of the codes of N volumes.

    Attributes:
        mean: (N, K) of the global code.
        log_variance: (N, K).
        local_mean: (N, C, D, h, w) of the local code; None with one level.
        local_log_variance: the same.
    """

    mean: Tensor
    log_variance: Tensor
    local_mean: Tensor | None
    local_log_variance: Tensor | None

    def divergence(self) -> Tensor:
        """Compute the KL divergence from the standard normal prior: (N,) nats."""
        total = _divergence(self.mean, self.log_variance)
        if self.local_mean is not None and self.local_log_variance is not None:
            total = total + _divergence(self.local_mean, self.local_log_variance)
        return total


class VAE(nn.Module):
    """Probabilistic PCA, completed by networks; with untrained networks it is probabilistic PCA.

    The linear model x = mean + W z + noise has a posterior in closed form (Tipping & Bishop 1999), and a
    linear VAE's optimum is that model (Lucas et al., arXiv 1911.02469). The decoder adds to the linear image.
    The global code's posterior keeps its linear mean and, as that of a linear model, one variance for all
    volumes, which is learned; with two levels a network reads the local code.

    Args:
        recipe: its settings.
        grid: slices, rows, columns.
        volumes: training volumes.

    Attributes:
        start: the closed-form model, whose residual texture is that of this model after training.
        variance: () mean square of what the components leave of unseen volumes, per voxel.
        deviation: (LEVELS,) standard deviation of what the components leave by grey level: the unit of the
            decoder's corrections.
        log_sigma: () logarithm of the standard deviation of voxels around their prediction, which is learned.
        code_mean: (K,) mean of the training volumes' codes.
        code_factor: (K, K) Cholesky factor of their covariance.
        local_mean: (C, D, h, w) mean of the training volumes' local codes.
        local_std: (C, D, h, w) standard deviation.
    """

    def __init__(self, recipe: VAERecipe, grid: tuple[int, int, int], volumes: int) -> None:
        super().__init__()
        self.start = LinearStart(grid, recipe.code, volumes)
        code, channels = len(self.start.components), recipe.local_channels if recipe.levels > 1 else 0
        width, factor, factorised = recipe.base_channels, recipe.unshuffle, recipe.factorised
        self.encoder = LocalEncoder(width, factor, factorised, code, channels) if channels else None
        self.decoder = Decoder(width, recipe.blocks, factor, factorised, code, channels)
        self.log_sigma = nn.Parameter(torch.zeros(()))
        self.log_factor = nn.Parameter(torch.zeros(code))
        depth, height, columns = grid
        local = (channels, depth, height // (2 * factor), columns // (2 * factor))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("deviation", torch.ones(LEVELS))
        self.register_buffer("code_mean", torch.zeros(code))
        self.register_buffer("code_factor", torch.eye(code))
        self.register_buffer("local_mean", torch.zeros(local))
        self.register_buffer("local_std", torch.ones(local))
        self.variance: Tensor
        self.deviation: Tensor
        self.code_mean: Tensor
        self.code_factor: Tensor
        self.local_mean: Tensor
        self.local_std: Tensor

    def gain(self) -> Tensor:
        """Compute the share of each component's deviation that is signal: (K,)."""
        return (1 - self.variance / self.start.squared_lengths()).clamp(min=0.0).sqrt()

    def encode(
        self, roots: Tensor, mean: Tensor, given: Conditioning, linear: Tensor | None = None
    ) -> Posterior:
        """Compute the posterior of roots (N, 1, D, H, W).

        Args:
            roots: (N, 1, D, H, W).
            mean: (N, 1, D, H, W) closed-form mean.
            given: conditioning.
            linear: (N, 1, D, H, W) what components say of the roots less their mean: by default those of
                the model, for training volumes `cross_fit`.
        """
        weights = self.start.encode(roots - mean if linear is None else linear)
        if linear is None:
            linear = self.start.decode(weights)
        log_variance = (self.variance / self.start.squared_lengths()).clamp(max=1.0).log() + self.log_factor
        code, log_variance = self.gain() * weights, log_variance.expand_as(weights)
        if self.encoder is None:
            return Posterior(code, log_variance, None, None)
        rest = (roots - mean - linear) / self.variance.sqrt()
        local_mean, local_log_variance = self.encoder(
            rest, given.label, given.projection, given.lesion_mask.relu(), weights
        )
        limited = LOG_VARIANCE * (local_log_variance.float() / LOG_VARIANCE).tanh()
        return Posterior(code, log_variance, local_mean.float(), limited)

    def decode(
        self,
        code: Tensor,
        local: Tensor | None,
        mean: Tensor,
        given: Conditioning,
        linear: Tensor | None = None,
    ) -> Tensor:
        """Predict roots (N, 1, D, H, W) from codes.

        Args:
            code: (N, K) global code.
            local: (N, C, D, h, w) local code; None with one level.
            mean: (N, 1, D, H, W) closed-form mean.
            given: conditioning.
            linear: see `encode`; what its components say beyond those of the model is added.
        """
        image = mean + self.start.decode(code * self.gain())
        if linear is not None:
            image = image + linear - self.start.decode(self.start.encode(linear))
        correction: Tensor = self.decoder(
            2 * image - 1,
            2 * mean - 1,
            given.label,
            given.projection,
            given.lesion_mask.relu(),
            code,
            local,
        )
        return image + look_up(self.deviation, image) * correction.float()

    def reconstruct(self, roots: Tensor, mean: Tensor, given: Conditioning) -> Tensor:
        """Decode the posterior's mean."""
        posterior = self.encode(roots, mean, given)
        return self.decode(posterior.mean, posterior.local_mean, mean, given)

    def forward(
        self,
        roots: Tensor,
        mean: Tensor,
        given: Conditioning,
        linear: Tensor | None,
        noise: Tensor,
        local_noise: Tensor,
        lesion_weight: float,
    ) -> tuple[Tensor, Tensor]:
        """Compute both parts of the negative evidence lower bound, in nats per voxel.

        The standard deviation of voxels is learned with the networks, so there is no weight to tune between
        the parts (sigma-VAE, Rybkin et al., arXiv 2006.13202).

        Args:
            roots: (N, 1, D, H, W).
            mean: (N, 1, D, H, W) closed-form mean.
            given: conditioning.
            linear: see `encode`.
            noise: (N, K) standard normal.
            local_noise: (N, C, D, h, w) standard normal.
            lesion_weight: additional weight of voxels of lesions.

        Returns:
            Negative log-likelihood and KL divergence, both (N,).
        """
        posterior = self.encode(roots, mean, given, linear)
        code = posterior.mean + noise * (posterior.log_variance / 2).exp()
        local = None
        if posterior.local_mean is not None and posterior.local_log_variance is not None:
            local = posterior.local_mean + local_noise * (posterior.local_log_variance / 2).exp()
        weight = 1 + lesion_weight * given.lesion_mask.relu()
        error = (
            (weight * (self.decode(code, local, mean, given, linear) - roots).square()).flatten(1).mean(dim=1)
        )
        log_sigma = self.log_sigma + 0.5 * self.variance.log()
        likelihood = log_sigma + 0.5 * math.log(2 * math.pi) + 0.5 * error * (-2 * log_sigma).exp()
        return likelihood, posterior.divergence() / roots[0].numel()


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)


def train_vae(recipe: VAERecipe, data: LeftBreasts, run: Run, preview: Preview) -> nn.Module:
    """Train the VAE, continue or load it (see `dbtbench.training.loop.fit`)."""
    torch.manual_seed(recipe.seed)
    model = VAE(recipe, data.split.grid, len(data))
    objective = Objective(recipe, model, data)
    return fit(
        model,
        objective,
        recipe,
        run.path,
        seed=recipe.seed,
        title="training vae",
        preview=preview,
        measure=objective.measure,
        compiled=True,
    )


class Objective:
    """Negative evidence lower bound of training volumes; reads the data at the first call."""

    def __init__(self, recipe: VAERecipe, model: VAE, data: LeftBreasts) -> None:
        self.recipe, self.model, self.data = recipe, model, data

    @cached_property
    def roots(self) -> Tensor:
        """Square roots of the volumes (n, 1, D, H, W).

        Reading them fits the closed-form model, also when a training continues.
        """
        self.model.start.fit(self.data.split)
        self.model.deviation.copy_(self.model.start.noise)
        return self.data.volumes.sqrt()

    @cached_property
    def mean(self) -> Tensor:
        """Closed-form means of all volumes (n, 1, D, H, W)."""
        parts = [self.model.start.predict_mean(given) for _, given in self._walk()]
        return torch.cat(parts).to(self.data.device)

    @cached_property
    def linear(self) -> Tensor:
        """Cross-fitted images of all volumes (n, 1, D, H, W). What they leave is the model's variance."""
        residual = self.roots - self.mean
        linear = cross_fit(residual, len(self.model.code_mean), list(self.data.split.cases["PatientID"]))
        left = float((residual - linear).square().mean())
        self.model.variance.fill_(max(left, SMALLEST_VARIANCE))
        return linear

    def _walk(self) -> Iterator[tuple[Tensor, Conditioning]]:
        """Go over all volumes: rows and their conditioning, on the network's device."""
        size = self.recipe.micro_batch
        for first in range(0, len(self.data), size):
            rows = torch.arange(first, min(first + size, len(self.data)), device=self.data.device)
            yield rows, self.data.conditioning[rows].to(distributed.device())

    def __call__(self, net: nn.Module, context: StepContext) -> Tensor:
        """Compute the mean loss over `context.part` of the batch, in nats per voxel."""
        recipe, roots, linear = self.recipe, self.roots, self.linear
        batch, generator, device = recipe.batch, context.generator, distributed.device()
        rows = self.data.draw_rows(context, batch)
        noise = torch.randn(batch, len(self.model.code_mean), generator=generator, device=device)
        local = torch.randn(batch, *self.model.local_mean.shape, generator=generator, device=device)
        likelihood, divergence = net(
            roots[rows].to(device),
            self.mean[rows].to(device),
            self.data.conditioning[rows].to(device),
            linear[rows].to(device),
            noise[context.part],
            local[context.part],
            recipe.lesion_weight,
        )
        loss: Tensor = (likelihood + recipe.beta * divergence).mean()
        return loss

    def measure(self, net: nn.Module) -> None:
        """Measure the training volumes' codes, and the texture that the decoder leaves."""
        assert isinstance(net, VAE)
        roots, device = self.roots, distributed.device()
        posteriors, predicted = [], []
        for rows, given in self._walk():
            mean = self.mean[rows].to(device)
            linear = self.linear[rows].to(device)
            posterior = net.encode(roots[rows].to(device), mean, given, linear)
            posteriors.append(posterior)
            predicted.append(net.decode(posterior.mean, posterior.local_mean, mean, given, linear).cpu())
        _measure_codes(net, posteriors)
        volumes = torch.cat(predicted)
        net.start.measure_texture(self.data.split, lambda rows: volumes[rows])


def _measure_codes(net: VAE, posteriors: list[Posterior]) -> None:
    """Fit normal distributions to the aggregate posterior: the spread of the means, and their variances."""
    codes = torch.cat([one.mean for one in posteriors]).double()
    variances = torch.cat([one.log_variance for one in posteriors]).double().exp().mean(dim=0)
    net.code_mean.copy_(codes.mean(dim=0))
    deviations = codes - codes.mean(dim=0)
    covariance = deviations.T @ deviations / len(codes) + variances.diag()
    net.code_factor.copy_(torch.linalg.cholesky(covariance))
    means = [one.local_mean for one in posteriors if one.local_mean is not None]
    logs = [one.local_log_variance for one in posteriors if one.local_log_variance is not None]
    if means:
        local = torch.cat(means)
        net.local_mean.copy_(local.mean(dim=0))
        spread = local.var(dim=0, correction=0) + torch.cat(logs).exp().mean(dim=0)
        net.local_std.copy_(spread.sqrt())


def draw_volumes(recipe: VAERecipe, model: nn.Module, given: Conditioning, noise: LayoutNoise) -> Tensor:
    """Draw volumes of left breasts: (N, 1, D, H, W) in [0, 1]."""
    assert isinstance(model, VAE)
    code = noise(len(model.code_mean))
    local = noise(*model.local_mean.shape) if len(model.local_mean) else None
    if recipe.codes == "aggregate":
        code = model.code_mean + code @ model.code_factor.T
        local = None if local is None else model.local_mean + model.local_std * local
    with distributed.autocast():
        roots = model.decode(code, local, model.start.predict_mean(given), given)
    if recipe.texture:
        roots = model.start.add_texture(roots, noise())
    return model.start.to_intensities(roots)
