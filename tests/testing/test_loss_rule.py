"""The rule of `score_volumes`: each of its parts is seen to fail on a generator that breaks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.generator import Generator, Layout, Sample
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.testing import CheckFailed
from dbtbench.testing.generators import RULES, GeneratorBench


class Scoring(Generator[Recipe]):
    """Scores volumes by their distance to the mean, at two levels of noise that follows from the volume."""

    recipe_class = Recipe

    def fit(self, train: DBTDataset, run: Run) -> None:
        self.mean = float(train.volumes().mean())

    def sample(self, layouts: Sequence[Layout]) -> Iterator[Sample]:
        raise NotImplementedError

    def score_volumes(self, volumes: DBTDataset) -> Any:
        return np.array([self.rate(volumes, row) for row in range(len(volumes))])

    def rate(self, volumes: DBTDataset, row: int) -> list[float]:
        seed = int(volumes.cases["sha256"].iloc[row][:8], 16)
        noise = np.random.default_rng(seed).standard_normal(2)
        volume = volumes.volumes([volumes.cases["case"].iloc[row]])
        return [float(np.mean((volume + level - self.mean) ** 2)) for level in noise]


class ScoresByChance(Scoring):
    """Draws noise from the global random numbers."""

    def rate(self, volumes: DBTDataset, row: int) -> list[float]:
        return [*super().rate(volumes, row), float(np.random.random())]  # noqa: NPY002


class ScoresByPlace(Scoring):
    """Draws noise by a volume's place in the data set."""

    def rate(self, volumes: DBTDataset, row: int) -> list[float]:
        return [x + row for x in super().rate(volumes, row)]


class ScoresSorted(Scoring):
    """Gives losses from low to high, whatever the order of volumes."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        return np.sort(super().score_volumes(volumes), axis=0)


class ScoresCentred(Scoring):
    """Subtracts the mean of the volumes that are scored together."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        losses = super().score_volumes(volumes)
        return losses - losses.mean(axis=0)


class ScoresEachTime(Scoring):
    """Counts how often it was asked."""

    asked = 0

    def score_volumes(self, volumes: DBTDataset) -> Any:
        self.asked += 1
        return super().score_volumes(volumes) + self.asked


class ScoresFlat(Scoring):
    """Gives one number for each volume, without an axis of levels."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        return super().score_volumes(volumes)[:, 0]


class ScoresTheMean(Scoring):
    """Gives one row for all volumes."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        return super().score_volumes(volumes).mean(axis=0, keepdims=True)


class ScoresAList(Scoring):
    """Gives a list."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        return super().score_volumes(volumes).tolist()


class ScoresNaN(Scoring):
    """Gives NaN for one volume."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        losses = super().score_volumes(volumes)
        losses[-1, 0] = np.nan
        return losses


class CannotScore(Scoring):
    """Raises while it scores."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        raise ValueError("no loss")


class Silent(Scoring):
    """Has no scores."""

    def score_volumes(self, volumes: DBTDataset) -> Any:
        return None


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ScoresByChance, "other losses when volumes are scored again"),
        (ScoresEachTime, "other losses when volumes are scored again"),
        (ScoresByPlace, "other losses when volumes are scored in reverse order"),
        (ScoresSorted, "other losses when volumes are scored in reverse order"),
        (ScoresCentred, "other losses when volumes are scored alone"),
        (ScoresFlat, r"a ndarray of shape \(5,\) for 5 volumes"),
        (ScoresTheMean, r"a ndarray of shape \(1, 2\) for 5 volumes"),
        (ScoresAList, "a list for 5 volumes"),
        (ScoresNaN, "losses that are not finite numbers"),
        (CannotScore, "ValueError: no loss"),
    ],
)
def test_losses_that_are_wrong_fail_with_a_sentence(
    cls: type[Generator[Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckFailed, match=message) as caught:
        RULES.check("losses", GeneratorBench(cls, tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize(("cls", "remark"), [(Scoring, None), (Silent, "it does not claim to score volumes")])
def test_losses_that_follow_from_the_volume_pass(
    cls: type[Generator[Any]], remark: str | None, tmp_path: Path
) -> None:
    bench = GeneratorBench(cls, tmp_path)
    assert RULES.rules["losses"](bench) == remark
