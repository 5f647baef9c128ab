"""Latent diffusion for large grids: an autoencoder, and the DDPM on its codes.

After Rombach et al. (High-resolution image synthesis with latent diffusion models, arXiv 2112.10752), with
MONAI's AutoencoderKL. The autoencoder makes volumes four times smaller in each direction. The second stage is
the diffusion of `dbtbench/diffusion`, as the DDPM uses it, with the codes' channels. It is only trained when
the autoencoder keeps lesions and texture. On small grids such as 8 x 64 x 64 a lesion is one code: there the
DDPM itself is the right tool.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from dbtbench.errors import UsageError
from dbtbench.networks.names import NUM_GROUPS
from dbtbench.runs import Run
from dbtbench.runtime.progress import log
from dbtbench.training.diffusion_recipe import DiffusionRecipe
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LeftBreasts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning

FACTOR = 4
"""Slices, rows and columns that become one."""
SMALLEST = 2_000
"""Codes below which a lesion is one of them: 16 x 128 x 128 has 4,096, 8 x 64 x 64 has 512."""

Crop = Annotated[int, Field(gt=0, multiple_of=FACTOR)]


class LatentRecipe(DiffusionRecipe):
    """Settings of latent diffusion. The defaults are sized for one 80 GB GPU and were not measured here.

    Attributes:
        unshuffle: factor of the pixel-unshuffle of every slice of the codes; 1 is none.
        latent_channels: numbers of each code; a code stands for 64 voxels.
        autoencoder_channels: channels of the autoencoder at full resolution; twice and four times as many
            below.
        autoencoder_blocks: residual blocks of each of its three levels.
        autoencoder_steps: optimiser steps of the first stage.
        autoencoder_batch: crops a step.
        autoencoder_lr: peak learning rate of autoencoder and critic.
        crop: slices, rows and columns of the crops that the autoencoder learns from.
        gradient_weight: weight of the L1 loss of differences between neighbouring voxels.
        kl_weight: weight of the divergence of the codes from a normal distribution.
        adversarial_weight: weight of the critic of slices.
        adversarial_start: share of the first stage before the critic has a say.
        contrast_tolerance: how far from 1 the share of the lesions' contrast may be that the autoencoder
            keeps, for the second stage to begin.
        roughness_tolerance: the same of the roughness between slices.
        augment: 0: codes cannot be flipped and shaded as volumes can.
    """

    synonyms: ClassVar[dict[str, str]] = {
        **DiffusionRecipe.synonyms,
        "latent_dim": "latent_channels",
        "z_channels": "latent_channels",
        "patch_size": "crop",
    }
    unshuffle: PositiveInt = 1
    latent_channels: PositiveInt = 4
    autoencoder_channels: Annotated[int, Field(gt=0, multiple_of=NUM_GROUPS)] = 64
    autoencoder_blocks: PositiveInt = 2
    autoencoder_steps: PositiveInt = 6000
    autoencoder_batch: PositiveInt = 16
    autoencoder_lr: PositiveFloat = 2e-4
    crop: tuple[Crop, Crop, Crop] = (32, 64, 64)
    gradient_weight: NonNegativeFloat = 1.0
    kl_weight: NonNegativeFloat = 1e-6
    adversarial_weight: NonNegativeFloat = 0.05
    adversarial_start: float = Field(default=0.3, ge=0, le=1)
    contrast_tolerance: NonNegativeFloat = 0.05
    roughness_tolerance: NonNegativeFloat = 0.1
    augment: float = Field(default=0.0, ge=0, le=0)


class Latent(LearnedGenerator[LatentRecipe]):
    """Latent diffusion of DBT volumes, for large grids."""

    recipe_class = LatentRecipe

    @property
    def follows_boxes(self) -> bool:
        """Whether the model is conditioned on boxes."""
        return self.recipe.conditional

    def check(self, grid: tuple[int, int, int]) -> None:
        """Check that the autoencoder can divide the grid by four, and the network that of the codes.

        Raises:
            UsageError: when slices, rows or columns are not a multiple of what they need.
        """
        if any(side % FACTOR for side in grid):
            nearest = (max(1, round(side / FACTOR)) * FACTOR for side in grid)
            raise UsageError(
                f"a grid of {_name(grid)} cannot be divided by {FACTOR}, as the autoencoder does",
                f"ingest on a grid of {_name(nearest)}",
            )
        depth, height, width = (side // FACTOR for side in grid)
        self.recipe.check_grid((depth, height, width))

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train, continue or load the autoencoder, then the denoiser of its codes.

        Raises:
            DBTBenchError: when the autoencoder loses lesions or texture.
        """
        from dbtbench.training.denoising import make_denoiser, train_denoiser

        from .latents import LatentBreasts, LatentPreconditioner, shrink_grid
        from .quality import check_quality
        from .training import train_autoencoder

        recipe, codes = self.recipe, shrink_grid(data.split.grid)
        if codes[0] * codes[1] * codes[2] < SMALLEST:
            log.warning(
                f"latent diffusion is for large grids: {_name(data.split.grid)} voxels become {_name(codes)} "
                "codes, and a lesion one of them; ddpm is the right tool here"
            )
        self.autoencoder = train_autoencoder(recipe, data, run)
        check_quality(self.autoencoder, recipe.contrast_tolerance, recipe.roughness_tolerance)
        model = make_denoiser(recipe, codes, recipe.latent_channels, LatentPreconditioner)
        latents = LatentBreasts(data, self.autoencoder)
        return train_denoiser(recipe, model, latents, run.path, title="training latent: diffusion")

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw codes with the recipe's sampler and guidance, and decode them volume by volume."""
        import torch

        from dbtbench.training.denoising import draw_volumes

        from .latents import shrink_conditioning, shrink_grid

        shape = (self.recipe.latent_channels, *shrink_grid(self.grid))
        codes = draw_volumes(
            self.recipe, self.model, shrink_conditioning(conditioning), lambda: noise(*shape)
        )
        decoded = torch.cat([self.autoencoder.decode(code[None]) for code in codes])
        volumes: Tensor = self.autoencoder.intensities.inverse(decoded)
        return volumes


def _name(grid: Iterable[int]) -> str:
    return " x ".join(map(str, grid))
