"""The DDPM's denoiser: training it, and drawing volumes with it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS
from dbtbench.diffusion.guidance import classifier_free_guidance
from dbtbench.diffusion.preconditioning import Denoiser, LinearPreconditioner
from dbtbench.diffusion.process import (
    add_noise,
    loss_elementwise,
    make_schedule,
    min_snr_weights,
    predict_x0,
    training_target,
)
from dbtbench.diffusion.sampling import SAMPLERS, Denoise
from dbtbench.networks.backbone import build_network
from dbtbench.networks.conditioning import (
    PROJECTIONS,
    Conditioning,
    drop_conditioning,
    null_conditioning,
    without_boxes,
)
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.training.learned import LayoutNoise, LeftBreasts
from dbtbench.training.loop import Preview, StepContext, fit

if TYPE_CHECKING:
    from . import DDPMRecipe


def train_denoiser(recipe: DDPMRecipe, data: LeftBreasts, run: Run, preview: Preview) -> nn.Module:
    """Train the denoiser, continue or load it (see `dbtbench.training.loop.fit`)."""
    torch.manual_seed(recipe.seed)
    net = build_network(recipe, num_labels=len(LABELS), num_projections=len(PROJECTIONS))
    alpha_bar = make_schedule(recipe.noise_schedule, recipe.num_timesteps, recipe.zero_terminal_snr)
    denoiser_class = LinearPreconditioner if recipe.preconditioned else Denoiser
    model = denoiser_class(net, alpha_bar, data.split.grid, len(PROJECTIONS), recipe.target)
    objective = Objective(recipe, model, data)
    return fit(
        model,
        objective,
        recipe,
        run.path,
        seed=recipe.seed,
        title="training ddpm",
        preview=preview,
        compiled=True,
    )


class Objective:
    """Mean loss of the target, with a larger weight at wanted lesions; reads the data at the first call."""

    def __init__(self, recipe: DDPMRecipe, model: Denoiser, data: LeftBreasts) -> None:
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
        t = torch.randint(1, recipe.num_timesteps + 1, (batch,), generator=generator, device=device)
        t = t[context.part]
        chance = torch.rand(4, batch, generator=generator, device=device)[:, context.part]
        noise = torch.randn(batch, *values.shape[1:], generator=generator, device=device)[context.part]
        # Each is dropped by itself, and all together; guidance compares with the boxes dropped.
        dropped = chance < recipe.conditioning_dropout
        conditioning = drop_conditioning(self.conditioning[rows].to(device), dropped[:3] | dropped[3])
        label, projection, mask = conditioning.label, conditioning.projection, conditioning.lesion_mask
        x0 = values[rows].to(device)
        xt = add_noise(alpha_bar, x0, noise, t)
        predicted: Tensor = net(xt, t / recipe.num_timesteps, label, projection, mask)
        error = predicted - training_target(recipe.target, alpha_bar, x0, noise, t)
        # A weight that depends only on the conditioning does not change the optimum.
        weight = 1 + recipe.lesion_weight * mask.relu()
        if recipe.min_snr:
            snr_weights = min_snr_weights(recipe.target, alpha_bar, recipe.min_snr)
            weight = weight * snr_weights[t].view(-1, 1, 1, 1, 1)
        return (weight * loss_elementwise(recipe.loss, error)).mean()


def draw_volumes(
    recipe: DDPMRecipe, model: nn.Module, conditioning: Conditioning, noise: LayoutNoise
) -> Tensor:
    """Draw volumes of left breasts: (N, 1, D, H, W) in [0, 1]."""
    assert isinstance(model, Denoiser)
    if not recipe.conditional:
        conditioning = null_conditioning(conditioning)
    x = noise()
    if recipe.init == "signal_leak":
        x = model.signal_leak_init(conditioning.projection, data_noise=noise(), noise=x)
    steps = min(recipe.sample_steps, recipe.num_timesteps)
    denoise = _make_denoise(recipe, model, conditioning)
    values = SAMPLERS[recipe.sampler](denoise, x, model.alpha_bar, steps, noise)
    return model.intensities.inverse(values)


def _make_denoise(recipe: DDPMRecipe, model: Denoiser, conditioning: Conditioning) -> Denoise:
    """Make a function that estimates the data, with the recipe's guidance and clipping."""
    label, projection, mask = conditioning.label, conditioning.projection, conditioning.lesion_mask
    null_mask = without_boxes(conditioning).lesion_mask
    limits = model.intensities.limits()
    # A preview is drawn before a scale is chosen, and without guidance.
    scale = 1.0 if isinstance(recipe.guidance_scale, str) else recipe.guidance_scale
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
