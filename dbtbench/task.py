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
from dbtbench.metric import Metric, Standing
from dbtbench.recipe import AnyRecipe, Recipe
from dbtbench.runs import Run

BASELINE, PLACEBO, CEILING = "real", "oversample", "more-real"
"""The arms that train on the real training split only, on that twice, and on more real data.

The second is in published records only: it was a second draw of the baseline.
"""
ARMS_OF_REAL = (BASELINE, PLACEBO, CEILING)
"""Arms without synthetic volumes: no data set is called so."""
UNTRAINED = "untrained"
CHANCE, BLOB = "chance", "blob"
REFERENCES = (CHANCE, BLOB, UNTRAINED)
"""Arms that train on nothing, which a task may have: random answers, a filter, a network's initial weights.

They say what a score is worth, and take part in no comparison. A filter has no seed, and one run.
"""
SHUFFLED, NORMALS, FINETUNE, ALONE = "shuffled-boxes", "normals-only", "finetune", "synthetic-only"
CONTROLS = (SHUFFLED, NORMALS, FINETUNE, ALONE)
RENAMED = {"none": BASELINE, "only": ALONE}
"""Words of arms by earlier names, which mean nothing else."""
LARGEST_RATIO = 1000.0
SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(\+[A-Za-z0-9][A-Za-z0-9._-]{0,99})*")


@dataclass(frozen=True)
class ArmName:
    """An arm's name: SOURCE[+SOURCE…][:RATIO][:CONTROL].

    Attributes:
        source: one of `ARMS_OF_REAL` or `REFERENCES`, or generators or synthetic data sets, joined by +.
        ratio: synthetic volumes of each source for each real training volume, or the share of the reserve of
            `more-real`; None for all that there are.
        control: empty, or one of `CONTROLS`.
    """

    source: str
    ratio: float | None = None
    control: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The generators or synthetic data sets; none where the arm has no synthetic volumes."""
        return () if self.source in (*ARMS_OF_REAL, *REFERENCES) else tuple(self.source.split("+"))

    @classmethod
    def parse(cls, text: str) -> ArmName:
        """Read a name.

        Raises:
            UsageError: for a name that no arm can have; for an earlier name the hint gives the new one.
        """
        source, *rest = text.split(":")
        ratio, control = None, ""
        if rest and rest[0] not in (*CONTROLS, "only"):
            try:
                ratio = float(rest.pop(0))
            except ValueError:
                ratio = float("nan")
        if rest:
            control = rest.pop(0)
        if source == "none" or control == "only":
            words = ":".join(RENAMED.get(word, word) for word in text.split(":"))
            raise UsageError(f"no arm named {text!r}", f"it is called {words} now")
        name = cls(source, ratio, control)
        if rest or not name._possible():
            raise UsageError(
                f"no arm named {text!r}",
                f"{BASELINE}, {CEILING}[:SHARE], {', '.join(REFERENCES)}, or generators' or data sets' "
                f"NAME[+NAME][:RATIO][:{' | :'.join(CONTROLS)}]",
            )
        return name

    def _possible(self) -> bool:
        """Test whether there can be such an arm."""
        sources = self.sources
        reserved = {*ARMS_OF_REAL, *REFERENCES, *RENAMED} & {*sources}
        if reserved or len({*sources}) < len(sources) or not SOURCE.fullmatch(self.source):
            return False
        if self.ratio is not None and not sources and self.source != CEILING:
            return False
        if self.control and (self.control not in CONTROLS or not sources):
            return False
        return self.ratio is None or 0 < self.ratio <= (1.0 if self.source == CEILING else LARGEST_RATIO)

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
        train: what is trained on; with several synthetic data sets and no real volumes, the first of them.
        added: what fills a share of every batch next to it, in equal parts.
        finetune: whether what is added is trained on first, alone, and `train` alone in the last third of the
            steps.
        reference: one of `REFERENCES` for an arm that trains on nothing; `train` is empty then.
    """

    name: str
    real: DBTDataset
    train: DBTDataset
    added: tuple[DBTDataset, ...] = ()
    finetune: bool = False
    reference: str = ""

    @property
    def sources(self) -> list[DBTDataset]:
        """`train`, and what is added."""
        return [self.train, *self.added]

    @property
    def equal(self) -> bool:
        """Whether all sources fill every batch in equal parts, as synthetic volumes without real ones do."""
        return self.train.synthetic

    @property
    def synthetic(self) -> tuple[DBTDataset, ...]:
        """Its synthetic data sets, wherever they are used."""
        return tuple(source for source in self.sources if source.synthetic)

    def find_measured(self) -> DBTDataset:
        """Find the data set that a task measures which looks at volumes: the last of `sources`.

        Raises:
            UsageError: when there are several synthetic ones, or its grid is not that of `real`.
        """
        if len(self.synthetic) > 1:
            raise UsageError(
                f"{self.name} has several synthetic data sets", "one is measured at a time: name each alone"
            )
        own = self.sources[-1]
        if own.grid != self.real.grid:
            raise UsageError(
                f"{own.name} has the grid {own.grid}, {self.real.name} has {self.real.grid}",
                "sample, or import, on the real data set's grid",
            )
        return own

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of what it trains on, each counted once.

        `training_real` and `training_synthetic` are volumes; `training_patients` and `training_lesions`
        (boxes: one for each view of a lesion) are of the real ones.
        """
        real = None if self.train.synthetic else self.train
        return {
            "training_real": 0 if real is None else len(real),
            "training_synthetic": sum(map(len, self.synthetic)),
            "training_patients": 0 if real is None else int(real.cases["PatientID"].nunique()),
            "training_lesions": 0 if real is None else len(real.boxes),
        }


@dataclass(frozen=True)
class Evaluation:
    """Scores of one arm and seed, and what they were computed from.

    Attributes:
        scores: `{metric: value}` for each of the task's metrics; NaN where one is not defined on these data.
        counts: numbers of what was scored (patients, volumes, boxes, …).
        predictions: what was predicted, for tasks that do.
        outcomes: the tables of the metrics that are resampled, by their names (`dbtbench.metric.Outcomes`).
        standings: by metric, the interval and the place on the floor of a score that is compared with what
            real data score; for tasks that measure sets of volumes.
    """

    scores: Mapping[str, float]
    counts: Mapping[str, int]
    predictions: pd.DataFrame | None = field(default=None, repr=False)
    outcomes: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    standings: Mapping[str, Standing] = field(default_factory=dict, repr=False)


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
        seeds: how many seeds an evaluation runs when none are named; `real` gets twice as many if several.
        arms: which arms it runs when none are named; `AUG` stands for each augmentation. Those that the data
            cannot give are left out, and that is said.
        references: which of `REFERENCES` it can score.
    """

    recipe_class: ClassVar[type[Recipe]] = Recipe
    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]]
    primary: str
    seeds: ClassVar[int] = 3
    arms: ClassVar[tuple[str, ...]] = (BASELINE, "AUG")
    references: ClassVar[tuple[str, ...]] = ()

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

    def detect(self, volumes: DBTDataset, arm: Arm, seed: int, run: Run) -> pd.DataFrame:
        """Train with an arm's data, or load what the run has of that, and find lesions in volumes.

        `dbtbench generate --keep` looks with it for lesions in what was drawn.

        Args:
            volumes: any, on the grid of the arm's real data.
            arm: the data.
            seed: seed of initialisation and data order.
            run: its folder takes the network.

        Returns:
            One row for each box that was found, in the DBTex columns.

        Raises:
            MissingError: for a task that finds no lesions.
        """
        raise MissingError(f"{type(self).__name__} finds no lesions", "use the task detection")

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
