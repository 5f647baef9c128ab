"""ROC AUC and average precision."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dbtbench.errors import UsageError
from dbtbench.metrics.resampling import Floats, patient_numbers, resample


def classification_scores(positive: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """Area under the ROC curve and average precision.

    Args:
        positive: (N,) whether each volume has a lesion.
        score: (N,) finite; higher for a lesion.

    Returns:
        `auroc` and `average_precision`; NaN where all volumes have a lesion, or none.

    Raises:
        UsageError: when the scores are not finite, or not as many.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, scores = np.asarray(positive, bool), np.asarray(score, np.float64)
    if truth.shape != scores.shape or truth.ndim != 1:
        raise UsageError(f"{truth.shape} truths and {scores.shape} scores", "one of each for every volume")
    if not np.isfinite(scores).all():
        raise UsageError("the scores of a classification must be finite numbers")
    if truth.all() or not truth.any():
        return {"auroc": float("nan"), "average_precision": float("nan")}
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "average_precision": float(average_precision_score(truth, scores)),
    }


def auroc(outcomes: pd.DataFrame, weights: ArrayLike) -> Floats:
    """Resample the area under the ROC curve.

    It is the probability that a positive volume scores higher than a negative one, where ties count half.

    Args:
        outcomes: one row a volume: PatientID, `positive` (0 or 1), `Score`.
        weights: (R, P) whole numbers ≥ 0: how often each of `resampling.patients(outcomes)` is drawn.

    Returns:
        (R,) float64; NaN where no positive or no negative volume is drawn.

    Raises:
        UsageError: when the weights are not such numbers.
    """
    positive, patient = outcomes["positive"].to_numpy(bool), patient_numbers(outcomes)
    scores = outcomes["Score"].to_numpy(np.float64)
    # scikit-learn takes weights as well, but of one replicate at a time: a hundred times slower.
    negative = np.flatnonzero(~positive)[np.argsort(scores[~positive], kind="stable")]
    lower, not_higher = (
        np.searchsorted(scores[negative], scores[positive], side) for side in ("left", "right")
    )

    def score(drawn: Floats) -> Floats:
        below = np.zeros((len(drawn), len(negative) + 1))
        drawn[:, patient[negative]].cumsum(axis=1, out=below[:, 1:])
        positives = drawn[:, patient[positive]]
        wins = positives * (below[:, lower] + below[:, not_higher]) / 2
        with np.errstate(invalid="ignore"):
            return np.asarray(wins.sum(axis=1) / (positives.sum(axis=1) * below[:, -1]))

    return resample(weights, int(patient.max(initial=-1)) + 1, len(outcomes), score)
