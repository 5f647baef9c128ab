"""Learned generators: training data as left breasts, their conditioning, slots, previews and mirroring back.

A learned generator sees left breasts only. Right ones are mirrored before the network sees them and after it
has drawn them, so that it learns each projection from twice the data.

This file imports torch when something is fitted or drawn, not before: `dbtbench show` stays fast.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.geometry.views import laterality, mirror_boxes
from dbtbench.runs import Run
from dbtbench.runtime.progress import log
from dbtbench.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from dbtbench.networks.conditioning import Conditioning
    from dbtbench.training.loop import Preview, StepContext

CPU_VOLUMES = 50_000
"""Training volumes, counted at every step, above which a CPU takes hours."""
PREVIEW_VOLUMES = 4


class LearnedRecipe(TrainingRecipe):
    """Settings that every learned generator has.

    Attributes:
        seed: seed of the initial weights and of the training.
        sample_batch: volumes drawn together.
    """

    sampling_only: ClassVar[frozenset[str]] = frozenset({"sample_batch"})
    seed: NonNegativeInt = 0
    sample_batch: PositiveInt = 16


AnyLearnedRecipe = TypeVar("AnyLearnedRecipe", bound=LearnedRecipe)


class LearnedGenerator(Generator[AnyLearnedRecipe]):
    """A generator that trains networks on left breasts and draws batches of them.

    A subclass says how it is trained (`train`) and how it draws (`draw`).

    Attributes:
        preview_settings: settings over the recipe with which previews are drawn, to make them quick.
    """

    parallel: ClassVar[bool] = True
    preview_settings: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def train(self, data: LeftBreasts, run: Run) -> nn.Module:
        """Train the network, continue or load it (see `dbtbench.training.loop.fit`).

        Args:
            data: the training volumes. A finished training loads its weights and never reads them.
            run: its folder takes weights, state and metrics.

        Returns:
            The module that `draw` uses, as `self.model`.
        """

    @abstractmethod
    def draw(self, conditioning: Conditioning, noise: LayoutNoise) -> Tensor:
        """Draw one batch with `self.model`, without gradients.

        Args:
            conditioning: of `sample_batch` volumes, on `distributed.device()`.
            noise: the only source of random numbers.

        Returns:
            (N, 1, D, H, W) intensities of left breasts in [0, 1].
        """

    def fit(self, train: DBTDataset, run: Run) -> None:
        """Train, continue or load the network."""
        from dbtbench.runtime import distributed

        self.grid = train.grid
        if distributed.device().type == "cpu" and self.recipe.steps * self.recipe.batch > CPU_VOLUMES:
            log.info("this recipe is sized for a GPU; --recipe demo trains in minutes on a CPU")
        self.model = self.train(LeftBreasts(train), run)

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout, in order.

        A volume's bytes do not depend on the other layouts. The noise of each volume has its own generator.
        The network always runs on `sample_batch` volumes, each in the slot that its index gives, because a
        matrix product may round its rows differently.
        """
        import torch

        from dbtbench.networks.conditioning import collate, encode_conditioning
        from dbtbench.runtime import distributed

        for batch in fill_slots(layouts, self.recipe.sample_batch):
            filler = next(iter(batch.values()))
            rows = [batch.get(slot, filler) for slot in range(self.recipe.sample_batch)]
            conditioning = collate(
                [encode_conditioning(row.label, row.view, row.boxes, self.grid) for row in rows]
            ).to(distributed.device())
            with torch.inference_mode():
                drawn = self.draw(conditioning, LayoutNoise(rows, self.grid))
            volumes = drawn[:, 0].float().cpu().numpy()
            for slot, layout in batch.items():
                right = laterality(layout.view) == "r"
                volume = volumes[slot, :, :, ::-1] if right else volumes[slot]
                yield Sample(np.ascontiguousarray(volume), layout.boxes)

    def make_preview(self, train: DBTDataset) -> Preview:
        """Make a function that draws the layouts of the first training cases, below their real volumes."""
        from dbtbench.figures.preview import draw_middle_slices

        settings = {"sample_batch": PREVIEW_VOLUMES, **self.preview_settings}
        quick = type(self)(self.recipe.model_copy(update=settings))
        quick.grid = train.grid
        cases = list(train.cases.head(quick.recipe.sample_batch).itertuples())
        layouts = [
            Layout(slot, slot, str(case.label), str(case.View), train.boxes_of(case.case), int(case.case))
            for slot, case in enumerate(cases)
        ]

        def preview(net: nn.Module, path: Path) -> None:
            quick.model = net
            drawn = np.stack([sample.volume for sample in quick.sample(layouts)])
            real = train.volumes([case.case for case in cases])[:, 0]
            draw_middle_slices({"training": real, "drawn": drawn}, path)

        return preview


