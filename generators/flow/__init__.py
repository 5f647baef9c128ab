"""Normalizing flow for DBT volumes: exact likelihood, conditioned on label, view and lesion boxes.

Autoregressive transformer blocks over patches in alternating order, trained on volumes with a little noise,
which is taken off again after drawing: TarFlow (Zhai et al., arXiv 2412.06329), on whitened volumes. With
untrained blocks it draws from a Gaussian with the training volumes' mean, lesions, variance and spectrum. See
docs/flow.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.runs import Run
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LearnedRecipe, LeftBreasts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning

    from .model import Flow as FlowModel


class FlowRecipe(LearnedRecipe):
    """Settings. The defaults are sized for 20 minutes of one 80 GB GPU: an estimate, not run by us yet.

    Attributes:
        patch: slices, rows and columns of a patch; a patch is one token.
        blocks: autoregressive blocks. They go through the patches forward and backward in turn, and every
            second pair of blocks has its patches shifted by half a patch.
        layers: transformer layers of a block.
        width: features of a token.
        noise: standard deviation of the noise on training volumes, in units of the square root of the
            intensity. Without noise the air, which is all of one value, has an infinite density.
        denoise: the noise is taken off drawn volumes.
    """

    sampling_only: ClassVar[frozenset[str]] = LearnedRecipe.sampling_only | {"denoise"}
    synonyms: ClassVar[dict[str, str]] = {
        **dict.fromkeys(["flows", "num_blocks"], "blocks"),
        **dict.fromkeys(["noise_std", "sigma"], "noise"),
        **dict.fromkeys(["depth", "layers_per_block"], "layers"),
        **dict.fromkeys(["channels", "base_channels", "embed_dim"], "width"),
        "patch_size": "patch",
    }
    steps: PositiveInt = 5000
    batch: PositiveInt = 64
    lr: float = Field(default=3e-4, gt=0)
    warmup: NonNegativeInt = 250
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 4, 4)
    blocks: PositiveInt = 8
    layers: PositiveInt = 4
    width: Annotated[int, Field(gt=0, multiple_of=32)] = 384
    noise: float = Field(default=0.02, gt=0, le=0.5)
    denoise: bool = True


class Flow(LearnedGenerator[FlowRecipe]):
    """Autoregressive transformer flow over patches of whitened volumes, with an exact likelihood."""

    recipe_class = FlowRecipe
    model: FlowModel

    def check(self, grid: tuple[int, int, int]) -> None:
        """Check that patches fill the volume.

        Raises:
            UsageError: when slices, rows or columns are not a multiple of the patch's.
        """
        patch = self.recipe.patch
        if any(length % part for length, part in zip(grid, patch, strict=True)):
            fitting = (max(1, round(n / part)) * part for n, part in zip(grid, patch, strict=True))
            raise UsageError(
                f"a grid of {' x '.join(map(str, grid))} cannot be cut into patches of "
                f"{' x '.join(map(str, patch))}",
                f"ingest on a grid of {' x '.join(map(str, fitting))}, or give another --set patch",
            )

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train, continue or load the flow."""
        from .training import train_flow

        return train_flow(self.recipe, data, run, self.make_preview(data.split))

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch: white noise through the inverse of the flow, denoised."""
        from .training import draw_volumes

        return draw_volumes(self.recipe, self.model, conditioning, noise)

    def score_volumes(self, volumes: DBTDataset) -> NDArray[np.float64]:
        """Compute the negative log-likelihood of each volume, and over the whitened Gaussian, (N, 2)."""
        from .scoring import score_volumes

        return score_volumes(self.recipe, self.model, volumes)
