"""What the network need not learn: how bright the training volumes are, and how rough.

Two thirds of a DBT volume are air, and nearly all of its variance lies in a few hundred coarse structures. A
small network that predicts v of such volumes spends its training on passing noise through, and its samples
stay noisy. Here volumes are brought to mean 0 and variance 1, and the network's output is completed by the
best linear prediction of v, which is known in closed form from the mean and the spectrum of the training
volumes: a network that answers 0 is the Wiener filter. It is the preconditioning of Karras et al. (EDM,
arXiv 2206.00364, section 5), where what is passed on has one variance for each frequency in place of one
for all.

The paper's model does without (`Measured`); what was measured then only serves the signal-leak start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from dbtbench.diffusion.process import Target, from_velocity, noisy

SMALLEST_VARIANCE = 1e-6


class Intensities(nn.Module):
    """Between intensities in [0, 1] and values of mean 0 and variance 1 over the training volumes.

    The square root comes first: it spreads fat and air apart, and an error in the air becomes invisible.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        self.centre: Tensor
        self.spread: Tensor

    def measure(self, volumes: Tensor) -> None:
        """Take centre and spread from volumes of any shape in [0, 1]."""
        roots = volumes.sqrt()
        self.centre.copy_(roots.mean())
        self.spread.copy_(roots.std().clamp(min=SMALLEST_VARIANCE))

    def forward(self, volumes: Tensor) -> Tensor:
        """Intensities to values."""
        centre, spread = self.centre.to(volumes.device), self.spread.to(volumes.device)
        values: Tensor = (volumes.sqrt() - centre) / spread
        return values

    def inverse(self, values: Tensor) -> Tensor:
        """Values to intensities in [0, 1]."""
        intensities: Tensor = (values * self.spread + self.centre).clamp(0, 1).square()
        return intensities

    def limits(self) -> tuple[float, float]:
        """Values of the intensities 0 and 1."""
        low, high = (-self.centre / self.spread, (1 - self.centre) / self.spread)
        return float(low), float(high)


class Symmetric(Intensities):
    """Between intensities in [0, 1] and values in [-1, 1]: centre and spread are a half, and no root."""

    def __init__(self) -> None:
        super().__init__()
        self.centre.fill_(0.5)
        self.spread.fill_(0.5)

    def measure(self, volumes: Tensor) -> None:
        """Nothing is measured."""

    def forward(self, volumes: Tensor) -> Tensor:
        """Intensities to values."""
        return (volumes - self.centre.to(volumes.device)) / self.spread.to(volumes.device)

    def inverse(self, values: Tensor) -> Tensor:
        """Values to intensities in [0, 1]."""
        return (values * self.spread + self.centre).clamp(0, 1)


