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

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS, DBTDataset
from dbtbench.diffusion.guidance import classifier_free_guidance
from dbtbench.diffusion.preconditioning import Denoiser, LinearPreconditioner
from dbtbench.diffusion.process import (
    Loss,
    ScheduleName,
    Target,
    add_noise,
    loss_elementwise,
    make_schedule,
    min_snr_weights,
    predict_x0,
    training_target,
)
from dbtbench.diffusion.sampling import SAMPLERS, Denoise, SamplerName
from dbtbench.errors import UsageError
from dbtbench.figures.preview import draw_middle_slices
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import Volume, laterality
from dbtbench.networks.backbone import Backbone, build_network, check_slices
from dbtbench.networks.conditioning import (
    PROJECTIONS,
    Conditioning,
    collate,
    drop_conditioning,
    encode_conditioning,
    null_conditioning,
    without_boxes,
)
from dbtbench.networks.unet import NUM_GROUPS
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import log
from dbtbench.training.loop import Preview, StepContext, fit
from dbtbench.training.recipe import TrainingRecipe

Channels = Annotated[int, Field(gt=0, multiple_of=NUM_GROUPS)]

CPU_VOLUMES = 50_000
"""Training volumes, counted at every step, above which a CPU takes hours."""
COPIES = 4
"""Arrays as large as the training volumes that are needed at once: intensities, roots, values and masks."""

PREVIEW = {"sampler": "dpm++", "sample_steps": 20, "sample_batch": 4}
"""Settings of previews: a few volumes, in few steps."""


class DDPMRecipe(TrainingRecipe):
    """Settings of the DDPM. The defaults are sized for one 80 GB GPU and were not measured here.

    Attributes:
        seed: seed of the initial weights and of the training.
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
        sample_batch: volumes drawn together.
        guidance_scale: scale of classifier-free guidance by the boxes; 1 is none.
        guidance_rescale: how far, from 0 to 1, guidance is rescaled to the contrast of the conditional
            prediction.
    """

    sampling_only: ClassVar[frozenset[str]] = frozenset(
        {
            "sampler",
            "init",
            "clip_data",
            "sample_steps",
            "sample_batch",
            "guidance_scale",
            "guidance_rescale",
        }
    )
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
    steps: PositiveInt = 8000
    batch: PositiveInt = 64
    lr: float = Field(default=2e-4, gt=0)
    warmup: NonNegativeInt = 500
    seed: NonNegativeInt = 0
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
    sample_batch: PositiveInt = 16
    guidance_scale: float = Field(default=3.0, ge=0)
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


class DDPM(Generator[DDPMRecipe]):
    """Diffusion model of DBT volumes."""

    recipe_class = DDPMRecipe
    version: ClassVar[int] = 3
    parallel: ClassVar[bool] = True

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
        """Train, continue or load the network (see `dbtbench.training.loop.fit`)."""
        recipe = self.recipe
        if distributed.device().type == "cpu" and recipe.steps * recipe.batch > CPU_VOLUMES:
            log.info("ddpm: this recipe is sized for a GPU; --recipe demo trains in minutes on a CPU")
        torch.manual_seed(recipe.seed)
        net = build_network(recipe, num_labels=len(LABELS), num_projections=len(PROJECTIONS))
        self.grid = train.grid
        alpha_bar = make_schedule(recipe.noise_schedule, recipe.num_timesteps, recipe.zero_terminal_snr)
        denoiser_class = LinearPreconditioner if recipe.preconditioned else Denoiser
        model = denoiser_class(net, alpha_bar, train.grid, len(PROJECTIONS), recipe.target)
        objective = _Objective(train, recipe, model)
        fitted = fit(
            model,
            objective,
            recipe,
            run.path,
            seed=recipe.seed,
            title="training ddpm",
            preview=self._make_preview(train),
            compiled=True,
        )
        assert isinstance(fitted, Denoiser)
        self.model = fitted

    def _make_preview(self, train: DBTDataset) -> Preview:
        """Make a function that draws the layouts of the first training cases, below their real volumes."""
        quick = DDPM(self.recipe.model_copy(update=PREVIEW))
        quick.grid = train.grid
        cases = list(train.cases.head(quick.recipe.sample_batch).itertuples())
        layouts = [
            Layout(slot, slot, str(case.label), str(case.View), train.boxes_of(case.case), int(case.case))
            for slot, case in enumerate(cases)
        ]

        def preview(net: nn.Module, path: Path) -> None:
            assert isinstance(net, Denoiser)
            quick.model = net
            drawn = np.stack([sample.volume for sample in quick.sample(layouts)])
            real = train.volumes([case.case for case in cases])[:, 0]
            draw_middle_slices({"training": real, "drawn": drawn}, path)

        return preview

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout, in order.

        A volume's bytes do not depend on the other layouts. The noise of each volume has its own generator.
        The network always runs on `sample_batch` volumes, each in the slot that its index gives, because a
        matrix product may round its rows differently.
        """
        for batch in _batches(layouts, self.recipe.sample_batch):
            filler = next(iter(batch.values()))
            volumes = self._draw([batch.get(slot, filler) for slot in range(self.recipe.sample_batch)])
            for slot, layout in batch.items():
                right = laterality(layout.view) == "r"
                volume = volumes[slot, :, :, ::-1] if right else volumes[slot]
                yield Sample(np.ascontiguousarray(volume), layout.boxes)

    @torch.inference_mode()
    def _draw(self, layouts: Sequence[Layout]) -> Volume:
        """Draw volumes (n, D, H, W) of left breasts, float32 in [0, 1]."""
        device, recipe, model = distributed.device(), self.recipe, self.model
        conditioning = collate(
            [encode_conditioning(one.label, one.view, one.boxes, self.grid) for one in layouts]
        ).to(device)
        if not recipe.conditional:
            conditioning = null_conditioning(conditioning)
        generators = [torch.Generator().manual_seed(layout.seed) for layout in layouts]

        def noise_sampler() -> Tensor:
            noise = [torch.randn(1, *self.grid, generator=generator) for generator in generators]
            return torch.stack(noise).to(device)

        x = noise_sampler()
        if recipe.init == "signal_leak":
            x = model.signal_leak_init(conditioning.projection, data_noise=noise_sampler(), noise=x)
        steps = min(recipe.sample_steps, recipe.num_timesteps)
        sampler, denoise = SAMPLERS[recipe.sampler], self._make_denoise(conditioning)
        values = sampler(denoise, x, model.alpha_bar, steps, noise_sampler)
        volumes: Volume = model.intensities.inverse(values)[:, 0].cpu().numpy()
        return volumes

    def _make_denoise(self, conditioning: Conditioning) -> Denoise:
        """Make a function that estimates the data, with the recipe's guidance and clipping."""
        recipe, model = self.recipe, self.model
        label, projection, mask = conditioning.label, conditioning.projection, conditioning.lesion_mask
        null_mask = without_boxes(conditioning).lesion_mask
        limits = model.intensities.limits()
        guided = recipe.conditional and recipe.guidance_scale != 1

        def denoise(x: Tensor, t: int) -> Tensor:
            timesteps = torch.full((len(x),), t, device=x.device)
            t_normalised = torch.full((len(x),), t / recipe.num_timesteps, device=x.device)
            with distributed.autocast():
                predicted = model(x, t_normalised, label, projection, mask).float()
                if guided:
                    unguided = model(x, t_normalised, label, projection, null_mask).float()
            if guided:
                scale, rescale = recipe.guidance_scale, recipe.guidance_rescale
                predicted = classifier_free_guidance(predicted, unguided, scale, rescale)
            x0 = predict_x0(recipe.target, model.alpha_bar, x, predicted, timesteps)
            return x0.clamp(*limits) if recipe.clip_data else x0

        return denoise


