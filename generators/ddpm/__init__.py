"""3-D DDPM for DBT volumes: a U-Net of weight-standardised residual blocks, told label, view and boxes.

The network follows the lineage of the paper that this benchmark starts from: the wide residual blocks of
DDPM (Ho et al., arXiv 2006.11239), weight standardisation with GroupNorm (Kolesnikov et al., 1912.11370),
linear attention, full attention in the middle, and a sinusoidal time embedding; in three dimensions, and
never striding the slices away. Schedule and target differ, because with a linear schedule and noise
prediction such a model loses contrast: the terminal SNR is zero and the target is v (`diffusion.py`), of
which the network is given the part that the mean and the spectrum of the data decide (`precondition.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from dbtbench.data.dataset import LABELS, DBTDataset, Volume, laterality
from dbtbench.errors import UsageError
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.progress import say
from dbtbench.runs import Run
from dbtbench.training import distributed
from dbtbench.training.loop import Draw, Training, fit

from .conditions import PROJECTIONS, UNTOLD_LABEL, UNTOLD_MASK, UNTOLD_PROJECTION, conditions
from .diffusion import cosine, ddim, guided, noisy, velocity, zero_terminal_snr
from .precondition import Preconditioned
from .unet import GROUPS, UNet

Channels = Annotated[int, Field(gt=0, multiple_of=GROUPS)]
Told = tuple[Tensor, Tensor, Tensor]

CPU_VOLUMES = 50_000
"""Training volumes, counted at every step, beyond which a CPU takes hours."""


class DDPMRecipe(Training):
    """Settings of the DDPM. The defaults are sized for one 80 GB GPU and were not measured here.

    Attributes:
        seed: seed of the initial weights and of the training.
        dim: channels of the first level.
        mults: channels of each level in units of `dim`.
        blocks: residual blocks a level.
        unshuffle: the plane is folded this many times each way into channels; 1 leaves it.
        factorised: 1x3x3 and 3x1x1 convolutions instead of 3x3x3.
        times: T, the number of noise levels.
        drop: how often each condition, and how often all together, are left out in training.
        lesion_weight: how much more a voxel of a wanted lesion counts in the loss; lesions are so small that
            the network otherwise learns them last.
        sample_steps: network evaluations (twice as many with guidance) a volume.
        sample_batch: volumes drawn together.
        guidance: weight of classifier-free guidance; 1 is none.
        guidance_rescale: share of the guided prediction's change in contrast that is undone.
    """

    drawing: ClassVar[frozenset[str]] = frozenset(
        {"sample_steps", "sample_batch", "guidance", "guidance_rescale"}
    )
    steps: PositiveInt = 8000
    batch: PositiveInt = 64
    lr: float = Field(default=2e-4, gt=0)
    warmup: NonNegativeInt = 500
    seed: NonNegativeInt = 0
    dim: Channels = 64
    mults: tuple[PositiveInt, ...] = Field(default=(1, 2, 4), min_length=1)
    blocks: PositiveInt = 2
    unshuffle: PositiveInt = 2
    factorised: bool = False
    times: int = Field(default=1000, ge=2)
    drop: float = Field(default=0.1, ge=0, lt=1)
    lesion_weight: float = Field(default=20.0, ge=0)
    sample_steps: PositiveInt = 50
    sample_batch: PositiveInt = 16
    guidance: float = Field(default=1.5, ge=0)
    guidance_rescale: float = Field(default=0.7, ge=0, le=1)


class DDPM(Generator[DDPMRecipe]):
    """Trains a conditional diffusion model, and draws volumes with DDIM."""

    recipe_class = DDPMRecipe
    parallel: ClassVar[bool] = True

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Train, continue or load the network (see `dbtbench.training.loop.fit`).

        Raises:
            UsageError: when the network cannot halve the data set's plane often enough.
        """
        recipe = self.recipe
        check_grid(train.grid, recipe)
        if distributed.device().type == "cpu" and recipe.steps * recipe.batch > CPU_VOLUMES:
            say("ddpm: this recipe is sized for a GPU; --recipe demo trains in minutes on a CPU")
        torch.manual_seed(recipe.seed)
        net = UNet(
            recipe.dim,
            recipe.mults,
            recipe.blocks,
            recipe.unshuffle,
            recipe.factorised,
            labels=len(LABELS),
            projections=len(PROJECTIONS),
        )
        self.grid = train.grid
        schedule = zero_terminal_snr(cosine(recipe.times))
        model = Preconditioned(net, schedule, train.grid, len(PROJECTIONS))
        objective = _Objective(train, recipe, model)
        fitted = fit(model, objective, recipe, run.path, seed=recipe.seed, title="training ddpm")
        assert isinstance(fitted, Preconditioned)
        self.model = fitted

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
        told = _stacked([conditions(one.label, one.view, one.boxes, self.grid) for one in layouts], device)
        untold = _dropped(told, torch.ones(3, len(layouts), dtype=torch.bool, device=device))
        generators = [torch.Generator().manual_seed(layout.seed) for layout in layouts]
        noise = torch.stack([torch.randn(1, *self.grid, generator=generator) for generator in generators])

        def predict(x: Tensor, t: int) -> Tensor:
            time = torch.full((len(x),), t / recipe.times, device=device)
            with distributed.autocast():
                v: Tensor = model(x, time, *told)
                if recipe.guidance == 1:
                    return v.float()
                without = model(x, time, *untold)
            return guided(v.float(), without.float(), recipe.guidance, recipe.guidance_rescale)

        steps, limits = min(recipe.sample_steps, recipe.times), model.intensities.limits()
        values = ddim(predict, noise.to(device), model.abar, steps, limits)
        volumes: Volume = model.intensities.inverse(values)[:, 0].cpu().numpy()
        return volumes


