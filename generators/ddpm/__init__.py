"""3-D DDPM for DBT volumes: a U-Net of weight-standardised residual blocks, told label, view and boxes.

The network follows the lineage of the paper that this benchmark starts from: the wide residual blocks of
DDPM (Ho et al., arXiv 2006.11239), weight standardisation with GroupNorm (Kolesnikov et al., 1912.11370),
linear attention, full attention in the middle, and a sinusoidal time embedding; in three dimensions, and
never striding the slices away. Schedule and target differ, because with a linear schedule and noise
prediction such a model loses contrast: the terminal SNR is zero and the target is v (`diffusion.py`), of
which the network is given the part that the mean and the spectrum of the data decide (`precondition.py`).
The recipe `paper` is the paper's model with its loss of contrast.
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
from dbtbench.diffusion.guidance import guided
from dbtbench.diffusion.preconditioning import Measured, Preconditioned
from dbtbench.diffusion.process import (
    Loss,
    ScheduleName,
    Target,
    min_snr_weights,
    noisy,
    penalty,
    schedule,
    target_of,
    to_data,
)
from dbtbench.diffusion.sampling import SAMPLERS, Denoiser, SamplerName
from dbtbench.errors import UsageError
from dbtbench.figures.preview import draw_middle_slices
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import Volume, laterality
from dbtbench.networks.backbone import Backbone, build, check_slices
from dbtbench.networks.conditioning import (
    PROJECTIONS,
    Told,
    boxes_untold,
    conditions,
    dropped,
    stacked,
    untold,
)
from dbtbench.networks.unet import GROUPS
from dbtbench.runs import Run
from dbtbench.runtime import distributed
from dbtbench.runtime.progress import log
from dbtbench.training.loop import Preview, StepContext, fit
from dbtbench.training.recipe import TrainingRecipe

Channels = Annotated[int, Field(gt=0, multiple_of=GROUPS)]

CPU_VOLUMES = 50_000
"""Training volumes, counted at every step, beyond which a CPU takes hours."""
COPIES = 4
"""Intensities, their roots, values and masks of all training volumes."""

PREVIEW = {"sampler": "dpm++", "sample_steps": 20, "sample_batch": 4}
"""How previews are drawn: a few volumes, in few steps."""


class DDPMRecipe(TrainingRecipe):
    """Settings of the DDPM. The defaults are sized for one 80 GB GPU and were not measured here.

    Attributes:
        seed: seed of the initial weights and of the training.
        backbone: `unet`, the paper's, or `monai`, its DiffusionModelUNet, which knows no `factorised`.
        dim: channels of the first level.
        mults: channels of each level in units of `dim`.
        blocks: residual blocks a level.
        unshuffle: the plane is folded this many times each way into channels; 1 leaves it.
        factorised: 1x3x3 and 3x1x1 convolutions instead of 3x3x3.
        preconditioned: the network completes the best linear prediction of v (`precondition.py`); without,
            it predicts the target of intensities in [-1, 1] alone.
        times: T, the number of noise levels.
        noise_schedule: `linear` leaves signal at T when T is less than 1000; `rescaled-linear` does not.
        zero_terminal_snr: the schedule is rescaled so that no signal is left at T.
        target: what is predicted: `noise`, `v` or `data`. The noise needs a schedule that leaves signal.
        loss: `mse`, `mae` or `huber`.
        min_snr: gamma of min-SNR weights, which are for `mse`; 0 weights all times alike.
        conditioned: whether label, view and boxes are told; without, its volumes have no boxes.
        drop: how often each condition, and how often all together, are left out in training.
        lesion_weight: how much more a voxel of a wanted lesion counts in the loss; lesions are so small that
            the network otherwise learns them last.
        sampler: `ancestral`, `ddim` or `dpm++`.
        start: sampling starts from `noise`, or from noise with the signal that the schedule `leak`s.
        clip_data: estimates of the data are clipped to the range of intensities, at every step.
        sample_steps: network evaluations (twice as many with guidance) a volume.
        sample_batch: volumes drawn together.
        guidance: weight of classifier-free guidance by the boxes; 1 is none.
        guidance_rescale: share of the guided prediction's change in contrast that is undone.
    """

    sampling_only: ClassVar[frozenset[str]] = frozenset(
        {
            "sampler",
            "start",
            "clip_data",
            "sample_steps",
            "sample_batch",
            "guidance",
            "guidance_rescale",
        }
    )
    steps: PositiveInt = 8000
    batch: PositiveInt = 64
    lr: float = Field(default=2e-4, gt=0)
    warmup: NonNegativeInt = 500
    seed: NonNegativeInt = 0
    backbone: Backbone = "unet"
    dim: Channels = 64
    mults: tuple[PositiveInt, ...] = Field(default=(1, 2, 4), min_length=1)
    blocks: PositiveInt = 2
    unshuffle: PositiveInt = 2
    factorised: bool = False
    preconditioned: bool = True
    times: int = Field(default=1000, ge=2)
    noise_schedule: ScheduleName = "cosine"
    zero_terminal_snr: bool = True
    target: Target = "v"
    loss: Loss = "mse"
    min_snr: float = Field(default=0.0, ge=0)
    conditioned: bool = True
    drop: float = Field(default=0.1, ge=0, lt=1)
    lesion_weight: float = Field(default=20.0, ge=0)
    sampler: SamplerName = "dpm++"
    start: Literal["noise", "leak"] = "noise"
    clip_data: bool = True
    sample_steps: PositiveInt = 20
    sample_batch: PositiveInt = 16
    guidance: float = Field(default=3.0, ge=0)
    guidance_rescale: float = Field(default=0.7, ge=0, le=1)

    @field_validator("target")
    @classmethod
    def _learnable(cls, target: Target, info: ValidationInfo) -> Target:
        if target == "noise" and info.data.get("zero_terminal_snr"):
            raise PydanticCustomError(
                "undefined",
                "at zero terminal SNR x_T is the noise, which says nothing about the data; "
                "--set zero_terminal_snr=false, or target=v",
            )
        return target


class DDPM(Generator[DDPMRecipe]):
    """Trains a diffusion model, and draws volumes from it."""

    recipe_class = DDPMRecipe
    version: ClassVar[int] = 2
    parallel: ClassVar[bool] = True

    @property
    def follows_boxes(self) -> bool:
        """Whether it is told of boxes."""
        return self.recipe.conditioned

    def check(self, grid: tuple[int, int, int]) -> None:
        """See that the network can fold and halve the plane, and MONAI's the slices.

        Raises:
            UsageError: when rows, columns or slices are not a multiple of what it needs.
        """
        recipe = self.recipe
        if recipe.backbone == "monai":
            check_slices(grid[0], len(recipe.mults))
        factor = recipe.unshuffle * 2 ** (len(recipe.mults) - 1)
        if grid[1] % factor or grid[2] % factor:
            rows, columns = (max(1, round(n / factor)) * factor for n in grid[1:])
            raise UsageError(
                f"a grid of {grid[1]} x {grid[2]} cannot be divided by {factor}, as this network does",
                f"ingest on a grid of {rows} x {columns}, or use a smaller --set unshuffle, or fewer mults",
            )

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Train, continue or load the network (see `dbtbench.training.loop.fit`)."""
        recipe = self.recipe
        if distributed.device().type == "cpu" and recipe.steps * recipe.batch > CPU_VOLUMES:
            log.info("ddpm: this recipe is sized for a GPU; --recipe demo trains in minutes on a CPU")
        torch.manual_seed(recipe.seed)
        net = build(recipe, labels=len(LABELS), projections=len(PROJECTIONS))
        self.grid = train.grid
        abar = schedule(recipe.noise_schedule, recipe.times, recipe.zero_terminal_snr)
        kind = Preconditioned if recipe.preconditioned else Measured
        model = kind(net, abar, train.grid, len(PROJECTIONS), recipe.target)
        objective = _Objective(train, recipe, model)
        fitted = fit(
            model,
            objective,
            recipe,
            run.path,
            seed=recipe.seed,
            title="training ddpm",
            preview=self._preview(train),
            compiled=True,
        )
        assert isinstance(fitted, Measured)
        self.model = fitted

    def _preview(self, train: DBTDataset) -> Preview:
        """Draws what the first training cases ask for, below their volumes."""
        quick = DDPM(self.recipe.model_copy(update=PREVIEW))
        quick.grid = train.grid
        cases = list(train.cases.head(quick.recipe.sample_batch).itertuples())
        layouts = [
            Layout(slot, slot, str(case.label), str(case.View), train.boxes_of(case.case), int(case.case))
            for slot, case in enumerate(cases)
        ]

        def preview(net: nn.Module, path: Path) -> None:
            assert isinstance(net, Measured)
            quick.model = net
            drawn = np.stack([sample.volume for sample in quick.sample(layouts)])
            real = train.volumes([case.case for case in cases])[:, 0]
            draw_middle_slices({"training": real, "drawn": drawn}, path)

        return preview

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout, in order.

        A volume's bytes do not depend on what it is drawn with: the noise of each has its own generator, and
        the network always runs on `sample_batch` volumes, each in the slot that its index gives it, because
        a matrix product may round its rows differently.
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
        """Volumes (n, D, H, W) of left breasts, float32 in [0, 1]."""
        device, recipe, model = distributed.device(), self.recipe, self.model
        told = stacked([conditions(one.label, one.view, one.boxes, self.grid) for one in layouts], device)
        told = told if recipe.conditioned else untold(told)
        generators = [torch.Generator().manual_seed(layout.seed) for layout in layouts]

        def fresh() -> Tensor:
            noise = [torch.randn(1, *self.grid, generator=generator) for generator in generators]
            return torch.stack(noise).to(device)

        start = fresh()
        if recipe.start == "leak":
            start = model.leaked(told[1], shaped=fresh(), noise=start)
        steps = min(recipe.sample_steps, recipe.times)
        values = SAMPLERS[recipe.sampler](self._denoiser(told), start, model.abar, steps, fresh)
        volumes: Volume = model.intensities.inverse(values)[:, 0].cpu().numpy()
        return volumes

    def _denoiser(self, told: Told) -> Denoiser:
        """The model, guided and clipped as the recipe says."""
        recipe, model = self.recipe, self.model
        without, limits = boxes_untold(told), model.intensities.limits()
        steered = recipe.conditioned and recipe.guidance != 1

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.full((len(x),), t, device=x.device)
            moment = torch.full((len(x),), t / recipe.times, device=x.device)
            with distributed.autocast():
                predicted = model(x, moment, *told).float()
                if steered:
                    unguided = model(x, moment, *without).float()
            if steered:
                predicted = guided(predicted, unguided, recipe.guidance, recipe.guidance_rescale)
            data = to_data(recipe.target, model.abar, x, predicted, times)
            return data.clamp(*limits) if recipe.clip_data else data

        return denoise


