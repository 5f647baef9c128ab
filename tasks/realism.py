"""Histograms, contrast and diversity of an arm's volumes compared with the real test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import UsageError
from dbtbench.geometry.views import Boxes, Volume
from dbtbench.metric import Metric
from dbtbench.metrics import contrast, histogram
from dbtbench.metrics.arrays import stack_volumes
from dbtbench.metrics.mask import breast_mask
from dbtbench.recipe import Recipe
from dbtbench.runs import Run
from dbtbench.runtime.csv_text import csv_text
from dbtbench.runtime.files import write_text
from dbtbench.runtime.progress import Advance, progress
from dbtbench.task import Arm, Evaluation, Task

CHUNK = 32

INTENSITY = "intensity"
"""Unit of grey values: 1 is the whole window."""

METRICS = (
    Metric("w1_intensity", "W1 of intensities", "lower", INTENSITY, headline=True, distance=True),
    Metric("w1_breast", "W1 in the breast", "lower", INTENSITY, distance=True),
    Metric("air_mode_mass", "mass of the air mode", "target", "of voxels"),
    Metric("volume_mean_sd", "sd of the volume mean", "target", INTENSITY, headline=True),
    Metric("dip_whole", "dip", "target"),
    Metric("ashman_d_whole", "Ashman's D", "target"),
    Metric("bimodality_coefficient_whole", "bimodality coefficient", "target"),
    Metric("valley_depth_whole", "valley depth", "target", headline=True),
    Metric("dip_breast", "dip in the breast", "target"),
    Metric("ashman_d_breast", "Ashman's D in the breast", "target"),
    Metric("bimodality_coefficient_breast", "bimodality coefficient in the breast", "target"),
    Metric("valley_depth_breast", "valley depth in the breast", "target"),
    Metric("main_mode_breast", "main mode in the breast", "target", INTENSITY),
    Metric("rms_contrast", "RMS contrast", "target", INTENSITY, headline=True),
    Metric("rms_contrast_breast", "RMS contrast in the breast", "target", INTENSITY),
    Metric("percentile_range", "range of percentiles", "target", INTENSITY),
    Metric("michelson_breast", "Michelson contrast in the breast", "target"),
    Metric("lesion_cnr", "lesion CNR", "target", version=2, headline=True),
    Metric("lesion_contrast", "contrast of lesions in the plane", "target", INTENSITY),
    Metric("lesion_depth_distance", "distance of lesions in depth", "lower", INTENSITY, 2, distance=True),
    Metric("lesion_radius_distance", "distance of lesions in radius", "lower", INTENSITY, 2, distance=True),
)


class RealismRecipe(Recipe):
    """Settings of the realism task.

    Attributes:
        volumes: how many volumes of either side are compared, at most; always the same number of both.
    """

    volumes: int = Field(default=256, ge=1)


class Realism(Task[RealismRecipe]):
    """Measures an arm's volumes, and their distance to the real test split.

    For an augmentation its synthetic volumes are measured, for `real` the real training split, so that the
    scores of `real` are what real volumes reach against other real volumes. Lesions of an augmentation are
    compared with those of the training split, which its generator was fitted to, and those of `real` with the
    test split's. With shuffled boxes nothing changes but the contrast of lesions: inside the boxes of other
    volumes there should be none. See docs/metrics.md.
    """

    recipe_class = RealismRecipe
    metrics = METRICS
    seeds = 1
    arms = ("real", "AUG", "AUG:shuffled-boxes")

    def evaluate(self, arm: Arm, seed: int, run: Run) -> Evaluation:
        """Score one arm; also writes `histograms.csv` and `lesions.csv`, what is behind the scores.

        Raises:
            UsageError: when one side has no volumes, or the two have different grids.
        """
        own, real, lesions = self._measure_all(arm, seed)
        write_text(run.path / "histograms.csv", _histograms(own, real))
        write_text(run.path / "lesions.csv", _profiles(own, lesions))
        return _evaluation(own, real, lesions)

    def score(self, arm: Arm, seed: int, predictions: pd.DataFrame | None) -> Evaluation:
        """Measure the arm's data set again.

        Raises:
            UsageError: as `evaluate`.
        """
        return _evaluation(*self._measure_all(arm, seed))

    @staticmethod
    def compare(
        volumes: ArrayLike,
        reference: ArrayLike,
        boxes: Sequence[Boxes] = (),
        reference_boxes: Sequence[Boxes] = (),
    ) -> dict[str, float]:
        """Compute every metric of volumes in memory (see `dbtbench.measure_realism`)."""
        own, real = _Measurements(), _Measurements()
        own.add(stack_volumes(volumes), boxes)
        real.add(stack_volumes(reference), reference_boxes)
        return _scores(own, real, real)

    def _measure_all(self, arm: Arm, seed: int) -> tuple[_Measurements, _Measurements, _Measurements]:
        """Measure as many of the arm's volumes as of the real test split, and of lesions to compare with."""
        if len(arm.synthetic) > 1:
            raise UsageError(
                f"{arm.name} has several synthetic data sets",
                "realism measures one at a time: name each alone",
            )
        reference = arm.real.select("test")
        drawn = arm.sources[-1]
        _check(drawn, reference)
        n = min(self.recipe.volumes, len(drawn), len(reference))
        # As many volumes again, of which only those with lesions say anything here.
        train = _subsample(arm.real.select("train"), n, seed) if arm.synthetic else None
        fitted = None if train is None else train.take(train.positive)
        with progress(f"realism of {arm.name}", 2 * n + (0 if fitted is None else len(fitted))) as advance:
            own = _measure(_subsample(drawn, n, seed), advance)
            real = _measure(_subsample(reference, n, seed), advance)
            return own, real, real if fitted is None else _measure(fitted, advance)


