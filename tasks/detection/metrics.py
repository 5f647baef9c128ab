"""Metrics of detection, and the table that the challenge's ranking is resampled from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from dbtbench.data.dataset import KEY
from dbtbench.metric import Metric, Outcomes
from dbtbench.metrics import froc


def _check(table: pd.DataFrame) -> None:
    """Refuse an outcomes table that `froc.outcomes` cannot have made.

    Raises:
        ValueError: saying what is wrong.
    """
    if (table["box"] < -1).any():
        raise ValueError("box is out of range")
    if table.loc[table["box"] < 0, "Score"].isna().any():
        raise ValueError("a false positive has no score")
    volumes = pd.MultiIndex.from_frame(table[KEY])
    if not volumes.isin(volumes[table["box"] >= 0]).all():
        raise ValueError("a volume is listed that has no lesion")  # it would thin out the false positives


def _truth(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table["box"] >= 0, [*KEY, "box"]]


HITS = Outcomes({"box": int, "Score": float}, _truth, frozenset({"Score"}), _check)
"""From `froc.outcomes`; a lesion that was not found has no score."""


def _find(table: pd.DataFrame, points: Sequence[float]) -> pd.DataFrame:
    """Say which lesions are found at so many false positives a volume with lesions, at most.

    Returns:
        A bool for each lesion (rows) and operating point (columns).
    """
    volumes = len(table[KEY].drop_duplicates())
    # After the last false positive, any score is enough.
    false = np.append(-np.sort(-table.loc[table["box"] < 0, "Score"]), -np.inf)
    best = table[table["box"] >= 0].groupby([*KEY, "box"])["Score"].max()
    return pd.DataFrame({fps: best > false[min(int(fps * volumes), len(false) - 1)] for fps in points})


PRIMARY = {"dbtex": "mean_sensitivity_positive", "low": "mean_sensitivity_low"}
"""Metrics by the operating points that they are read at."""

METRICS = (
    Metric(
        "mean_sensitivity_positive",
        "mean sensitivity",
        "higher",
        headline=True,
        outcomes=HITS,
        resample=froc.mean_sensitivity,
        find=partial(_find, points=froc.FPS_POSITIVE),
    ),
    Metric(
        "mean_sensitivity_low",
        "mean sensitivity, ⅛–1 FP",
        "higher",
        headline=True,
        outcomes=HITS,
        resample=partial(froc.mean_sensitivity, points=froc.FPS_LOW),
        find=partial(_find, points=froc.FPS_LOW),
    ),
    Metric("sensitivity_at_2_fps_all", "sensitivity at 2 FP, all volumes", "higher", headline=True),
    *(
        Metric(f"sensitivity_at_{fps:.0f}_fps_positive", f"sensitivity at {fps:.0f} FP", "higher")
        for fps in froc.FPS_POSITIVE
    ),
    Metric("afroc_auc", "AFROC area", "higher", headline=True),
    Metric("wafroc_auc", "wAFROC area", "higher", headline=True),
)
