"""3-D DDPM for DBT volumes, conditioned on label, view and lesion boxes.

The network follows the paper that this benchmark starts from: the wide residual blocks of DDPM (Ho et al.,
arXiv 2006.11239), weight standardisation with GroupNorm (Kolesnikov et al., 1912.11370), linear attention,
full attention in the middle, and a sinusoidal time embedding. It is three-dimensional and never strides over
slices. Schedule and target differ, because with a linear schedule and noise prediction such a model loses
contrast: the terminal SNR is zero and the target is v (`dbtbench/diffusion/process.py`). The linear part of v
follows from the mean and the spectrum of the data (`dbtbench/diffusion/preconditioning.py`). The recipe
`paper` is the paper's model with its loss of contrast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.training.diffusion_recipe import DiffusionRecipe
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LeftBreasts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning


class DDPMRecipe(DiffusionRecipe):
    """Settings of the DDPM."""


class DDPM(LearnedGenerator[DDPMRecipe]):
    """Diffusion model of DBT volumes."""

    recipe_class = DDPMRecipe
    version: ClassVar[int] = 3
    preview_settings: ClassVar[Mapping[str, Any]] = {"sampler": "dpm++", "sample_steps": 20}

    def __init__(self, recipe: DDPMRecipe) -> None:
        super().__init__(recipe)
        self.chooses_guidance = recipe.conditional and recipe.guidance_scale == "auto"

    @property
    def follows_boxes(self) -> bool:
        """Whether the model is conditioned on boxes."""
        return self.recipe.conditional

    def check(self, grid: tuple[int, int, int]) -> None:
        """Check that the network can unshuffle and halve the plane, and MONAI's network the slices.

        Raises:
            UsageError: when rows, columns or slices are not a multiple of what it needs.
        """
        self.recipe.check_grid(grid)

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Train, continue or load the network; then choose the guidance scale if the recipe leaves it open.

        The choice and what it was made by are kept with the weights, and the recipe has its scale from then
        on. In a finished run that was drawn from with other settings it is made again, and not kept.
        """
        super().fit(train, run)
        if self.chooses_guidance:
            from .guidance import find_scale

            scale = distributed.from_leader(find_scale(self, train, run) if distributed.rank() == 0 else None)
            self.recipe = self.recipe.model_copy(update={"guidance_scale": scale})

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train, continue or load the denoiser."""
        from dbtbench.training.denoising import make_denoiser, train_denoiser

        model, preview = make_denoiser(self.recipe, data.split.grid), self.make_preview(data.split)
        return train_denoiser(self.recipe, model, data, run.path, title="training ddpm", preview=preview)

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch with the recipe's sampler, guidance and clipping."""
        from dbtbench.training.denoising import draw_volumes

        return draw_volumes(self.recipe, self.model, conditioning, noise)

    def score_volumes(self, volumes: DBTDataset) -> NDArray[np.float64]:
        """Compute the denoising loss of each volume at several noise levels, (N, levels)."""
        from .scoring import score_volumes

        return score_volumes(self.recipe, self.model, volumes)
