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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Layout, Sample
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.training.diffusion_recipe import DiffusionRecipe
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LeftBreasts, fill_slots

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning

    from .inpainting import Inpainting


class DDPMRecipe(DiffusionRecipe):
    """Settings of the DDPM.

    Attributes:
        background: `drawn` draws whole volumes; `real` draws lesions into the layouts' hosts, lesion-free
            training volumes of other patients.
        start_at: in a real background, the share of the sampling steps that is taken, from training lesions
            that are pasted and noised to that level; 1 starts from noise.
    """

    sampling_only: ClassVar[frozenset[str]] = DiffusionRecipe.sampling_only | {"background", "start_at"}
    synonyms: ClassVar[dict[str, str]] = {"strength": "start_at"}
    background: Literal["drawn", "real"] = "drawn"
    start_at: float = Field(default=1.0, gt=0, le=1)

    @field_validator("background")
    @classmethod
    def _check_conditional(cls, background: str, info: ValidationInfo) -> str:
        if background == "real" and not info.data.get("conditional", True):
            raise PydanticCustomError(
                "undefined",
                "a model without conditioning draws no lesions into real volumes; --set background=drawn",
            )
        return background

    @field_validator("start_at")
    @classmethod
    def _check_pasted(cls, start_at: float, info: ValidationInfo) -> float:
        if start_at < 1 and info.data.get("background") == "drawn":
            raise PydanticCustomError(
                "undefined",
                "lesions are pasted into real volumes only; --set background=real, or --set start_at=1",
            )
        return start_at


class DDPM(LearnedGenerator[DDPMRecipe]):
    """Diffusion model of DBT volumes."""

    recipe_class = DDPMRecipe
    version: ClassVar[int] = 3
    preview_settings: ClassVar[Mapping[str, Any]] = {
        **{"sampler": "dpm++", "sample_steps": 20},
        **{"background": "drawn", "start_at": 1.0},
    }

    def __init__(self, recipe: DDPMRecipe) -> None:
        super().__init__(recipe)
        self.inpainting: Inpainting | None = None
        self.chooses_guidance = recipe.conditional and recipe.guidance_scale == "auto"

    @property
    def follows_boxes(self) -> bool:
        """Whether the model is conditioned on boxes."""
        return self.recipe.conditional

    @property
    def derived(self) -> bool:
        """Whether samples are training volumes with other lesions."""
        return self.recipe.background == "real"

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

        Raises:
            UsageError: when lesions are wanted in real volumes, and a layout would have no host.
        """
        super().fit(train, run)
        if self.recipe.background == "real":
            from .inpainting import Inpainting

            self.inpainting = Inpainting(train, pasted=self.recipe.start_at < 1)
        if self.chooses_guidance:
            from .guidance import find_scale

            scale = distributed.from_leader(find_scale(self, train, run) if distributed.rank() == 0 else None)
            self.recipe = self.recipe.model_copy(update={"guidance_scale": scale})

    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train, continue or load the denoiser."""
        from dbtbench.training.denoising import make_denoiser, train_denoiser

        model, preview = make_denoiser(self.recipe, data.split.grid), self.make_preview(data.split)
        return train_denoiser(self.recipe, model, data, run.path, title="training ddpm", preview=preview)

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout; in a real background, lesions lie where they have a place."""
        if self.inpainting is None:
            yield from super().sample(layouts)
            return
        for batch in fill_slots(layouts, self.recipe.sample_batch):
            canvases = [self.inpainting.prepare(layout) for layout in batch.values()]
            for canvas, sample in zip(canvases, super().sample(canvases), strict=True):
                yield replace(sample, label=canvas.label)

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch with the recipe's sampler, guidance and clipping."""
        from dbtbench.training.denoising import draw_volumes

        from .inpainting import inpaint_volumes

        draw = draw_volumes if self.inpainting is None else inpaint_volumes
        return draw(self.recipe, self.model, conditioning, noise)

    def score_volumes(self, volumes: DBTDataset) -> NDArray[np.float64]:
        """Compute the denoising loss of each volume at several noise levels, (N, levels)."""
        from .scoring import score_volumes

        return score_volumes(self.recipe, self.model, volumes)
