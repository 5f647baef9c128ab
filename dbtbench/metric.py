"""Metrics: how a score is called, which way is better, and the table that it is resampled from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dbtbench.data.dataset import KEY
from dbtbench.data.schema import read_table
from dbtbench.runtime.files import digest

Direction = Literal["higher", "lower", "target"]
Resample = Callable[[pd.DataFrame, ArrayLike], NDArray[np.float64]]
Find = Callable[[pd.DataFrame], pd.DataFrame]
Judge = Callable[[Mapping[str, float], bool | None], str]
Number = TypeVar("Number", float, NDArray[np.float64])

ARROWS = {"higher": "↑", "lower": "↓", "target": "→real"}
LONGEST_NAME = 200
Criterion = Literal["", "congruence", "coverage", "compliance"]
"""Criteria of synthetic medical data (Zamzmi et al. 2025, doi 10.1038/s44172-025-00450-1) that scores are
listed under in a card; the others are no matter of scores."""


def _accept(table: pd.DataFrame) -> None:
    """Find nothing wrong."""


@dataclass(frozen=True)
class Outcomes:
    """A table by patient that holds all that some metrics depend on, so that patients can be resampled.

    Its first columns are `PatientID, StudyUID, View`. A run keeps it as `NAME.csv`.

    Attributes:
        columns: the other columns in their order, and their types: int or float.
        truth: gives the rows and columns that say what was to be found; they are the same in all runs that
            may be compared.
        gaps: columns that may be empty in some rows.
        check: raises ValueError for values that cannot be; types and finite numbers are checked before.
        name: `outcomes`, or `outcomes-` and a word where a task has several tables.
    """

    columns: Mapping[str, type]
    truth: Callable[[pd.DataFrame], pd.DataFrame]
    gaps: frozenset[str] = frozenset()
    check: Callable[[pd.DataFrame], None] = _accept
    name: str = "outcomes"

    def read(self, file: Path) -> pd.DataFrame:
        """Read the table of a run, which may come from anyone.

        Raises:
            OSError: when it cannot be read.
            ValueError: when it is not as it should be.
        """
        filled = {name: kind for name, kind in self.columns.items() if name not in self.gaps}
        table = read_table(file, KEY, dict.fromkeys(KEY, str) | filled)
        wanted = [*KEY, *self.columns]
        if table.empty or list(table.columns) != wanted:
            raise ValueError(f"it has no rows, or its columns are not {', '.join(wanted)}")
        names = {cell for key in KEY for cell in table[key].unique()}
        if any(len(name) > LONGEST_NAME or not name.isprintable() for name in names):
            raise ValueError("a patient, study or view has a name that is too long or cannot be printed")
        for name, kind in self.columns.items():
            if kind is float:
                table[name] = pd.to_numeric(table[name]).astype(np.float64)
        if np.isinf(table[list(self.columns)].to_numpy(np.float64)).any():
            raise ValueError("a number is not finite")
        self.check(table)
        return table

    def digest_truth(self, table: pd.DataFrame) -> str:
        """SHA-256 of what was to be found in which test volumes, whatever the order of the rows."""
        rows = set(self.truth(table).itertuples(index=False, name=None))
        return digest([list(row) for row in sorted(rows)])


@dataclass(frozen=True)
class Metric:
    """A declaration of one score; everything that statistics, boards and pictures know of it.

    Attributes:
        name: key of the score in records and in leaderboard.csv.
        title: what readers see, such as `mean sensitivity`.
        direction: `higher` or `lower` is better, or `target`: nearest to what real data score.
        unit: of the values; empty for plain numbers.
        version: raise it when the same run scores otherwise than before. Values of two versions never stand
            in one row; `dbtbench evaluate --rescore` brings finished runs up to date.
        headline: whether the terminal shows it; a task has up to five, its primary metric among them.
        distance: whether it is a distance from real data, which a verdict then says.
        outcomes: the table that it is resampled from; None where it has no intervals.
        resample: the metric of an outcomes table and weights (R, P), how often each of
            `metrics.resampling.patients(table)` is drawn: (R,) float64, NaN where it is not defined.
        find: which of the things to be found an outcomes table finds: a bool for each of them (rows, the same
            in all runs) and each operating point of the metric (columns). A board says how many of them every
            seed of an arm finds at every point, and how many none finds at any. None for other metrics.
        judge: says in a sentence what all scores of an arm, by name, mean by themselves, for a task that does
            not compare its arms with `real`; it also gets whether the arm's synthetic volumes are derived
            from training volumes, None for not known. A board shows it as the verdict.
        criterion: what cards list it under; empty for none.

    Raises:
        ValueError: when only one of `outcomes` and `resample` is given.
    """

    name: str
    title: str
    direction: Direction
    unit: str = ""
    version: int = 1
    headline: bool = False
    distance: bool = False
    outcomes: Outcomes | None = None
    resample: Resample | None = None
    find: Find | None = None
    judge: Judge | None = None
    criterion: Criterion = ""

    def __post_init__(self) -> None:
        if (self.outcomes is None) != (self.resample is None):
            raise ValueError(f"metric {self.name} needs both of `outcomes` and `resample`, or neither")

    @property
    def heading(self) -> str:
        """Title, unit and direction."""
        return heading(self.title, self.unit, self.direction)

    def describe(self) -> dict[str, Any]:
        """Make the part of the declaration that a record keeps, as JSON values."""
        kept = ("title", "unit", "direction", "version", "headline", "distance")
        table = None if self.outcomes is None else self.outcomes.name
        return {**{name: getattr(self, name) for name in kept}, "outcomes": table}

    def better(self, difference: Number) -> Number:
        """Sign a difference from real data so that + is better; for a target nothing is better than 0."""
        if self.direction == "higher":
            return difference
        return 0 - (abs(difference) if self.direction == "target" else difference)  # 0 stays 0, not -0

    def compare(self, difference: float, baseline: str) -> str:
        """Say in words how a value differs from the baseline's.

        Args:
            difference: the value less the baseline's.
            baseline: the arm of real data, by its name.
        """
        unit = f" {self.unit}" if self.unit else ""
        if self.direction == "higher":
            return f"{number(difference, '+')}{unit} {self.title} over {baseline}"
        size = number(abs(difference))
        if self.distance:
            where = "further from" if difference >= 0 else "nearer to"
            return f"{size} {where} real than {baseline} data are"
        place = f"{self.title} {size}{unit} {'above' if difference >= 0 else 'below'} {baseline}"
        if self.direction == "target":
            return place
        return f"{place} ({'better' if difference < 0 else 'worse'})" if difference else place


@dataclass(frozen=True)
class Standing:
    """A score's interval, and its place among what real data score against other real data: the floor.

    Attributes:
        low: lower end of the score's 95 % interval.
        high: upper end.
        floor: median of the floor's draws.
        floor_low: their 2.5th percentile.
        floor_high: their 97.5th.
        percentile: share of the draws below the score, 0 to 100; equal ones count half.
    """

    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float
    percentile: float

    def describe(self) -> dict[str, float]:
        """Make the part of a record that keeps it, as JSON values."""
        return asdict(self)


def heading(title: str, unit: str, direction: str) -> str:
    """Join a metric's title with its unit and an arrow for its direction."""
    return " ".join([title, *([f"({unit})"] if unit else []), ARROWS[direction]])


def number(value: float, sign: str = "", like: float | None = None) -> str:
    """Format a number with two decimals, or with two significant digits where it is smaller than 0.01.

    Args:
        value: the number.
        sign: `+` to show it also above 0.
        like: the number whose decimals it gets, such as the one whose interval it ends; itself when None.
    """
    size = abs(value if like is None else like)
    decimals = 1 - math.floor(math.log10(size)) if 0 < size < 0.01 else 2
    return f"{value:{sign}.{decimals}f}"
