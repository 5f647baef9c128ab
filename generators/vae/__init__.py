"""Variational autoencoder of DBT volumes, conditioned on label, view and lesion boxes.

It starts as probabilistic PCA (Tipping & Bishop 1999), which a linear VAE's optimum is (Lucas et al., arXiv
1911.02469): with untrained networks it is the closed-form model (`dbtbench/closed_form`), lesion bumps
included. The decoder corrects the linear image, and the standard deviation of voxels is learned (sigma-VAE,
Rybkin et al., arXiv 2006.13202). What the decoder leaves of the training volumes is measured after training,
and added to drawn volumes as texture. See docs/vae.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from dbtbench.data.dataset import DBTDataset
from dbtbench.networks.names import NUM_GROUPS, check_plane
from dbtbench.runs import Run
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LearnedRecipe, LeftBreasts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning


class VAERecipe(LearnedRecipe):
    """Settings of the VAE. The defaults are sized for one 80 GB GPU and were not measured here.

    Attributes:
        code: numbers of the global code, and principal components that it starts from. At most half as many
            as there are training volumes.
        levels: 1 for the global code alone; 2 for a local code, on a coarse grid of the plane, as well.
        local_channels: numbers of the local code at each of its cells.
        base_channels: channels of the networks' first level; the second has twice as many.
        blocks: residual blocks of each level of the decoder.
        unshuffle: factor of the pixel-unshuffle of every slice before the first level. A cell of the local
            code is twice as wide.
        factorised: a 1x3x3 and a 3x1x1 convolution instead of two 3x3x3.
        beta: weight of the KL divergence; 1 is the evidence lower bound.
        lesion_weight: additional weight of the voxels of lesions in the loss.
        codes: codes are drawn from the `prior`, or from the `aggregate` posterior: the normal distribution
            of the training volumes' codes.
        texture: the measured residual texture is added to drawn volumes; without, they are smooth.
    """

    sampling_only: ClassVar[frozenset[str]] = LearnedRecipe.sampling_only | {"codes", "texture"}
    synonyms: ClassVar[dict[str, str]] = {
        **LearnedRecipe.synonyms,
        **dict.fromkeys(["latent", "latent_dim", "latent_size", "z_dim", "components"], "code"),
        "kl_weight": "beta",
        "channels": "base_channels",
    }
    steps: PositiveInt = 20000
    batch: PositiveInt = 64
    micro_batch: PositiveInt = 64
    lr: float = Field(default=5e-4, gt=0)
    warmup: NonNegativeInt = 500
    code: PositiveInt = 128
    levels: Literal[1, 2] = 1
    local_channels: PositiveInt = 4
    base_channels: Annotated[int, Field(gt=0, multiple_of=NUM_GROUPS)] = 64
    blocks: PositiveInt = 2
    unshuffle: PositiveInt = 2
    factorised: bool = False
    beta: float = Field(default=1.0, ge=0)
    lesion_weight: float = Field(default=20.0, ge=0)
    codes: Literal["prior", "aggregate"] = "aggregate"
    texture: bool = True


class VAEGenerator(LearnedGenerator[VAERecipe]):
    """Variational autoencoder that starts as probabilistic PCA."""

    recipe_class = VAERecipe

    def check(self, grid: tuple[int, int, int]) -> None:
        """Check that the networks can unshuffle and halve the plane.

        Raises:
            UsageError: when rows or columns are not a multiple of what they need.
        """
        check_plane(grid, 2 * self.recipe.unshuffle, "use a smaller --set unshuffle")

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train, continue or load the VAE."""
        from .model import train_vae

        return train_vae(self.recipe, data, run, self.make_preview(data.split))

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch: codes, their decoded volumes, and texture."""
        from .model import draw_volumes

        return draw_volumes(self.recipe, self.model, conditioning, noise)

    def score_volumes(self, volumes: DBTDataset) -> NDArray[np.float64]:
        """Compute the reconstruction error of each volume, (N, 1)."""
        from .scoring import measure_errors

        return measure_errors(self.recipe, self.model, volumes)[:, :1]
