"""The toy data set: it is checked like any other, and a copy with changes changes what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dbtbench.data.check import check_dataset
from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.testing import make_toy_dataset
from dbtbench.testing.toy import copy_with_changes


def test_the_toy_passes_the_checks_of_data_sets(toy: DBTDataset, tmp_path: Path) -> None:
    odd = make_toy_dataset(str(tmp_path / "odd"), patients=4, grid=(8, 40, 24), seed=3)
    for data in (toy, odd):
        wrong = {check.name: check.first for check in check_dataset(data.path) if not check.ok}
        assert not wrong


def test_patients_differ_in_seed_only(toy: DBTDataset, tmp_path: Path) -> None:
    assert make_toy_dataset(tmp_path / "same").fingerprint == toy.fingerprint
    assert make_toy_dataset(tmp_path / "other", seed=1).fingerprint != toy.fingerprint


def test_a_copy_differs_in_the_named_patients_alone(toy: DBTDataset, tmp_path: Path) -> None:
    copy = copy_with_changes(toy, tmp_path / "toy", {"P006", "P007"})
    others = ~toy.cases["PatientID"].isin({"P006", "P007"})
    assert list(copy.cases["sha256"] == toy.cases["sha256"]) == list(others)
    assert copy.name == toy.name
    assert copy.split_hash == toy.split_hash
    kept = toy.boxes["PatientID"] != "P006"
    assert copy.boxes[kept].equals(toy.boxes[kept])
    moved = toy.boxes[~kept]
    np.testing.assert_allclose(copy.boxes.loc[~kept, "y0"] + moved["y1"], toy.grid[1])
    assert not [check for check in check_dataset(copy.path) if not check.ok]
    case = int(moved["case"].iloc[0])
    z0, y0, x0, z1, y1, x1 = copy.boxes.loc[copy.boxes["case"] == case, GRID_BOX].iloc[0].astype(int)
    volume = copy.volumes([case])[0, 0]
    assert volume[z0:z1, y0:y1, x0:x1].mean() > 1.2 * volume[volume > 0].mean()
