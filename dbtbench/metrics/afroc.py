"""The area under the alternative FROC curve (AFROC): detection without an operating point."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dbtbench.metrics.froc import MINIMUM_DISTANCE, match_boxes, number_views


def score_afroc(
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    predictions: pd.DataFrame,
    minimum_distance: ArrayLike = MINIMUM_DISTANCE,
) -> dict[str, float]:
    """Area under the empirical AFROC and weighted AFROC curve; hits are those of the DBTex rule.

    The curve is the share of lesions found against the share of volumes, with and without lesions, whose
    highest false positive is kept; a straight line leads from its last point to (1, 1). So the area is the
    probability that a lesion's best score is above a volume's highest false positive; no score is the lowest,
    and ties count half. Weighted, all volumes with lesions count the same, and so do the lesions of each.

    Source: Chakraborty DP, Winter LHL. Free-response methodology: alternate analysis and a new
    observer-performance experiment. Radiology 174(3):873–881, 1990. Weighted: Chakraborty DP, Yoon HJ. JAFROC
    analysis revisited: figure-of-merit considerations for human observer studies. Proc. SPIE 7263, 2009. As
    false positives count on all volumes, RJafroc's names for these are AFROC1 and wAFROC1.

    Args:
        labels: as for `froc.score_dbtex`.
        boxes: as for `froc.score_dbtex`.
        predictions: as for `froc.score_dbtex`; those on volumes that the labels lack do not count.
        minimum_distance: as for `froc.score_dbtex`.

    Returns:
        `afroc_auc` and `wafroc_auc`, between 0 and 1; NaN without boxes or volumes.

    Raises:
        UsageError: as `froc.score_dbtex`.
    """
    from sklearn.metrics import roc_auc_score

    hit = match_boxes(boxes, predictions, minimum_distance)
    label_view, box_view, predicted_view = number_views(labels, boxes, predictions)
    if not len(boxes) or not len(labels):
        return {"afroc_auc": float("nan"), "wafroc_auc": float("nan")}
    scores = predictions["Score"].to_numpy(np.float64)
    lowest = scores.min(initial=0.0) - 1
    lesion = np.full(len(boxes), lowest)
    np.maximum.at(lesion, hit[hit >= 0], scores[hit >= 0])
    highest = np.full(len(labels) + len(boxes) + len(predictions), lowest)
    np.maximum.at(highest, predicted_view[hit < 0], scores[hit < 0])
    truth = np.repeat([True, False], [len(boxes), len(labels)])
    rated = np.concatenate([lesion, highest[label_view]])
    _, volume, of_volume = np.unique(box_view, return_inverse=True, return_counts=True)
    weight = np.concatenate([1 / of_volume[volume], np.ones(len(labels))])
    return {
        "afroc_auc": float(roc_auc_score(truth, rated)),
        "wafroc_auc": float(roc_auc_score(truth, rated, sample_weight=weight)),
    }
