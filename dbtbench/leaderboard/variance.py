"""Means of arms over seeds, how uncertain they are, and t-tests of what is linear in them.

Two things vary: the seed of a training, and which patients are tested. Each is measured where it shows:

- seeds: the variance of the scores between an arm's seeds, on the test patients as they are;
- patients: the covariance of the scores of *different* runs over bootstrap replicates of the patients.

A run varies over patients also by what it alone does with them. That part shows between seeds already, so a
run's covariance with itself is left out: nothing is counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from dbtbench.metrics.resampling import Floats, draw_weights

LEVEL = 0.05


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the two-sided p-value of 0; NaN where something is not defined."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    def turn(self, sign: Callable[[float], float]) -> Estimate:
        """Turn it to another sign, interval included."""
        ends = sorted((sign(self.low), sign(self.high)))
        return Estimate(sign(self.value), ends[0], ends[1], self.p)


@lru_cache(maxsize=2)
def draw_patients(patients: int, replicates: int, seed: int) -> Floats:
    """Draw patients with replacement, once for all runs and metrics of a board.

    Returns:
        (1 + R, P) float64, read-only: how often each is drawn; first each of them once.
    """
    rng = np.random.default_rng([seed, 0])
    weights = np.concatenate([np.ones((1, patients)), draw_weights(patients, replicates, rng)])
    weights.flags.writeable = False
    return weights


@dataclass(frozen=True)
class Moments:
    """Means of some arms and their uncertainty.

    Attributes:
        arms: A names.
        means: (A,) mean score over seeds.
        of_seeds: (A,) variance of these means due to seeds, and to trainings of a generator where there are
            several; NaN for an arm with one seed.
        df: (A,) degrees of freedom of that variance.
        seeds: (A,) number of runs.
        of_patients: (A, A) their covariance due to patients.
        patients: how many were tested.
    """

    arms: tuple[str, ...]
    means: Floats
    of_seeds: Floats
    df: Floats
    seeds: Floats
    of_patients: Floats
    patients: int

    @classmethod
    def measure(
        cls, scores: Mapping[str, Floats], patients: int, trainings: Mapping[str, Sequence[int]] | None = None
    ) -> Moments:
        """Measure the moments of arms.

        Args:
            scores: for each arm (S, 1 + R): each seed's score of the data themselves, then of R bootstrap
                replicates of the patients, the same for all. Arms that are not defined for a seed are left
                out, then replicates in which any of the others is not defined.
            patients: P, how many were drawn from.
            trainings: for arms with several trainings of a generator, which one each of the S runs has.
        """
        scores = {arm: table for arm, table in scores.items() if np.isfinite(table[:, 0]).all()}
        of_runs = {
            arm: np.asarray((trainings or {}).get(arm, np.zeros(len(table)))) for arm, table in scores.items()
        }
        seeds = [_vary(scores[arm][:, 0], own) for arm, own in of_runs.items()]
        return cls(
            tuple(scores),
            np.array([table[:, 0].mean() for table in scores.values()]),
            np.array([variance for variance, _ in seeds]),
            np.array([df for _, df in seeds]),
            np.array([len(table) for table in scores.values()], np.float64),
            _covary(list(scores.values()), patients),
            patients,
        )

    def covariance(self, one: Floats, other: Floats) -> float:
        """Compute the covariance of two contrasts, given their weights (A,) each."""
        both = one * other
        return float(np.where(both == 0, 0.0, both * self.of_seeds).sum() + one @ self.of_patients @ other)

    def test(self, contrasts: ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
        """Estimate contrasts of the means, with the degrees of freedom of their variance.

        Source: Satterthwaite FE. An approximate distribution of estimates of variance components. Biometrics
        Bulletin 2(6):110–114, 1946.

        Args:
            contrasts: (K, A) weights of the arms.

        Returns:
            (K,) each: the contrasts, their standard errors, the half-widths of their 95 % intervals, and the
            two-sided p-values of 0; NaN where an arm with a weight has one seed, and no p-value where
            nothing varies at all and the contrast is not 0.
        """
        weights = np.atleast_2d(np.asarray(contrasts, np.float64))
        used = np.where(weights == 0, 0.0, weights**2 * self.of_seeds)
        patients = np.maximum(np.einsum("ka,ab,kb->k", weights, self.of_patients, weights), 0)
        variance = used.sum(axis=1) + patients
        with np.errstate(invalid="ignore", divide="ignore"):
            squares = np.where(used == 0, 0.0, used**2 / self.df)
            df = variance**2 / (squares.sum(axis=1) + patients**2 / max(self.patients - 1, 1))
            values = weights @ self.means
            errors = np.sqrt(variance)
            p = 2 * special.stdtr(df, -np.abs(values) / errors)
            half = special.stdtrit(df, 1 - LEVEL / 2) * errors
        still = variance <= (1e-9 * np.abs(weights) @ np.abs(self.means)) ** 2
        return (
            values,
            errors,
            np.where(still, 0.0, half),
            np.where(still, np.where(np.abs(values) < 1e-9, 1.0, np.nan), p),
        )

    def contrast(self, weights: ArrayLike) -> Estimate:
        """Estimate one contrast of the means, given the weights (A,) of the arms."""
        value, _, half, p = (float(part[0]) for part in self.test(weights))
        return Estimate(value, value - half, value + half, p)

    def difference(self, arm: str, other: str) -> Estimate:
        """Estimate an arm's mean less another one's; not defined where one of them is not."""
        if not {arm, other} <= set(self.arms):
            return Estimate()
        return self.contrast(self.select(arm) - self.select(other))

    def select(self, arm: str) -> Floats:
        """Make the (A,) weights of the mean of one arm."""
        return np.array([float(name == arm) for name in self.arms])


def _vary(scores: Floats, trainings: NDArray[Any]) -> tuple[float, float]:
    """Compute the variance of the mean score due to seeds and trainings, and its degrees of freedom.

    With several trainings it is the variance between their means, and never less than what the seeds in them
    give: two trainings alone often lie close together by chance.

    Args:
        scores: (S,) of an arm's runs.
        trainings: (S,) which training each run has.
    """
    groups = [scores[trainings == training] for training in np.unique(trainings)]
    if min(map(len, groups)) < 2:
        return np.nan, np.nan
    within = float(np.mean([group.var(ddof=1) / len(group) for group in groups])) / len(groups)
    if len(groups) == 1:
        return within, float(len(scores) - 1)
    between = float(np.var([group.mean() for group in groups], ddof=1)) / len(groups)
    return max(within, between), float(len(groups) - 1)


def _covary(scores: Sequence[Floats], patients: int) -> Floats:
    """Compute the covariance (A, A) of the arms' means due to patients; NaN where nothing can be drawn."""
    defined = np.all([np.isfinite(table[:, 1:]).all(axis=0) for table in scores], axis=0)
    if np.sum(defined) < 2 or patients < 2:
        return np.full((len(scores), len(scores)), np.nan)
    varied = [table[:, 1:][:, defined] for table in scores]
    varied = [table - table.mean(axis=1, keepdims=True) for table in varied]
    means = np.stack([table.mean(axis=0) for table in varied])
    covariance = means @ means.T
    for place, table in enumerate(varied):
        if (n := len(table)) > 1:  # of different runs only
            own = (table**2).sum() / n**2
            covariance[place, place] = (covariance[place, place] - own) * n / (n - 1)
    return np.asarray(covariance * patients / (patients - 1) / (np.sum(defined) - 1))
