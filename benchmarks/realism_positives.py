"""Planted faults, and what the realism task says of them: `python benchmarks/realism_positives.py DATASET`.

The training volumes of a data set that the task would measure for `real` are changed, one fault at a time,
and scored against the test split. Prints a table of scores with their percentiles among 200 draws of real
volumes against real volumes, as Markdown; bold lies outside of 95 % of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.geometry.views import Volume
from dbtbench.task import Arm
from dbtbench.tasks.realism import Realism, RealismRecipe
from dbtbench.tasks.realism.floor import draw_floor, stand
from dbtbench.tasks.realism.matching import label_strata
from dbtbench.tasks.realism.metrics import METRICS
from dbtbench.tasks.realism.scoring import Sides, score
from dbtbench.tasks.realism.table import measure_arrays

DRAWS = 200


def blur(volumes: Volume) -> Volume:
    """A Gaussian of half a pixel, in all directions."""
    return np.asarray(ndimage.gaussian_filter(volumes, (0, 0, 0.5, 0.5, 0.5)), np.float32)


def add_noise(volumes: Volume) -> Volume:
    """White noise of a hundredth of the window, in the breast."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=volumes.shape)
    return np.where(volumes < 0.03, volumes, volumes + noise).clip(0, 1).astype(np.float32)


def change_gamma(volumes: Volume) -> Volume:
    """Intensities to the power of 0.9."""
    return np.asarray(volumes**0.9, np.float32)


def turn(volumes: Volume) -> Volume:
    """A quarter turn; its boxes stay where they were."""
    return np.ascontiguousarray(np.rot90(volumes, axes=(3, 4)))


def shuffle_slices(volumes: Volume) -> Volume:
    """Slices in another order: each is real, and their sequence is not."""
    return np.ascontiguousarray(volumes[:, :, np.random.default_rng(0).permutation(volumes.shape[2])])


def repeat(volumes: Volume) -> Volume:
    """The first volume, again and again."""
    return np.repeat(volumes[:1], len(volumes), axis=0)


FAULTS: dict[str, Callable[[Volume], Volume]] = {
    **{"none": np.array, "blur, 0.5 pixels": blur, "noise, 0.01": add_noise, "gamma 0.9": change_gamma},
    **{"quarter turn": turn, "slices shuffled": shuffle_slices, "one volume": repeat},
}


def compare(folder: str) -> pd.DataFrame:
    """Score each fault: one column for each, one row for each metric."""
    real = DBTDataset.open(folder)
    train = real.select("train")
    measured = Realism(RealismRecipe())._measure(Arm("real", real, train), 0)
    strata, mix = label_strata(measured.pool.cases, measured.matched), measured.mix
    floor = draw_floor(measured.pool, strata, mix, DRAWS, 0, score, lambda _=1: None)
    keys = pd.MultiIndex.from_frame(measured.sides.own.cases[KEY])
    own = train.take(pd.MultiIndex.from_frame(train.cases[KEY].astype(str)).isin(keys))
    volumes, boxes = own.volumes(), [own.boxes_of(case) for case in own.cases["case"]]
    columns = {}
    for name, change in FAULTS.items():
        views = list(own.cases["View"])
        table = measure_arrays(
            change(volumes), boxes, "", views[:1] * len(views) if change is repeat else views
        )
        scores = score(Sides(table, measured.sides.reference, measured.sides.reference))
        placed = stand(scores, floor, floor)
        cells = {}
        for metric, standing in placed.items():
            outside = "**" * (not 2.5 <= standing.percentile <= 97.5)
            cells[metric] = f"{outside}{scores[metric]:.3g} P{standing.percentile:.0f}{outside}"
        columns[name] = cells
    return pd.DataFrame(columns).loc[[m.name for m in METRICS if m.name in columns["none"]]]


def markdown(table: pd.DataFrame) -> str:
    """Format a table as Markdown."""
    lines = [["metric", *table.columns], ["---"] * (1 + table.shape[1])]
    lines += [[f"`{name}`", *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(markdown(compare(sys.argv[1])) + "\n")
