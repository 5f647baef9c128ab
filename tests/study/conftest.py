"""Fixtures of the study: toy volumes, real ones and those of two generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dbtbench.data.dataset import DBTDataset
from dbtbench.workspace import Workspace


@pytest.fixture(scope="session")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
    make_toy: Callable[..., DBTDataset],
    write_synthetic: Callable[..., DBTDataset],
) -> Path:
    """A workspace with the data sets toy (24 test volumes), gan1 and gan2."""
    work = Workspace(tmp_path_factory.mktemp("study") / "work")
    real = make_toy(work.datasets / "toy", 24)
    rng = np.random.default_rng(0)
    for name in ("gan1", "gan2"):
        volumes = rng.random((12, *real.grid), np.float32)
        write_synthetic(work.datasets / name, real, volumes)
    return work.root


@pytest.fixture(scope="session")
def real(workspace: Path) -> DBTDataset:
    return DBTDataset.open(workspace / "datasets" / "toy")


@pytest.fixture(scope="session")
def sets(workspace: Path) -> list[DBTDataset]:
    return [DBTDataset.open(workspace / "datasets" / name) for name in ("gan1", "gan2")]
