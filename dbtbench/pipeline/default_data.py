"""The data of someone who has none: the phantom collection that is made when no data set is there."""

from __future__ import annotations

from dbtbench.data.dataset import DBTDataset
from dbtbench.exchange.bcs_dbt.ingest import import_bcs_dbt
from dbtbench.exchange.engine import ImportSettings
from dbtbench.phantom.cohort import write_collection
from dbtbench.workspace import Workspace

NAME = "phantom"
PRESET = "tiny"
PATIENTS = 64


def make(workspace: Workspace) -> DBTDataset:
    """Write the collection and import it, as data set `phantom`; what is there is kept."""
    root = workspace.root / "phantom"
    write_collection(root, PRESET, PATIENTS)
    return import_bcs_dbt(root, workspace.datasets / NAME, ImportSettings())
