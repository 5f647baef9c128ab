"""The groups that scores are split by: density, projection, and a lesion's presence, kind and size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dbtbench.data.columns import KEY
from dbtbench.data.dataset import DBTDataset
from dbtbench.geometry.views import projection

GROUPS = ("projection", "lesion", "breast_density", "lesion_kind", "lesion_size")
SIZE_MM = 20.0
"""Between T1 and T2 of the TNM classification of breast tumours."""


def describe_groups(dataset: DBTDataset) -> pd.DataFrame:
    """Describe which groups each volume is in.

    A lesion's size is that of its largest box in the plane, in millimetres, in all data sets alike.

    Returns:
        A row for each volume: `PatientID, StudyUID, View`, `label`, and those of `GROUPS` that the data set
        has, as text; empty where a volume is in none.
    """
    cases = dataset.cases[[*KEY, "label"]].astype(str)
    positive = dataset.positive
    cases["projection"] = [projection(view) for view in cases["View"]]
    cases["lesion"] = np.where(positive, "yes", "no")
    widest = dataset.boxes.assign(size=dataset.boxes[["Width", "Height"]].max(axis=1)).groupby("case")["size"]
    pixels = pd.to_numeric(dataset.cases.get("pixel_mm", pd.Series(np.nan, index=cases.index)))
    millimetres = dataset.cases["case"].map(widest.max()) * pixels
    bands = np.where(millimetres <= SIZE_MM, f"up to {SIZE_MM:.0f} mm", f"over {SIZE_MM:.0f} mm")
    cases["lesion_size"] = np.where(millimetres.notna(), bands, "")
    for name in ("breast_density", "lesion_kind"):
        if name in dataset.cases:
            cases[name] = dataset.cases[name].fillna("").astype(str)
    return cases.reset_index(drop=True)
