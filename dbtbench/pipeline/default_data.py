"""The data of someone who has none: the phantom collection that is made when no data set is there."""

from __future__ import annotations

from dbtbench.data.dataset import DBTDataset
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.phantom.cohort import write_collection
from dbtbench.workspace import Workspace

NAME = "phantom"
PRESET = "tiny"
PATIENTS = 120
MIX = {"normal": 0.1, "cancer": 0.9}
"""Most patients have a lesion, so that few patients make a test split of 64 lesions."""
AXES = {"conspicuity": {3.0: 1, 4.5: 1, 6.5: 1}, "lesion_size": {14.0: 1, 18.0: 1, 24.0: 1, 32.0: 1, 44.0: 1}}
"""Lesions that a detector can find at this resolution: those under four pixels it does not."""


def make(workspace: Workspace) -> DBTDataset:
    """Write the collection and import it, as data set `phantom`; what is there is kept."""
    root = workspace.root / "phantom"
    write_collection(root, PRESET, PATIENTS, mix=MIX, axes=AXES)
    return import_bcs_dbt(root, workspace.datasets / NAME, ImportSettings())