class LeftBreasts:
    """Training volumes as left breasts, with their conditioning. They are read when they are first used.

    Attributes:
        split: the training split.
    """

    COPIES = 4
    """Arrays as large as the volumes that a training needs at once."""

    def __init__(self, split: DBTDataset) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    @cached_property
    def device(self) -> torch.device:
        """Device of volumes and conditioning: that of the network, if they fit there."""
        from dbtbench.runtime import distributed

        return distributed.data_device(self.COPIES * 4 * len(self.split) * int(np.prod(self.split.grid)))

    @cached_property
    def volumes(self) -> Tensor:
        """Intensities (n, 1, D, H, W) in [0, 1]."""
        import torch

        volumes = self.split.volumes()
        for row, view in enumerate(self.split.cases["View"]):
            if laterality(view) == "r":
                volumes[row] = volumes[row, ..., ::-1].copy()
        return torch.from_numpy(volumes).to(self.device)

    @cached_property
    def conditioning(self) -> Conditioning:
        """Conditioning of all volumes."""
        from dbtbench.networks.conditioning import collate, encode_conditioning

        split = self.split
        return collate(
            [
                encode_conditioning(case.label, case.View, split.boxes_of(case.case), split.grid)
                for case in split.cases.itertuples()
            ]
        ).to(self.device)

    @cached_property
    def boxes(self) -> list[Tensor]:
        """Boxes of each volume, (n, 6)."""
        import torch

        columns, cases = self.split.grid[2], self.split.cases
        found = []
        for case, view in zip(cases["case"], cases["View"], strict=True):
            boxes = self.split.boxes_of(case)
            left = mirror_boxes(boxes, columns) if laterality(view) == "r" else boxes
            found.append(torch.from_numpy(np.array(left, np.float32)))
        return found

    def draw_changed(
        self, rows: Tensor, probability: float, context: StepContext, batch: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Change volumes at random for a network that is given the changes (`dbtbench.training.augment`).

        Args:
            rows: of the volumes, those of `context.part`.
            probability: of each change.
            context: the step.
            batch: volumes of the whole batch.

        Returns:
            Intensities and lesion masks (n, 1, D, H, W) and the changes' labels (n, NUM_LABELS), on the
            generator's device.
        """
        import torch

        from dbtbench.networks.conditioning import box_mask
        from dbtbench.training.augment import Changes, augment

        generator, grid = context.generator, self.split.grid
        drawn = Changes.draw(batch, grid, generator).keep_some(probability, generator).part(context.part)
        boxes = [self.boxes[row].to(generator.device) for row in rows.tolist()]
        anyway = [False] * len(boxes)  # an mlo view is turned upside down, too: the network is given that
        changes = drawn.settle(boxes, anyway, *grid[1:])
        volumes, carried = augment(self.volumes[rows].to(generator.device), boxes, anyway, changes)
        masks = np.stack([box_mask(own.cpu().numpy(), grid) for own in carried])
        return volumes, torch.from_numpy(masks).to(generator.device), changes.labels()

    def draw_rows(self, context: StepContext, batch: int) -> Tensor:
        """Choose training volumes for `context.part` of a batch: their rows, on `self.device`."""
        import torch

        rows = torch.randint(
            len(self), (batch,), generator=context.generator, device=context.generator.device
        )
        return rows[context.part].to(self.device)


class LayoutNoise:
    """Standard normal noise for a batch of layouts, each from its own seed.

    Args:
        layouts: one for each row of the batch.
        grid: slices, rows, columns.
    """

    def __init__(self, layouts: Sequence[Layout], grid: tuple[int, int, int]) -> None:
        import torch

        self.layouts, self.grid = layouts, grid
        self.generators = [torch.Generator().manual_seed(layout.seed) for layout in layouts]

    def __call__(self, *shape: int) -> Tensor:
        """Draw further noise: (N, *shape), by default (N, 1, D, H, W), on `distributed.device()`."""
        import torch

        from dbtbench.runtime import distributed

        size = shape or (1, *self.grid)
        rows = [torch.randn(*size, generator=generator) for generator in self.generators]
        return torch.stack(rows).to(distributed.device())


def fill_slots(layouts: Sequence[Layout], size: int) -> Iterator[dict[int, Layout]]:
    """Group consecutive layouts into batches by slot; a batch ends where the next one's slot is taken.

    Args:
        layouts: in any order.
        size: slots of a batch; layout i goes into slot i mod size.
    """
    batch: dict[int, Layout] = {}
    for layout in layouts:
        slot = layout.index % size
        if slot in batch:
            yield batch
            batch = {}
        batch[slot] = layout
    if batch:
        yield batch
