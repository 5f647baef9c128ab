"""The data sets of a workspace: all of them, one by name, and the one that is meant when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.writer import check_not_real
from dbtbench.errors import UsageError
from dbtbench.runtime.progress import log
from dbtbench.task import ARMS_OF_REAL, REFERENCES, RENAMED
from dbtbench.workspace import Workspace


def describe_datasets(workspace: Workspace) -> dict[Path, dict[str, Any]]:
    """Read dataset.json of every finished data set, by its folder in the order of the names."""
    folders = (workspace.datasets / name for name in workspace.dataset_names())
    return {folder: DBTDataset.description(folder) for folder in folders}


def choose_dataset(workspace: Workspace, name: str | None) -> DBTDataset:
    """Open the data set that `choose_path` finds."""
    return DBTDataset.open(choose_path(workspace, name))


def choose_path(workspace: Workspace, name: str | None) -> Path:
    """The data set of that name; without a name the only real one, and with none at all the embedded phantom.

    Raises:
        MissingError: when there is none of that name.
        UsageError: when no name is given and there are several.
    """
    if name is not None:
        return workspace.dataset_path(name)
    found = describe_datasets(workspace).items()
    real = [folder for folder, meta in found if meta["source"]["kind"] != "synthetic"]
    if len(real) > 1:
        raise UsageError(
            "there are several data sets", f"name one: --data {' | '.join(folder.name for folder in real)}"
        )
    if real:
        return real[0]
    from dbtbench.pipeline import default_data

    log.info("no data set yet: making the embedded phantom (`dbtbench data phantom` makes others)")
    return default_data.make(workspace).path


def check_synthetic_name(path: Path) -> None:
    """Refuse a name that means something else on the command line, or that would replace real data.

    Args:
        path: where the synthetic data set would lie.

    Raises:
        UsageError: when it cannot be called so.
    """
    if path.name in (*ARMS_OF_REAL, *REFERENCES, *RENAMED) or path.name in plugins.find("generators"):
        raise UsageError(
            f"{path.name!r} already means something for `evaluate --aug`", "choose another --name"
        )
    check_not_real(path)
