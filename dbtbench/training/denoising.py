"""The denoiser of a diffusion model: training it, and drawing volumes with it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS
from dbtbench.diffusion.guidance import classifier_free_guidance
from dbtbench.diffusion.preconditioning import Denoiser, LinearPreconditioner
from dbtbench.diffusion.process import (
    add_noise,
    draw_timesteps,
    loss_elementwise,
    make_schedule,
    min_snr_weights,
    predict_x0,
    training_target,
)
from dbtbench.diffusion.sampling import SAMPLERS, Denoise, NoiseSampler
from dbtbench.geometry.views import PROJECTIONS
from dbtbench.networks.backbone import build_network
from dbtbench.networks.conditioning import (
    Conditioning,
    drop_conditioning,
    null_conditioning,
    without_boxes,
)
from dbtbench.runtime import distributed
from dbtbench.training.augment import NUM_LABELS
from dbtbench.training.diffusion_recipe import DiffusionRecipe
from dbtbench.training.learned import LeftBreasts
from dbtbench.training.loop import Preview, StepContext, fit


def make_denoiser(
    recipe: DiffusionRecipe,
    grid: tuple[int, int, int],
    channels: int = 1,
    denoiser_class: type[Denoiser] | None = None,
) -> Denoiser:
    """Make an untrained denoiser with the initial weights of the recipe's seed.

    Args:
        recipe: its settings.
        grid: slices, rows, columns of what it denoises.
        channels: of what it denoises: 1 for intensities.
        denoiser_class: how its output is scaled; by default what `preconditioned` says.
    """
    torch.manual_seed(recipe.seed)
    num_changes = NUM_LABELS if recipe.augment else 0
    net = build_network(recipe, len(LABELS), len(PROJECTIONS), channels, num_changes)
    alpha_bar = make_schedule(recipe.noise_schedule, recipe.num_timesteps, recipe.zero_terminal_snr)
    made_by = denoiser_class or (LinearPreconditioner if recipe.preconditioned else Denoiser)
    return made_by(net, alpha_bar, grid, len(PROJECTIONS), recipe.target, channels)


def train_denoiser(
    recipe: DiffusionRecipe,
    model: Denoiser,
    data: LeftBreasts,
    folder: Path,
    *,
    title: str,
    preview: Preview | None = None,
) -> nn.Module:
    """Train a denoiser, continue or load it.

    Args:
        recipe: its settings.
        model: from `make_denoiser`.
        data: what it learns to denoise; read only if there is something to train.
        folder: takes weights, state and metrics (see `dbtbench.training.loop.fit_networks`).
        title: name of the training in progress lines.
        preview: see `dbtbench.training.loop.Preview`.
    """
    objective = Objective(recipe, model, data)
    return fit(
        model, objective, recipe, folder, seed=recipe.seed, title=title, preview=preview, compiled=True
    )


class Objective:
    """Mean loss of the target, with a larger weight at wanted lesions; reads the data at the first call."""

    def __init__(self, recipe: DiffusionRecipe, model: Denoiser, data: LeftBreasts) -> None:
        self.recipe, self.model, self.data = recipe, model, data

    @cached_property
    def values(self) -> Tensor:
        """Scaled volumes (n, 1, D, H, W).

        Reading them fits the model's statistics, also when a training continues.
        """
        self.model.fit_statistics(self.data.volumes, self.conditioning.projection)
        values: Tensor = self.model.intensities(self.data.volumes)
        return values

    @cached_property
    def conditioning(self) -> Conditioning:
        """Conditioning of all volumes; the null conditioning for an unconditional model."""
        conditioning = self.data.conditioning
        return conditioning if self.recipe.conditional else null_conditioning(conditioning)

    def __call__(self, net: nn.Module, context: StepContext) -> Tensor:
        """Compute the mean loss over `context.part` of the batch."""
        values, recipe, alpha_bar = self.values, self.recipe, self.model.alpha_bar
        batch, generator, device = recipe.batch, context.generator, distributed.device()
        rows = self.data.draw_rows(context, batch)
        t = draw_timesteps(recipe.time_distribution, recipe.num_timesteps, batch, generator)[context.part]
        chance = torch.rand(4, batch, generator=generator, device=device)[:, context.part]
        noise = torch.randn(batch, *values.shape[1:], generator=generator, device=device)[context.part]
        # Each is dropped by itself, and all together; guidance compares with the boxes dropped.
        dropped = chance < recipe.conditioning_dropout
        x0, conditioning = values[rows].to(device), self.conditioning[rows].to(device)
        changes: tuple[Tensor, ...] = ()
        if recipe.augment:
            x0, conditioning, changes = self._change(rows, conditioning, context)
        conditioning = drop_conditioning(conditioning, dropped[:3] | dropped[3])
        label, projection, mask = conditioning.label, conditioning.projection, conditioning.lesion_mask
        xt = add_noise(alpha_bar, x0, noise, t)
        predicted: Tensor = net(xt, t / recipe.num_timesteps, label, projection, mask, *changes)
        error = predicted - training_target(recipe.target, alpha_bar, x0, noise, t)
        # A weight that depends only on the conditioning does not change the optimum.
        weight = 1 + recipe.lesion_weight * mask.relu()
        if recipe.min_snr:
            snr_weights = min_snr_weights(recipe.target, alpha_bar, recipe.min_snr)
            weight = weight * snr_weights[t].view(-1, 1, 1, 1, 1)
        return (weight * loss_elementwise(recipe.loss, error)).mean()

    def _change(
        self, rows: Tensor, conditioning: Conditioning, context: StepContext
    ) -> tuple[Tensor, Conditioning, tuple[Tensor, ...]]:
        """Change volumes and their lesion masks at random; give values, conditioning and the changes."""
        volumes, masks, labels = self.data.draw_changed(rows, self.recipe.augment, context, self.recipe.batch)
        if self.recipe.conditional:
            conditioning = replace(conditioning, lesion_mask=masks)
        return self.model.intensities(volumes), conditioning, (labels,)


def draw_volumes(
    recipe: DiffusionRecipe, model: nn.Module, conditioning: Conditioning, noise: NoiseSampler
) -> Tensor:
    """Draw volumes of left breasts with the recipe's sampler, guidance and clipping.

    Args:
        recipe: its settings.
        model: the trained denoiser.
        conditioning: of N volumes.
        noise: draws standard normal noise (N, C, D, H, W).

    Returns:
        (N, C, D, H, W) intensities in [0, 1], or what the model's scaling makes of its values.
    """
    assert isinstance(model, Denoiser)
    if not recipe.conditional:
        conditioning = null_conditioning(conditioning)
    denoise = make_denoise(recipe, model, conditioning)
    return run_sampler(recipe, model, conditioning.projection, noise, denoise)


def run_sampler(
    recipe: DiffusionRecipe, model: Denoiser, projection: Tensor, noise: NoiseSampler, denoise: Denoise
) -> Tensor:
    """Draw with the recipe's sampler and an estimate of the data; `projection` (N,), else `draw_volumes`."""
    x = noise()
    if recipe.init == "signal_leak":
        x = model.signal_leak_init(projection, data_noise=noise(), noise=x)
    steps = min(recipe.sample_steps, recipe.num_timesteps)
    values = SAMPLERS[recipe.sampler](denoise, x, model.alpha_bar, steps, noise)
    return model.intensities.inverse(values)


def make_denoise(recipe: DiffusionRecipe, model: Denoiser, conditioning: Conditioning) -> Denoise:
    """Make a function that estimates the data, with the recipe's guidance and clipping."""
    label, projection, mask = conditioning.label, conditioning.projection, conditioning.lesion_mask
    null_mask = without_boxes(conditioning).lesion_mask
    limits = model.intensities.limits()
    # A preview is drawn before a scale is chosen, and without guidance.
    scale = 1.0 if recipe.guidance_scale == "auto" else float(recipe.guidance_scale)
    guided = recipe.conditional and scale != 1

    def denoise(x: Tensor, t: int) -> Tensor:
        timesteps = torch.full((len(x),), t, device=x.device)
        t_normalised = torch.full((len(x),), t / recipe.num_timesteps, device=x.device)
        with distributed.autocast():
            predicted = model(x, t_normalised, label, projection, mask).float()
            if guided:
                unguided = model(x, t_normalised, label, projection, null_mask).float()
        if guided:
            predicted = classifier_free_guidance(predicted, unguided, scale, recipe.guidance_rescale)
        x0 = predict_x0(recipe.target, model.alpha_bar, x, predicted, timesteps)
        return x0.clamp(*limits) if recipe.clip_data else x0

    return denoise
