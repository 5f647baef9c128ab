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
from dbtbench.runtime.progress import progress
from dbtbench.training.learned import LeftBreasts

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
    losses = np.empty((len(volumes), len(LEVELS)))
    size = recipe.sample_batch
    with progress("ddpm: score", len(volumes)) as advance, torch.inference_mode():
        for start in range(0, len(volumes), size):
            part = volumes[start : start + size]
            losses[start : start + len(part)] = _score_batch(recipe, model, part, size)
            advance(len(part))
    return losses


def _score_batch(recipe: DDPMRecipe, model: nn.Module, part: DBTDataset, size: int) -> NDArray[np.float64]:
    """Score up to `size` volumes; the batch is filled up, because its size may change the rounding."""
    assert isinstance(model, Denoiser)
    left, device = LeftBreasts(part), distributed.device()
    rows = torch.arange(size) % len(part)
    conditioning = left.conditioning[rows.to(left.device)].to(device)
    if not recipe.conditional:
        conditioning = null_conditioning(conditioning)
    x0 = model.intensities(left.volumes[rows.to(left.device)].to(device))
    generators = [torch.Generator().manual_seed(int(text[:12], 16)) for text in part.cases["sha256"]]
    scores = []
    for level in LEVELS:
        step = min(max(1, round(level * recipe.num_timesteps)), recipe.num_timesteps)
        t = torch.full((size,), step, device=device)
        drawn = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators])
        noise = drawn[rows].to(device)
        xt = add_noise(model.alpha_bar, x0, noise, t)
        with distributed.autocast():
            predicted: Tensor = model(
                xt,
                t / recipe.num_timesteps,
                conditioning.label,
                conditioning.projection,
                conditioning.lesion_mask,
            )
        error = predicted.float() - training_target(recipe.target, model.alpha_bar, x0, noise, t)
        scores.append((error**2).mean(dim=(1, 2, 3, 4))[: len(part)].double().cpu().numpy())
    return np.stack(scores, axis=1)
