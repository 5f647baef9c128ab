"""The VAE's errors of single volumes: low for volumes that it knows by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dbtbench.data.dataset import DBTDataset
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.training.learned import LeftBreasts

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
    errors = np.empty((len(volumes), 2))
    size = recipe.sample_batch
    with progress("vae: score", len(volumes)) as advance, torch.inference_mode():
        for first in range(0, len(volumes), size):
            part = volumes[first : first + size]
            errors[first : first + len(part)] = _measure_batch(model, part, size)
            advance(len(part))
    return errors


def _measure_batch(model: nn.Module, part: DBTDataset, size: int) -> NDArray[np.float64]:
    """Measure up to `size` volumes; the batch is filled up, because its size may change the rounding."""
    assert isinstance(model, VAE)
    left, device = LeftBreasts(part), distributed.device()
    rows = (torch.arange(size) % len(part)).to(left.device)
    given = left.conditioning[rows].to(device)
    roots = left.volumes[rows].to(device).sqrt()
    mean = model.start.predict_mean(given)
    linear = mean + model.start.decode(model.start.encode(roots - mean))
    with distributed.autocast():
        errors = [_error(model.reconstruct(roots, mean, given), roots), _error(linear, roots)]
    return torch.stack(errors, dim=1)[: len(part)].double().cpu().numpy()


def _error(predicted: Tensor, roots: Tensor) -> Tensor:
    return (predicted.float() - roots).square().flatten(1).mean(dim=1)