@dataclass
class _Measurements:
    """Measurements on a set of volumes."""

    whole: histogram.Counts = field(default_factory=lambda: np.zeros(histogram.LEVELS, np.int64))
    breast: histogram.Counts = field(default_factory=lambda: np.zeros(histogram.LEVELS, np.int64))
    per_volume: list[pd.DataFrame] = field(default_factory=list)
    per_lesion: list[float] = field(default_factory=list)
    depth: list[contrast.Values] = field(default_factory=lambda: [np.empty((0, contrast.DEPTHS))])
    radius: list[contrast.Values] = field(default_factory=lambda: [np.empty((0, len(contrast.EDGES) - 1))])

    def add(self, volumes: Volume, boxes: Sequence[Boxes]) -> None:
        """Measure further volumes (N, 1, D, H, W), and their lesions if `boxes` has (n, 6) for each."""
        inside = breast_mask(volumes)
        self.whole += histogram.histogram(volumes)
        self.breast += histogram.histogram(volumes, inside)
        row = {
            "mean": volumes.mean(axis=(1, 2, 3, 4), dtype=np.float64),
            "rms_contrast": contrast.rms_contrast(volumes),
            "rms_contrast_breast": contrast.rms_contrast(volumes, inside),
            "percentile_range": contrast.percentile_range(volumes),
            "michelson_breast": contrast.michelson_contrast(volumes, inside),
        }
        self.per_volume.append(pd.DataFrame(row))
        if boxes:
            self.per_lesion.extend(contrast.lesion_cnr(volumes, inside, boxes))
            depth, radius = contrast.lesion_profiles(volumes, inside, boxes)
            self.depth.append(depth)
            self.radius.append(radius)


def _check(drawn: DBTDataset, reference: DBTDataset) -> None:
    for dataset, what in ((drawn, "volumes to measure"), (reference, "test volumes to compare with")):
        if not len(dataset):
            raise UsageError(f"{dataset.name} has no {what}", "import it with a split that has some")
    if drawn.grid != reference.grid:
        raise UsageError(
            f"{drawn.name} has the grid {drawn.grid}, {reference.name} has {reference.grid}",
            "sample, or import, on the real data set's grid",
        )


