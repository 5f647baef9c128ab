"""The floor: what real volumes score against real volumes of other patients, drawn many times.

A score is placed among these draws, and has an interval from random halves of its patients. Such a half has
no volume twice, which neighbours, pairs and a classifier would mistake for a copy; the variance of what is
computed on it is that of a bootstrap.

Source: Wu CFJ. Jackknife, bootstrap and other resampling methods in regression analysis. Annals of Statistics
14(4):1261–1295, 1986 (the delete-half jackknife).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.metric import Standing
from dbtbench.runtime.progress import Advance

from .matching import Mix, Rows, halve
from .metrics import find_bounds
from .scoring import ENOUGH, Scores, Sides
from .table import Table

Score = Callable[[Sides], Scores]
LEVEL = (2.5, 97.5)


def draw_floor(
    pool: Table, strata: NDArray[np.str_], mix: Mix, draws: int, seed: int, score: Score, advance: Advance
) -> pd.DataFrame:
    """Score real volumes against real volumes without a patient in common.

    Args:
        pool: real volumes.
        strata: (N,) of each.
        mix: how many of each stratum either side has.
        draws: how many times.
        seed: of the draws.
        score: the scores.
        advance: is called after each.

    Returns:
        A row for each draw, a column for each score.
    """
    rng = np.random.default_rng([seed, 1])
    rows = []
    for _ in range(draws):
        one, other = halve(pool.patients, strata, mix, rng)
        first, second = pool.take(one), pool.take(other)
        rows.append(score(Sides(first, second, second)))
        advance(1)
    return pd.DataFrame(rows)


def resample(sides: Sides, draws: int, seed: int, score: Score, advance: Advance) -> pd.DataFrame:
    """Score random halves of the patients of all sides; else as `draw_floor`."""
    rng = np.random.default_rng([seed, 2])
    rows = []
    for _ in range(draws):
        own, reference = (_half(table.patients, rng) for table in (sides.own, sides.reference))
        fitted = reference if sides.fitted is sides.reference else _half(sides.fitted.patients, rng)
        rows.append(score(sides.take(own, reference, fitted)))
        advance(1)
    return pd.DataFrame(rows)


def stand(scores: Mapping[str, float], floor: pd.DataFrame, halves: pd.DataFrame) -> dict[str, Standing]:
    """Place scores among the draws of the floor, with their intervals.

    The spread of the halves around their mean is laid around the score: small sets are further from anything,
    so that the mean of the halves is another one. A score that is not defined, or in fewer than half of the
    draws, has no standing.
    """
    found = {}
    for name, value in scores.items():
        drawn, around = (np.asarray(table[name].dropna(), np.float64) for table in (floor, halves))
        if not np.isfinite(value) or 2 * min(len(drawn), len(around)) < max(len(floor), len(halves)):
            continue
        low, high = (value + np.percentile(around, LEVEL) - around.mean()).clip(*find_bounds(name))
        below = np.sum(drawn < value) + np.sum(drawn == value) / 2
        floor_low, floor_high = np.percentile(drawn, LEVEL)
        found[name] = Standing(
            *map(float, (low, high, np.median(drawn), floor_low, floor_high, 100 * below / len(drawn)))
        )
    return found


def enough(sides: Sides) -> bool:
    """Test whether halves of both sides can be drawn, and places on the floor mean anything."""
    return min(len(sides.own), len(sides.reference)) >= ENOUGH


def _half(patients: NDArray[np.str_], rng: np.random.Generator) -> Rows:
    names, number = np.unique(patients, return_inverse=True)
    chosen = rng.permutation(len(names)) < (len(names) + 1) // 2
    return np.flatnonzero(chosen[number])
