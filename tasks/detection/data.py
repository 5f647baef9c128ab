"""What the detector is shown at each step, and what it says in native coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.boxes import to_native
from dbtbench.data.dataset import KEY, Boxes, DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.metrics.froc import MINIMUM_DISTANCE
from dbtbench.task import Arm

GEOMETRY = ["X", "Width", "Y", "Height", "Z", "Depth"]
PREDICTION_COLUMNS = [*KEY, *GEOMETRY, "Score"]

MATCH_MM = 10.0
"""The DBTex rule's 100 pixels, in mm, for data that say how large their pixels are."""


@dataclass(frozen=True)
class Pool:
    """Cases of one data set, all with lesions or all without, in a random order that the seed fixes.

    Attributes:
        dataset: where they are.
        cases: their numbers.
        key: seed of the order.
    """

    dataset: DBTDataset
    cases: NDArray[np.int64]
    key: tuple[int, ...]

    def draw(self, first: int, last: int) -> list[int]:
        """Draws `first` to `last` of an endless sequence: all cases shuffled, and again, and again."""
        return [self._case(number) for number in range(first, last)]

    def _case(self, number: int) -> int:
        epoch, place = divmod(number, len(self.cases))
        order = np.random.default_rng([*self.key, epoch]).permutation(len(self.cases))
        return int(self.cases[order[place]])


class Batches:
    """The batch of every step: a pure function of the arm's data, the seed and the step.

    A fixed share of the volumes has lesions, and a fixed share of each kind is synthetic where the arm has
    synthetic volumes of that kind. Where a share is no whole number of volumes, it holds over the steps.
    Every arm goes through the real cases in the same order.

    Args:
        arm: real data, of which the training split is used, and synthetic data, used whole.
        batch: volumes a step.
        positive_share: share with lesions.
        synthetic_share: share of synthetic volumes.
        seed: seed of the order.

    Raises:
        MissingError: when no real training volume has a lesion.
        UsageError: when real and synthetic volumes are on different grids.
    """

    def __init__(
        self, arm: Arm, batch: int, positive_share: float, synthetic_share: float, seed: int
    ) -> None:
        self.batch, self.positive_share, self.synthetic_share = batch, positive_share, synthetic_share
        train = arm.real.select("train")
        if train.boxes.empty:
            raise MissingError(
                f"no training volume of {arm.real.name} has a lesion",
                "import a data set whose boxes are known",
            )
        if arm.synthetic is not None and arm.synthetic.grid != arm.real.grid:
            raise UsageError(
                f"{arm.synthetic.name} has the grid {arm.synthetic.grid}, {arm.real.name} {arm.real.grid}",
                "sample or import one of them on the other's grid",
            )
        sources = [train] if arm.synthetic is None else [train, arm.synthetic]
        self.pools = [
            Pool(source, _cases(source, lesions), (seed, number, int(lesions)))
            for number, source in enumerate(sources)
            for lesions in (True, False)
        ]

    def _drawn(self, step: int) -> list[int]:
        """How many volumes of each pool are used before a step."""
        total = step * self.batch
        positives = _whole(total * self.positive_share) if len(self.pools[1].cases) else total
        drawn = [positives, total - positives]
        if len(self.pools) == 2:
            return drawn
        synthetic = [
            _whole(n * self.synthetic_share) if len(pool.cases) else 0
            for n, pool in zip(drawn, self.pools[2:], strict=True)
        ]
        return [n - m for n, m in zip(drawn, synthetic, strict=True)] + synthetic

    def cases(self, step: int) -> list[tuple[DBTDataset, list[int]]]:
        """Which cases a step uses, by pool: real with and without lesions, then synthetic."""
        before, after = self._drawn(step), self._drawn(step + 1)
        return [
            (pool.dataset, pool.draw(first, last))
            for pool, first, last in zip(self.pools, before, after, strict=True)
        ]

    def read(self, step: int, part: slice, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Some rows of a step's batch.

        Volumes are read when they are needed (a tenth of a step's time): splits may have any size.

        Returns:
            (N, 1, D, H, W) volumes, and for each (n, 6) boxes.
        """
        rows = [(dataset, case) for dataset, cases in self.cases(step) for case in cases][part]
        volumes = np.concatenate([dataset.volumes([case]) for dataset, case in rows])
        boxes = [torch.from_numpy(dataset.boxes_of(case)).to(device) for dataset, case in rows]
        return torch.from_numpy(volumes).to(device), boxes


def _cases(dataset: DBTDataset, lesions: bool) -> NDArray[np.int64]:
    has = dataset.cases["case"].isin(dataset.boxes["case"])
    return np.asarray(dataset.cases.loc[has == lesions, "case"], np.int64)


def _whole(share: float) -> int:
    """Largest whole number not above a share, forgiving the rounding of a product such as 30 · 0.1."""
    return int(share + 1e-9)


def native_predictions(test: DBTDataset, found: Sequence[tuple[Boxes, NDArray[np.float32]]]) -> pd.DataFrame:
    """Detections in the DBTex columns and in coordinates of the original volumes as displayed.

    Args:
        test: the volumes.
        found: for each its boxes (n, 6) in voxels of the grid and their scores (n,).

    Returns:
        One row a box (`PREDICTION_COLUMNS`), rounded to six significant digits at most, as `predictions.csv`
        is: the file scored again gives the same.
    """
    tables = []
    for (_, case), (boxes, scores) in zip(test.cases.iterrows(), found, strict=True):
        size = int(case["slices"]), int(case["rows"]), int(case["columns"])
        table = to_native(boxes, size, test.grid)
        tables.append(table.assign(Score=scores.astype(float), **{name: case[name] for name in KEY}))
    return pd.concat(tables, ignore_index=True)[PREDICTION_COLUMNS].round(
        {"Score": 6} | dict.fromkeys(GEOMETRY, 2)
    )


def match_distances(test: DBTDataset) -> NDArray[np.float64]:
    """How far from each box's centre a detection still hits it, at least.

    DBTex accepts 100 pixels, about 10 mm. Data with other pixels accept 10 mm; data that do not tell their
    pixel size are taken to have DBTex's.

    Returns:
        Native pixels, one number a row of `test.boxes`.
    """
    pixel_mm = test.boxes["case"].map(test.cases.set_index("case")["pixel_mm"])
    distances: NDArray[np.float64] = (MATCH_MM / pixel_mm).fillna(MINIMUM_DISTANCE).to_numpy(np.float64)
    return distances
