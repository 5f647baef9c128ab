"""Nearest neighbours: thresholds, shares of copies with intervals, distance ratios and authenticity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Compare = Callable[[int], Floats]
"""`compare(i)`: the similarities of item i to the N training items, (N,), up to 1."""

LEVEL = 0.95
"""Of intervals."""


@dataclass(frozen=True)
class Neighbours:
    """Nearest training items of n items; a distance is 1 − similarity.

    Attributes:
        nearest: (n,) number of the nearest training item.
        similarity: (n,) to it.
        second: (n,) similarity to the nearest item of another patient than the nearest one's; -1 without one.
    """

    nearest: NDArray[np.int64]
    similarity: Floats
    second: Floats

    @property
    def ratio(self) -> Floats:
        """Distance to the nearest item over that to the nearest of another patient: 0 for a verbatim copy."""
        beyond = np.maximum(1 - self.second, 0)
        return np.divide(
            np.maximum(1 - self.similarity, 0), beyond, out=np.ones(len(beyond)), where=beyond > 0
        )


def find_neighbours(compare: Compare, n: int, patients: Sequence[str]) -> Neighbours:
    """Find the nearest training items of n items.

    Args:
        compare: similarities of one of them.
        n: how many there are.
        patients: of each training item.
    """
    of = np.asarray(patients)
    nearest, similarity, second = np.zeros(n, np.int64), np.zeros(n), np.full(n, -1.0)
    for row in range(n):
        found = compare(row)
        nearest[row] = int(np.argmax(found))
        similarity[row] = found[nearest[row]]
        second[row] = found[of != of[nearest[row]]].max(initial=-1.0)
    return Neighbours(nearest, similarity, second)


def choose_threshold(similarity: ArrayLike, share: float) -> float:
    """Choose the similarity above which at most a share of real items lies.

    With fewer than 1 / share items it is the largest of them.

    Args:
        similarity: (m,) of real items that nobody trained on, to their nearest training items.
        share: such as 0.01.

    Returns:
        The threshold; NaN without items.
    """
    ordered = np.sort(np.asarray(similarity, np.float64))[::-1]
    return float(ordered[int(share * len(ordered))]) if len(ordered) else float("nan")


def binomial_interval(count: int, n: int) -> tuple[float, float]:
    """Compute the exact 95 % interval of a share; NaN for none of none.

    Source: Clopper CJ, Pearson ES. Biometrika 26(4):404–413, 1934.
    """
    from scipy.stats import binomtest

    if not n:
        return float("nan"), float("nan")
    interval = binomtest(count, n).proportion_ci(LEVEL, "exact")
    return float(interval.low), float(interval.high)


def exceedance_p(count: int, n: int, above: int, m: int) -> float:
    """Compute the probability that as many of n fresh real items lie above a threshold, or more.

    The threshold is the item number `above` + 1 of m real ones, from the top, so that it has an error of its
    own. If all m + n items are exchangeable, the number of the n above it is beta-binomial: no assumption
    about the distribution of similarities is made, but items of one patient count as independent.

    Source: Gumbel EJ, von Schelling H. The distribution of the number of exceedances. Annals of Mathematical
    Statistics 21(2):247–262, 1950.

    Args:
        count: how many of the n lie above.
        n: number of items that are tested.
        above: how many of the m lie above.
        m: number of items that the threshold is of.

    Returns:
        One-sided p-value; NaN without items.
    """
    from scipy.stats import betabinom

    return float(betabinom(n, above + 1, m - above).sf(count - 1)) if n and m > above else float("nan")


def authenticity(own: Neighbours, compare: Compare, patients: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which items are authentic: further from their nearest training item than that from its own.

    The own nearest neighbour of a training item is that of another patient.

    Source: Alaa A, van Breugel B, Saveliev ES, van der Schaar M. How faithful is your synthetic data? ICML
    2022 (arXiv 2102.08921), in a similarity instead of an embedding.

    Args:
        own: nearest neighbours of the items.
        compare: similarities of training item i to all training items.
        patients: of each training item.

    Returns:
        (n,) bool.
    """
    of = np.asarray(patients)
    real = {int(i): compare(int(i))[of != of[i]].max(initial=-1.0) for i in np.unique(own.nearest)}
    return np.array([s < real[int(i)] for s, i in zip(own.similarity, own.nearest, strict=True)], bool)
