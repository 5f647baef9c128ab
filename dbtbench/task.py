"""What a task promises: train and test with an arm's data, and score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Generic

import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.recipe import AnyRecipe, Recipe
from dbtbench.runs import Run

BASELINE, PLACEBO, CEILING = "none", "oversample", "more-real"
"""The arms that train on the real training split only, on nothing but that twice, and on more real data."""
ARMS_OF_REAL = (BASELINE, PLACEBO, CEILING)
"""Arms without synthetic volumes: no data set is called so."""


@dataclass(frozen=True)
class Arm:
    """What a task may train on (`dbtbench.pipeline.arms` makes them by name).

    Attributes:
        name: such as `none`, `ddpm:2` or `more-real`.
        real: the real data set, all splits; scores are of its split `test`.
        train: what is trained on.
        added: what fills a share of every batch beside it; None for nothing.
    """

    name: str
    real: DBTDataset
    train: DBTDataset
    added: DBTDataset | None = None

    @property
    def sources(self) -> list[DBTDataset]:
        """`train` and, where there is one, `added`."""
        return [self.train] if self.added is None else [self.train, self.added]

    @property
    def synthetic(self) -> DBTDataset | None:
        """Its synthetic volumes, wherever they are used."""
        return next((source for source in self.sources if source.synthetic), None)

    @property
    def counts(self) -> dict[str, int]:
        """`training_real` and `training_synthetic`: how many different volumes it trains on."""
        synthetic = self.synthetic
        return {
            "training_real": 0 if self.train.synthetic else len(self.train),
            "training_synthetic": 0 if synthetic is None else len(synthetic),
        }


@dataclass(frozen=True)
class Evaluation:
    """What one arm and seed came to.

    Attributes:
        scores: `{metric: value}`; NaN where a metric is not defined on these data.
        counts: numbers of what was scored (patients, volumes, boxes, …).
        predictions: what was predicted, for tasks that do; `Task.score` gives the same scores from it.
        outcomes: all that the primary metric depends on, by patient, in the form that
            `dbtbench.leaderboard.statistics` resamples; None where it cannot be resampled.
    """

    scores: dict[str, float]
    counts: dict[str, int]
    predictions: pd.DataFrame | None = field(default=None, repr=False)
    outcomes: pd.DataFrame | None = field(default=None, repr=False)


class Task(ABC, Generic[AnyRecipe]):
    """Says what an augmentation is worth.

    A plug-in is one module (or package) in `tasks/` that defines one subclass; its docstring's first line
    is what `dbtbench list` shows.

    Attributes:
        recipe_class: the settings, with their defaults; the same class as in the brackets.
        version: raise it when the same recipe gives other scores than before.
        primary: the metric that a reader looks at first.
        seeds: how many seeds an evaluation runs when none are named.
        arms: which arms it runs when none are named; `AUG` stands for each augmentation. Those that the data
            cannot give are left out, and that is said.
    """

    recipe_class: ClassVar[type[Recipe]] = Recipe
    version: ClassVar[int] = 1
    primary: ClassVar[str]
    seeds: ClassVar[int] = 3
    arms: ClassVar[tuple[str, ...]] = (BASELINE, "AUG")

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

    def score(self, real: DBTDataset, predictions: pd.DataFrame) -> dict[str, float]:
        """The scores that predictions for the test split of `real` come to; none for tasks without them."""
        return {}