def _batches(layouts: Sequence[Layout], size: int) -> Iterator[dict[int, Layout]]:
    """Group consecutive layouts by slot; a batch ends where the slot of the next layout is taken."""
    batch: dict[int, Layout] = {}
    for layout in layouts:
        slot = layout.index % size
        if slot in batch:
            yield batch
            batch = {}
        batch[slot] = layout
    if batch:
        yield batch


class _Objective:
    """Mean loss of the target, with a larger weight at wanted lesions; reads the data at the first call."""

    def __init__(self, train: DBTDataset, recipe: DDPMRecipe, model: Denoiser) -> None:
        self.train, self.recipe, self.model = train, recipe, model

    @cached_property
    def data(self) -> tuple[Tensor, Conditioning]:
        """Values (n, 1, D, H, W) of left breasts and their conditioning: on the device, if they fit there.

        Reading them fits the model's statistics, also when a training continues.
        """
        volumes, conditionings = self.train.volumes(), []
        for row, case in enumerate(self.train.cases.itertuples()):
            boxes = self.train.boxes_of(case.case)
            conditionings.append(encode_conditioning(case.label, case.View, boxes, self.train.grid))
            if laterality(case.View) == "r":
                volumes[row] = volumes[row, ..., ::-1].copy()
        device = distributed.data_device(COPIES * volumes.nbytes)
        intensities, conditioning = torch.from_numpy(volumes).to(device), collate(conditionings).to(device)
        if not self.recipe.conditional:
            conditioning = null_conditioning(conditioning)
        self.model.fit_statistics(intensities, conditioning.projection)
        return self.model.intensities(intensities), conditioning

    def __call__(self, net: nn.Module, context: StepContext) -> Tensor:
        """Compute the mean loss over `context.part` of the batch."""
        (volumes, conditionings), recipe, alpha_bar = self.data, self.recipe, self.model.alpha_bar
        batch, generator, device = recipe.batch, context.generator, distributed.device()
        rows = torch.randint(len(volumes), (batch,), generator=generator, device=device)[context.part]
        t = torch.randint(1, recipe.num_timesteps + 1, (batch,), generator=generator, device=device)
        t = t[context.part]
        chance = torch.rand(4, batch, generator=generator, device=device)[:, context.part]
        noise = torch.randn(batch, *volumes.shape[1:], generator=generator, device=device)[context.part]
        rows = rows.to(volumes.device)
        # Each is dropped by itself, and all together; guidance compares with the boxes dropped.
        dropped = chance < recipe.conditioning_dropout
        conditioning = drop_conditioning(conditionings[rows].to(device), dropped[:3] | dropped[3])
        label, projection, mask = conditioning.label, conditioning.projection, conditioning.lesion_mask
        x0 = volumes[rows].to(device)
        xt = add_noise(alpha_bar, x0, noise, t)
        predicted: Tensor = net(xt, t / recipe.num_timesteps, label, projection, mask)
        error = predicted - training_target(recipe.target, alpha_bar, x0, noise, t)
        # A weight that depends only on the conditioning does not change the optimum.
        weight = 1 + recipe.lesion_weight * mask.relu()
        if recipe.min_snr:
            snr_weights = min_snr_weights(recipe.target, alpha_bar, recipe.min_snr)
            weight = weight * snr_weights[t].view(-1, 1, 1, 1, 1)
        return (weight * loss_elementwise(recipe.loss, error)).mean()
