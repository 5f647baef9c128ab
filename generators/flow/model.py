"""Flow: closed-form mean, whitening, and autoregressive blocks between whitened volumes and white noise.

    roots = mean(projection, boxes) + residual
    residual + noise → whitening → blocks → standard normal numbers

Before training the blocks change nothing: the density is the whitened Gaussian's, and what the blocks learn
is counted from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from dbtbench.closed_form.start import LinearStart
from dbtbench.training.learned import LeftBreasts

from .block import AutoregressiveBlock
from .patches import Patches
from .whitening import Whitening, standard_normal_log_density

if TYPE_CHECKING:
    from . import FlowRecipe


class Flow(nn.Module):
    """An invertible map of residuals to white noise, conditioned on label, projection and lesion mask.

    Residuals are square roots of the intensities of left breasts less their closed-form mean. All densities
    are those of residuals to which noise of the recipe's standard deviation was added.

    Args:
        recipe: settings.
        grid: slices, rows, columns.

    Attributes:
        start: mean volumes and lesion bump.
        gain: () mean over the training volumes of `forward`, measured after training.
    """

    def __init__(self, recipe: FlowRecipe, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.noise = recipe.noise
        self.start, self.whitening = LinearStart(grid, 0, 0), Whitening(grid)
        self.patches = [
            Patches(grid, recipe.patch, shifted=number // 2 % 2 == 1, backward=number % 2 == 1)
            for number in range(recipe.blocks)
        ]
        _, tokens, size = self.patches[0].cut(torch.zeros(1, 1, *grid)).shape
        self.blocks = nn.ModuleList(
            AutoregressiveBlock(tokens, size, recipe.width, recipe.layers) for _ in self.patches
        )
        self.register_buffer("basis", torch.eye(size))
        self.register_buffer("gain", torch.zeros(()))
        self.basis: Tensor
        self.gain: Tensor

    @torch.no_grad()
    def fit_statistics(self, data: LeftBreasts) -> Tensor:
        """Fit mean, lesion bump and whitening to the training volumes.

        Returns:
            Residuals (n, 1, D, H, W) of the training volumes, on `data.device`.
        """
        self.start.fit(data.split)
        residuals = data.volumes.sqrt()
        residuals -= self.start.predict_mean(data.conditioning).to(residuals.device)
        self.whitening.fit(residuals, self.noise)
        flat = self.patches[0].cut(residuals).flatten(0, 1)
        vectors = torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(1)
        self.basis.copy_(vectors)
        return residuals

    def forward(self, residual: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Compute how much more likely volumes are than under the whitened Gaussian.

        Args:
            residual: (N, 1, D, H, W), with noise.
            label: (N,) int.
            projection: (N,) int.
            mask: (N, 1, D, H, W) lesion mask.

        Returns:
            (N,) nats a voxel; 0 before training.
        """
        whitened = self._whiten(residual)
        latent, log_det = self._encode(whitened, label, projection, mask)
        gain = standard_normal_log_density(latent) + log_det - standard_normal_log_density(whitened)
        return gain / whitened[0].numel()

    def log_likelihood(self, residual: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Compute the exact log-likelihood, (N,) nats a voxel; arguments are those of `forward`."""
        latent, log_det = self.encode(residual, label, projection, mask)
        return (standard_normal_log_density(latent) + log_det) / latent[0].numel()

    def encode(
        self, residual: Tensor, label: Tensor, projection: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map residuals to white noise.

        Returns:
            (N, 1, D, H, W), and the logarithm of the Jacobian's determinant, (N,).
        """
        latent, log_det = self._encode(self._whiten(residual), label, projection, mask)
        return latent, log_det + self.whitening.log_det()

    def decode(self, latent: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Map white noise (N, 1, D, H, W) to residuals: the inverse of `encode`, in 32 bits."""
        for block, patches in reversed(self._pair_up()):
            context = block.embed_conditioning(label, projection, self._cut(patches, mask))
            tokens = block.inverse(self._cut(patches, latent), context)
            latent = patches.join(tokens @ self.basis.T)
        residual: Tensor = self.whitening.inverse(latent)
        return residual

    def denoise(self, residual: Tensor, label: Tensor, projection: Tensor, mask: Tensor) -> Tensor:
        """Take the noise off: the mean of the residuals without noise, given those with it (N, 1, D, H, W).

        By Tweedie's formula that is x + σ² ∇ log p(x), of the density that the flow has learned. Before
        training it is the Wiener filter.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = residual.clone().requires_grad_()
            likelihood = self.log_likelihood(x, label, projection, mask).sum() * x[0].numel()
            (score,) = torch.autograd.grad(likelihood, x)
        return residual + self.noise**2 * score

    def _pair_up(self) -> list[tuple[AutoregressiveBlock, Patches]]:
        """Give each block with its patches, in the order of encoding."""
        return [
            (cast(AutoregressiveBlock, block), patches)
            for block, patches in zip(self.blocks, self.patches, strict=True)
        ]

    def _whiten(self, residual: Tensor) -> Tensor:
        with torch.autocast(residual.device.type, enabled=False):  # 16 bits are too few for the transforms
            whitened: Tensor = self.whitening(residual.float())
        return whitened

    def _cut(self, patches: Patches, volumes: Tensor) -> Tensor:
        """Cut volumes into tokens, in the basis of the patches' principal components."""
        with torch.autocast(volumes.device.type, enabled=False):
            return patches.cut(volumes) @ self.basis

    def _encode(
        self, latent: Tensor, label: Tensor, projection: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map whitened volumes to white noise by the blocks alone."""
        log_det = torch.zeros(len(latent), device=latent.device)
        for block, patches in self._pair_up():
            context = block.embed_conditioning(label, projection, self._cut(patches, mask))
            tokens, added = block(self._cut(patches, latent), context)
            with torch.autocast(latent.device.type, enabled=False):
                latent = patches.join(tokens @ self.basis.T)
            log_det = log_det + added
        return latent, log_det
