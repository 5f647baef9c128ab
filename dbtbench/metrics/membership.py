"""Membership inference: whether a generator's losses say which volumes it was trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dbtbench.metrics.classification import auroc
from dbtbench.metrics.resampling import Floats, draw_weights, patient_numbers, patients, resample

FALSE_POSITIVES = 0.01
REPLICATES = 1000


def membership_score(losses: ArrayLike) -> Floats:
    """Combine the losses at several noise levels into one score, higher for a member.

    Each level is centred on its median and divided by its interquartile range over all volumes, members or
    not; the score is minus the mean over the levels.

    Args:
        losses: (N, levels).

    Returns:
        (N,).
    """
    values = np.asarray(losses, np.float64)
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return np.asarray(-((values - middle) / np.where(high > low, high - low, 1)).mean(axis=1))


def true_positive_rate(outcomes: pd.DataFrame, weights: ArrayLike) -> Floats:
    """Resample the share of members found where 1 % of the non-members are taken for members, at most.

    Source: Carlini N et al. Membership inference attacks from first principles. IEEE S&P 2022 (an average
    over all operating points says little of the few volumes that are known for certain).

    Args:
        outcomes: one row a volume: PatientID, `positive` (1 for a member), `Score`.
        weights: (R, P) whole numbers ≥ 0: how often each of `resampling.patients(outcomes)` is drawn.

    Returns:
        (R,) float64; NaN where no member or no non-member is drawn.

    Raises:
        UsageError: when the weights are not such numbers.
    """
    member, patient = outcomes["positive"].to_numpy(bool), patient_numbers(outcomes)
    scores = outcomes["Score"].to_numpy(np.float64)
    others = np.flatnonzero(~member)[np.argsort(-scores[~member], kind="stable")]

    def score(drawn: Floats) -> Floats:
        above = drawn[:, patient[others]].cumsum(axis=1)
        own = drawn[:, patient[member]]
        with np.errstate(invalid="ignore"):
            passed = (above <= FALSE_POSITIVES * above[:, -1:]).sum(axis=1)
            limit = scores[others][np.minimum(passed, len(others) - 1)]
            found = own * (scores[member] > limit[:, None])
            return np.where(above[:, -1] > 0, found.sum(axis=1) / own.sum(axis=1), np.nan)

    if not len(others):
        return np.full(len(np.asarray(weights)), np.nan)
    return resample(weights, int(patient.max(initial=-1)) + 1, len(outcomes), score)


def bootstrap(outcomes: pd.DataFrame, seed: int) -> dict[str, tuple[float, float, float]]:
    """Compute AUROC and true-positive rate with 95 % percentile intervals over patients.

    Patients of members and of non-members are drawn separately, so that their numbers stay.

    Args:
        outcomes: as for `true_positive_rate`.
        seed: of the draws.

    Returns:
        Value, lower and upper end of `auc` and of `tpr`.
    """
    names = np.array(patients(outcomes))
    members = np.isin(names, outcomes.loc[outcomes["positive"] == 1, "PatientID"].astype(str))
    rng = np.random.default_rng(seed)
    weights = np.zeros((REPLICATES, len(names)))
    for group in (np.flatnonzero(members), np.flatnonzero(~members)):
        weights[:, group] = draw_weights(len(group), REPLICATES, rng)
    measures: dict[str, Callable[[pd.DataFrame, ArrayLike], Floats]] = {
        "auc": auroc,
        "tpr": true_positive_rate,
    }
    found = {}
    for name, measure in measures.items():
        low, high = np.nanquantile(measure(outcomes, weights), (0.025, 0.975))
        value = measure(outcomes, np.ones((1, len(names))))[0]
        found[name] = (float(value), float(low), float(high))
    return found
