"""Arms by name: what each trains on, and the controls without which a gain means nothing.

real                 the real training split alone: the floor
more-real[:SHARE]    the training split and (that share of) the split `reserve`: the ceiling, and the points
                     of the learning curve
NAME[:RATIO]         half of every batch is synthetic; RATIO synthetic volumes for each real training volume,
                     all that there are unless given
NAME+NAME[:RATIO]    half of every batch is synthetic, in equal parts from each
NAME:shuffled-boxes  control: the boxes of lesions are those of other synthetic volumes
NAME:normals-only    control: only its volumes without lesions: new images, but no new lesions
NAME:finetune        the synthetic volumes alone first, the real ones alone in the last third of the steps
NAME:synthetic-only  the synthetic volumes alone
                     each of these also as NAME+NAME[:RATIO]:…, in equal parts from each
chance               reference: random points in the breast, for a task that has it
blob                 reference: a filter for bright blobs
untrained            reference: the network with its initial weights
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.errors import DBTBenchError, MissingError, UsageError
from dbtbench.geometry.views import laterality, mirror_boxes
from dbtbench.pipeline.generate import find_augmentation
from dbtbench.runtime.progress import log
from dbtbench.task import (
    ALONE,
    BASELINE,
    CEILING,
    FINETUNE,
    NORMALS,
    PLACEBO,
    REFERENCES,
    SHUFFLED,
    Arm,
    ArmName,
)
from dbtbench.workspace import Workspace


def make_arm(workspace: Workspace, name: str, real: DBTDataset) -> Arm:
    """Make the arm of that name.

    Args:
        workspace: where synthetic data sets are.
        name: see above.
        real: the real data set.

    Raises:
        MissingError: when nothing was drawn, or too little, or the data set has no reserve.
        StaleError: when the generator saw another split than the one to be tested on.
        UsageError: for a name that no arm can have.
    """
    asked = ArmName.parse(name)
    train = real.select("train")
    if asked.source == BASELINE:
        return Arm(str(asked), real, train)
    if asked.source == PLACEBO:
        raise UsageError(
            f"there is no arm {PLACEBO} any more: it was a second draw of {BASELINE}",
            f"{BASELINE} has twice as many seeds instead; NAME:{NORMALS} is the placebo",
        )
    if asked.source == CEILING:
        return Arm(str(asked), real, _with_reserve(real, 1.0 if asked.ratio is None else asked.ratio))
    if asked.source in REFERENCES:
        return Arm(str(asked), real, real.take(np.zeros(len(real), bool)), reference=asked.source)
    added = tuple(_find(workspace, source, asked, real) for source in asked.sources)
    if asked.control == ALONE:
        return Arm(str(asked), real, added[0], added[1:])
    return Arm(str(asked), real, train, added, finetune=asked.control == FINETUNE)


def _find(workspace: Workspace, source: str, asked: ArmName, real: DBTDataset) -> DBTDataset:
    """Find the synthetic volumes of one of an arm's sources, as its ratio and control have them."""
    added = find_augmentation(workspace, source, real)
    if asked.ratio is not None:
        added = _first(added, round(asked.ratio * len(real.select("train"))), source, real)
    if asked.control == SHUFFLED:
        return with_shuffled_boxes(added)
    if asked.control == NORMALS:
        return _without_lesions(added)
    return added


def default_arms(
    workspace: Workspace, patterns: Sequence[str], augmentations: Sequence[str], real: DBTDataset
) -> list[Arm]:
    """Make the arms that a task runs when none are named.

    Args:
        workspace: where synthetic data sets are.
        patterns: the task's (`Task.arms`); `AUG` stands for each augmentation.
        augmentations: what `--aug` names; these must be there, while other arms are left out when the data
            cannot give them.
        real: the real data set.

    Raises:
        MissingError, StaleError, UsageError: as `make_arm`, for an augmentation.
    """
    names = [
        name
        for pattern in patterns
        for name in (
            [pattern.replace("AUG", aug) for aug in augmentations] if "AUG" in pattern else [pattern]
        )
    ]
    arms = []
    for name in dict.fromkeys(names):
        sources = name.split(":")[0].split("+")
        if len({*sources}) < len(sources):  # a pattern such as `classic+AUG`, for `classic` itself
            continue
        try:
            arms.append(make_arm(workspace, name, real))
        except DBTBenchError as error:
            if name in augmentations or name == BASELINE:
                raise
            log.info(f"without the arm {name}: {error}" + (f" ({error.hint})" if error.hint else ""))
    return arms


def _with_reserve(real: DBTDataset, share: float) -> DBTDataset:
    """Add a share of the reserve's patients to the training split; a larger share holds the smaller ones."""
    reserve = real.select("reserve").cases
    if reserve.empty:
        raise MissingError(
            f"{real.name} has no reserve of real volumes",
            "import it with --reserve SHARE, which sets a share of the training patients aside",
        )
    patients = sorted(reserve["PatientID"].unique(), key=lambda p: hashlib.sha256(p.encode()).hexdigest())
    chosen = patients[: round(share * len(patients))]
    return real.take((real.cases["split"] == "train") | real.cases["PatientID"].isin(chosen))


def _first(added: DBTDataset, n: int, source: str, real: DBTDataset) -> DBTDataset:
    if not 1 <= n <= len(added):
        raise MissingError(
            f"{added.name} has {len(added)} volumes where {n} are wanted",
            f"run `dbtbench generate {source} --data {real.name} --n {n}`",
        )
    return added.take(np.arange(len(added)) < n)


def _without_lesions(added: DBTDataset) -> DBTDataset:
    normal = added.take(~added.positive)
    if not len(normal):
        raise MissingError(
            f"{added.name} has no volume without lesions",
            "draw some: `dbtbench generate NAME --positives 0.5`",
        )
    return normal


def with_shuffled_boxes(dataset: DBTDataset) -> DBTDataset:
    """Give each volume with lesions the boxes of another one, mirrored if that is of the other side.

    Raises:
        UsageError: when there is no other.
    """
    sides = dataset.cases.set_index("case")["View"].map(laterality)
    order = np.random.default_rng(0).permutation(dataset.boxes["case"].unique())
    if len(order) < 2:
        raise UsageError(
            f"{dataset.name} has too few volumes with lesions to exchange their boxes", "draw more with --n"
        )
    old = dataset.boxes["case"]
    new = old.map(dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True)))
    boxes = dataset.boxes.assign(case=new)
    crossing = (old.map(sides) != new.map(sides)).to_numpy()
    boxes.loc[crossing, GRID_BOX] = mirror_boxes(boxes.loc[crossing, GRID_BOX].to_numpy(), dataset.grid[2])
    return replace(dataset, boxes=boxes)
