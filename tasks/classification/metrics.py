"""Metrics of classification, and the table that AUROC is resampled from."""

from __future__ import annotations

import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.metric import Metric, Outcomes
from dbtbench.metrics import classification


def _check(table: pd.DataFrame) -> None:
    """Refuse a table that is not one row a volume.

    Raises:
        ValueError: saying what is wrong.
    """
    if not table["positive"].isin([0, 1]).all():
        raise ValueError("positive is out of range")
    if table.duplicated(KEY).any():
        raise ValueError("a volume is listed twice")


def _truth(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*KEY, "positive"]]


VOLUMES = Outcomes({"positive": int, "Score": float}, _truth, check=_check)
"""One row a test volume: whether it has a lesion, and the classifier's score."""

METRICS = (
    Metric("auroc", "AUROC", "higher", headline=True, outcomes=VOLUMES, resample=classification.auroc),
    Metric("average_precision", "average precision", "higher", headline=True),
)
