"""Membership inference on the generator that drew an arm's volumes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from dbtbench import plugins
from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.errors import UsageError
from dbtbench.metrics.membership import bootstrap, membership_score
from dbtbench.runtime.progress import log
from dbtbench.task import Arm

from .metrics import METRICS

NAMES = tuple(metric.name for metric in METRICS if metric.name.startswith("membership_"))


def choose_alike(train: DBTDataset, test: DBTDataset, n: int, seed: int) -> list[DBTDataset]:
    """Choose as many volumes of each split, at most n, with and without lesions in equal numbers.

    Lesions are harder to describe than tissue: a split with more of them would pass for the unknown one.
    """
    rng = np.random.default_rng(seed)
    counts = np.array([np.bincount(side.positive, minlength=2) for side in (train, test)]).min(axis=0)
    total = min(n, counts.sum())
    lesions = round(total * counts[1] / max(1, counts.sum()))
    chosen = []
    for side in (train, test):
        rows = [
            rng.permutation(np.flatnonzero(side.positive == positive))[:number]
            for positive, number in ((False, total - lesions), (True, lesions))
        ]
        chosen.append(side.take(np.isin(np.arange(len(side)), np.concatenate(rows))))
    return chosen


def infer_membership(arm: Arm, volumes: int, seed: int) -> tuple[dict[str, float], pd.DataFrame | None]:
    """Let the generator score training and test volumes.

    Args:
        arm: the arm.
        volumes: how many of either, at most (`choose_alike`).
        seed: of their choice, and of the bootstrap.

    Returns:
        The scores, NaN where the arm has no generator that can score volumes; and one row a volume with its
        losses, or None.

    Raises:
        UsageError: when the generator does not give finite losses, (N, levels).
    """
    from dbtbench.pipeline.fitted import find_fitted

    nothing = dict.fromkeys(NAMES, math.nan)
    if not arm.synthetic or not volumes:
        return nothing, None
    generator = find_fitted(arm.synthetic[0], arm.real)
    if generator is None:
        return nothing, None
    sides = choose_alike(arm.real.select("train"), arm.real.select("test"), volumes, seed)
    if not len(sides[0]):
        log.info("training and test volumes have nothing in common: no membership inference")
        return nothing, None
    losses = []
    for side in sides:
        name = str(arm.synthetic[0].meta["source"]["generator"])
        with plugins.blame("generators", name):
            found = generator.score_volumes(side)
        if found is None:
            log.info(f"{name} cannot score volumes: no membership inference")
            return nothing, None
        if found.ndim != 2 or len(found) != len(side) or not np.isfinite(found).all():
            raise UsageError(
                f"generator {name}: score_volumes gave {found.shape} numbers for {len(side)} volumes",
                "(volumes, levels), all finite",
            )
        losses.append(found)
    joined = np.concatenate(losses)
    table = pd.concat([side.cases[KEY] for side in sides], ignore_index=True)
    table["positive"] = np.repeat([1, 0], [len(side) for side in sides])
    table["Score"] = membership_score(joined)
    for level, column in enumerate(joined.T):
        table[f"loss_{level}"] = column
    scores = {
        f"membership_{name}{end}": value
        for name, values in bootstrap(table, seed).items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }
    return scores, table
