"""Preconditioning: the linear part of v, from the mean and the power spectrum of the training volumes.

Two thirds of a DBT volume are air, and most of its variance lies in a few hundred coarse structures. A small
network that predicts v of such volumes spends its training on reproducing noise, and its samples stay noisy.
Here volumes are brought to mean 0 and variance 1, and the network's output is added to the best linear
prediction of v. That prediction has a closed form: a network whose output is 0 is the Wiener filter. This is
the preconditioning of Karras et al. (EDM, arXiv 2206.00364, section 5) with one c_skip for each frequency
instead of one for all.

`Denoiser` is the model without preconditioning, as in the paper. It uses the same statistics only for
`signal_leak_init`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from dbtbench.diffusion.names import Target
from dbtbench.diffusion.process import add_noise, convert_velocity

MIN_VARIANCE = 1e-6


class IntensityScaling(nn.Module):
    """Scaling of intensities in [0, 1] to values in [-1, 1], and back.

    Args:
        channels: C, of the volumes; here one scale serves all.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((), 0.5))
        self.register_buffer("std", torch.full((), 0.5))
        self.mean: Tensor
        self.std: Tensor

    def fit_statistics(self, volumes: Tensor) -> None:
        """Keep mean and standard deviation at 0.5: this scaling is the same for all volumes."""

    def forward(self, volumes: Tensor) -> Tensor:
        """Convert intensities to values."""
        return (volumes - self.mean.to(volumes.device)) / self.std.to(volumes.device)

    def inverse(self, values: Tensor) -> Tensor:
        """Convert values to intensities in [0, 1]."""
        return (values * self.std + self.mean).clamp(0, 1)

    def limits(self) -> tuple[float, float]:
        """Give the values of the intensities 0 and 1."""
        low, high = (-self.mean / self.std, (1 - self.mean) / self.std)
        return float(low), float(high)


