"""The DDPM's loss of single volumes: low for volumes that it knows by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.diffusion.preconditioning import Denoiser
from dbtbench.diffusion.process import add_noise, training_target
from dbtbench.networks.conditioning import null_conditioning
from dbtbench.runtime import distributed
from dbtbench.training.scoring import ScoredBatch, score_batches

if TYPE_CHECKING:
    from . import DDPMRecipe

LEVELS = (0.05, 0.1, 0.2, 0.4, 0.6)
"""Noise levels as shares of T. With less noise any network denoises, with more none knows the volume."""


def score_volumes(recipe: DDPMRecipe, model: nn.Module, volumes: DBTDataset) -> NDArray[np.float64]:
    """Compute the mean squared error of the target at each of `LEVELS`.

    The noise of a volume follows from its SHA-256. The network runs on `sample_batch` volumes at a time.

    Args:
        recipe: of the fitted model.
        model: the denoiser.
        volumes: any volumes on its grid.

    Returns:
        (N, levels) float64.
    """
    assert isinstance(model, Denoiser)

    def score(batch: ScoredBatch) -> list[Tensor]:
        given = batch.conditioning if recipe.conditional else null_conditioning(batch.conditioning)
        x0, losses = model.intensities(batch.volumes), []
        for level in LEVELS:
            step = min(max(1, round(level * recipe.num_timesteps)), recipe.num_timesteps)
            t, noise = torch.full((len(x0),), step, device=x0.device), batch.draw_noise()
            xt = add_noise(model.alpha_bar, x0, noise, t)
            with distributed.autocast():
                t_normalised = t / recipe.num_timesteps
                predicted: Tensor = model(xt, t_normalised, given.label, given.projection, given.lesion_mask)
            error = predicted.float() - training_target(recipe.target, model.alpha_bar, x0, noise, t)
            losses.append((error**2).mean(dim=(1, 2, 3, 4)))
        return losses

    return score_batches(volumes, recipe.sample_batch, "ddpm: score", score)
