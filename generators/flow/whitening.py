"""Whitening: the linear map that makes white noise of training volumes, as far as a linear map can.

Residuals (square roots of intensities less their mean, with noise) are divided by a deviation at each voxel
and by the root of the spectrum of what that leaves. For a stationary field the cosines of the DCT are the
principal components, so this is a PCA of whole volumes, for which few training volumes are enough. The
inverse makes a Gaussian volume of white noise. The map acts on the volume as a whole: that Gaussian has no
patches, and a step at the seam of two patches of whitened values becomes a smooth one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from dbtbench.diffusion.preconditioning import CosineTransform

SMOOTHING = (0.0, 1.0, 2.0, 2.0)
"""Standard deviations in voxels, along slices, rows and columns, that the variance is smoothed with."""


class Whitening(nn.Module):
    """An invertible linear map of residuals to white noise; the identity until `fit`.

    Args:
        grid: slices, rows, columns.

    Attributes:
        deviation: (1, D, H, W) divisor of each voxel: the root of its standard deviation. A whole one would
            make a voxel that is nearly always air as loud as one in the middle of the breast.
        spectrum: (1, D, H, W) variance of each DCT coefficient of what that leaves.
    """

    def __init__(self, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.cosine = CosineTransform(grid)
        self.register_buffer("deviation", torch.ones(1, *grid))
        self.register_buffer("spectrum", torch.ones(1, *grid))
        self.deviation: Tensor
        self.spectrum: Tensor

    @torch.no_grad()
    def fit(self, residuals: Tensor, noise: float) -> None:
        """Fit deviation and spectrum to residuals (n, 1, D, H, W) without noise.

        Args:
            residuals: of the training volumes, on any device.
            noise: standard deviation of the noise that is going to be added.
        """
        variance = residuals.square().mean(dim=0).cpu().numpy()
        smooth = ndimage.gaussian_filter(variance, SMOOTHING).astype(np.float32) + np.float32(noise**2)
        self.deviation.copy_(torch.from_numpy(smooth**0.25))
        squares = torch.zeros_like(self.spectrum)
        for residual in residuals:
            squares += self.cosine(residual.to(squares.device) / self.deviation).square()
        self.spectrum.copy_(squares / len(residuals) + (noise / self.deviation).square().mean())

    def forward(self, residuals: Tensor) -> Tensor:
        """Whiten residuals (N, 1, D, H, W)."""
        whitened: Tensor = self.cosine.inverse(self.cosine(residuals / self.deviation) / self.spectrum.sqrt())
        return whitened

    def inverse(self, whitened: Tensor) -> Tensor:
        """Make residuals (N, 1, D, H, W) of whitened ones."""
        return self.cosine.inverse(self.cosine(whitened) * self.spectrum.sqrt()) * self.deviation

    def log_det(self) -> Tensor:
        """Compute the logarithm of the Jacobian's determinant, in nats a volume."""
        return -self.deviation.log().sum() - self.spectrum.log().sum() / 2


def standard_normal_log_density(whitened: Tensor) -> Tensor:
    """Compute the log-density of white noise (N, 1, D, H, W): (N,), in nats a volume."""
    flat = whitened.flatten(1)
    return -(flat.square() + math.log(2 * math.pi)).sum(dim=1) / 2
