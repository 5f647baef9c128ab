"""The data sets of a workspace: all of them, one by name, and the one that is meant when none is named."""

from __future__ import annotations

from pathlib import Path

from dbtbench import plugins
from dbtbench.data.dataset import DBTDataset
from dbtbench.data.writer import check_not_real
from dbtbench.errors import UsageError
from dbtbench.runtime.progress import log
from dbtbench.task import ARMS_OF_REAL, RENAMED
from dbtbench.workspace import Workspace


def datasets(workspace: Workspace) -> list[DBTDataset]:
    """Every finished data set, by name."""
    return [DBTDataset.open(workspace.datasets / name) for name in workspace.dataset_names()]


def choose_dataset(workspace: Workspace, name: str | None) -> DBTDataset:
    """The data set of that name; without a name the only real one, and with none at all the embedded phantom.

    Raises:
        MissingError: when there is none of that name.
        UsageError: when no name is given and there are several.
    """
    if name is not None:
        return DBTDataset.open(workspace.dataset_path(name))
    real = [d for d in datasets(workspace) if not d.synthetic]
    if len(real) > 1:
        raise UsageError(
            "there are several data sets", f"name one: --data {' | '.join(d.name for d in real)}"
        )
    if real:
        return real[0]
    from dbtbench.pipeline import default_data

    log.info("no data set yet: making the embedded phantom (`dbtbench data phantom` makes others)")
    return default_data.make(workspace)


def check_synthetic_name(path: Path) -> None:
    """Refuse a name that means something else on the command line, or that would replace real data.

    Args:
        path: where the synthetic data set would lie.

    Raises:
        UsageError: when it cannot be called so.
    """
    if path.name in (*ARMS_OF_REAL, *RENAMED) or path.name in plugins.find("generators"):
        raise UsageError(
            f"{path.name!r} already means something for `evaluate --aug`", "choose another --name"
        )
    check_not_real(path)
