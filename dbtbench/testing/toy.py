"""Toy data sets: made in a second without DICOM, small enough to train on in a test."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from dbtbench.data.dataset import CASE_COLUMNS, GRID_BOX, NATIVE_BOX, DBTDataset
from dbtbench.data.verification import WITHOUT_VOLUMES, split_digest
from dbtbench.data.writer import DatasetWriter

VIEWS = ("lcc", "lmlo", "rcc", "rmlo")
SPLIT_OF_PAIRS = ("train", "train", "validation", "test")
"""Splits of patients 0 and 1, 2 and 3, and so on."""
HALF = np.array([1.0, 3.0, 3.0])
"""Half of a lesion's size in voxels."""
META = {
    "intensity": {"window": "none"},
    "source": {"kind": "toy"},
    "split": {"kind": "toy", WITHOUT_VOLUMES: {}},
}


def make_toy_dataset(
    path: str | Path, patients: int = 8, grid: tuple[int, int, int] = (8, 32, 32), seed: int = 0
) -> DBTDataset:
    """Make a small data set: half-elliptic breasts, every other patient with a lesion in each of four views.

    Native and grid coordinates are the same; a voxel is 7 mm wide. Of eight patients four are for training,
    two for validation and two for testing.

    Args:
        path: folder of the data set; its last part is the data set's name.
        patients: how many; eight or more fill all splits.
        grid: slices, rows, columns.
        seed: of the noise and of the lesions' places.
    """
    rng = np.random.default_rng(seed)
    depth, height, width = grid
    z, y, x = np.mgrid[:depth, :height, :width] + 0.5
    splits = {f"P{p:03d}": SPLIT_OF_PAIRS[p // 2 % 4] for p in range(patients)}
    with DatasetWriter(Path(path), grid, patients * 4, {"toy": [patients, *grid, seed]}) as writer:
        for index in range(patients * 4):
            patient, view = f"P{index // 4:03d}", VIEWS[index % 4]
            from_chest = x if view[0] == "l" else width - x
            inside = ((y - height / 2) / (0.45 * height)) ** 2 + (from_chest / (0.75 * width)) ** 2 < 1
            volume = np.where(inside, 0.35 + 0.05 * rng.standard_normal(grid), 0.0)
            boxes = []
            if index // 4 % 2 == 0:
                centre = np.array([depth / 2, height / 2, width * (0.3 if view[0] == "l" else 0.7)])
                centre += rng.uniform(-1, 1, 3) * (1, height / 6, width / 8)
                r2 = sum(((a - c) / h) ** 2 for a, c, h in zip((z, y, x), centre, HALF, strict=True))
                volume = volume + 0.4 * np.exp(-r2)
                boxes = [_box_row(centre, grid)]
            case = {
                **{"PatientID": patient, "StudyUID": f"S{patient}", "View": view},
                **{"label": "cancer" if boxes else "normal", "split": splits[patient]},
                **{"slices": depth, "rows": height, "columns": width, "pixel_mm": 7.0},
                **{"flipped": False, "file": ""},
            }
            writer.add(index, volume.astype(np.float32), case, boxes)
        return writer.finish(META, split_digest(splits))


def _box_row(centre: Any, grid: tuple[int, int, int]) -> dict[str, Any]:
    low, high = np.clip(centre - HALF, 0, grid), np.clip(centre + HALF, 0, grid)
    return {
        **dict(zip(GRID_BOX, map(float, (*low, *high)), strict=True)),
        **{"Subject": 0, "Slice": int(centre[0]), "X": round(low[2]), "Y": round(low[1])},
        **{"Width": 6, "Height": 6, "Class": "cancer", "AD": 0, "VolumeSlices": grid[0]},
    }


def copy_with_changes(data: DBTDataset, path: Path, patients: Collection[str]) -> DBTDataset:
    """Copy a toy data set; the volumes of some patients are turned upside down and darkened, boxes as well.

    Args:
        data: a toy data set, all splits.
        path: folder of the copy; the last part of it should be the name of `data`.
        patients: their `PatientID`.
    """
    height = data.grid[1]
    columns = [name for name in CASE_COLUMNS if name in data.cases and name not in ("case", "sha256")]
    with DatasetWriter(
        path, data.grid, len(data), {"copy": data.fingerprint, "of": sorted(patients)}
    ) as writer:
        for row in data.cases.to_dict("records"):
            boxes = data.boxes[data.boxes["case"] == row["case"]]
            volume = data.volumes([row["case"]])[0, 0]
            if row["PatientID"] in patients:
                volume = 0.7 * volume[:, ::-1]
                boxes = boxes.assign(y0=height - boxes["y1"], y1=height - boxes["y0"])
                boxes = boxes.assign(Y=height - boxes["Y"] - boxes["Height"])
            rows = boxes[[*GRID_BOX, *NATIVE_BOX]].to_dict("records")
            writer.add(row["case"], volume, {name: row[name] for name in columns}, rows)
        return writer.finish(META, data.split_hash)
