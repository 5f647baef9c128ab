"""Matching: sets of as many volumes, with the same mix of lesions and projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import projection
from dbtbench.layouts import draw_layouts

Rows = NDArray[np.int64]
Mix = Mapping[str, int]

OTHER = "\0"
"""A stratum that no row has."""
ENOUGH = 16
"""Fewer matched volumes than these, and a coarser match is tried."""
MIXED = ("lesion and projection", "lesion", "")
"""Properties that are matched, from the finest match to none."""


def label_strata(cases: pd.DataFrame, matched: str) -> NDArray[np.str_]:
    """Label each row by what is matched, from its columns `lesion` and `projection`."""
    names = [name for name in matched.split(" and ") if name]
    return np.array(["-".join(map(str, row)) for row in cases[names].to_numpy()], np.str_)


def describe_request(train: DBTDataset, most: int) -> pd.DataFrame:
    """Describe the volumes that `dbtbench generate` asks every generator for unless given otherwise.

    All rows of a board are matched with these, so that `real` has no more volumes than synthetic data sets.

    Args:
        train: the training split.
        most: volumes at most.

    Returns:
        One row for each, `projection` and `lesion`; none where the split has no volume with a lesion, or none
        without, and half of each cannot be asked for.
    """
    from dbtbench.pipeline.request import GenerationRequest

    if train.positive.all() or not train.positive.any():
        return pd.DataFrame(columns=["projection", "lesion"])
    asked = GenerationRequest
    layouts = draw_layouts(train, min(most, len(train)), asked.seed, asked.positives)
    rows = [(projection(layout.view), "yes" if len(layout.boxes) else "no") for layout in layouts]
    return pd.DataFrame(rows, columns=["projection", "lesion"])


def match(sides: Sequence[pd.DataFrame], most: int) -> tuple[str, dict[str, int]]:
    """Find the largest mix that each of several sets of volumes can give.

    Args:
        sides: rows of each set.
        most: volumes at most.

    Returns:
        The properties matched, and how many volumes of each stratum. Where the sets have too little in
        common, less is matched.
    """
    smallest = min(most, *map(len, sides))
    for matched in MIXED:
        counts = [pd.Series(label_strata(side, matched)).value_counts() for side in sides]
        common = pd.concat(counts, axis=1).min(axis=1, skipna=False).dropna().astype(int).sort_index()
        if common.sum() >= min(ENOUGH, smallest / 2):
            break
    return matched, _scale(common, most)


def _scale(counts: pd.Series, most: int) -> dict[str, int]:
    """Scale counts down to a sum, the largest remainders first."""
    if counts.sum() > most:
        exact = counts * most / counts.sum()
        counts = np.floor(exact).astype(int)
        left = (exact - counts).sort_values(ascending=False, kind="stable").index[: most - counts.sum()]
        counts[left] += 1
    return {str(name): int(count) for name, count in counts.items() if count}


def pick(strata: NDArray[np.str_], mix: Mix, rng: np.random.Generator, times: int = 1) -> Rows:
    """Pick rows at random so that they have a mix, or as many of each stratum as there are.

    Args:
        strata: (N,) of each row.
        mix: how many of each.
        rng: of the draw.
        times: pick so many times the mix.

    Returns:
        Numbers of rows, ascending.
    """
    found = [np.empty(0, np.int64)]
    for name, count in sorted(mix.items()):
        found.append(rng.permutation(np.flatnonzero(strata == name))[: times * count])
    return np.sort(np.concatenate(found))


def halve(
    patients: NDArray[np.str_], strata: NDArray[np.str_], mix: Mix, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Draw two sets of volumes without a patient in common, each with a mix, or both with the same less.

    Patients come in random order; each goes to the half that lacks more of what the patient has.
    """
    names = sorted(mix)
    wanted = np.array([mix[name] for name in names])
    who, number = np.unique(patients, return_inverse=True)
    has = np.zeros((len(who), len(names)), np.int64)
    for column, name in enumerate(names):
        np.add.at(has[:, column], number[strata == name], 1)
    lacks = np.stack([wanted, wanted])
    half = np.empty(len(who), np.int64)
    for patient in rng.permutation(len(who)):
        useful = np.minimum(np.maximum(lacks, 0), has[patient]).sum(axis=1)
        if useful[0] == useful[1]:
            useful = lacks.sum(axis=1)
        half[patient] = rng.integers(2) if useful[0] == useful[1] else int(useful[1] > useful[0])
        lacks[half[patient]] -= has[patient]
    each = [strata[half[number] == side] for side in (0, 1)]
    least = {name: min(mix[name], *(int((own == name).sum()) for own in each)) for name in names}
    first, second = (pick(np.where(half[number] == side, strata, OTHER), least, rng) for side in (0, 1))
    return first, second