class SqrtStandardisation(IntensityScaling):
    """Square root of intensities in [0, 1], then mean 0 and variance 1 over the training volumes.

    The square root separates fat from air and makes errors in the air invisible.
    """

    def fit_statistics(self, volumes: Tensor) -> None:
        """Compute mean and standard deviation of the square roots of volumes in [0, 1], of any shape."""
        roots = volumes.sqrt()
        self.mean.copy_(roots.mean())
        self.std.copy_(roots.std().clamp(min=MIN_VARIANCE))

    def forward(self, volumes: Tensor) -> Tensor:
        """Convert intensities to values."""
        return super().forward(volumes.sqrt())

    def inverse(self, values: Tensor) -> Tensor:
        """Convert values to intensities in [0, 1]."""
        return super().inverse(values).square()


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
        """Transform (…, D, H, W) to coefficients of the same shape."""
        return _multiply_axes(volumes, self.z, self.y, self.x)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Transform coefficients to volumes."""
        return _multiply_axes(coefficients, self.z.T, self.y.T, self.x.T)


def _multiply_axes(volumes: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    along_z = (z @ volumes.flatten(-2)).view(volumes.shape)
    return y @ along_z @ x.T


class Denoiser(nn.Module):
    """A network that predicts the target, with the mean and the spectrum of the training volumes.

    Args:
        net: called as `net(x, t_normalised, label, projection, mask)`, with `changes` if the denoiser is.
        alpha_bar: (T + 1,) schedule.
        grid: slices, rows, columns.
        num_projections: number of projections; each has its own mean volume, and so has the null projection.
        target: the network's target.
        channels: C, of the volumes.

    Attributes:
        scaling: how intensities become the values that the network sees.
    """

    scaling: ClassVar[type[IntensityScaling]] = IntensityScaling

    def __init__(
        self,
        net: nn.Module,
        alpha_bar: Tensor,
        grid: Sequence[int],
        num_projections: int,
        target: Target = "v",
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.net, self.intensities, self.cosine = net, self.scaling(channels), CosineTransform(grid)
        self.target: Target = target
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)
        self.register_buffer("mean", torch.zeros(num_projections + 1, channels, *grid))
        self.register_buffer("variance", torch.ones(channels, *grid))
        self.alpha_bar: Tensor
        self.mean: Tensor
        self.variance: Tensor

    @torch.no_grad()
    def fit_statistics(self, volumes: Tensor, projections: Tensor) -> None:
        """Compute the scaling of intensities, mean volumes and spectrum from the training volumes.

        The spectrum is the variance of each DCT coefficient around the mean volume of its projection.

        Args:
            volumes: (N, 1, D, H, W) in [0, 1], on any device.
            projections: (N,) int; the last index is the null projection.
        """
        self.intensities.fit_statistics(volumes)
        values = self.intensities(volumes)
        self.mean.copy_(values.mean(0, keepdim=True).expand_as(self.mean))
        for projection in set(projections.tolist()):
            self.mean[projection] = values[projections == projection].mean(0)
        squares = torch.zeros_like(self.variance)
        for value, projection in zip(values, projections, strict=True):
            squares += self.cosine(value.to(squares.device) - self.mean[projection]).square()
        self.variance.copy_((squares / len(values)).clamp(min=MIN_VARIANCE))

    def signal_leak_init(self, projection: Tensor, data_noise: Tensor, noise: Tensor) -> Tensor:
        """Draw x_T from normally distributed data with the mean and the spectrum of the training volumes.

        Where the schedule leaves signal at T, a network never saw pure noise in training. Sampling from this
        x_T fixes the samples of such a model without training again (Everaert et al., arXiv 2309.15842,
        sec. 4; they take the variance of each pixel, here it is that of each frequency).

        Args:
            projection: (N,) int.
            data_noise: (N, 1, D, H, W) standard normal, from which x_0 is made.
            noise: (N, 1, D, H, W) standard normal, which is added.

        Returns:
            (N, 1, D, H, W); equal to `noise` if the terminal SNR is zero.
        """
        x0 = self.mean[projection] + self.cosine.inverse(self.variance.sqrt() * data_noise)
        return add_noise(self.alpha_bar, x0, noise, torch.full_like(projection, len(self.alpha_bar) - 1))

    def forward(
        self,
        x: Tensor,
        t_normalised: Tensor,
        label: Tensor,
        projection: Tensor,
        mask: Tensor,
        *changes: Tensor,
    ) -> Tensor:
        """Predict the target.

        Args:
            x: x_t, (N, 1, D, H, W).
            t_normalised: t / T, (N,) float in [0, 1].
            label: (N,) int.
            projection: (N,) int.
            mask: (N, 1, D, H, W) lesion mask.
            changes: of training volumes, (N, n), see `UNet.forward`; none for volumes as they are.

        Returns:
            (N, 1, D, H, W) float32.
        """
        predicted: Tensor = self.net(x, t_normalised, label, projection, mask, *changes).float()
        return predicted


class LinearPreconditioner(Denoiser):
    """A denoiser of v: the linear part in closed form, and the network's output times c_out.

    For a DCT coefficient of mean μ and variance σ², and x_t = alpha_t x_0 + sigma_t noise, the best linear
    prediction is

        v = c_skip (x_t − alpha_t μ) − sigma_t μ,   c_skip = alpha_t sigma_t (1 − σ²) / denominator,
        denominator = alpha_bar_t σ² + 1 − alpha_bar_t,

    and the remaining error has the variance σ² / denominator. c_out is the root of its mean over all
    coefficients. (With one c_out for each coefficient the network would have to predict whitened volumes,
    and it learns nothing.) Another target is computed from v. That changes the weights of the timesteps in
    the loss, not the meaning of the network's output.
    """

    scaling: ClassVar[type[IntensityScaling]] = SqrtStandardisation

    def forward(
        self,
        x: Tensor,
        t_normalised: Tensor,
        label: Tensor,
        projection: Tensor,
        mask: Tensor,
        *changes: Tensor,
    ) -> Tensor:
        """Predict the target; arguments and result are those of `Denoiser.forward`."""
        t = (t_normalised * (len(self.alpha_bar) - 1)).round().long()
        alpha_bar_t = self.alpha_bar[t].view(-1, 1, 1, 1, 1)
        alpha_t, sigma_t = alpha_bar_t.sqrt(), (1 - alpha_bar_t).sqrt()
        mean = self.mean[projection]
        output = self.net(x, t_normalised, label, projection, mask, *changes).float()
        with torch.autocast(x.device.type, enabled=False):  # 16 bits are too few for the transforms
            denominator = alpha_bar_t * self.variance + 1 - alpha_bar_t
            c_skip = alpha_t * sigma_t * (1 - self.variance) / denominator
            c_out = (self.variance / denominator).mean((1, 2, 3, 4), keepdim=True).sqrt()
            linear = self.cosine.inverse(c_skip * self.cosine(x - alpha_t * mean))
            v = linear + c_out * output - sigma_t * mean
            return convert_velocity(self.target, self.alpha_bar, x, v, t)
