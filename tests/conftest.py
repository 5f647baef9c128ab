"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbtbench.data.dataset import GRID_BOX, DatasetWriter, DBTDataset, split_digest
from dbtbench.phantom.anatomy import Breast, draw_breasts
from dbtbench.phantom.cohort import write_collection

VIEWS = ("lcc", "lmlo", "rcc", "rmlo")


def write_toy(
    path: Path, patients: int = 8, grid: tuple[int, int, int] = (8, 32, 32), seed: int = 0
) -> DBTDataset:
    """Write a small data set without DICOM: half-elliptic breasts, every other patient with lesions.

    Native and grid coordinates are the same; a voxel is 7 mm wide.
    """
    rng = np.random.default_rng(seed)
    depth, height, width = grid
    with DatasetWriter(path, grid, patients * 4, {"toy": [patients, *grid, seed]}) as writer:
        splits = {f"P{p:03d}": ("train", "train", "validation", "test")[p // 2 % 4] for p in range(patients)}
        z, y, x = np.mgrid[:depth, :height, :width] + 0.5
        for index in range(patients * 4):
            patient, view = f"P{index // 4:03d}", VIEWS[index % 4]
            from_chest = x if view[0] == "l" else width - x
            inside = ((y - height / 2) / (0.45 * height)) ** 2 + (from_chest / (0.75 * width)) ** 2 < 1
            volume = np.where(inside, 0.35 + 0.05 * rng.standard_normal(grid), 0.0)
            boxes = []
            if index // 4 % 2 == 0:
                centre = np.array([depth / 2, height / 2, width * (0.3 if view[0] == "l" else 0.7)])
                centre += rng.uniform(-1, 1, 3) * (1, height / 6, width / 8)
                half = np.array([1.0, 3.0, 3.0])
                r2 = sum(((a - c) / h) ** 2 for a, c, h in zip((z, y, x), centre, half, strict=True))
                volume = volume + 0.4 * np.exp(-r2)
                low, high = centre - half, centre + half
                boxes = [
                    dict(zip(GRID_BOX, map(float, (*low, *high)), strict=True))
                    | {"Subject": 0, "Slice": int(centre[0]), "X": int(low[2]), "Y": int(low[1])}
                    | {"Width": 6, "Height": 6, "Class": "cancer", "AD": 0, "VolumeSlices": depth}
                ]
            case: dict[str, Any] = {
                "PatientID": patient,
                "StudyUID": f"S{patient}",
                "View": view,
                "label": "cancer" if boxes else "normal",
            }
            case |= {
                "split": splits[patient],
                "slices": depth,
                "rows": height,
                "columns": width,
                "pixel_mm": 7.0,
            }
            writer.add(index, volume.astype(np.float32), case | {"flipped": False, "file": ""}, boxes)
        meta = {"intensity": {"window": "none"}, "source": {"kind": "toy"}, "split": {"kind": "toy"}}
        return writer.finish(meta, split_digest(splits))


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., DBTDataset]:
    """`write_toy(path, patients, grid, seed)`."""
    return write_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> DBTDataset:
    """Eight patients with four views each; half of the patients have a lesion in every view."""
    return write_toy(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom patients as a BCS-DBT collection: 16 DICOM files and three tables."""
    root = tmp_path_factory.mktemp("collection") / "phantom"
    write_collection(root, "tiny", 4, seed=1)
    return root


@pytest.fixture(scope="session")
def breasts() -> list[Breast]:
    """Sixty left breasts of phantom patients."""
    return [draw_breasts(np.random.default_rng(seed))["l"] for seed in range(60)]


@pytest.fixture(scope="session")
def scattered(breasts: list[Breast]) -> Breast:
    """One of them, of density b."""
    return next(breast for breast in breasts if breast.density == "b")
