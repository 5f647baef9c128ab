"""The contract of generators, and the layouts that every one is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic

import numpy as np
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.recipe import AnyRecipe, Recipe
from dbtbench.runs import Run


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
        host: `case` of the training volume that a generator may put lesions into: label normal, no boxes, the
            layout's projection, and another patient than the source's where the layout has boxes. One of the
            other laterality is to be mirrored. None where the training split has no such volume.
    """

    index: int
    seed: int
    label: str
    view: str
    boxes: Boxes
    source: int
    host: int | None = None


@dataclass(frozen=True)
class Sample:
    """One volume that a generator drew, with what is really in it; `dbtbench.pipeline.samples` checks it.

    Attributes:
        volume: (D, H, W) float32 in [0, 1].
        boxes: (n, 6) float32 `[z0, y0, x0, z1, y1, x1]` in voxels: where its lesions are.
        label: normal, actionable, benign or cancer; None for the layout's. A volume with boxes is not normal,
            one without may have any label: a lesion need not be seen in every view.
    """

    volume: Volume
    boxes: Boxes
    label: str | None = None


class Generator(ABC, Generic[AnyRecipe]):
    """Draws DBT volumes that resemble a training split.

    A plug-in is one module (or package) in `generators/` that defines one subclass; its docstring's first
    line is what `dbtbench list` shows. Sample i must depend on nothing but the fitted state, the recipe and
    layout i: not on the batch it is drawn in, nor on what was drawn before.

    Attributes:
        recipe_class: the settings, with their defaults; the same class as in the brackets.
        version: raise it when the same recipe gives other samples than before.
        parallel: whether `fit` trains on several processes under torchrun.
        learned: whether samples come from a model that `fit` trains; False for one that changes or combines
            training volumes by rule, or draws from statistics in closed form. A board compares learned ones
            with the best that is not.
    """

    recipe_class: ClassVar[type[Recipe]] = Recipe
    version: ClassVar[int] = 1
    parallel: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @property
    def follows_boxes(self) -> bool:
        """Whether lesions can be put where a layout wants them.

        Where not, the samples serve as lesion-free volumes, and only layouts without boxes are asked for.
        """
        return True

    @property
    def derived(self) -> bool:
        """Whether each sample is a training volume that was changed.

        So are those of classic augmentation, and hosts with lesions added. Only then may samples be training
        volumes as they are; `evaluate` refuses others. A class sets `derived = True`, or lets it depend on
        the recipe by a property of its own.
        """
        return False

    def check(self, grid: tuple[int, int, int]) -> None:
        """See whether a data set's grid (slices, rows, columns) goes with the recipe; here every grid does.

        Raises:
            UsageError: when it does not, before any training; the hint names a grid that does, such as
                `8 x 64 x 64`.
        """

    @abstractmethod
    def fit(self, train: DBTDataset, run: Run) -> None:
        """Get ready to sample: load what a finished `run` holds, else train, continuing what is there.

        Args:
            train: the training split, and nothing else.
            run: its folder takes weights (safetensors), state and metrics.
        """

    def score_volumes(self, volumes: DBTDataset) -> NDArray[np.float64] | None:
        """Score how badly the fitted model explains volumes; here it cannot say.

        The task `privacy` asks with it whether training volumes can be recognised. A volume's scores
        depend on the volume, its label, view and boxes only; what is random in them is drawn from a seed that
        follows from the volume.

        Args:
            volumes: of any split, on the grid of the training split.

        Returns:
            (N, levels) losses, lower for what the model knows better, such as one for each noise level; None
            for a generator that has none.
        """
        return None

    @abstractmethod
    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        """Draw one volume for each layout, in order."""
