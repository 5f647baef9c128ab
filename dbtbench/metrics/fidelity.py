"""Fidelity and coverage of a set of feature vectors by nearest neighbours in the reference."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy  # its parts are imported when they are used: `dbtbench show` uses none
from numpy.typing import ArrayLike, NDArray

NEIGHBOURS = 5

Floats = NDArray[np.float64]


def fidelity_and_coverage(features: ArrayLike, reference: ArrayLike, k: int = NEIGHBOURS) -> dict[str, float]:
    """Compute precision, recall, density, coverage, and clipped density and coverage.

    A ball around a vector reaches to its k-th neighbour in its own set.

    Args:
        features: (N, F) of the set to judge, standardised.
        reference: (M, F) of real volumes.
        k: neighbours; more than this many are needed in both.

    Returns:
        `precision`: share of the set that lies in a ball of the reference;
        `recall`: share of the reference that lies in a ball of the set;
        `density`: in how many balls of the reference one of the set lies, over k; can exceed 1;
        `coverage`: share of the reference whose ball holds one of the set;
        `clipped_density`: as density, with balls no larger than the median one, none of the set counting
        more than 1, over what the reference reaches itself; at most 1;
        `clipped_coverage`: how many of the set's N would have to be real for the reference's balls to be as
        full as they are, k counting as full, over N.
        All NaN with k or fewer vectors in one set.

    Source: Kynkäänniemi T et al. Improved precision and recall metric for assessing generative models.
    NeurIPS 2019. Naeem MF et al. Reliable fidelity and diversity metrics for generative models. ICML 2020.
    Salvy N, Talbot H, Thirion B. Enhanced generative model evaluation with clipped density and coverage.
    arXiv:2507.01761, ICLR 2026.
    """
    x, y = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    names = ("precision", "recall", "density", "coverage", "clipped_density", "clipped_coverage")
    if min(len(x), len(y)) <= k:
        return dict.fromkeys(names, float("nan"))
    between, within = scipy.spatial.distance.cdist(y, x), scipy.spatial.distance.cdist(y, y)
    np.fill_diagonal(within, np.inf)
    radius, own_radius = _kth(within, k), _kth_of_own(x, k)
    held = between <= radius[:, None]
    small = np.minimum(radius, np.median(radius))[:, None]
    of_set, of_real = (
        np.minimum((distances <= small).sum(axis=0) / k, 1).mean() for distances in (between, within)
    )
    full = np.minimum(held.sum(axis=1) / k, 1).mean()
    expected = expected_coverage(len(x), len(y), k)
    return {
        "precision": float(held.any(axis=0).mean()),
        "recall": float((between <= own_radius).any(axis=1).mean()),
        "density": float(held.sum(axis=0).mean() / k),
        "coverage": float(held.any(axis=1).mean()),
        "clipped_density": float(min(of_set / of_real, 1)) if of_real else float("nan"),
        "clipped_coverage": float(np.interp(full, expected, np.arange(len(expected)) / len(x))),
    }


@lru_cache(maxsize=8)
def expected_coverage(drawn: int, reference: int, k: int) -> Floats:
    """Expect how full balls are, if 0, 1, … `drawn` vectors come from the reference's distribution.

    The share of a distribution that lies in a ball to the k-th of M − 1 neighbours is Beta(k, M − k), so that
    the number of m drawn that do is beta-binomial, whatever the distribution.

    Returns:
        (drawn + 1,) float64, ascending: the mean of min(number, k) / k.
    """
    m = np.arange(1, drawn + 1)
    full = sum(scipy.stats.betabinom.sf(number, m, k, reference - k) for number in range(k)) / k
    return np.concatenate([[0.0], np.maximum.accumulate(np.asarray(full))])


def _kth(distances: Floats, k: int) -> Floats:
    return np.asarray(np.partition(distances, k - 1, axis=1)[:, k - 1])


def _kth_of_own(vectors: Floats, k: int) -> Floats:
    within = scipy.spatial.distance.cdist(vectors, vectors)
    np.fill_diagonal(within, np.inf)
    return _kth(within, k)
