"""The settings of a diffusion model; this file imports no torch, so that recipes are cheap to show."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from dbtbench.diffusion.names import Loss, SamplerName, ScheduleName, Target, TimeDistribution
from dbtbench.networks.names import NUM_GROUPS, Backbone, check_plane
from dbtbench.training.learned import LearnedRecipe

Channels = Annotated[int, Field(gt=0, multiple_of=NUM_GROUPS)]


class DiffusionRecipe(LearnedRecipe):
    """Settings of a diffusion model. The defaults are sized for one 80 GB GPU and were not measured here.

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
            leave next to none; `straight` is that of rectified flow, and leaves none.
        zero_terminal_snr: the schedule is rescaled so that no signal is left at T.
        time_distribution: timesteps in training are `uniform`, or `logit-normal`: more in the middle.
        target: what the network predicts: `noise`, `v`, `data`, or `flow`, the noise less the data; `noise`
            needs a schedule that leaves signal.
        loss: `mse`, `mae` or `huber`.
        min_snr: gamma of min-SNR weights, which are for `mse`; 0 weights all timesteps equally.
        conditional: the model is conditioned on label, view and boxes; without, its volumes have no boxes.
        conditioning_dropout: probability that label, projection or mask is dropped in training, for
            classifier-free guidance: each by itself, and all together.
        lesion_weight: additional weight of the voxels of wanted lesions in the loss. Lesions are so small
            that the network would learn them last.
        augment: probability of each random change of a training volume and its boxes: flips, small
            affine maps, gamma. The network is given the changes, and draws as if there were none; 0 is none.
        sampler: `ancestral`, `ddim`, `heun` or `dpm++`.
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
        **dict.fromkeys(["timestep_sampling", "sample_method", "weighting_scheme"], "time_distribution"),
        **dict.fromkeys(["augment_p", "augmentation"], "augment"),
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
    time_distribution: TimeDistribution = "uniform"
    target: Target = "v"
    loss: Loss = "mse"
    min_snr: float = Field(default=0.0, ge=0)
    conditional: bool = True
    conditioning_dropout: float = Field(default=0.1, ge=0, lt=1)
    lesion_weight: float = Field(default=20.0, ge=0)
    augment: float = Field(default=0.0, ge=0, le=1)
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

    @field_validator("augment")
    @classmethod
    def _check_given(cls, augment: float, info: ValidationInfo) -> float:
        if augment and info.data.get("backbone") == "monai":
            raise PydanticCustomError(
                "undefined", "MONAI's network cannot be given the changes of a volume; --set backbone=unet"
            )
        return augment

    def check_grid(self, grid: tuple[int, int, int]) -> None:
        """Check that the network can unshuffle and halve the plane, and MONAI's network the slices.

        Args:
            grid: slices, rows, columns of what the network sees.

        Raises:
            UsageError: when rows, columns or slices are not a multiple of what it needs.
        """
        if self.backbone == "monai":
            from dbtbench.networks.backbone import check_slices

            check_slices(grid[0], len(self.channel_mults))
        factor = self.unshuffle * 2 ** (len(self.channel_mults) - 1)
        check_plane(grid, factor, "use a smaller --set unshuffle, or fewer --set channel_mults")
