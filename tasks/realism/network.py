"""C2ST by a CNN, its interval, and its place on a floor of few draws: each draw trains networks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none

from dbtbench.metric import Standing
from dbtbench.metrics.c2st_cnn import separate_by_cnn
from dbtbench.metrics.classification import auroc
from dbtbench.metrics.resampling import draw_weights, patients
from dbtbench.runtime.progress import progress

from .floor import LEVEL, draw_floor
from .matching import label_strata
from .scoring import SMALLEST, Scores, Sides
from .table import Table

NAME = "c2st_cnn"
DRAWS = 10
"""Of the floor, at most. Their 95 % are those of Student's t for one more draw, not percentiles."""
REPLICATES = 1000


def score_by_cnn(sides: Sides) -> Scores:
    """Compute the area under the ROC curve of the networks; NaN with fewer than 8 volumes on a side."""
    return {NAME: _separate(sides, 0)[0]}


def stand_by_cnn(
    sides: Sides, pool: Table, matched: str, mix: tuple[tuple[str, int], ...], draws: int, seed: int
) -> tuple[float, Standing | None]:
    """Compute the score of the networks, and place it on a floor of at most 10 draws.

    The interval is a bootstrap of patients of the scores that volumes got from networks which had not seen
    them. The floor's 95 % are those in which one more draw would lie if draws are normal.

    Args:
        sides: what is compared.
        pool: the real volumes that the floor is drawn from.
        matched: what is matched.
        mix: how many of each stratum either side has.
        draws: how many at most; 0 for no floor.
        seed: of the draws and the bootstrap.

    Returns:
        The score, and its standing; None where there is no floor.
    """
    value, interval = _separate(sides, seed, REPLICATES if draws else 0)
    if not draws or not np.isfinite(value):
        return value, None
    drawn = _draw_floor(pool, matched, mix, min(draws, DRAWS), seed)
    if len(drawn) < 2:
        return value, None
    law = scipy.stats.t(len(drawn) - 1, np.mean(drawn), np.std(drawn, ddof=1) * (1 + 1 / len(drawn)) ** 0.5)
    low, high = (float(np.clip(end, 0, 1)) for end in law.ppf(np.divide(LEVEL, 100)))
    return value, Standing(*interval, float(np.mean(drawn)), low, high, float(100 * law.cdf(value)))


@lru_cache(maxsize=1)
def _draw_floor(
    pool: Table, matched: str, mix: tuple[tuple[str, int], ...], draws: int, seed: int
) -> tuple[float, ...]:
    """Draw the floor; once for all arms of an evaluation."""
    strata = label_strata(pool.cases, matched)
    with progress("floor of the CNN", draws, "draws") as advance:
        table = draw_floor(pool, strata, dict(mix), draws, seed, score_by_cnn, advance)
    return tuple(table[NAME].dropna())


def _separate(sides: Sides, seed: int, replicates: int = 0) -> tuple[float, tuple[float, float]]:
    """Train the networks: the area, and its interval where replicates are drawn."""
    own, real = sides.own, sides.reference
    nothing = float("nan"), (float("nan"), float("nan"))
    if min(len(own), len(real)) < SMALLEST:
        return nothing
    outcomes = separate_by_cnn(
        own.windows[own.places], real.windows[real.places], own.patients, real.patients
    )
    if outcomes is None:
        return nothing
    names = patients(outcomes)
    value = float(auroc(outcomes, np.ones((1, len(names))))[0])
    if not replicates:
        return value, nothing[1]
    drawn = auroc(outcomes, draw_weights(len(names), replicates, np.random.default_rng([seed, 4])))
    low, high = np.nanpercentile(drawn, LEVEL)
    return value, (float(low), float(high))
