"""Real-data equivalents: how many more real patients or lesions give the same gain, by the learning curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dbtbench.leaderboard.variance import Estimate, Moments
from dbtbench.metrics.resampling import Floats

FEWEST_POINTS = 5
EXPONENTS = np.concatenate([[1e-3], np.arange(0.05, 3.01, 0.05)])
"""Of the power law; near 0 it is a straight line in log n."""
SMALLEST_SHARE = 1 / 64
"""Of the real data: the curve is followed down to it."""
GRID = 300


@dataclass(frozen=True)
class LearningCurve:
    """A power law a − b n^−c through the mean scores of arms of real data.

    For a given c it is linear in the scores, so that whatever is read off it is a contrast of arms. c is the
    one that fits best; its own uncertainty is not in the intervals.

    Source: Cortes C, Jackel LD, Solla SA, Vapnik V, Denker JS. Learning curves: asymptotic values and rate of
    convergence. NIPS 6:327–334, 1993; Viering T, Loog M. The shape of learning curves: a review. IEEE TPAMI
    45(6):7799–7819, 2023.

    Attributes:
        sizes: (K,) numbers of the arms, rising.
        exponent: c.
        hat: (2, K) that maps the scores to the curve's value at the first size, and its rise.
    """

    sizes: Floats
    exponent: float
    hat: Floats

    @classmethod
    def fit(cls, sizes: Floats, scores: Floats, seeds: Floats) -> LearningCurve:
        """Fit the curve by least squares, weighted by the numbers of seeds.

        Args:
            sizes: (K,) rising.
            scores: (K,) mean scores of the arms.
            seeds: (K,) their numbers of seeds.
        """
        fits = []
        for exponent in EXPONENTS:
            basis = _basis(sizes, sizes[0], exponent)
            hat = np.asarray(np.linalg.solve(basis.T * seeds @ basis, basis.T * seeds), np.float64)
            fits.append((float(seeds @ (scores - basis @ hat @ scores) ** 2), float(exponent), hat))
        _, exponent, hat = min(fits, key=lambda fit: fit[0])
        return cls(sizes, exponent, hat)

    def weights(self, sizes: Floats) -> Floats:
        """Give the weights (N, K) of the arms in the curve's value at N sizes."""
        return np.asarray(_basis(sizes, self.sizes[0], self.exponent) @ self.hat)

    def invert(self, score: float, scores: Floats) -> float:
        """Find the size at which the curve through `scores` (K,) reaches a score; infinite beyond its end."""
        start, rise = self.hat @ scores
        left = 1 - self.exponent * (score - start) / rise
        size = self.sizes[0] * left ** (-1 / self.exponent) if left > 0 else np.inf
        return float(size) if size <= self.sizes[-1] else np.inf


def _basis(sizes: Floats, first: float, exponent: float) -> Floats:
    """Make the columns 1 and (1 − (n / n₀)^−c) / c, which is log (n / n₀) where c is nearly 0."""
    return np.stack([np.ones_like(sizes), (1 - (sizes / first) ** -exponent) / exponent], axis=1)


def equivalents(moments: Moments, arms: list[str], sizes: Mapping[str, int]) -> dict[str, Estimate]:
    """Count what arms are worth in additional real data.

    An interval has all numbers n at which a t-test finds no difference of arm and curve (α = .05).

    Args:
        moments: of scores where higher is better, of all these arms.
        arms: which ones.
        sizes: how many patients (or lesions) each arm of real data trains on, the baseline's included.

    Returns:
        For each arm the additional number: negative below the baseline and infinite beyond the curve's end.
        Nothing with fewer than five sizes, or where the curve does not rise.
    """
    points = sorted((arm for arm in sizes if arm in moments.arms), key=lambda arm: sizes[arm])
    n = np.array([sizes[arm] for arm in points], np.float64)
    if len(np.unique(n)) < FEWEST_POINTS or n[0] <= 0:
        return {}
    at = [moments.arms.index(arm) for arm in points]
    scores = moments.means[at]
    curve = LearningCurve.fit(n, scores, moments.seeds[at])
    if not (curve.hat @ scores)[1] > 0:
        return {}
    grid = np.geomspace(n[0] * SMALLEST_SHARE, n[-1], GRID)
    found = {}
    for arm in arms:
        own = moments.select(arm)
        size = curve.invert(float(moments.means @ own), scores)
        tried = np.unique(np.clip(np.append(grid, size), grid[0], grid[-1]))
        on_curve = np.zeros((len(tried), len(moments.arms)))
        on_curve[:, at] = curve.weights(tried)
        value, _, half, _ = moments.test(own - on_curve)
        low, high = np.exp(_find_range(np.log(tried), np.abs(value) - half))
        if np.isfinite(half).all() and np.isnan(low):  # nowhere on the curve
            low = high = size
        found[arm] = Estimate(size - n[0], float(min(low, size) - n[0]), float(max(high, size) - n[0]))
    return found


def _find_range(at: Floats, excess: Floats) -> tuple[float, float]:
    """Find the range in which a test does not reject, by how much a value exceeds its limit at (N,) places.

    Returns:
        Its ends, interpolated; infinite where it reaches the end of the places, NaN where there is none.
    """
    inside = np.flatnonzero(excess <= 0)
    if not len(inside):
        return np.nan, np.nan
    first, last = inside[0], inside[-1]
    low = -np.inf if first == 0 else np.interp(0, -excess[[first - 1, first]], at[[first - 1, first]])
    beyond = last == len(at) - 1
    high = np.inf if beyond else np.interp(0, excess[[last, last + 1]], at[[last, last + 1]])
    return float(low), float(high)
