"""A data set of breasts that differ in their fine structure, as the toy's do not: made in two seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from dbtbench.data.dataset import GRID_BOX, DBTDataset
from dbtbench.data.verification import split_digest
from dbtbench.data.writer import DatasetWriter
from dbtbench.geometry.views import Volume
from dbtbench.testing.toy import META, VIEWS

GRID = (8, 64, 64)
SPLITS = ("train", "test", "validation")
HALF = np.array([1.0, 4.0, 4.0])
"""Half of a lesion's size in voxels."""


def draw_breast(rng: np.random.Generator, right: bool = False) -> Volume:
    """Draw a half-elliptic breast with lobules of several sizes: (8, 64, 64)."""
    _, y, x = np.mgrid[: GRID[0], : GRID[1], : GRID[2]] + 0.5
    height, depth = rng.uniform(0.36, 0.46) * GRID[1], rng.uniform(0.55, 0.8) * GRID[2]
    inside = ((y - 32) / height) ** 2 + (x / depth) ** 2 < 1
    texture = np.zeros(GRID)
    for size in (1.0, 2.0, 4.0):
        layer = ndimage.gaussian_filter(rng.standard_normal(GRID), (size, size, size))
        texture += layer / layer.std()
    volume = np.where(inside, 0.35 + 0.04 * texture + 0.01 * rng.standard_normal(GRID), 0.0)
    drawn: Volume = np.clip(volume, 0, 1).astype(np.float32)
    return drawn[:, :, ::-1] if right else drawn


def make_textured_dataset(path: Path, patients: int = 36, seed: int = 0, twins: bool = False) -> DBTDataset:
    """Make a data set of four views a patient; every other patient has a lesion in each.

    A third of the patients each are for training, testing and validation. With `twins`, the
    second third has the breasts of the first.
    """
    splits = {f"T{number:03d}": SPLITS[number // 2 % 3] for number in range(patients)}
    with DatasetWriter(path, GRID, patients * 4, {"textured": [patients, seed, twins]}) as writer:
        for index in range(patients * 4):
            patient, view = f"T{index // 4:03d}", VIEWS[index % 4]
            twin = 8 if twins and splits[patient] == "test" else 0
            rng = np.random.default_rng([seed, index - twin])
            volume, boxes = draw_breast(rng, view[0] == "r"), []
            if index // 4 % 2:
                volume, box = _add_lesion(volume, rng, view[0] == "r")
                boxes = [box]
            case = {
                **{"PatientID": patient, "StudyUID": f"S{patient}", "View": view},
                **{"label": "cancer" if boxes else "normal", "split": splits[patient]},
                **{"slices": GRID[0], "rows": GRID[1], "columns": GRID[2], "pixel_mm": 3.0},
                **{"flipped": False, "file": ""},
            }
            writer.add(index, volume, case, boxes)
        return writer.finish(META, split_digest(splits))


def _add_lesion(volume: Volume, rng: np.random.Generator, right: bool) -> tuple[Volume, dict[str, Any]]:
    """Add a bright mass with a structure of its own."""
    column = rng.uniform(12, 24)
    centre = np.array([4.0, rng.uniform(26, 38), GRID[2] - column if right else column])
    axes = np.indices(GRID) + 0.5
    r2 = sum(((a - c) / h) ** 2 for a, c, h in zip(axes, centre, HALF, strict=True))
    mass = np.exp(-r2) * (0.25 + 0.06 * rng.standard_normal(GRID))
    low, high = np.clip(centre - HALF, 0, GRID), np.clip(centre + HALF, 0, GRID)
    box = {
        **dict(zip(GRID_BOX, map(float, (*low, *high)), strict=True)),
        **{"Subject": 0, "Slice": 4, "X": round(low[2]), "Y": round(low[1])},
        **{"Width": 8, "Height": 8, "Class": "cancer", "AD": 0, "VolumeSlices": GRID[0]},
    }
    return np.clip(volume + mass, 0, 1).astype(np.float32), box