def check_grid(grid: tuple[int, int, int], recipe: DDPMRecipe) -> None:
    """Check that the network can fold and halve the plane.

    Raises:
        UsageError: when rows or columns are not a multiple of what it needs.
    """
    factor = recipe.unshuffle * 2 ** (len(recipe.mults) - 1)
    if grid[1] % factor or grid[2] % factor:
        rows, columns = (max(1, round(n / factor)) * factor for n in grid[1:])
        raise UsageError(
            f"a grid of {grid[1]} x {grid[2]} cannot be divided by {factor}, as this network does",
            f"ingest on a grid of {rows} x {columns}, or use a smaller --set unshuffle or fewer --set mults",
        )


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
    """Mean squared error of v, weighted where lesions are wanted; reads the volumes when first asked."""

    def __init__(self, train: DBTDataset, recipe: DDPMRecipe, model: Preconditioned) -> None:
        self.train, self.recipe, self.model = train, recipe, model

    @cached_property
    def data(self) -> tuple[Tensor, Told]:
        """Values (n, 1, D, H, W) of left breasts, and their conditions, on the device.

        The model takes its measure of the volumes here; a training that continues does so again.
        """
        volumes = self.train.volumes()
        told = []
        for row, case in enumerate(self.train.cases.itertuples()):
            boxes = self.train.boxes_of(case.case)
            told.append(conditions(case.label, case.View, boxes, self.train.grid))
            if laterality(case.View) == "r":
                volumes[row] = volumes[row, ..., ::-1].copy()
        device = distributed.device()
        intensities, stacked = torch.from_numpy(volumes).to(device), _stacked(told, device)
        self.model.measure(intensities, projections=stacked[1])
        return self.model.intensities(intensities), stacked

    def __call__(self, net: nn.Module, draw: Draw) -> Tensor:
        """Mean loss over the asked part of the batch."""
        volumes, told = self.data
        abar = self.model.abar
        batch, generator, device = self.recipe.batch, draw.generator, volumes.device
        rows = torch.randint(len(volumes), (batch,), generator=generator, device=device)[draw.part]
        t = torch.randint(1, self.recipe.times + 1, (batch,), generator=generator, device=device)[draw.part]
        # Each is left out by itself, and all together: that is what guidance compares with.
        chance = torch.rand(4, batch, generator=generator, device=device)[:, draw.part] < self.recipe.drop
        noise = torch.randn(batch, *volumes.shape[1:], generator=generator, device=device)[draw.part]
        x0, dropped = volumes[rows], _dropped(_picked(told, rows), chance[:3] | chance[3])
        v: Tensor = net(noisy(abar, x0, noise, t), t / self.recipe.times, *dropped)
        # Weights that depend on nothing but what the network is told leave its best answer where it is.
        weight = 1 + self.recipe.lesion_weight * dropped[2].relu()
        return (weight * (v - velocity(abar, x0, noise, t)).square()).mean()


def _stacked(rows: Sequence[tuple[int, int, np.ndarray]], device: torch.device) -> Told:
    labels, projections, masks = zip(*rows, strict=True)
    return (
        torch.tensor(labels, device=device),
        torch.tensor(projections, device=device),
        torch.from_numpy(np.stack(masks)).to(device),
    )


def _picked(told: Told, rows: Tensor) -> Told:
    labels, projections, masks = told
    return labels[rows], projections[rows], masks[rows]


def _dropped(told: Told, dropped: Tensor) -> Told:
    """Leave out label, projection or mask where (3, N) `dropped` says so."""
    labels, projections, masks = told
    return (
        labels.masked_fill(dropped[0], UNTOLD_LABEL),
        projections.masked_fill(dropped[1], UNTOLD_PROJECTION),
        masks.masked_fill(dropped[2, :, None, None, None, None], UNTOLD_MASK),
    )
