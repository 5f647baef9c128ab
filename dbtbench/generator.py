"""What a generator promises, and the layouts that every generator is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic

import numpy as np

from dbtbench.data.dataset import Boxes, DBTDataset, Volume, laterality
from dbtbench.errors import UsageError
from dbtbench.recipe import AnyRecipe, Recipe
from dbtbench.runs import Run

JITTER_SHIFT = 0.04
JITTER_SCALE = 0.10


@dataclass(frozen=True)
class Layout:
    """One volume that the benchmark asks for.

    Attributes:
        index: its number, from 0.
        seed: seed of everything random in it.
        label: normal, actionable, benign or cancer.
        view: lcc, lmlo, rcc or rmlo; volumes are as displayed (a left breast at the left edge).
        boxes: (n, 6) float32 `[z0, y0, x0, z1, y1, x1]` in voxels: where lesions are wanted.
        source: `case` of the training case that label, view and boxes were drawn from. When the layout's
            laterality is not the source's, the boxes are its mirror image.
    """

    index: int
    seed: int
    label: str
    view: str
    boxes: Boxes
    source: int


@dataclass(frozen=True)
class Sample:
    """One volume that a generator drew.

    Attributes:
        volume: (D, H, W) float32 in [0, 1].
        boxes: (n, 6) float32: where its lesions are.
    """

    volume: Volume
    boxes: Boxes


class Generator(ABC, Generic[AnyRecipe]):
    """Draws DBT volumes that resemble a training split.

    A plug-in is one module (or package) in `generators/` that defines one subclass; its docstring's first
    line is what `dbtbench list` shows. Sample i must depend on nothing but the fitted state, the recipe and
    layout i: not on the batch it is drawn in, nor on what was drawn before.

    Attributes:
        recipe_class: the settings, with their defaults; the same class as in the brackets.
        version: raise it when the same recipe gives other samples than before.
        parallel: whether `fit` trains on several processes under torchrun.
    """

    recipe_class: ClassVar[type[Recipe]] = Recipe
    version: ClassVar[int] = 1
    parallel: ClassVar[bool] = False

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @property
    def follows_boxes(self) -> bool:
        """Whether lesions can be put where a layout wants them.

        Where not, the samples serve as lesion-free volumes, and only layouts without boxes are asked for.
        """
        return True

    def check(self, grid: tuple[int, int, int]) -> None:
        """See whether a data set's grid (slices, rows, columns) goes with the recipe; here every grid does.

        Raises:
            UsageError: when it does not, with a grid or a setting that would. It is told before any training.
        """

    @abstractmethod
    def fit(self, train: DBTDataset, run: Run) -> None:
        """Get ready to sample: load what a finished `run` holds, else train, continuing what is there.

        Args:
            train: the training split, and nothing else.
            run: its folder takes weights (safetensors), state and metrics.
        """

    @abstractmethod
    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout, in order."""


def mirrored(boxes: Boxes, width: int) -> Boxes:
    """Boxes of the left-right mirror image of a volume with `width` columns."""
    out = boxes.copy()
    out[:, 2], out[:, 5] = width - boxes[:, 5], width - boxes[:, 2]
    return out


def draw_layouts(train: DBTDataset, n: int, seed: int, positives: float, first: int = 0) -> list[Layout]:
    """Draw what to ask for from the training split's own cases.

    Each layout takes label, view and boxes of a training case, mirrored left to right for every other draw,
    the boxes shifted and scaled a little. Layout i depends on (split, seed, positives, i) only.

    Args:
        train: the training split.
        n: how many.
        seed: seed of the draw.
        positives: share of layouts with lesions, in [0, 1].
        first: number of the first layout.

    Raises:
        UsageError: when lesions are wanted and the split has none, or lesion-free volumes and it has none.
    """
    has_boxes = train.cases["case"].isin(train.boxes["case"])
    pools = {True: train.cases[has_boxes], False: train.cases[~has_boxes]}
    for wanted, share in ((True, positives), (False, 1 - positives)):
        if share > 0 and pools[wanted].empty:
            kind = "with" if wanted else "without"
            raise UsageError(
                f"{train.name} has no training case {kind} lesions", f"use --positives {1 - int(wanted)}"
            )
    layouts = []
    for index in range(first, first + n):
        rng = np.random.default_rng([seed, index])
        pool = pools[bool(rng.random() < positives)]
        case = pool.iloc[int(rng.integers(len(pool)))]
        boxes = _jittered(train.boxes_of(case["case"]), train.grid, rng)
        view = case["View"][:4].rstrip("0123456789")
        if rng.random() < 0.5:
            view = ("r" if laterality(view) == "l" else "l") + view[1:]
            boxes = mirrored(boxes, train.grid[2])
        layouts.append(
            Layout(index, int(rng.integers(2**31)), str(case["label"]), view, boxes, int(case["case"]))
        )
    return layouts


def _jittered(boxes: Boxes, grid: tuple[int, int, int], rng: np.random.Generator) -> Boxes:
    """Shift each box in the plane and scale it a little, and keep it inside the volume."""
    out = boxes.copy()
    for box in out:
        for low, size in ((1, grid[1]), (2, grid[2])):
            half = (box[low + 3] - box[low]) / 2 * rng.uniform(1 - JITTER_SCALE, 1 + JITTER_SCALE)
            half = min(half, size / 2)
            centre = (box[low + 3] + box[low]) / 2 + size * rng.uniform(-JITTER_SHIFT, JITTER_SHIFT)
            centre = np.clip(centre, half, size - half)
            box[low], box[low + 3] = centre - half, centre + half
    return out
