"""The likelihood of single volumes under a fitted flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.training.learned import LeftBreasts

from .model import Flow

if TYPE_CHECKING:
    from . import FlowRecipe


def score_volumes(recipe: FlowRecipe, model: Flow, volumes: DBTDataset) -> NDArray[np.float64]:
    """Compute the negative log-likelihood of each volume, and how far it is above the whitened Gaussian's.

    The noise of a volume follows from its SHA-256. The flow runs on `sample_batch` volumes at a time.

    Args:
        recipe: of the fitted flow.
        model: the flow.
        volumes: any volumes on its grid.

    Returns:
        (N, 2) float64, in nats a voxel of the square root of the intensity, at the recipe's noise: the
        negative log-likelihood, and the same less that of the whitened Gaussian (below 0 where the flow
        explains the volume better).
    """
    scores = np.empty((len(volumes), 2))
    size = recipe.sample_batch
    with progress("flow: score", len(volumes)) as advance, torch.inference_mode():
        for start in range(0, len(volumes), size):
            part = volumes[start : start + size]
            scores[start : start + len(part)] = _score_batch(model, part, size)[: len(part)].cpu().numpy()
            advance(len(part))
    return scores


def _score_batch(model: Flow, part: DBTDataset, size: int) -> Tensor:
    """Score up to `size` volumes; the batch is filled up, because its size may change the rounding."""
    left, device = LeftBreasts(part), distributed.device()
    rows = torch.arange(size) % len(part)
    conditioning = left.conditioning[rows.to(left.device)].to(device)
    generators = [torch.Generator().manual_seed(int(text[:12], 16)) for text in part.cases["sha256"]]
    noise = torch.stack([torch.randn(1, *part.grid, generator=generator) for generator in generators])
    roots = left.volumes[rows.to(left.device)].to(device).sqrt() + model.noise * noise[rows].to(device)
    residual = roots - model.start.predict_mean(conditioning)
    given = (conditioning.label, conditioning.projection, conditioning.lesion_mask)
    losses = (-model.log_likelihood(residual, *given), -model(residual, *given))
    return torch.stack(losses, dim=1).double()