def _batches(layouts: Sequence[Layout], size: int) -> Iterator[dict[int, Layout]]:
    """Consecutive layouts by slot; a batch ends where the next one's slot is taken."""
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
    """Mean error of the target, weighted where lesions are wanted; reads the volumes when first asked."""

    def __init__(self, train: DBTDataset, recipe: DDPMRecipe, model: Measured) -> None:
        self.train, self.recipe, self.model = train, recipe, model

    @cached_property
    def data(self) -> tuple[Tensor, Told]:
        """Values (n, 1, D, H, W) of left breasts, and their conditions: on the device, if they fit there.

        The model takes its measure of the volumes here; a training that continues does so again.
        """
        volumes = self.train.volumes()
        told = []
        for row, case in enumerate(self.train.cases.itertuples()):
            boxes = self.train.boxes_of(case.case)
            told.append(conditions(case.label, case.View, boxes, self.train.grid))
            if laterality(case.View) == "r":
                volumes[row] = volumes[row, ..., ::-1].copy()
        home = distributed.data_device(COPIES * volumes.nbytes)
        intensities, known = torch.from_numpy(volumes).to(home), stacked(told, home)
        known = known if self.recipe.conditioned else untold(known)
        self.model.measure(intensities, projections=known[1])
        return self.model.intensities(intensities), known

    def __call__(self, net: nn.Module, context: StepContext) -> Tensor:
        """Mean loss over the asked part of the batch."""
        (volumes, told), recipe, abar = self.data, self.recipe, self.model.abar
        batch, generator, device = recipe.batch, context.generator, distributed.device()
        rows = torch.randint(len(volumes), (batch,), generator=generator, device=device)[context.part]
        t = torch.randint(1, recipe.times + 1, (batch,), generator=generator, device=device)[context.part]
        # Each is left out by itself, and all together; guidance compares with the boxes left out.
        chance = torch.rand(4, batch, generator=generator, device=device)[:, context.part] < recipe.drop
        noise = torch.randn(batch, *volumes.shape[1:], generator=generator, device=device)[context.part]
        labels, projections, masks = told
        at = rows.to(volumes.device)
        known = labels[at].to(device), projections[at].to(device), masks[at].to(device)
        given = dropped(known, chance[:3] | chance[3])
        x0 = volumes[at].to(device)
        predicted: Tensor = net(noisy(abar, x0, noise, t), t / recipe.times, *given)
        error = predicted - target_of(recipe.target, abar, x0, noise, t)
        # Weights that depend on nothing but what the network is told leave its best answer where it is.
        weight = 1 + recipe.lesion_weight * given[2].relu()
        if recipe.min_snr:
            weight = weight * min_snr_weights(recipe.target, abar, recipe.min_snr)[t].view(-1, 1, 1, 1, 1)
        return (weight * penalty(recipe.loss, error)).mean()
