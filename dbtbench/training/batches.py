"""The batches of a task's network: real and synthetic volumes, with and without lesions.

The arms of a task differ in these and in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dbtbench.data.dataset import DBTDataset
from dbtbench.errors import MissingError, UsageError
from dbtbench.geometry.views import projection
from dbtbench.task import Arm
from dbtbench.training.augment import Changes, augment
from dbtbench.training.recipe import ArmRecipe

FINETUNED = 3
"""An arm that is fine-tuned trains on real volumes alone in the last of so many parts of its steps."""


@dataclass(frozen=True)
class Pool:
    """Cases of one data set, all with lesions or all without, in a random order that the seed fixes.

    Attributes:
        dataset: the data set.
        cases: numbers of the cases.
        key: seed of the order.
    """

    dataset: DBTDataset
    cases: NDArray[np.int64]
    key: tuple[int, ...]

    def draw(self, first: int, last: int) -> list[int]:
        """Draw numbers `first` to `last` of an endless sequence: all cases shuffled, again and again."""
        return [self._draw_one(number) for number in range(first, last)]

    def _draw_one(self, number: int) -> int:
        epoch, place = divmod(number, len(self.cases))
        order = np.random.default_rng([*self.key, epoch]).permutation(len(self.cases))
        return int(self.cases[order[place]])


class Batches:
    """The batch of every step: a pure function of the arm's data, the seed and the step.

    A fixed share of the volumes has lesions. Of each kind, with and without, a fixed share comes from what
    the arm adds, if that has volumes of the kind; in an arm without real volumes, equal parts from all
    sources that have any. A share that is no whole number of volumes a step holds over many steps. Every arm
    that trains on the same split goes through it in the same order.

    Args:
        arm: what to train on.
        batch: volumes a step.
        positive_share: share with lesions.
        added_share: share of what the arm adds.
        seed: seed of the order.
        steps: of the training; an arm that is fine-tuned changes over in their last third.
        augment: whether volumes are changed at every step (`training.augment`).

    Raises:
        MissingError: when no volume trained on has a lesion.
        UsageError: when what is trained on has another grid than the real data.
    """

    def __init__(
        self,
        arm: Arm,
        batch: int,
        positive_share: float,
        added_share: float,
        seed: int,
        steps: int,
        augment: bool = False,
    ) -> None:
        self.batch, self.positive_share, self.added_share = batch, positive_share, added_share
        self.augment = augment
        self.switch, self.first_share = 0, added_share
        if arm.finetune:
            self.switch, self.first_share, self.added_share = steps - steps // FINETUNED, 1.0, 0.0
        needed = [arm.train]
        if arm.equal:
            needed, self.first_share, self.added_share = arm.sources, 1.0, 1.0
        if all(source.boxes.empty for source in needed):
            raise MissingError(
                f"no training volume of {' or '.join(source.name for source in needed)} has a lesion",
                "import, or draw, a data set with lesions whose boxes are known",
            )
        for source in arm.sources:
            if source.grid != arm.real.grid:
                raise UsageError(
                    f"{source.name} has the grid {source.grid}, {arm.real.name} {arm.real.grid}",
                    "sample or import one of them on the other's grid",
                )
        self.pools = [
            Pool(source, _cases(source, lesions), (seed, number, int(lesions)))
            for number, source in enumerate(arm.sources)
            for lesions in (True, False)
        ]
        self.normal_pools = self.pools[1 : 2 * len(needed) : 2]
        self.first_added = 0 if arm.equal else 2

    @classmethod
    def of(cls, arm: Arm, recipe: ArmRecipe, seed: int) -> Batches:
        """Make the batches that a recipe asks for."""
        shares = recipe.positive_share, recipe.synthetic_share
        return cls(arm, recipe.batch, *shares, seed, recipe.steps, augment=recipe.augment)

    def _count_before(self, step: int) -> NDArray[np.int64]:
        """Count the volumes of each pool that the steps before this one use."""
        first = min(step, self.switch)
        return self._count(first, self.first_share) + (
            self._count(step, self.added_share) - self._count(first, self.added_share)
        )

    def _count(self, steps: int, share: float) -> NDArray[np.int64]:
        """Count the volumes of each pool in so many steps with this share of what is added."""
        total = steps * self.batch
        normal = any(len(pool.cases) for pool in self.normal_pools)
        positives = _round_down(total * self.positive_share) if normal else total
        counts = np.zeros(len(self.pools), np.int64)
        for kind, number in enumerate((positives, total - positives)):
            places = range(self.first_added + kind, len(self.pools), 2)
            added = [place for place in places if len(self.pools[place].cases)]
            filled = _round_down(number * share) if added else 0
            counts[kind] = number - filled
            for turn, place in enumerate(added):  # in equal parts; who comes first gets the odd one
                counts[place] = (filled + len(added) - 1 - turn) // len(added)
        return counts

    def cases(self, step: int) -> list[tuple[DBTDataset, list[int]]]:
        """List the cases of a step by pool: with and without lesions, then the same of what is added."""
        before, after = self._count_before(step), self._count_before(step + 1)
        return [
            (pool.dataset, pool.draw(int(first), int(last)))
            for pool, first, last in zip(self.pools, before, after, strict=True)
        ]

    def read(self, step: int, part: slice, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        """Read some rows of a step's batch, and change them where that is asked for.

        Volumes are read at every step (a tenth of its time), so splits may have any size.

        Args:
            step: number of the step, from 0.
            part: rows of the batch.
            generator: of the changes, which are drawn for the whole batch; it names the device.

        Returns:
            (N, 1, D, H, W) volumes, and for each (n, 6) boxes.
        """
        rows = [(dataset, case) for dataset, cases in self.cases(step) for case in cases][part]
        read = np.concatenate([dataset.volumes([case]) for dataset, case in rows])
        volumes = torch.from_numpy(read).to(generator.device)
        boxes = [torch.from_numpy(dataset.boxes_of(case)).to(generator.device) for dataset, case in rows]
        if not self.augment:
            return volumes, boxes
        changes = Changes.draw(self.batch, rows[0][0].grid, generator).part(part)
        return augment(volumes, boxes, [_is_upright(dataset, case) for dataset, case in rows], changes)


def _cases(dataset: DBTDataset, lesions: bool) -> NDArray[np.int64]:
    return np.asarray(dataset.cases.loc[dataset.positive == lesions, "case"], np.int64)


def _round_down(share: float) -> int:
    """Round a share down to a whole number, tolerating the rounding error of a product such as 30 · 0.1."""
    return int(share + 1e-9)


def _is_upright(dataset: DBTDataset, case: int) -> bool:
    view = dataset.cases.loc[dataset.cases["case"] == case, "View"].iloc[0]
    return projection(view) == "mlo"
