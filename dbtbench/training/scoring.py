"""Scores of single volumes by a fitted model, such as its loss: what membership inference looks at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.training.learned import LeftBreasts


class ScoredBatch:
    """Volumes that are scored together, on `distributed.device()`.

    A batch always has `size` rows, because their number may change the rounding: volumes are repeated.

    Args:
        part: up to `size` volumes.
        size: rows of the batch.

    Attributes:
        volumes: (size, 1, D, H, W) intensities of left breasts in [0, 1].
        conditioning: of the same rows.
    """

    def __init__(self, part: DBTDataset, size: int) -> None:
        left, device = LeftBreasts(part), distributed.device()
        self.rows = torch.arange(size) % len(part)
        self.volumes = left.volumes[self.rows.to(left.device)].to(device)
        self.conditioning: Conditioning = left.conditioning[self.rows.to(left.device)].to(device)
        seeds = [int(text[:12], 16) for text in part.cases["sha256"]]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw_noise(self) -> Tensor:
        """Draw further standard normal noise, like the volumes; a volume's follows from its SHA-256."""
        shape = self.volumes.shape[1:]
        drawn = torch.stack([torch.randn(shape, generator=generator) for generator in self.generators])
        return drawn[self.rows].to(self.volumes.device)


def score_batches(
    volumes: DBTDataset, size: int, title: str, score: Callable[[ScoredBatch], list[Tensor]]
) -> NDArray[np.float64]:
    """Score volumes, a batch at a time.

    Args:
        volumes: any volumes on the model's grid.
        size: rows of a batch.
        title: of the progress line.
        score: gives one tensor (size,) for each level.

    Returns:
        (N, levels) float64.
    """
    scores = []
    with progress(title, len(volumes)) as advance, torch.inference_mode():
        for start in range(0, len(volumes), size):
            part = volumes[start : start + size]
            levels = torch.stack(score(ScoredBatch(part, size)), dim=1)
            scores.append(levels[: len(part)].double().cpu().numpy())
            advance(len(part))
    return np.concatenate(scores)
