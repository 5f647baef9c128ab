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
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from dbtbench.data.dataset import DBTDataset
from dbtbench.diffusion.names import Loss, SamplerName, ScheduleName, Target
from dbtbench.errors import UsageError
from dbtbench.networks.names import NUM_GROUPS, Backbone
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.training.learned import LayoutNoise, LearnedGenerator, LearnedRecipe, LeftBreasts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning

Channels = Annotated[int, Field(gt=0, multiple_of=NUM_GROUPS)]


class DDPMRecipe(LearnedRecipe):
    """Settings of the DDPM. The defaults are sized for one 80 GB GPU and were not measured here.

    Attributes:
        backbone: `unet`, the paper's, or `monai`, its DiffusionModelUNet, which has no `factorised`.
        base_channels: channels of the first level.
        channel_mults: channels of each level in units of `base_channels`.
        blocks: residual blocks of each level.
        unshuffle: factor of the pixel-unshuffle of every slice before the first level; 1 is none.
        factorised: a 1x3x3 and a 3x1x1 convolution instead of two 3x3x3.
        preconditioned: the network's output is added to the best linear prediction of v; without, the
            network alone predicts the target, of intensities in [-1, 1].
        num_timesteps: T, the number of noise levels.
        noise_schedule: `linear` leaves signal at T when T is less than 1000; `rescaled-linear` and `cosine`
            leave next to none.
        zero_terminal_snr: the schedule is rescaled so that no signal is left at T.
        target: what the network predicts: `noise`, `v` or `data`; `noise` needs a schedule that leaves
            signal.
        loss: `mse`, `mae` or `huber`.
        min_snr: gamma of min-SNR weights, which are for `mse`; 0 weights all timesteps equally.
        conditional: the model is conditioned on label, view and boxes; without, its volumes have no boxes.
        conditioning_dropout: probability that label, projection or mask is dropped in training, for
            classifier-free guidance: each by itself, and all together.
        lesion_weight: additional weight of the voxels of wanted lesions in the loss. Lesions are so small
            that the network would learn them last.
        sampler: `ancestral`, `ddim` or `dpm++`.
        init: sampling starts from `noise`, or from `signal_leak`: noise with the signal that the schedule
            leaves at T.
        clip_data: estimates of the data are clipped to the range of intensities, at every step.
        sample_steps: network evaluations for each volume; guidance doubles them.
        guidance_scale: scale of classifier-free guidance by the boxes; 1 is none. `auto` is chosen after
            training, between 1 and 5, so that lesions get the contrast of the training lesions.
        guidance_rescale: how far, from 0 to 1, guidance is rescaled to the contrast of the conditional
            prediction.
    """

    sampling_only: ClassVar[frozenset[str]] = LearnedRecipe.sampling_only | {
        *("sampler", "init", "clip_data", "sample_steps", "guidance_scale", "guidance_rescale"),
    }
    renamed: ClassVar[dict[str, str]] = {
        "drop": "conditioning_dropout",
        "conditioned": "conditional",
        "guidance": "guidance_scale",
        "times": "num_timesteps",
        "start": "init",
        "start=leak": "init=signal_leak",
        "dim": "base_channels",
        "mults": "channel_mults",
    }
    synonyms: ClassVar[dict[str, str]] = {
        "cfg_scale": "guidance_scale",
        "guidance_weight": "guidance_scale",
        "cond_drop_prob": "conditioning_dropout",
        "dropout": "conditioning_dropout",
        "timesteps": "num_timesteps",
        "diffusion_steps": "num_timesteps",
        "inference_steps": "sample_steps",
        "beta_schedule": "noise_schedule",
        "prediction_type": "target",
        "channels": "base_channels",
    }
    steps: PositiveInt = 8000
    batch: PositiveInt = 64
    lr: float = Field(default=2e-4, gt=0)
    warmup: NonNegativeInt = 500
    backbone: Backbone = "unet"
    base_channels: Channels = 64
    channel_mults: tuple[PositiveInt, ...] = Field(default=(1, 2, 4), min_length=1)
    blocks: PositiveInt = 2
    unshuffle: PositiveInt = 2
    factorised: bool = False
    preconditioned: bool = True
    num_timesteps: int = Field(default=1000, ge=2)
    noise_schedule: ScheduleName = "cosine"
    zero_terminal_snr: bool = True
    target: Target = "v"
    loss: Loss = "mse"
    min_snr: float = Field(default=0.0, ge=0)
    conditional: bool = True
    conditioning_dropout: float = Field(default=0.1, ge=0, lt=1)
    lesion_weight: float = Field(default=20.0, ge=0)
    sampler: SamplerName = "dpm++"
    init: Literal["noise", "signal_leak"] = "noise"
    clip_data: bool = True
    sample_steps: PositiveInt = 20
    guidance_scale: Annotated[float, Field(ge=0)] | Literal["auto"] = 3.0
    guidance_rescale: float = Field(default=0.7, ge=0, le=1)

    @field_validator("target")
    @classmethod
    def _check_learnable(cls, target: Target, info: ValidationInfo) -> Target:
        if target == "noise" and info.data.get("zero_terminal_snr"):
            raise PydanticCustomError(
                "undefined",
                "at zero terminal SNR x_T is the noise itself, from which the data cannot be computed; "
                "--set zero_terminal_snr=false, or --set target=v",
            )
        return target


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
        recipe = self.recipe
        if recipe.backbone == "monai":
            from dbtbench.networks.backbone import check_slices

            check_slices(grid[0], len(recipe.channel_mults))
        factor = recipe.unshuffle * 2 ** (len(recipe.channel_mults) - 1)
        if grid[1] % factor or grid[2] % factor:
            rows, columns = (max(1, round(n / factor)) * factor for n in grid[1:])
            raise UsageError(
                f"a grid of {grid[1]} x {grid[2]} cannot be divided by {factor}, as this network does",
                f"ingest on a grid of {rows} x {columns}, or use a smaller --set unshuffle, "
                "or fewer --set channel_mults",
            )

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
        from .model import train_denoiser

        return train_denoiser(self.recipe, data, run, self.make_preview(data.split))

    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch with the recipe's sampler, guidance and clipping."""
        from .model import draw_volumes

        return draw_volumes(self.recipe, self.model, conditioning, noise)

    def score_volumes(self, volumes: DBTDataset) -> NDArray[np.float64]:
        """Compute the denoising loss of each volume at several noise levels, (N, levels)."""
        from .scoring import score_volumes

        return score_volumes(self.recipe, self.model, volumes)