def _subsample(dataset: DBTDataset, n: int, seed: int) -> DBTDataset:
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:n]
    return dataset.take(np.isin(np.arange(len(dataset)), chosen))


def _measure(dataset: DBTDataset, advance: Advance) -> _Measurements:
    """Measure volumes a chunk at a time, so that memory does not grow with their number."""
    measured = _Measurements()
    cases = list(dataset.cases["case"])
    for start in range(0, len(cases), CHUNK):
        chunk = cases[start : start + CHUNK]
        measured.add(dataset.volumes(chunk), [dataset.boxes_of(case) for case in chunk])
        advance(len(chunk))
    return measured


def _evaluation(own: _Measurements, real: _Measurements, lesions: _Measurements) -> Evaluation:
    volumes = [sum(map(len, side.per_volume)) for side in (own, real)]
    counts = {"volumes": volumes[0], "reference_volumes": volumes[1], "boxes": len(own.per_lesion)}
    return Evaluation(_scores(own, real, lesions), counts)


def _scores(own: _Measurements, real: _Measurements, lesions: _Measurements) -> dict[str, float]:
    """Compute the distances to the reference, then the properties of the arm's own volumes.

    Args:
        own: the arm's volumes.
        real: the reference.
        lesions: whose lesions the arm's are compared with.
    """
    volumes = pd.concat(own.per_volume)
    scores = {
        "w1_intensity": histogram.wasserstein(own.whole, real.whole),
        "w1_breast": histogram.wasserstein(own.breast, real.breast),
        "air_mode_mass": histogram.air_mode_mass(own.whole),
        "volume_mean_sd": float(volumes["mean"].std(ddof=0)),
    }
    for place, counts in (("whole", own.whole), ("breast", own.breast)):
        scores |= {
            f"dip_{place}": histogram.dip(counts),
            f"ashman_d_{place}": histogram.ashman_d(counts),
            f"bimodality_coefficient_{place}": histogram.bimodality_coefficient(counts),
            f"valley_depth_{place}": histogram.valley_depth(counts),
        }
    scores["main_mode_breast"] = float(next(iter(histogram.modes(own.breast)), np.nan))
    # pandas leaves NaN out of a mean, and the mean of nothing is NaN.
    scores |= volumes.drop(columns="mean").mean().to_dict()
    depth, radius = np.concatenate(own.depth), np.concatenate(own.radius)
    return scores | {
        "lesion_cnr": float(pd.Series(own.per_lesion, dtype=float).mean()),
        "lesion_contrast": float(pd.Series(depth[:, 0]).mean()),
        "lesion_depth_distance": contrast.profile_distance(depth, np.concatenate(lesions.depth)),
        "lesion_radius_distance": contrast.profile_distance(radius, np.concatenate(lesions.radius)),
    }


def _profiles(own: _Measurements, reference: _Measurements) -> str:
    """Write mean contrasts of the lesions of both sides: by slices from the centre, and by half-axes."""
    radii = [(low + high) / 2 for low, high in pairwise(contrast.EDGES)]
    tables = []
    for name, places in (("depth", range(contrast.DEPTHS)), ("radius", radii)):
        sides = [
            pd.DataFrame(np.concatenate(getattr(side, name))).mean().to_numpy() for side in (own, reference)
        ]
        columns = {"profile": name, "at": [*map(float, places)], "arm": sides[0], "reference": sides[1]}
        tables.append(pd.DataFrame(columns))
    return csv_text(pd.concat(tables))


def _histograms(own: _Measurements, real: _Measurements) -> str:
    table = pd.DataFrame(
        {
            "bin": range(histogram.LEVELS),
            "intensity": histogram.CENTRES,
            "arm_whole": own.whole,
            "arm_breast": own.breast,
            "reference_whole": real.whole,
            "reference_breast": real.breast,
        }
    )
    return csv_text(table)
