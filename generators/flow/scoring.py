"""The likelihood of single volumes under a fitted flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.training.scoring import ScoredBatch, score_batches

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

    def score(batch: ScoredBatch) -> list[Tensor]:
        given = batch.conditioning
        roots = batch.volumes.sqrt() + model.noise * batch.draw_noise()
        residual = roots - model.start.predict_mean(given)
        conditions = (given.label, given.projection, given.lesion_mask)
        return [-model.log_likelihood(residual, *conditions), -model(residual, *conditions)]

    return score_batches(volumes, recipe.sample_batch, "flow: score", score)
