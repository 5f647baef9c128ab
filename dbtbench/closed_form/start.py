"""The closed-form model as a torch module: the start of a learned generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dbtbench.closed_form.fitting import Roots, fit_closed_form, fit_noise, fit_spectrum, limit_components
from dbtbench.closed_form.lesions import BINS, LesionBump
from dbtbench.closed_form.model import LEVELS
from dbtbench.data.dataset import DBTDataset
from dbtbench.diffusion.preconditioning import CosineTransform
from dbtbench.geometry.views import PROJECTIONS
from dbtbench.networks.conditioning import Conditioning

SMALLEST_LENGTH = 1e-12


class LinearStart(nn.Module):
    """Mean, lesion bump, principal components and residual texture of the roots of left breasts' intensities.

    All statistics are buffers: they are kept with the weights of the network that this is a part of. They
    are 0 until `fit`.

    Args:
        grid: slices, rows, columns.
        components: wanted principal components, K.
        volumes: training volumes; K is at most half of them.

    Attributes:
        mean: (P + 1, 1, D, H, W) mean volume of each projection, and of the null projection.
        components: (K, D, H, W), each of the length of one standard deviation.
        noise: (LEVELS,) standard deviation of the residual by predicted grey level.
        spectrum: (D, H, W) variance of each DCT coefficient of the residual in units of that deviation.
    """

    def __init__(self, grid: tuple[int, int, int], components: int, volumes: int) -> None:
        super().__init__()
        self.cosine = CosineTransform(grid)
        self.register_buffer("mean", torch.zeros(len(PROJECTIONS) + 1, 1, *grid))
        self.register_buffer("components", torch.zeros(limit_components(components, volumes), *grid))
        self.register_buffer("noise", torch.zeros(LEVELS))
        self.register_buffer("spectrum", torch.zeros(grid))
        self.register_buffer("bump", torch.zeros(2 * BINS + 1, dtype=torch.float64))
        self.mean: Tensor
        self.components: Tensor
        self.noise: Tensor
        self.spectrum: Tensor
        self.bump: Tensor

    @torch.no_grad()
    def fit(self, train: DBTDataset) -> None:
        """Fit all statistics to a training split.

        Raises:
            UsageError: for fewer than two volumes.
        """
        model = fit_closed_form(train, len(self.components))
        mean = torch.from_numpy(model.mean)
        self.mean.copy_(torch.cat([mean, mean.mean(dim=0, keepdim=True)])[:, None])
        self.components.copy_(torch.from_numpy(model.components))
        self.noise.copy_(torch.from_numpy(model.noise))
        self.spectrum.copy_(torch.from_numpy(model.spectrum))
        lesion = model.lesion
        self.bump.copy_(torch.from_numpy(np.concatenate([lesion.plane, lesion.depth, [lesion.amplitude]])))

    @property
    def lesion(self) -> LesionBump:
        """The lesion bump."""
        numbers = self.bump.cpu().numpy()
        return LesionBump(numbers[:BINS], numbers[BINS:-1], float(numbers[-1]))

    def predict_mean(self, conditioning: Conditioning) -> Tensor:
        """Predict roots by projection and boxes alone: (N, 1, D, H, W)."""
        return self.mean[conditioning.projection] + self.draw_bumps(conditioning)

    def draw_bumps(self, conditioning: Conditioning) -> Tensor:
        """Draw the lesion bumps of all boxes: (N, 1, D, H, W), 0 without boxes."""
        lesion, shape = self.lesion, self.spectrum.shape
        grid = shape[0], shape[1], shape[2]
        rows = conditioning.boxes.cpu().numpy()
        bumps = [lesion.draw(boxes[boxes[:, 3] >= 0], grid) for boxes in rows]
        return torch.from_numpy(np.stack(bumps)[:, None]).to(self.mean.device)

    def encode(self, residual: Tensor) -> Tensor:
        """Find the components' weights (N, K), of variance 1, of roots less their mean (N, 1, D, H, W)."""
        with torch.autocast(residual.device.type, enabled=False):  # 16 bits are too few for such sums
            return residual.flatten(1) @ self.components.flatten(1).T / self.squared_lengths()

    def squared_lengths(self) -> Tensor:
        """Sum the squares of each component: the variance along it, (K,)."""
        return self.components.flatten(1).square().sum(dim=1).clamp(min=SMALLEST_LENGTH)

    def decode(self, weights: Tensor) -> Tensor:
        """Sum the components with weights (N, K): (N, 1, D, H, W), to be added to the mean."""
        with torch.autocast(weights.device.type, enabled=False):
            summed = weights @ self.components.flatten(1)
        return summed.view(len(weights), 1, *self.spectrum.shape)

    def add_texture(self, roots: Tensor, noise: Tensor) -> Tensor:
        """Add residual texture to predicted roots, made of standard normal noise; all (N, 1, D, H, W)."""
        with torch.autocast(roots.device.type, enabled=False):
            texture: Tensor = self.cosine.inverse(self.spectrum.sqrt() * noise)
        return roots + look_up(self.noise, roots) * texture

    def to_intensities(self, roots: Tensor) -> Tensor:
        """Convert roots to intensities in [0, 1]."""
        return roots.clamp(0, 1).square()

    @torch.no_grad()
    def measure_texture(self, train: DBTDataset, predict: Callable[[Tensor], Tensor]) -> None:
        """Measure the texture that a trained network leaves, in place of what the components leave.

        Args:
            train: the training split.
            predict: gives the roots (N, 1, D, H, W) that the network predicts for rows (N,) of the split.
        """
        roots = Roots(train)

        def predict_rows(rows: np.ndarray) -> np.ndarray:
            return predict(torch.from_numpy(rows)).float().cpu().numpy()[:, 0]

        noise = fit_noise(roots, predict_rows)
        self.noise.copy_(torch.from_numpy(noise))
        self.spectrum.copy_(torch.from_numpy(fit_spectrum(roots, predict_rows, noise)))


def look_up(table: Tensor, roots: Tensor) -> Tensor:
    """Look up a value by grey level, (LEVELS,), for each voxel of roots of any shape."""
    return table[(roots * LEVELS).clamp(0, LEVELS - 1).long()]