class CosineTransform(nn.Module):
    """Orthonormal DCT-II over slices, rows and columns, as three matrix products.

    Args:
        grid: slices, rows, columns.
    """

    def __init__(self, grid: Sequence[int]) -> None:
        super().__init__()
        for axis, size in zip("zyx", grid, strict=True):
            matrix = torch.from_numpy(dct(np.eye(size), axis=0, norm="ortho").astype(np.float32))
            self.register_buffer(axis, matrix, persistent=False)
        self.z: Tensor
        self.y: Tensor
        self.x: Tensor

    def forward(self, volumes: Tensor) -> Tensor:
        """(…, D, H, W) to coefficients of the same shape."""
        return _applied(volumes, self.z, self.y, self.x)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Coefficients to volumes."""
        return _applied(coefficients, self.z.T, self.y.T, self.x.T)


def _applied(volumes: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    along_z = (z @ volumes.flatten(-2)).view(volumes.shape)
    return y @ along_z @ x.T


class Measured(nn.Module):
    """A network that predicts the target, beside mean and spectrum of the training volumes.

    Args:
        net: called as `net(x, t, label, projection, mask)`.
        abar: (T + 1,) schedule.
        grid: slices, rows, columns.
        projections: number of projections; each has its own mean volume, and so has "not told".
        target: what is predicted.
    """

    intensities: Intensities

    def __init__(
        self, net: nn.Module, abar: Tensor, grid: Sequence[int], projections: int, target: Target = "v"
    ) -> None:
        super().__init__()
        self.net, self.intensities, self.cosine = net, Symmetric(), CosineTransform(grid)
        self.target: Target = target
        self.register_buffer("abar", abar.float(), persistent=False)
        self.register_buffer("mean", torch.zeros(projections + 1, 1, *grid))
        self.register_buffer("variance", torch.ones(1, *grid))
        self.abar: Tensor
        self.mean: Tensor
        self.variance: Tensor

    @torch.no_grad()
    def measure(self, volumes: Tensor, projections: Tensor) -> None:
        """Take intensities, mean volumes and spectrum from the training volumes.

        Args:
            volumes: (N, 1, D, H, W) in [0, 1], on any device.
            projections: (N,) int; the last stands for "not told".
        """
        self.intensities.measure(volumes)
        values = self.intensities(volumes)
        self.mean.copy_(values.mean(0, keepdim=True).expand_as(self.mean))
        for projection in set(projections.tolist()):
            self.mean[projection] = values[projections == projection].mean(0)
        squares = torch.zeros_like(self.variance)
        for value, projection in zip(values, projections, strict=True):
            squares += self.cosine(value.to(squares.device) - self.mean[projection]).square()
        self.variance.copy_((squares / len(values)).clamp(min=SMALLEST_VARIANCE))

    def leaked(self, projection: Tensor, shaped: Tensor, noise: Tensor) -> Tensor:
        """Start where training ended: x_T of normally distributed data with the volumes' mean and spectrum.

        Where the schedule leaves signal at T, a network has only seen noise with some of it. This mends
        samples of such a model without training it again (Everaert et al., arXiv 2309.15842, sec. 4; there
        the spread is by pixel, here by frequency).

        Args:
            projection: (N,) int.
            shaped: (N, 1, D, H, W) standard normal, for the data.
            noise: likewise, for the noise.

        Returns:
            (N, 1, D, H, W); `noise` itself where the terminal SNR is zero.
        """
        data = self.mean[projection] + self.cosine.inverse(self.variance.sqrt() * shaped)
        return noisy(self.abar, data, noise, torch.full_like(projection, len(self.abar) - 1))

    def forward(self, x: Tensor, t: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Predict the target of x_t (N, 1, D, H, W) at times t (N,) in [0, 1]; the rest is the network's."""
        predicted: Tensor = self.net(x, t, label, projection, mask).float()
        return predicted


class Preconditioned(Measured):
    """Predicts v: the linear part in closed form, the rest by a network.

    For a coefficient of mean μ and variance σ², and x_t = a x_0 + s noise, the best linear prediction is
    v = a s (1 − σ²) / (a² σ² + s²) · (x_t − a μ) − s μ, and what remains has the variance σ² / (a² σ² + s²).
    The root of its mean over all coefficients scales the network's output. (Scaled coefficient by
    coefficient, the network would have to answer with whitened volumes, and it learns nothing.) Another
    target is computed from v: it changes which times count in the loss, not what the network answers.
    """

    def __init__(
        self, net: nn.Module, abar: Tensor, grid: Sequence[int], projections: int, target: Target = "v"
    ) -> None:
        super().__init__(net, abar, grid, projections, target)
        self.intensities = Intensities()

    def forward(self, x: Tensor, t: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Predict the target of x_t (N, 1, D, H, W) at times t (N,) in [0, 1]; the rest is the network's."""
        times = (t * (len(self.abar) - 1)).round().long()
        share = self.abar[times].view(-1, 1, 1, 1, 1)
        signal, sigma = share.sqrt(), (1 - share).sqrt()
        total = share * self.variance + 1 - share
        mean = self.mean[projection]
        answer = self.net(x, t, label, projection, mask).float()
        with torch.autocast(x.device.type, enabled=False):  # 16 bits are too few for the transforms
            linear = signal * sigma * (1 - self.variance) / total * self.cosine(x - signal * mean)
            rest = (self.variance / total).mean((1, 2, 3, 4), keepdim=True).sqrt()
            v = self.cosine.inverse(linear) + rest * answer - sigma * mean
            return from_velocity(self.target, self.abar, x, v, times)
