"""Detections in native coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dbtbench.data.dataset import KEY, DBTDataset
from dbtbench.geometry.boxes import to_native
from dbtbench.geometry.views import Boxes

GEOMETRY = ["X", "Width", "Y", "Height", "Z", "Depth"]
PREDICTION_COLUMNS = [*KEY, *GEOMETRY, "Score"]


def native_predictions(test: DBTDataset, found: Sequence[tuple[Boxes, NDArray[np.float32]]]) -> pd.DataFrame:
    """Express detections in the DBTex columns and in coordinates of the original volumes as displayed.

    Args:
        test: the volumes.
        found: for each its boxes (n, 6) in voxels of the grid and their scores (n,).

    Returns:
        One row a box (`PREDICTION_COLUMNS`), rounded to six significant digits at most, as `predictions.csv`
        is: the file scored again gives the same.
    """
    tables = []
    for (_, case), (boxes, scores) in zip(test.cases.iterrows(), found, strict=True):
        size = int(case["slices"]), int(case["rows"]), int(case["columns"])
        table = to_native(boxes, size, test.grid)
        tables.append(table.assign(Score=scores.astype(float), **{name: case[name] for name in KEY}))
    return pd.concat(tables, ignore_index=True)[PREDICTION_COLUMNS].round(
        {"Score": 6} | dict.fromkeys(GEOMETRY, 2)
    )
