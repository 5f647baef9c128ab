"""The VAE's errors of single volumes: low for volumes that it knows by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.runtime import distributed
from dbtbench.training.scoring import ScoredBatch, score_batches

from .model import VAE

if TYPE_CHECKING:
    from . import VAERecipe


def measure_errors(recipe: VAERecipe, model: nn.Module, volumes: DBTDataset) -> NDArray[np.float64]:
    """Measure what is left of each volume when it is encoded and decoded.

    It is the mean squared error of the square roots of intensities, decoded from the posterior's mean: by
    the model, and by the principal components that it started from, as many as its code has numbers.

    Args:
        recipe: of the fitted model.
        model: the VAE.
        volumes: any volumes on its grid.

    Returns:
        (N, 2) float64: the model's, the components'.
    """
    assert isinstance(model, VAE)

    def measure(batch: ScoredBatch) -> list[Tensor]:
        given, roots = batch.conditioning, batch.volumes.sqrt()
        mean = model.start.predict_mean(given)
        linear = mean + model.start.decode(model.start.encode(roots - mean))
        with distributed.autocast():
            return [_error(model.reconstruct(roots, mean, given), roots), _error(linear, roots)]

    return score_batches(volumes, recipe.sample_batch, "vae: score", measure)


def _error(predicted: Tensor, roots: Tensor) -> Tensor:
    return (predicted.float() - roots).square().flatten(1).mean(dim=1)
