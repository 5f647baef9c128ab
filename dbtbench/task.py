"""What a task promises: train and test with an arm's data, and score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Generic

import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.recipe import AnyRecipe, Recipe
from dbtbench.runs import Run

BASELINE = "none"
"""The arm that trains on real data only."""


@dataclass(frozen=True)
class Arm:
    """What a task may train on.

    Attributes:
        name: `none` for real data only, else the augmentation's name.
        real: the real data set, all splits; training uses `real.select("train")`, scores `"test"`.
        synthetic: what augments the training split; None for `none`.
    """

    name: str
    real: DBTDataset
    synthetic: DBTDataset | None = None


@dataclass(frozen=True)
class Evaluation:
    """What one arm and seed came to.

    Attributes:
        scores: `{metric: value}`; NaN where a metric is not defined on these data.
        counts: numbers of what was scored (patients, volumes, boxes, …).
        predictions: boxes in the DBTex columns and native coordinates, for tasks that detect.
    """

    scores: dict[str, float]
    counts: dict[str, int]
    predictions: pd.DataFrame | None = field(default=None, repr=False)


class Task(ABC, Generic[AnyRecipe]):
    """Says what an augmentation is worth.

    A plug-in is one module (or package) in `tasks/` that defines one subclass; its docstring's first line
    is what `dbtbench list` shows.

    Attributes:
        recipe_class: the settings, with their defaults; the same class as in the brackets.
        version: raise it when the same recipe gives other scores than before.
        primary: the metric that a reader looks at first.
        seeds: how many seeds an evaluation runs when none are named.
    """

    recipe_class: ClassVar[type[Recipe]] = Recipe
    version: ClassVar[int] = 1
    primary: ClassVar[str]
    seeds: ClassVar[int] = 3

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Score one arm with one seed; the same arm, recipe and seed always score the same.

        Args:
            arm: the data.
            seed: seed of initialisation and data order, shared between arms.
            run: its folder takes state and whatever is worth keeping.
        """
