"""Tasks: train and test with an arm's data, and score."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

import pandas as pd

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.metric import Metric
from dbtbench.recipe import AnyRecipe, Recipe
from dbtbench.runs import Run

BASELINE, PLACEBO, CEILING = "real", "oversample", "more-real"
"""The arms that train on the real training split only, on nothing but that twice, and on more real data."""
ARMS_OF_REAL = (BASELINE, PLACEBO, CEILING)
"""Arms without synthetic volumes: no data set is called so."""
SHUFFLED, ALONE = "shuffled-boxes", "synthetic-only"
RENAMED = {"none": BASELINE, "only": ALONE}
"""Words of arms by earlier names, which mean nothing else."""
LARGEST_RATIO = 1000.0
SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class ArmName:
    """An arm's name: SOURCE[:RATIO][:CONTROL].

    Attributes:
        source: one of `ARMS_OF_REAL`, a generator or a synthetic data set.
        ratio: synthetic volumes for each real training volume, or the share of the reserve of `more-real`;
            None for all that there are.
        control: empty, `shuffled-boxes` or `synthetic-only`.
    """

    source: str
    ratio: float | None = None
    control: str = ""

    @classmethod
    def parse(cls, text: str) -> ArmName:
        """Read a name.

        Raises:
            UsageError: for a name that no arm can have; for an earlier name the hint gives the new one.
        """
        source, *rest = text.split(":")
        ratio, control = None, ""
        if rest and rest[0] not in (SHUFFLED, ALONE, "only"):
            try:
                ratio = float(rest.pop(0))
            except ValueError:
                ratio = float("nan")
        if rest:
            control = rest.pop(0)
        if source == "none" or control == "only":
            words = ":".join(RENAMED.get(word, word) for word in text.split(":"))
            raise UsageError(f"no arm named {text!r}", f"it is called {words} now")
        known = control in (("",) if source in ARMS_OF_REAL else ("", SHUFFLED, ALONE))
        within = ratio is None or 0 < ratio <= (1.0 if source == CEILING else LARGEST_RATIO)
        takes_ratio = ratio is None or source not in (BASELINE, PLACEBO)
        if not SOURCE.fullmatch(source) or rest or not (known and within and takes_ratio):
            raise UsageError(
                f"no arm named {text!r}",
                f"{BASELINE}, {PLACEBO}, {CEILING}[:SHARE] or a generator's or data set's "
                f"NAME[:RATIO][:{SHUFFLED} | :{ALONE}]",
            )
        return cls(source, ratio, control)

    def __str__(self) -> str:
        short = f"{self.ratio:g}" if self.ratio is not None else ""
        ratio = short if self.ratio is None or float(short) == self.ratio else repr(self.ratio)
        return ":".join(word for word in (self.source, ratio, self.control) if word)


@dataclass(frozen=True)
class Arm:
    """Data that a task trains on and is tested with (`dbtbench.pipeline.arms` makes arms by name).

    Attributes:
        name: such as `real`, `ddpm:2` or `more-real`.
        real: the real data set, all splits; scores are of its split `test`.
        train: what is trained on.
        added: what fills a share of every batch next to it; None for nothing.
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
    """Scores of one arm and seed, and what they were computed from.

    Attributes:
        scores: `{metric: value}` for each of the task's metrics; NaN where one is not defined on these data.
        counts: numbers of what was scored (patients, volumes, boxes, …).
        predictions: what was predicted, for tasks that do.
        outcomes: the tables of the metrics that are resampled, by their names (`dbtbench.metric.Outcomes`).
    """

    scores: Mapping[str, float]
    counts: Mapping[str, int]
    predictions: pd.DataFrame | None = field(default=None, repr=False)
    outcomes: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)


class Task(ABC, Generic[AnyRecipe]):
    """Base of every task: it measures what an augmentation is worth.

    A plug-in is one module (or package) in `tasks/` that defines one subclass; its docstring's first line
    is what `dbtbench list` shows.

    Attributes:
        recipe_class: the settings, with their defaults; the same class as in the brackets.
        version: raise it when the same recipe trains or predicts otherwise than before; a metric has its own.
        metrics: what it scores; the first one is the primary metric, at which a reader looks first.
        primary: that metric's name; an instance may set another one of them by its recipe. A class that gives
            `primary` alone has this one metric: higher is better, and it has no interval.
        seeds: how many seeds an evaluation runs when none are named.
        arms: which arms it runs when none are named; `AUG` stands for each augmentation. Those that the data
            cannot give are left out, and that is said.
    """

    recipe_class: ClassVar[type[Recipe]] = Recipe
    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]]
    primary: str
    seeds: ClassVar[int] = 3
    arms: ClassVar[tuple[str, ...]] = (BASELINE, "AUG")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "metrics" in vars(cls):
            cls.primary = cls.metrics[0].name
        elif "primary" in vars(cls):
            cls.metrics = (Metric(cls.primary, cls.primary.replace("_", " "), "higher", headline=True),)

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Train with an arm's data, test and score; the same arm, recipe and seed always score the same.

        Args:
            arm: the data.
            seed: seed of initialisation and data order, shared between arms.
            run: its folder takes state and whatever is worth keeping.
        """

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        """Score again what a finished run kept; `evaluate` ends in it, so that both give the same.

        Args:
            arm: the run's data. Where there are predictions, only `real` is certain to be there: what is
                trained on may be gone, and is empty.
            seed: the run's.
            predictions: the run's `predictions.csv`; None for a task without.

        Raises:
            MissingError: for a task that cannot do so.
        """
        raise MissingError(
            f"{type(self).__name__} cannot score finished runs again", "evaluate again with --fresh"
        )
