"""Latents as data of a diffusion model: the codes of the training volumes, and how they are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dbtbench.diffusion.preconditioning import MIN_VARIANCE, IntensityScaling, LinearPreconditioner
from dbtbench.networks.conditioning import Conditioning
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import progress
from dbtbench.training.learned import LeftBreasts

from . import FACTOR
from .autoencoder import Autoencoder


def shrink_grid(grid: Sequence[int]) -> tuple[int, int, int]:
    """Give the grid of the codes of volumes with a grid of slices, rows, columns."""
    depth, height, width = (side // FACTOR for side in grid)
    return depth, height, width


def shrink_conditioning(conditioning: Conditioning) -> Conditioning:
    """Reduce the lesion mask to the codes' grid: the largest value of each block, so that none is lost."""
    mask = F.max_pool3d(conditioning.lesion_mask, FACTOR)
    return replace(conditioning, lesion_mask=mask)


class LatentBreasts(LeftBreasts):
    """Codes of the training volumes, with their conditioning.

    Args:
        data: the training volumes.
        autoencoder: the trained one.
    """

    def __init__(self, data: LeftBreasts, autoencoder: Autoencoder) -> None:
        super().__init__(data.split)
        self.data, self.autoencoder = data, autoencoder

    @cached_property
    def volumes(self) -> Tensor:
        """Mean codes (n, C, D/4, H/4, W/4), each volume coded by itself."""
        codes = []
        with progress("latent: encode", len(self)) as advance, torch.inference_mode():
            for volume in self.data.volumes:
                values = self.autoencoder.intensities(volume[None].to(distributed.device()))
                codes.append(self.autoencoder.encode(values)[0].to(self.device))
                advance()
        return torch.cat(codes).clone()

    @cached_property
    def conditioning(self) -> Conditioning:
        """Conditioning of all volumes, on the codes' grid."""
        return shrink_conditioning(self.data.conditioning)


class LatentScaling(IntensityScaling):
    """Scaling of codes to mean 0 and variance 1 in each channel over the training volumes, and back.

    Args:
        channels: C, of the codes.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__(channels)
        self.mean, self.std = torch.zeros(channels, 1, 1, 1), torch.ones(channels, 1, 1, 1)
        self.register_buffer("largest", torch.ones(()))
        self.largest: Tensor

    def fit_statistics(self, volumes: Tensor) -> None:
        """Compute mean and standard deviation of each channel of codes (N, C, D, H, W), and the limits."""
        by_channel = volumes.movedim(1, 0).flatten(1)
        self.mean.copy_(by_channel.mean(1).view_as(self.mean))
        self.std.copy_(by_channel.std(1).clamp(min=MIN_VARIANCE).view_as(self.std))
        self.largest.copy_(self(volumes).abs().max())

    def inverse(self, values: Tensor) -> Tensor:
        """Convert values to codes."""
        return values * self.std + self.mean

    def limits(self) -> tuple[float, float]:
        """Give the limits of values: no training volume has larger ones."""
        return -float(self.largest), float(self.largest)


class LatentPreconditioner(LinearPreconditioner):
    """The denoiser of codes: the best linear prediction of v, and the network's output added to it."""

    scaling = LatentScaling
